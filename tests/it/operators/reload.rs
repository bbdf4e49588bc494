//! Reload by SIGHUP: applies the settings that can change at run time, and names those that need a restart.
//!
//! Invariant: a file with any mistake changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use harness::{LineClient, Node, Redis, WsClient, eventually, http};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const RELOADED: &str = "settings reloaded";
const RESTART_NEEDED: &str = "changed settings need a restart";
const REFUSED: &str = "settings not reloaded, nothing changed";

/// A node with a settings file that a test can rewrite.
struct ReloadNode {
    node: Node,
    file: PathBuf,
    _folder: TempDir,
}

impl ReloadNode {
    async fn start(node: harness::node::NodeBuilder, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, settings).unwrap();
        let node = node.config(&file).start().await;
        Self { node, file, _folder: folder }
    }

    /// Rewrites the settings and sends SIGHUP. Returns the new log lines once the reload is counted and this message is
    /// logged.
    async fn reload(&mut self, settings: &str, outcome: &str, message: &str) -> Vec<Value> {
        let (before, logged) = (self.reloads(outcome).await, self.node.log().lines().len());
        std::fs::write(&self.file, settings).unwrap();
        self.node.process().signal(Signal::SIGHUP);
        eventually(SOON, &format!("a reload is {outcome}"), async || {
            let now = self.reloads(outcome).await;
            if now == before + 1.0 { Ok(()) } else { Err(now) }
        })
        .await;
        eventually(SOON, &format!("the log contains: {message}"), async || {
            let lines = self.node.log().lines().split_off(logged);
            let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.iter().any(|line| line["message"] == message) { Ok(lines) } else { Err(lines) }
        })
        .await
    }

    async fn reloads(&self, outcome: &str) -> f64 {
        self.number("parley_config_reloads_total", &[("outcome", outcome)]).await
    }

    async fn number(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.node.metrics().await.get(name, labels).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Returns the only line of the settings fingerprint.
    async fn fingerprint(&self) -> String {
        let scrape = http::get(self.node.admin(), "/metrics").await.unwrap().body;
        let lines: Vec<&str> = scrape.lines().filter(|line| line.starts_with("parley_config_info{")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].to_owned()
    }

    /// Returns the HTTP status of a WebSocket upgrade with this origin.
    async fn upgrade_from(&self, origin: &str) -> u16 {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: parley\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {origin}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut stream = TcpStream::connect(self.node.ws()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; "HTTP/1.1 101".len()];
        timeout(SOON, stream.read_exact(&mut answer)).await.expect("an answer in time").unwrap();
        str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn reload_applies_settings_and_names_waiting_ones() {
    let mut reloadable = ReloadNode::start(Node::gateway("g1"), "redis.prefix = 'a'\n").await;
    let fingerprint = reloadable.fingerprint().await;
    let ann = WsClient::connect(reloadable.node.ws()).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    for text in ["one", "two", "three"] {
        ann.sends("#lobby", text).await;
    }
    assert_eq!(reloadable.upgrade_from("https://parley").await, 101);
    assert_eq!(reloadable.upgrade_from("https://chat.example").await, 403);
    assert!(!reloadable.node.log().holds("\"DEBUG\""));

    let settings = "redis.prefix = 'b'\nlisten.origins = ['https://chat.example']\nlimits.connections = 1\n\
                    listen.page_embedders = 'https://www.example'\n\
                    history.max_messages = 2\nlog.level = 'debug'\ndrain.grace_seconds = 5\n";
    let lines = reloadable.reload(settings, "applied", RESTART_NEEDED).await;
    let line =
        |message: &str| lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{lines:?}"));
    let changed = line(RELOADED)["changed"].as_str().unwrap();
    for change in [
        r#"listen.origins = unset -> ["https://chat.example"]"#,
        r#"listen.page_embedders = unset -> ["https://www.example"]"#,
        "limits.connections = 16384 -> 1",
        "history.max_messages = 10000 -> 2",
        r#"log.level = "info" -> "debug""#,
        "drain.grace_seconds = 30 -> 5",
    ] {
        assert!(changed.contains(change), "{change} in {changed}");
    }
    assert_eq!(line(RESTART_NEEDED)["waiting"], r#"redis.prefix = "a" -> "b""#);
    assert_eq!(reloadable.number("parley_config_restart_pending", &[]).await, 1.0);
    assert_ne!(reloadable.fingerprint().await, fingerprint);

    // Open connections stay, and the new limit refuses further ones.
    ann.sends("#lobby", "four").await;
    assert_eq!(ann.history("#lobby", 10).await.len(), 2);
    let bob = LineClient::connect(reloadable.node.tcp()).await;
    bob.reads("! overloaded: *").await;
    let lines = reloadable.reload(
        "redis.prefix = 'a'\nlimits.connections = 9\nlisten.origins = 'https://chat.example'\nlog.level = 'debug'\n",
        "applied",
        RELOADED,
    );
    assert!(lines.await.iter().all(|line| line["message"] != RESTART_NEEDED));
    assert_eq!(reloadable.number("parley_config_restart_pending", &[]).await, 0.0);
    assert_eq!(reloadable.upgrade_from("https://parley").await, 403);
    assert_eq!(reloadable.upgrade_from("https://chat.example").await, 101);
    eventually(SOON, "the new level shows in the log", async || {
        if reloadable.node.log().holds("\"DEBUG\"") { Ok(()) } else { Err("no DEBUG line") }
    })
    .await;
}

#[tokio::test]
async fn reload_changes_limits_of_open_sessions() {
    let few = "limits.renames_per_minute = 1\nlimits.renames_burst = 1\n";
    let mut reloadable = ReloadNode::start(Node::gateway("g1"), few).await;
    let ann = WsClient::connect(reloadable.node.ws()).await;
    ann.register("ann").await;
    ann.rename("ann1").await;
    let rename = |nick: &str| json!({"type": "nick", "nick": nick});
    assert_eq!(ann.request(rename("ann2")).await.unwrap_err().code, "rate_limited");
    let more = "limits.renames_per_minute = 60\nlimits.renames_burst = 100\n";
    let lines = reloadable.reload(more, "applied", RELOADED).await;
    let changed = lines.iter().find(|line| line["message"] == RELOADED).unwrap()["changed"].to_string();
    assert!(changed.contains("limits.renames_per_minute = 1 -> 60"), "{changed}");
    for number in 2..20 {
        ann.rename(&format!("ann{number}")).await;
    }
}

#[tokio::test]
async fn reload_changes_rules_of_rooms() {
    let mut reloadable = ReloadNode::start(Node::gateway("g1"), "rooms = []\n").await;
    let (ann, bob) = (WsClient::connect(reloadable.node.ws()).await, WsClient::connect(reloadable.node.ws()).await);
    ann.register("ann").await;
    bob.register("bob").await;
    ann.join("#hall").await;
    ann.sends("#hall", "hi").await;
    let rules = "[[rooms]]\nmatch = '#hall'\nmembers_max = 1\nsend = 'moderators'\n";
    let lines = reloadable.reload(rules, "applied", RELOADED).await;
    let changed = lines.iter().find(|line| line["message"] == RELOADED).unwrap()["changed"].to_string();
    assert!(changed.contains("rooms = [] -> "), "{changed}");
    let join = json!({"type": "join", "room": "#hall"});
    assert_eq!(bob.request(join).await.unwrap_err().code, "room_full");
    assert_eq!(ann.try_send("#hall", "hi").await.unwrap_err().code, "not_allowed");

    reloadable.reload("[[rooms]]\nmatch = '#hall'\nmembers = 1\n", "rejected", REFUSED).await;
    assert_eq!(ann.try_send("#hall", "hi").await.unwrap_err().code, "not_allowed", "nothing changed");
}

#[tokio::test]
async fn bad_reload_changes_no_setting() {
    let good = "limits.connections = 2\nlog.level = 'info'\n";
    let mut reloadable = ReloadNode::start(Node::gateway("g1"), good).await;
    let fingerprint = reloadable.fingerprint().await;
    for (bad, reason) in [
        ("limits.connections = 1\nlog.level = 'loud'\n", "log.level"),
        ("limits.connections = 1\nlog.levle = 'debug'\n", "the nearest known one is log.level"),
        ("limits.connections = 0\nlog.level = 'debug'\n", "limits.connections"),
        ("limits.connections = [\n", "TOML"),
    ] {
        let lines = reloadable.reload(bad, "rejected", REFUSED).await;
        let refusal = lines.iter().find(|line| line["message"] == REFUSED).unwrap();
        assert_eq!(refusal["level"], "WARN");
        assert!(refusal["reason"].as_str().unwrap().contains(reason), "{refusal}");
    }
    std::fs::remove_file(&reloadable.file).unwrap();
    reloadable.node.process().signal(Signal::SIGHUP);
    eventually(SOON, "a missing file is rejected too", async || {
        let rejected = reloadable.reloads("rejected").await;
        if rejected == 5.0 { Ok(()) } else { Err(rejected) }
    })
    .await;
    assert_eq!((reloadable.reloads("applied").await, reloadable.fingerprint().await), (0.0, fingerprint));
    let (ann, _bob) = (WsClient::connect(reloadable.node.ws()).await, WsClient::connect(reloadable.node.ws()).await);
    ann.request(json!({"type": "ping"})).await.unwrap();
    assert!(!reloadable.node.log().holds("\"DEBUG\""), "the level is unchanged");
}

#[tokio::test]
async fn presence_reload_never_logs_a_secret() {
    let redis = Redis::running().await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("url");
    std::fs::write(&secret, redis.url()).unwrap();
    let settings = format!("redis.url_file = {:?}\n", secret.to_str().unwrap());
    let mut reloadable = ReloadNode::start(Node::presence("p1"), &settings).await;
    std::fs::write(&secret, redis.url().replace("redis://", "redis://:hunter2@")).unwrap();
    let lines = reloadable.reload(&format!("{settings}log.level = 'warn'\n"), "applied", RESTART_NEEDED).await;
    let waiting = lines.iter().find(|line| line["message"] == RESTART_NEEDED).unwrap();
    let waiting = waiting["waiting"].as_str().unwrap();
    assert!(waiting.starts_with("redis.url = ") && waiting.contains("redis://***@"), "{waiting}");
    assert!(!reloadable.node.log().holds("hunter2"));
    assert_eq!(reloadable.node.end().await, Some(0));
}
