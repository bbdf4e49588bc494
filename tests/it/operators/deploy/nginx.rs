//! The production nginx, run for real: TLS on both ports, and reloads that drop no client.
//!
//! The test clients do not support TLS. A second nginx accepts them without TLS, connects to the first over TLS, and
//! verifies its certificate.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use harness::nginx::{NginxPaths, stream_module};
use harness::{Cluster, LineClient, Nginx, Node, WsClient, eventually, http, stays};
use presence::service::access::{ApiAccess, KnownKey};

/// The name in the certificate.
const SITE: &str = "chat.example";
const SOON: Duration = Duration::from_secs(10);

/// The shipped configuration; only lines marked `# site` are adapted to the test.
pub(super) struct ShippedNginx {
    text: String,
    module: String,
    presence: Vec<SocketAddr>,
    secrets: tempfile::TempDir,
}

impl ShippedNginx {
    pub(super) async fn read() -> Self {
        let secrets = tempfile::tempdir().unwrap();
        let script = harness::repository().join("deploy/secrets");
        let made = Command::new(script).arg(secrets.path()).args(["redis:6379", SITE]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let text = fs::read_to_string(harness::repository().join("deploy/nginx/parley.conf")).unwrap();
        Self { text, module: stream_module().await, presence: Vec::new(), secrets }
    }

    /// Carries the API of these presence processes.
    pub(super) fn with_presence(mut self, presence: &[Node]) -> Self {
        self.presence = presence.iter().map(Node::api).collect();
        self
    }

    fn certificate(&self) -> String {
        self.secrets.path().join("tls.crt").to_str().unwrap().to_owned()
    }

    /// Returns the configuration for these gateways; those in `down` are taken out.
    pub(super) fn configuration(&self, place: NginxPaths<'_>, gateways: &[Node], down: &[usize]) -> String {
        let api = |line: &str| {
            let number = line.strip_prefix("server presence-")?.split_once(':')?.0.parse::<usize>().unwrap() - 1;
            Some(match (self.presence.get(number), number) {
                (Some(address), _) => format!("server {address} max_fails=0;"),
                // An upstream needs a server.
                (None, 0) => "server 127.0.0.1:9 down;".to_owned(),
                (None, _) => String::new(),
            })
        };
        let server = |line: &str| {
            let (number, port) = line.strip_prefix("server gateway-")?.split_once(' ')?.0.split_once(':')?;
            let number = number.parse::<usize>().unwrap() - 1;
            let Some(gateway) = gateways.get(number) else { return Some(String::new()) };
            let address = if port == "8080" { gateway.ws() } else { gateway.tcp() };
            let rest = line.split_once(' ')?.1.split_once(' ')?.1;
            let state = if down.contains(&number) { "down " } else { "" };
            Some(format!("server {address} {state}{rest}"))
        };
        let adapt = |line: &str| {
            let Some((rest, _)) = line.split_once(" # site") else { return line.to_owned() };
            let rest = rest.trim();
            let adapted = match rest.split_whitespace().next().unwrap() {
                "include" => format!("daemon off; {}", self.module),
                "server" => api(rest).or_else(|| server(rest)).unwrap(),
                "listen" if rest.contains(" 443 ") => rest.replace("443", &place.http.to_string()),
                "listen" => rest.replace("9443", &place.lines.to_string()),
                _ => rest
                    .replace("/etc/nginx/tls", self.secrets.path().to_str().unwrap())
                    .replace("/run", place.directory)
                    .replace("/var/log/nginx", place.directory),
            };
            assert_ne!(adapted, rest, "a marked line has something to adapt");
            adapted
        };
        let lines: Vec<String> = self.text.lines().map(adapt).collect();
        lines.join("\n")
    }
}

/// Starts an nginx that accepts plain connections and forwards them over TLS.
pub(super) async fn tls_proxy(front: &Nginx, shipped: &ShippedNginx) -> Nginx {
    tls_proxy_from(Ipv4Addr::LOCALHOST, front, shipped).await
}

/// Starts a proxy as [`tls_proxy`] whose connections come from `source`.
pub(super) async fn tls_proxy_from(source: Ipv4Addr, front: &Nginx, shipped: &ShippedNginx) -> Nginx {
    let (ws, lines, certificate) = (front.ws(), front.tcp(), shipped.certificate());
    let server = |listen: SocketAddr, to: SocketAddr| format!("server {{ listen {listen}; proxy_pass {to}; }}");
    let configuration = |place: NginxPaths<'_>| {
        format!(
            "daemon off; {module}\npid {directory}/nginx.pid; error_log {directory}/error.log warn; events {{}}\nstream {{\n\
             proxy_bind {source}; proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate};\n\
             proxy_ssl_server_name on; proxy_ssl_name {SITE}; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n{} {}\n}}\n",
            server(place.http, ws),
            server(place.lines, lines),
            module = shipped.module,
            directory = place.directory,
        )
    };
    Nginx::configured(configuration).await
}

