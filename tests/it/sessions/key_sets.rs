//! Keys of tokens from a set at an https URL: a real nginx serves it, with a certificate of a private authority.

use std::process::Command;
use std::time::{Duration, SystemTime};

use harness::node::NodeBuilder;
use harness::{Nginx, Node, WsClient, eventually};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::clients::tls::PrivateAuthority;

const SOON: Duration = Duration::from_secs(10);

/// A key pair of an application.
struct SetIssuer {
    id: &'static str,
    key: EncodingKey,
}

impl SetIssuer {
    fn new(id: &'static str) -> Self {
        let words = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        let made = Command::new("openssl").args(words.split(' ')).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { id, key: EncodingKey::from_ec_pem(&made.stdout).unwrap() }
    }

    fn token(&self, user: &str) -> String {
        let exp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 60;
        let claims = json!({"iss": "https://id.example.org", "aud": "parley", "sub": user, "exp": exp});
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &self.key).unwrap()
    }

    /// Returns the row of the set.
    fn row(&self) -> Value {
        let mut row = serde_json::to_value(Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap()).unwrap();
        row["kid"] = json!(self.id);
        row["use"] = json!("sig");
        row
    }
}

/// Returns the configuration of an nginx that serves these keys over TLS.
fn serving(issuers: &[&SetIssuer], authority: &PrivateAuthority, place: harness::nginx::NginxPaths<'_>) -> String {
    let set = json!({"keys": issuers.iter().map(|issuer| issuer.row()).collect::<Vec<_>>()});
    format!(
        "daemon off;\npid {run}/nginx.pid; error_log {run}/error.log warn; events {{}}\nhttp {{\naccess_log off; \
         client_body_temp_path {run}; proxy_temp_path {run}; fastcgi_temp_path {run}; uwsgi_temp_path {run}; \
         scgi_temp_path {run}; default_type application/json;\nssl_certificate {folder}/site.pem; \
         ssl_certificate_key {folder}/site.key;\nserver {{ listen {} ssl; return 200 '{set}'; }}\n\
         server {{ listen {}; return 404; }}\n}}\n",
        place.http,
        place.lines,
        run = place.directory,
        folder = authority.path().display(),
    )
}

fn gateway(nginx: &Nginx) -> NodeBuilder {
    Node::gateway("alone")
        .setting("PARLEY__AUTH__MODE", "token")
        .setting("PARLEY__AUTH__ISSUER", "https://id.example.org")
        .setting("PARLEY__AUTH__AUDIENCE", "parley")
        .setting("PARLEY__AUTH__JWKS", &format!("https://{}/keys", nginx.ws()))
}

async fn register(gateway: &Node, nick: &str, token: &str) -> Result<Value, String> {
    let client = WsClient::connect(gateway.ws()).await;
    let registered = client.request(json!({"type": "register", "nick": nick, "token": token})).await;
    registered.map_err(|refused| refused.code)
}

#[tokio::test]
async fn keys_come_from_an_https_url() {
    let (authority, first, second) = (PrivateAuthority::create(), SetIssuer::new("first"), SetIssuer::new("second"));
    let mut nginx = Nginx::configured(|place| serving(&[&first], &authority, place)).await;
    let ca = authority.path().join("ca.pem").display().to_string();
    let mut gateway = gateway(&nginx).setting("SSL_CERT_FILE", &ca).start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    let request = json!({"type": "register", "nick": "ann", "token": first.token("user:1")});
    assert_eq!(ann.must(request).await["user"], "user:1");
    assert_eq!(register(&gateway, "bob", &second.token("user:2")).await.unwrap_err(), "unavailable", "a key to come");

    // A reload fetches the set again: the former key is out of use, and ends its sessions.
    nginx.reconfigure(|place| serving(&[&second], &authority, place)).await;
    gateway.process().signal(Signal::SIGHUP);
    eventually(SOON, "the second key is in use", || async { register(&gateway, "bob", &second.token("user:2")).await })
        .await;
    assert!(register(&gateway, "carl", &first.token("user:3")).await.is_err());
    assert_eq!(ann.closed_within(SOON).await.code, Some(4005));
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn keys_of_an_unknown_authority_are_refused() {
    let (authority, issuer) = (PrivateAuthority::create(), SetIssuer::new("k"));
    let nginx = Nginx::configured(|place| serving(&[&issuer], &authority, place)).await;
    let mut gateway = gateway(&nginx).start().await;
    assert_eq!(register(&gateway, "ann", &issuer.token("user:1")).await.unwrap_err(), "unavailable");
    eventually(SOON, "the log has the failure", async || {
        let log = gateway.log();
        if log.holds("keys of tokens not fetched") { Ok(()) } else { Err(log.tail(5)) }
    })
    .await;
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&["keys of tokens not fetched".to_owned()]), Vec::<String>::new());
}
