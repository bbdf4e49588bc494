//! The server API through nginx under `/api/v1/`: keys, names with escapes, event streams and an absent presence.

use std::net::{Ipv4Addr, SocketAddr};

use harness::cluster::ClusterBuilder;
use harness::http::{self, HttpResponse};
use harness::{Cluster, Nginx, WsClient};
use presence::service::access::{ApiScope, NewKey};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::nginx::{ShippedNginx, tls_proxy_from};

/// An API behind nginx, with a key of every scope.
struct CarriedApi {
    front: SocketAddr,
    key: String,
}

impl CarriedApi {
    async fn ask(&self, request: &str, authorization: &str, body: &str) -> HttpResponse {
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n{authorization}Content-Length: {length}\r\n\r\n"
        );
        http::exchange(self.front, format!("{head}{body}").as_bytes()).await.unwrap()
    }

    async fn ask_with_key(&self, request: &str, body: &str) -> HttpResponse {
        self.ask(request, &format!("Authorization: Bearer {}\r\n", self.key), body).await
    }

    /// Reads an event stream until it has sent the position at which it begins.
    async fn begin_of_events(&self) -> String {
        let mut stream = TcpStream::connect(self.front).await.unwrap();
        let request =
            format!("GET /api/v1/events HTTP/1.1\r\nHost: parley\r\nAuthorization: Bearer {}\r\n\r\n", self.key);
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains("\nid: ") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        text
    }

    /// Uses the API of a cluster in which `ann` is a member of `#a/b`.
    async fn is_carried(&self) {
        let room = self.ask_with_key("GET /api/v1/rooms/%23a%2Fb", "").await;
        assert_eq!((room.status, &room.json()["room"]), (200, &json!("#a/b")), "{room:?}");
        let message = json!({ "to": "#a/b", "from": "news", "body": "x".repeat(60_000), "key": "k" }).to_string();
        let sent = self.ask_with_key("POST /api/v1/messages", &message).await;
        assert_eq!((sent.status, &sent.json()["seq"]), (200, &json!(1)), "{sent:?}");
        let begin = self.begin_of_events().await;
        assert!(begin.starts_with("HTTP/1.1 200") && begin.contains("text/event-stream"), "{begin}");
        let document = self.ask("GET /api/openapi.json", "", "").await;
        assert_eq!(document.status, 200, "{document:?}");

        let closed = self.ask("POST /api/v1/messages", "", &message).await;
        assert_eq!((closed.status, &closed.json()["code"]), (401, &json!("unauthorized")));
        for path in ["/api/", "/api/docs", "/api/page/page.js", "/api/v1", "/api/metrics", "/api/v1/../../readyz"] {
            assert_eq!(self.ask_with_key(&format!("GET {path}"), "").await.status, 404, "{path}");
        }
    }

    async fn is_refused_without_presence(&self) {
        let refused = self.ask_with_key("GET /api/v1/stats", "").await;
        assert_eq!((refused.status, refused.header("retry-after")), (504, Some("2")), "{refused:?}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert_eq!(refused.json()["code"], "outcome_unknown");
    }
}

fn cluster_with_key() -> (ClusterBuilder, String) {
    let key = NewKey::draw("backend", ApiScope::ALL).unwrap();
    let cluster = Cluster::builder().gateways(1).presence(1).local_proxies();
    (cluster.presence_setting("PARLEY__API__KEYS", &key.known.to_string()), key.secret)
}

async fn join(cluster: &Cluster) -> WsClient {
    let ann = WsClient::connect(cluster.gateways[0].ws()).await;
    ann.register("ann").await;
    ann.join("#a/b").await;
    ann
}

#[tokio::test]
async fn local_nginx_carries_the_presence_api() {
    let (cluster, key) = cluster_with_key();
    let mut cluster = cluster.nginx(true).start().await;
    let _ann = join(&cluster).await;
    let api = CarriedApi { front: cluster.nginx.as_ref().map(Nginx::ws).unwrap(), key };
    api.is_carried().await;
    assert_eq!(cluster.presence[0].end().await, Some(0));
    api.is_refused_without_presence().await;
    cluster.allow("api requests refused");
    cluster.finish().await;
}

#[tokio::test]
async fn production_nginx_carries_the_presence_api() {
    let (cluster, key) = cluster_with_key();
    let mut cluster = cluster.start().await;
    let _ann = join(&cluster).await;
    let shipped = ShippedNginx::read().await.with_presence(&cluster.presence);
    let nginx = Nginx::configured(|place| shipped.configuration(place, &cluster.gateways, &[])).await;
    let clients = tls_proxy_from(Ipv4Addr::new(127, 0, 0, 7), &nginx, &shipped).await;
    let api = CarriedApi { front: clients.ws(), key };
    api.is_carried().await;
    let headers = api.ask_with_key("GET /api/v1/stats", "").await;
    assert!(headers.header("strict-transport-security").is_some(), "{headers:?}");
    assert_eq!(cluster.presence[0].end().await, Some(0));
    api.is_refused_without_presence().await;
    // The refusal of a request without a key names its client, and not nginx.
    let log = cluster.presence[0].problems(&[]);
    assert!(matches!(&log[..], [line] if line.contains("127.0.0.7")), "{log:?}");
    cluster.allow("api requests refused");
    cluster.finish().await;
}