#[tokio::test]
async fn reload_keeps_clients_and_routes_newcomers() {
    let cluster = Cluster::builder().gateways(2).local_proxies().start().await;
    let shipped = ShippedNginx::read().await;
    let mut front = Nginx::configured(|place| shipped.configuration(place, &cluster.gateways, &[])).await;
    let clients = tls_proxy(&front, &shipped).await;

    let (ann, bob) = (WsClient::connect(clients.ws()).await, WsClient::connect(clients.ws()).await);
    let (carl, dora) = (LineClient::connect(clients.tcp()).await, LineClient::connect(clients.tcp()).await);
    let mut nodes = [ann.register("ann").await, bob.register("bob").await].map(|reply| reply["node"].to_string());
    nodes.sort();
    assert_eq!(nodes, ["\"g1\"", "\"g2\""], "least_conn spreads them");
    for person in [&ann, &bob] {
        person.join("#lobby").await;
    }
    for (person, name) in [(&carl, "carl"), (&dora, "dora")] {
        person.register(name).await;
        person.join("#lobby").await;
    }
    ann.sends("#lobby", "before").await;
    carl.receives("#lobby", "ann", "before").await;

    front.reconfigure(|place| shipped.configuration(place, &cluster.gateways, &[0])).await;
    assert!(front.old_workers() > 0, "an old worker still serves clients");
    let mut newcomers = Vec::new();
    for name in ["eve", "fred", "gina"] {
        let newcomer = WsClient::connect(clients.ws()).await;
        assert_eq!(newcomer.register(name).await["node"], "g2", "g1 was taken out");
        newcomer.join("#lobby").await;
        newcomers.push(newcomer);
    }
    let hugo = LineClient::connect(clients.tcp()).await;
    hugo.register("hugo").await;
    hugo.join("#lobby").await;

    // Longer than nginx would need to end its old workers.
    let mut count = 0;
    stays(Duration::from_secs(4), "old and new clients exchange messages", || {
        count += 1;
        let text = format!("still here {count}");
        let (ann, bob, carl, dora, hugo, newcomers) = (&ann, &bob, &carl, &dora, &hugo, &newcomers);
        async move {
            ann.sends("#lobby", &text).await;
            carl.types(&text).await;
            for person in [bob, &newcomers[0]] {
                person.receives("#lobby", "ann", &text).await;
                person.receives("#lobby", "carl", &text).await;
            }
            for person in [dora, hugo] {
                person.receives("#lobby", "ann", &text).await;
            }
            Ok::<(), ()>(())
        }
    })
    .await;

    for client in [ann, bob] {
        drop(client);
    }
    for client in [carl, dora] {
        drop(client);
    }
    eventually(SOON, "old workers end with their last client", || async {
        if front.old_workers() == 0 { Ok(()) } else { Err(front.old_workers()) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn nginx_refuses_cleartext_and_unknown_certificates() {
    let cluster = Cluster::builder().gateways(1).local_proxies().start().await;
    let shipped = ShippedNginx::read().await;
    let front = Nginx::configured(|place| shipped.configuration(place, &cluster.gateways, &[])).await;
    let answer = http::get(front.ws(), "/ws").await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("HTTPS"), "{answer:?}");

    let other = ShippedNginx::read().await;
    let proxy = tls_proxy(&front, &other).await;
    WsClient::try_connect(proxy.ws()).await.expect_err("the proxy does not trust this certificate");
    cluster.finish().await;
}

#[tokio::test]
async fn nginx_without_gateways_answers_503_with_retry_after() {
    let mut cluster = Cluster::builder().gateways(1).local_proxies().start().await;
    let shipped = ShippedNginx::read().await;
    let front = Nginx::configured(|place| shipped.configuration(place, &cluster.gateways, &[])).await;
    let clients = tls_proxy(&front, &shipped).await;
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    let answer = http::get(clients.ws(), "/ws").await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{answer:?}");
    cluster.finish().await;
}

#[test]
fn both_upstreams_balance_by_open_connections() {
    let text = read_file(&harness::repository().join("deploy/nginx/parley.conf"));
    for (upstream, port) in [("gateways_ws", 8080), ("gateways_lines", 9000)] {
        let (_, rest) = text.split_once(&format!("upstream {upstream} {{")).unwrap();
        let block = rest.split_once("\n    }").unwrap().0;
        let directives: Vec<&str> = block.lines().map(str::trim).collect();
        assert!(directives.contains(&"least_conn;"), "{upstream}: {block}");
        assert!(directives.contains(&format!("zone {upstream} 64k;").as_str()), "{upstream}: {block}");
        let servers = directives.iter().filter_map(|line| line.strip_prefix("server "));
        let servers: Vec<String> = servers.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
        assert_eq!(servers, vec!["weight=1 max_fails=0; # site"; 3], "{upstream}");
        assert_eq!(block.matches(&format!(":{port} ")).count(), 3, "{upstream}");
    }
    assert!(text.contains("\n        keepalive 32;"), "connections to gateways are kept alive");
}

#[test]
fn no_configuration_cuts_off_old_workers() {
    for name in ["parley.conf", "nginx.conf.in"] {
        let text = read_file(&harness::repository().join("deploy/nginx").join(name));
        assert!(text.lines().all(|line| !line.trim_start().starts_with("worker_shutdown_timeout")), "{name}");
    }
}

#[test]
fn secrets_are_created_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let make = || {
        let script = harness::repository().join("deploy/secrets");
        let made = Command::new(script).arg(directory.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        ["redis_password", "redis_url", "tls.crt", "tls.key", "redis_admin_password", "api_key", "api_keys"]
            .map(|name| read_file(&directory.path().join(name)))
    };
    let first = make();
    assert_eq!(first[1], format!("redis://parley:{}@redis:6379/", first[0]));
    assert!(first[0].len() >= 32 && first[2].contains("BEGIN CERTIFICATE"), "{first:?}");
    assert!(first[4].len() >= 32 && first[4] != first[0], "each user has its own password");
    assert!(first[5].len() >= 32, "a key of the API has at least 32 bytes");
    let row = KnownKey::from_str(first[6].trim()).unwrap();
    let access = ApiAccess { keys: vec![row], ..ApiAccess::default() };
    assert_eq!(access.find(&first[5]).map(|key| key.name().to_string()), Some("backend".to_owned()));
    assert_eq!(make(), first);
}

fn read_file(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
