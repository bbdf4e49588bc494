//! Logs: their format, their destination, and their content.
//!
//! Invariant: a message body or a token never reaches a log, at any level.

use std::time::Duration;

use harness::{ChildProgram, LineClient, Node, RawWs, Redis, WsClient, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// A text that must not reach any log.
const MARKER: &str = "xyzzy-plugh-8d3f";

/// Builds a gateway that ends at once with a logged error, because its port is in use.
fn failing_gateway(port: &str) -> ChildProgram {
    failing_program(ChildProgram::parley("gateway", "failing"), port)
}

fn failing_program(program: ChildProgram, port: &str) -> ChildProgram {
    program
        .env("PARLEY__LISTEN__WS", port)
        .env("PARLEY__LISTEN__TCP", "127.0.0.1:0")
        .env("PARLEY__ADMIN__ADDR", "127.0.0.1:0")
}

/// Occupies a port while the returned listener lives.
fn occupied_port() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"] == "ERROR" && line["message"] == "not started")
}

fn is_text(line: &str) -> bool {
    !line.starts_with('{') && line.contains("ERROR") && line.contains("not started")
}

#[tokio::test]
async fn pipe_gets_json_and_terminal_gets_text() {
    let (_listener, port) = occupied_port();
    for (format, in_pipe, on_terminal) in [
        ("auto", is_json as fn(&str) -> bool, is_text as fn(&str) -> bool),
        ("text", is_text, is_text),
        ("json", is_json, is_json),
    ] {
        let finished = failing_gateway(&port).env("PARLEY__LOG__FORMAT", format).run(SOON).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.lines().all(in_pipe), "{format} in a pipe: {finished:?}");

        // `script` provides a terminal and prints its contents.
        let terminal = ChildProgram::parley_on_a_terminal("gateway", "failing");
        let finished = failing_program(terminal, &port).env("PARLEY__LOG__FORMAT", format).run(SOON).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stdout.lines().all(on_terminal), "{format} on a terminal: {finished:?}");
        assert!(!finished.stdout.is_empty(), "{finished:?}");
    }
}

/// Returns the lines without their timestamps.
fn without_timestamps(lines: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line["timestamp"].take();
        line
    };
    lines.lines().map(parse).collect()
}

#[tokio::test]
async fn log_file_gets_same_lines_and_rotates() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap_or_default();
    std::fs::write(file("g1.log"), "x".repeat(1 << 20)).unwrap();
    std::fs::write(file("g1.log.1"), "before").unwrap();
    let (_listener, port) = occupied_port();
    let run_with_log_file = |path: &str| {
        failing_gateway(&port)
            .env("PARLEY__LOG__FILE", path)
            .env("PARLEY__LOG__FILES", "2")
            .env("PARLEY__LOG__FILE_MIB", "1")
            .run(SOON)
    };
    let finished = run_with_log_file(file("g1.log").to_str().unwrap()).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(without_timestamps(&read("g1.log")), without_timestamps(&finished.stderr));
    assert!(read("g1.log.1").starts_with("xxx"), "the full file is rotated");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the oldest file is deleted");

    let nowhere = run_with_log_file("/proc/no/such/folder/g1.log").await;
    assert_eq!(nowhere.code, Some(64), "{nowhere:?}");
    assert!(nowhere.stderr.contains("log.file") && nowhere.stderr.lines().count() == 1, "{nowhere:?}");
}

/// Checks that no line contains the marker, although the node logs at its lowest level.
fn assert_no_marker(node: &Node) {
    let lines = node.log().lines();
    assert!(lines.iter().any(|line| line.contains("\"DEBUG\"")), "{} logs too little", node.name());
    let leaks: Vec<&String> = lines.iter().filter(|line| line.contains(MARKER)).collect();
    assert!(leaks.is_empty(), "{} logs message bodies: {leaks:?}", node.name());
}

