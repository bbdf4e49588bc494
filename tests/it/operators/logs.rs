//! What programs log: for whom it is written, where it goes, and what never gets there.

use std::time::Duration;

use harness::{LineClient, Node, Program, RawWs, Redis, WsClient, eventually};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// What must not be in any log.
const MARKER: &str = "xyzzy-plugh-8d3f";

/// A gateway that ends at once, because its port is taken, and says so in its log.
fn doomed(port: &str) -> Program {
    doomed_by(Program::parley("gateway", "doomed"), port)
}

fn doomed_by(program: Program, port: &str) -> Program {
    program
        .env("PARLEY__LISTEN__WS", port)
        .env("PARLEY__LISTEN__TCP", "127.0.0.1:0")
        .env("PARLEY__ADMIN__ADDR", "127.0.0.1:0")
}

/// Takes a port for as long as the answer lives.
fn taken() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<Value>(line)
        .is_ok_and(|line| line["level"] == "ERROR" && line["message"] == "could not start")
}

fn is_text(line: &str) -> bool {
    !line.starts_with('{') && line.contains("ERROR") && line.contains("could not start")
}

#[tokio::test]
async fn a_pipe_gets_json_and_a_terminal_gets_text_unless_told_otherwise() {
    let (_listener, port) = taken();
    for (format, in_pipe, on_terminal) in [
        ("auto", is_json as fn(&str) -> bool, is_text as fn(&str) -> bool),
        ("text", is_text, is_text),
        ("json", is_json, is_json),
    ] {
        let finished = doomed(&port).env("PARLEY__LOG__FORMAT", format).run(SOON).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.lines().all(in_pipe), "{format} in a pipe: {finished:?}");

        // `script` gives it a terminal and hands out what appears there.
        let terminal = Program::parley_on_a_terminal("gateway", "doomed");
        let finished = doomed_by(terminal, &port).env("PARLEY__LOG__FORMAT", format).run(SOON).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stdout.lines().all(on_terminal), "{format} on a terminal: {finished:?}");
        assert!(!finished.stdout.is_empty(), "{finished:?}");
    }
}

/// The lines without the moments at which they were written.
fn timeless(lines: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line["timestamp"].take();
        line
    };
    lines.lines().map(parse).collect()
}

#[tokio::test]
async fn a_log_file_gets_the_same_lines_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap_or_default();
    std::fs::write(file("g1.log"), "x".repeat(1 << 20)).unwrap();
    std::fs::write(file("g1.log.1"), "before").unwrap();
    let (_listener, port) = taken();
    let doomed = |path: &str| {
        doomed(&port)
            .env("PARLEY__LOG__FILE", path)
            .env("PARLEY__LOG__FILES", "2")
            .env("PARLEY__LOG__FILE_MIB", "1")
            .run(SOON)
    };
    let finished = doomed(file("g1.log").to_str().unwrap()).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(timeless(&read("g1.log")), timeless(&finished.stderr));
    assert!(read("g1.log.1").starts_with("xxx"), "the full one got a number");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "and the one before it went");

    let nowhere = doomed("/proc/no/such/folder/g1.log").await;
    assert_eq!(nowhere.code, Some(64), "{nowhere:?}");
    assert!(nowhere.stderr.contains("log.file") && nowhere.stderr.lines().count() == 1, "{nowhere:?}");
}

/// Nothing that people say is in a line, although everything is logged that there is to log.
fn is_clean(node: &Node) {
    let lines = node.log().lines();
    assert!(lines.iter().any(|line| line.contains("\"DEBUG\"")), "{} logs too little", node.name());
    let told: Vec<&String> = lines.iter().filter(|line| line.contains(MARKER)).collect();
    assert!(told.is_empty(), "{} logs what people say: {told:?}", node.name());
}

#[tokio::test]
async fn bodies_and_tokens_are_never_logged() {
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

    // Said over both doors, to a room and to one user, and read again.
    let said = format!("I say {MARKER}");
    ann.sends("#lobby", &said).await;
    carl.receives("#lobby", "ann", &said).await;
    carl.types(&said).await;
    bob.expect_event(SOON, "what carl says", |event| event["from"] == "carl" && event["body"] == said).await;
    ann.sends("bob", &said).await;
    carl.types(&format!("/msg ann {said}")).await;
    ann.expect_event(SOON, "what carl whispers", |event| event["to"] == "ann" && event["body"] == said).await;
    assert_eq!(bob.history("#lobby", 10).await.len(), 2);
    ann.away(&said).await;

    // Refused in every way that repeats what was asked.
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
    // Not even what breaks the framing or is no JSON.
    let mut raw = RawWs::connect(g1.ws()).await;
    raw.sends_frame(0x81, format!("{{\"type\":\"{MARKER}").as_bytes()).await;
    raw.next().await.expect("an answer");
    raw.sends_frame(0xf3, MARKER.as_bytes()).await;
    raw.close_code().await;

    // Tokens are worth more than bodies.
    for token in ["resume", "token"].iter().filter_map(|field| registered[field].as_str()) {
        for node in [&g1, &g2] {
            assert!(!node.log().holds(token), "{} logs a token", node.name());
        }
    }
    eventually(SOON, "the message is in the logs of both, as far as it may be", async || {
        let known = [&g1, &g2].map(|node| node.log().holds("msg_id"));
        if known == [true; 2] { Ok(()) } else { Err(known) }
    })
    .await;
    is_clean(&g1);
    is_clean(&g2);
}

/// The lines of spans that are over, by the id of their message.
fn spans(node: &Node, name: &str) -> Vec<(String, Value)> {
    let lines = node.log().lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let span = lines
        .filter(|line| line["message"] == "close" && line["span"]["name"] == name)
        .map(|line| line["span"].clone());
    span.map(|span| (span["msg_id"].as_str().unwrap_or_default().to_owned(), span)).collect()
}

#[tokio::test]
async fn a_message_leaves_one_span_where_it_is_published_and_one_where_it_is_delivered() {
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
        eventually(SOON, "both gateways tell of the message", async || {
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
