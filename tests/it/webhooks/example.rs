//! The receiver of the examples: it takes each event once, and refuses stale, replayed and forged deliveries.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use harness::{ChildProgram, Process, WebhookReceiver, eventually, http, repository};
use serde_json::{Value, json};

use super::delivery::until_leading;
use super::{SECRET, SOON, cluster_with, webhook};

/// The example as a process.
struct Example {
    process: Process,
    address: SocketAddr,
}

impl Example {
    async fn start(secrets: &[&str]) -> Self {
        let script = repository().join("clients/examples/webhook_receiver.py").display().to_string();
        let words = [&script, "0"].into_iter().chain(secrets.iter().copied()).map(str::to_owned);
        let process = ChildProgram::system("python3", "receiver").args(words).spawn();
        let port = eventually(SOON, "the receiver listens", async || {
            let lines = process.output().lines();
            lines.first().and_then(|line| serde_json::from_str::<Value>(line).ok()?["port"].as_u64()).ok_or(lines)
        });
        let address = format!("127.0.0.1:{}", port.await).parse().unwrap();
        Self { process, address }
    }

    /// Returns the ids of the printed events.
    fn ids(&self) -> Vec<String> {
        let lines = self.process.output().lines();
        let events = lines.iter().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Posts a body with a signature, and returns the status.
    async fn post(&self, signature: &str, body: &str) -> u16 {
        let head = format!("POST /hook HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        let rest = format!("Parley-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        http::exchange(self.address, (head + &rest).as_bytes()).await.unwrap().status
    }
}

/// Signs a body this many seconds ago.
fn signed(secret: &str, body: &str, seconds_ago: u64) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - seconds_ago;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), format!("{seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[tokio::test]
async fn example_receiver_gets_events_of_a_cluster() {
    let example = Example::start(&[SECRET]).await;
    let receiver = WebhookReceiver::start(SECRET).await;
    let mut app = webhook("example", &receiver, &["message"]);
    app["url"] = json!(format!("http://{}/hook", example.address));
    let cluster = cluster_with(&json!([app])).start().await;
    until_leading(&cluster).await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    let ack = ann.sends("#lobby", "hello, application").await;
    eventually(SOON, "the event is printed", async || {
        let ids = example.ids();
        if ids == [ack["msg_id"].as_str().unwrap()] { Ok(()) } else { Err(ids) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn documented_check_refuses_malformed_headers() {
    let page = std::fs::read_to_string(repository().join("docs/WEBHOOKS.md")).unwrap();
    let check = page.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let calls = r#"
import hashlib, hmac, re
tag = hmac.new(b"secret", b"100.body", hashlib.sha256).hexdigest()
good = [f"t=100,v1={tag}", f"v1=00,t=100,v1={tag}"]
bad = ["", None, "t", "t=,v1=", f"v1={tag}", "t=100", f"t=1e2,v1={tag}", f"t=+100,v1={tag}", "t=100,v1=\u00e9",
       f"t=\u0661,v1={tag}", f"t={'9' * 5000},v1={tag}", ",,=,", f"t=101,v1={tag}"]
assert all(verify(header, b"body", "secret", 100) is True for header in good)
assert all(verify(header, b"body", "secret", 100) is False for header in bad)
assert not verify(good[0], b"body", "secret", 401)
"#;
    let program = ChildProgram::system("python3", "check").args(["-c".to_owned(), format!("{check}{calls}")]);
    let ended = program.run(SOON).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn example_receiver_refuses_forged_and_stale_deliveries() {
    let example = Example::start(&["the-next-secret-of-tests", SECRET]).await;
    let body = r#"{"sent":1,"events":[{"id":"m1"},{"id":"m2"}]}"#;
    let good = signed(SECRET, body, 0);
    for (signature, body, status) in [
        (good.as_str(), body, 204),
        // Replayed at once: known ids.
        (&good, body, 204),
        (&signed("the-next-secret-of-tests", body, 0), body, 204),
        (&format!("{good},v1=00"), body, 204),
        (&signed(SECRET, body, 301), body, 401),
        (&signed("another-secret-of-tests", body, 0), body, 401),
        (&good, r#"{"sent":1,"events":[{"id":"m3"},{"id":"m4"}]}"#, 401),
        (&good.replace("v1=", "v2="), body, 401),
        (&good.replace("t=", "t=1"), body, 401),
        ("t=,v1=", body, 401),
        ("", body, 401),
        (&signed(SECRET, "[]", 0), "[]", 400),
    ] {
        assert_eq!(example.post(signature, body).await, status, "{signature} {body}");
    }
    let nothing_else = async || if example.ids() == ["m1", "m2"] { Ok(()) } else { Err(example.ids()) };
    harness::stays(Duration::from_millis(200), "each event once", nothing_else).await;
}