#[tokio::test]
async fn logs_never_contain_bodies_or_tokens() {
    let redis = Redis::running().await;
    let start = async |name| Node::gateway(name).redis(&redis).setting("PARLEY__LOG__LEVEL", "trace").start().await;
    let (g1, g2) = (start("g1").await, start("g2").await);

    let (ann, bob) = (WsClient::connect(g1.ws()).await, WsClient::connect(g2.ws()).await);
    let registered = ann.register("ann").await;
    bob.register("bob").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let carl = LineClient::connect(g2.tcp()).await;
    carl.register("carl").await;
    carl.join("#lobby").await;

    // Sent over both ports, to a room and to a nick, and read from history.
    let text = format!("I say {MARKER}");
    ann.sends("#lobby", &text).await;
    carl.receives("#lobby", "ann", &text).await;
    carl.types(&text).await;
    bob.expect_event(SOON, "carl's room message", |event| event["from"] == "carl" && event["body"] == text).await;
    ann.sends("bob", &text).await;
    carl.types(&format!("/msg ann {text}")).await;
    ann.expect_event(SOON, "carl's direct message", |event| event["to"] == "ann" && event["body"] == text).await;
    assert_eq!(bob.history("#lobby", 10).await.len(), 2);
    ann.away(&text).await;

    // Refused requests whose errors could repeat their content.
    for request in [
        json!({"type": MARKER}),
        json!({"type": "send", "to": "nobody", "body": MARKER}),
        json!({"type": "send", "to": "#nowhere", "body": MARKER, "key": MARKER}),
        json!({"type": "send", "to": "#lobby", "body": {MARKER: MARKER}, "key": 7}),
        json!({"type": "register", "nick": format!("#{MARKER}")}),
        json!({"type": "nick", "nick": format!("{MARKER} {MARKER}")}),
        json!({"type": "join", "room": MARKER}),
        json!({"type": "history", "to": MARKER}),
        json!({"type": "status", "status": MARKER}),
    ] {
        ann.request(request.clone()).await.expect_err(&format!("{request} is refused"));
    }
    carl.types(&format!("/{MARKER}")).await;
    carl.types(&format!("/join {MARKER}")).await;
    carl.types(&format!("/nick {MARKER} {MARKER}")).await;
    carl.types(&format!("/msg nobody {MARKER}")).await;
    carl.reads("! no_such_user: *").await;
    // Malformed JSON and a broken frame.
    let mut raw = RawWs::connect(g1.ws()).await;
    raw.sends_frame(0x81, format!("{{\"type\":\"{MARKER}").as_bytes()).await;
    raw.next().await.expect("an answer");
    raw.sends_frame(0xf3, MARKER.as_bytes()).await;
    raw.close_code().await;

    // Tokens must not be logged either.
    for token in ["resume", "token"].iter().filter_map(|field| registered[field].as_str()) {
        for node in [&g1, &g2] {
            assert!(!node.log().holds(token), "{} logs a token", node.name());
        }
    }
    eventually(SOON, "both gateways log the msg_id", async || {
        let known = [&g1, &g2].map(|node| node.log().holds("msg_id"));
        if known == [true; 2] { Ok(()) } else { Err(known) }
    })
    .await;
    assert_no_marker(&g1);
    assert_no_marker(&g2);
}

/// Returns the closed spans of this name, with their msg_id.
fn spans(node: &Node, name: &str) -> Vec<(String, Value)> {
    let lines = node.log().lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let span = lines
        .filter(|line| line["message"] == "close" && line["span"]["name"] == name)
        .map(|line| line["span"].clone());
    span.map(|span| (span["msg_id"].as_str().unwrap_or_default().to_owned(), span)).collect()
}

#[tokio::test]
async fn message_leaves_publish_span_and_delivery_span() {
    let redis = Redis::running().await;
    let start = async |name| Node::gateway(name).redis(&redis).setting("PARLEY__LOG__LEVEL", "debug").start().await;
    let (g1, g2) = (start("g1").await, start("g2").await);
    let (ann, bob) = (WsClient::connect(g1.ws()).await, WsClient::connect(g2.ws()).await);
    ann.register("ann").await;
    bob.register("bob").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    for to in ["#lobby", "bob"] {
        let id = ann.sends(to, "hi").await["msg_id"].as_str().unwrap().to_owned();
        let of = |node, name| -> Vec<Value> {
            spans(node, name).into_iter().filter(|(of, _)| *of == id).map(|(_, span)| span).collect()
        };
        eventually(SOON, "both gateways log a span of the message", async || {
            let (published, delivered) = (of(&g1, "publish"), of(&g2, "deliver"));
            match (published.as_slice(), delivered.as_slice()) {
                ([publish], [deliver]) if publish["to"] == to && !deliver["seq"].is_null() => Ok(()),
                _ => Err((published, delivered)),
            }
        })
        .await;
        assert_eq!(of(&g2, "publish"), Vec::<Value>::new());
    }
}
