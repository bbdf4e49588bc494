//! `wss:` addresses of the client library: a real nginx ends TLS with a certificate of a private authority.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use harness::nginx::stream_module;
use harness::{Authority, Cluster, Nginx, Validity, repository};
use parley_client::{Options, Parley, State};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{SOON, connect, take_until};

/// A private authority, and a certificate of it for 127.0.0.1.
pub(crate) struct PrivateAuthority {
    folder: TempDir,
}

impl PrivateAuthority {
    pub(crate) fn create() -> Self {
        let authority = Authority::create();
        authority.issue("site", "IP:127.0.0.1", Validity::Current);
        Self { folder: authority.into_folder() }
    }

    /// Returns the self-signed certificate of `deploy/secrets`, for localhost, as its own authority.
    fn of_deployment() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(repository().join("deploy/secrets")).arg(folder.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        for (from, to) in [("tls.crt", "site.pem"), ("tls.crt", "ca.pem"), ("tls.key", "site.key")] {
            std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
        }
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns options that trust this authority.
    fn options(&self, nick: &str) -> Options {
        Options::new(nick).root_certificates(std::fs::read(self.path().join("ca.pem")).unwrap())
    }

    /// Starts an nginx that ends TLS in front of a gateway.
    async fn front(&self, (ws, lines): (SocketAddr, SocketAddr)) -> Nginx {
        let (module, folder) = (stream_module().await, self.path().display());
        Nginx::configured(|place| {
            format!(
                "daemon off; {module}\npid {run}/nginx.pid; error_log {run}/error.log warn; events {{}}\nstream {{\n\
                 ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.key;\n\
                 server {{ listen {} ssl; proxy_pass {ws}; }}\nserver {{ listen {}; proxy_pass {lines}; }}\n}}\n",
                place.http,
                place.lines,
                run = place.directory,
            )
        })
        .await
    }
}

/// Waits until an attempt to connect has failed.
pub(crate) async fn await_failed_attempt(chat: &Parley) {
    let mut states = chat.states();
    let failed = async {
        loop {
            match states.next().await {
                Some(State::Offline { will_retry: true, .. }) => return,
                Some(State::Connecting) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(SOON, failed).await.expect("in time");
}

#[tokio::test]
async fn rust_client_talks_and_resumes_over_tls() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    let authority = PrivateAuthority::create();
    let front = authority.front((cluster.gateways[0].ws(), cluster.gateways[0].tcp())).await;
    let ann = connect(vec![format!("wss://{}/ws", front.ws())], authority.options("ann")).await;
    let bob = cluster.person("bob").await;
    let room = ann.join("#lobby", 0).await.unwrap();
    bob.join("#lobby").await;
    room.send("sealed").await.unwrap();
    bob.receives("#lobby", "ann", "sealed").await;
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    cluster.gateways[0].restart().await;
    timeout(SOON, room.send("again")).await.expect("in time").unwrap();
    bob.receives("#lobby", "ann", "again").await;
    assert_eq!(take_until(&mut room.events(), "again").await.len(), 2);
    cluster.finish().await;
}

#[tokio::test]
async fn rust_client_trusts_certificate_of_deploy_secrets() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let authority = PrivateAuthority::of_deployment();
    let front = authority.front((cluster.gateways[0].ws(), cluster.gateways[0].tcp())).await;
    let url = format!("wss://localhost:{}/ws", front.ws().port());
    assert_eq!(connect(vec![url], authority.options("ann")).await.nick(), "ann");
    cluster.finish().await;
}

#[tokio::test]
async fn rust_client_refuses_unknown_and_foreign_certificates() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let (authority, other) = (PrivateAuthority::create(), PrivateAuthority::create());
    let front = authority.front((cluster.gateways[0].ws(), cluster.gateways[0].tcp())).await;
    let port = front.ws().port();
    for (host, options) in [
        ("127.0.0.1", other.options("ann")),
        // The certificate has another name.
        ("localhost", authority.options("ann")),
    ] {
        await_failed_attempt(&Parley::start([format!("wss://{host}:{port}/ws")], options).unwrap()).await;
    }
    for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options = Options::new("ann").root_certificates(pem);
        assert_eq!(Parley::start(["wss://127.0.0.1/ws"], options).unwrap_err().code(), "bad_request", "{pem}");
    }
    cluster.finish().await;
}
