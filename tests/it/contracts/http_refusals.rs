//! HTTP refusals of all ports: the same cause has the same status, code and headers everywhere.
//!
//! The admin ports and the WebSocket port send a document without a link; the API links to its page of codes.

use std::net::SocketAddr;
use std::time::Duration;

use harness::http::{exchange, get};
use harness::{Cluster, eventually};

/// Longest time until a program notices that Redis is away.
const NOTICED: Duration = Duration::from_secs(10);

/// A request to a port, and the expected refusal.
struct RefusalCase {
    name: &'static str,
    address: SocketAddr,
    request: String,
    /// Status, code, and the expected `Retry-After` and `Allow`.
    answer: (u16, &'static str, Option<&'static str>, Option<&'static str>),
    /// True if the document links to the page of codes and has a detail.
    links: bool,
}

impl RefusalCase {
    async fn check(&self) {
        self.try_check().await.unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    async fn try_check(&self) -> Result<(), String> {
        let answer = exchange(self.address, self.request.as_bytes()).await?;
        let (status, code, retry, allow) = self.answer;
        let found = (answer.status, answer.header("retry-after"), answer.header("allow"));
        if found != (status, retry, allow) || answer.header("content-type") != Some("application/problem+json") {
            return Err(format!("expected {:?}: {answer:?}", self.answer));
        }
        let document = answer.json();
        let link = if self.links { format!("/docs#{code}") } else { "about:blank".to_owned() };
        if (document["code"].as_str(), document["type"].as_str()) != (Some(code), Some(link.as_str()))
            || document["status"] != status
            || document["title"].as_str().is_none_or(str::is_empty)
            || document["detail"].is_string() != (self.links || status == 426)
        {
            return Err(format!("expected {code} with {link}: {document}"));
        }
        Ok(())
    }
}

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn every_port_refuses_the_same_cause_alike() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    for text in ["not ready", "beat not answered", "subscription", "registry not answering", "redis"] {
        cluster.allow(text);
    }
    let (gateway, presence) = (&cluster.gateways[0], &cluster.presence[0]);
    let ports = [
        ("gateway", gateway.ws(), false),
        ("gateway admin", gateway.admin(), false),
        ("presence admin", presence.admin(), false),
        ("server api", presence.api(), true),
    ];
    for (name, address, links) in ports {
        let answer = (404, "not_found", None, None);
        RefusalCase { name, address, request: request("GET", "/none", ""), answer, links }.check().await;
    }
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    let posted =
        format!("POST /ws HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\n{upgrade}Content-Length: 0\r\n\r\n");
    let (name, address, links) = ports[0];
    let answer = (405, "method_not_allowed", None, Some("GET"));
    RefusalCase { name, address, request: posted, answer, links }.check().await;
    let answer = (426, "bad_request", None, None);
    RefusalCase { name, address, request: request("GET", "/ws", ""), answer, links }.check().await;
    for ((name, address, links), path) in ports[1..].iter().copied().zip(["/readyz", "/metrics", "/v1/rooms"]) {
        let answer = (405, "method_not_allowed", None, Some("GET,HEAD"));
        let request = request("POST", path, "Content-Length: 0\r\n");
        RefusalCase { name, address, request, answer, links }.check().await;
    }
    for ((name, address, links), path) in ports.into_iter().zip(["/ws", "/readyz", "/metrics", "/v1/rooms"]) {
        let valid = request("GET", path, "");
        for host in ["", "Host: parley\r\nHost: another\r\n", "Host: parley:99999\r\n"] {
            let answer = (400, "bad_request", None, None);
            let request = valid.replacen("Host: parley\r\n", host, 1);
            RefusalCase { name, address, request, answer, links }.check().await;
        }
    }
    cluster.redis.kill9();
    for (name, address, links) in [ports[0], ports[3]] {
        let path = if links { "/v1/rooms" } else { "/ws" };
        let answer = (503, "unavailable", Some("1"), None);
        let case = RefusalCase { name, address, request: request("GET", path, ""), answer, links };
        eventually(NOTICED, &format!("{name} refuses without redis"), || case.try_check()).await;
    }
    // A report is not a refusal.
    let report = get(ports[2].1, "/readyz").await.unwrap();
    assert_eq!((report.status, report.header("content-type")), (503, Some("application/json")));
}
