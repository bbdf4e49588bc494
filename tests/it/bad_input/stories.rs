//! Malformed and hostile input: each row has one exact reaction, and other clients are unaffected.

use std::time::Duration;

use harness::{LineClient, Node, RawWs, WsClient, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(5);
/// The maximum size of a request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// The maximum size of a skipped message; a longer one ends the connection.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// A gateway with two healthy clients that chat while other clients misbehave.
struct BusyGateway {
    gateway: Node,
    ann: WsClient,
    bob: LineClient,
}

impl BusyGateway {
    async fn open() -> Self {
        let gateway = Node::gateway("g1").start().await;
        let (ann, bob) = (WsClient::connect(gateway.ws()).await, LineClient::connect(gateway.tcp()).await);
        ann.register("ann").await;
        ann.join("#home").await;
        bob.register("bob").await;
        bob.join("#home").await;
        Self { gateway, ann, bob }
    }

    async fn ws(&self) -> WsClient {
        WsClient::connect(self.gateway.ws()).await
    }

    async fn raw(&self) -> RawWs {
        RawWs::connect(self.gateway.ws()).await
    }

    async fn line(&self) -> LineClient {
        LineClient::connect(self.gateway.tcp()).await
    }

    /// Checks that the healthy clients still receive messages.
    async fn stays_healthy(&self, after: &str) {
        self.ann.sends("#home", after).await;
        self.bob.receives("#home", "ann", after).await;
        self.ann.receives("#home", "ann", after).await;
    }

    /// Checks that the healthy clients were unaffected and the log has no warning, then stops the gateway.
    async fn finish(mut self) {
        let others = self.ann.received(|event| event["type"] == "message" && event["from"] != "ann");
        assert!(others.is_empty(), "the healthy client received {others:?}");
        assert_eq!((self.ann.has_ended(), self.bob.has_ended()), (None, None));
        assert_eq!(self.gateway.end().await, Some(0));
        assert_eq!(self.gateway.problems(&[]), Vec::<String>::new());
    }
}

/// Sends a text frame and returns the id and code of the `error` reply.
async fn code_of(client: &WsClient, text: &str) -> (Value, String) {
    client.send_message(Message::text(text)).await;
    let error = client.receives_frame("error").await;
    (error["id"].clone(), error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn gateway_refuses_malformed_frames_and_keeps_connection() {
    let server = BusyGateway::open().await;
    let eve = server.ws().await;
    let deep = format!("{{\"type\":\"ping\",\"id\":1,\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let rows = [
        ("", Value::Null, "bad_request"),
        ("{", Value::Null, "bad_request"),
        ("null", Value::Null, "bad_request"),
        ("[]", Value::Null, "bad_request"),
        ("\"ping\"", Value::Null, "bad_request"),
        ("{\"type\":\"ping\"} trailing", Value::Null, "bad_request"),
        ("\u{feff}{\"type\":\"ping\"}", Value::Null, "bad_request"),
        ("{\"type\":\"ping\",\"id\":NaN}", Value::Null, "bad_request"),
        ("{\"type\":\"ping\",\"id\":[1]}", Value::Null, "bad_request"),
        ("{\"id\":1}", json!(1), "bad_request"),
        ("{\"id\":\"a\",\"type\":7}", json!("a"), "bad_request"),
        ("{\"id\":2,\"type\":\"dance\"}", json!(2), "unknown_type"),
        ("{\"id\":3,\"type\":\"ping\",\"type\":\"bye\"}", json!(3), "bad_request"),
        ("{\"id\":4,\"type\":\"register\"}", json!(4), "bad_request"),
        ("{\"id\":5,\"type\":\"register\",\"nick\":7}", json!(5), "bad_request"),
        ("{\"id\":6,\"type\":\"register\",\"nick\":\"\\ud800\"}", json!(6), "bad_request"),
        ("{\"id\":7,\"type\":\"join\",\"room\":\"#a\"}", json!(7), "not_registered"),
        (deep.as_str(), json!(1), "bad_request"),
    ];
    for (text, id, code) in rows {
        let shown: String = text.chars().take(60).collect();
        assert_eq!(code_of(&eve, text).await, (id, code.to_owned()), "{shown}");
    }
    server.stays_healthy("after malformed frames").await;
    eve.register("eve").await;
    server.finish().await;
}

#[tokio::test]
async fn gateway_refuses_forbidden_requests_with_their_id() {
    let server = BusyGateway::open().await;
    let eve = server.ws().await;
    for verb in ["join", "leave", "members"] {
        let request = json!({"type": verb, "room": "#home"});
        assert_eq!(eve.request(request).await.unwrap_err().code, "not_registered", "{verb}");
    }
    eve.register("eve").await;
    assert_eq!(eve.try_register("eve2").await.unwrap_err().code, "already_registered");
    let rows = [
        (json!({"type": "send", "to": "#home", "body": "hi"}), "not_in_room"),
        (json!({"type": "leave", "room": "#home"}), "not_in_room"),
        (json!({"type": "history", "to": "#home"}), "not_in_room"),
        (json!({"type": "join", "room": "home"}), "bad_room"),
        (json!({"type": "join", "room": "#"}), "bad_room"),
        (json!({"type": "join", "room": "#a b"}), "bad_room"),
        (json!({"type": "join", "room": format!("#{}", "r".repeat(129))}), "bad_room"),
        (json!({"type": "send", "to": ":nobody", "body": "hi"}), "bad_nick"),
        (json!({"type": "send", "to": "", "body": "hi"}), "bad_nick"),
        (json!({"type": "send", "to": "#home"}), "bad_request"),
        (json!({"type": "send", "to": "ann", "body": "hi", "key": ""}), "bad_request"),
        (json!({"type": "send", "to": "ann", "body": "hi", "key": "k".repeat(65)}), "bad_request"),
        (json!({"type": "status", "status": "asleep"}), "bad_request"),
        (json!({"type": "rooms", "limit": 0}), "bad_request"),
        (json!({"type": "rooms", "limit": 1001}), "bad_request"),
        (json!({"type": "rooms", "limit": -1}), "bad_request"),
        (json!({"type": "rooms", "limit": "10"}), "bad_request"),
        (json!({"type": "rooms", "cursor": "c".repeat(4096)}), "bad_request"),
    ];
    for (request, code) in rows {
        let shown: String = request.to_string().chars().take(80).collect();
        assert_eq!(eve.request(request).await.expect_err(&shown).code, code, "{shown}");
    }
    server.stays_healthy("after forbidden requests").await;
    server.finish().await;
}

#[tokio::test]
async fn gateway_refuses_nicknames_that_break_rules() {
    let server = BusyGateway::open().await;
    let eve = server.ws().await;
    let long = "n".repeat(49);
    let heavy = "界".repeat(43);
    let names = [
        "",
        " ",
        "two words",
        " ann",
        "a\u{0}b",
        "a\nb",
        "a\r\nb",
        "a\tb",
        "#room",
        ":ab",
        "{0}",
        "a*",
        "a?",
        "@a",
        "a,b",
        "a!b",
        "/ab",
        ".ab",
        "\u{ff0f}ab",
        "ann@example.org",
        "a\\b",
        "a\u{200b}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "\u{feff}ann",
        "a\u{ad}b",
        "a\u{fe0f}",
        "\u{ff03}room",
        "a\u{a0}b",
        "a\u{3000}b",
        "a\u{378}b",
        long.as_str(),
        heavy.as_str(),
    ];
    for name in names {
        let refused = eve.try_register(name).await.expect_err(name);
        assert_eq!(refused.code, "bad_nick", "{name:?}");
    }
    server.stays_healthy("after bad names").await;
    eve.register(&"n".repeat(48)).await;
    server.finish().await;
}

#[tokio::test]
async fn message_far_over_limit_closes_the_connection() {
    let server = BusyGateway::open().await;
    let eve = server.ws().await;
    eve.register("eve").await;
    eve.join("#home").await;
    let of_size = |size: usize| {
        let frame = |body: String| format!("{{\"type\":\"send\",\"to\":\"#eve\",\"body\":\"{body}\"}}");
        frame("x".repeat(size - frame(String::new()).len()))
    };
    assert_eq!(code_of(&eve, &of_size(REQUEST_BYTES_MAX)).await.1, "not_in_room", "read as a request");
    assert_eq!(code_of(&eve, &of_size(REQUEST_BYTES_MAX + 1)).await.1, "too_large");
    assert_eq!(code_of(&eve, &of_size(DISCARDED_BYTES_MAX)).await.1, "too_large");
    server.stays_healthy("after 1 MiB").await;
    eve.send_message(Message::text(of_size(DISCARDED_BYTES_MAX + 1))).await;
    assert_eq!(eve.closed().await.code, Some(1009));

    let mut raw = server.raw().await;
    raw.sends(&[0x81, 0x80 | 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]).await;
    let code = raw.close_code().await;
    assert!(matches!(code, Some(1009 | 1002)), "the maximum frame length: {code:?}");
    server.stays_healthy("after the maximum frame length").await;
    server.finish().await;
}

#[tokio::test]
async fn broken_framing_closes_with_the_rfc_code() {
    const TEXT: u8 = 0x81;
    let server = BusyGateway::open().await;
    // Description, bytes, and the close code of RFC 6455 section 7.4.1.
    let masked = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
    };
    let rows = [
        ("an unmasked frame", vec![TEXT, 2, b'h', b'i'], 1002),
        ("reserved bit 1", masked(0xC1, b"hi"), 1002),
        ("reserved bit 2", masked(0xA1, b"hi"), 1002),
        ("reserved bit 3", masked(0x91, b"hi"), 1002),
        ("reserved data opcode", masked(0x83, b"hi"), 1002),
        ("reserved control opcode", masked(0x8B, b"hi"), 1002),
        ("a fragmented ping", masked(0x09, b"hi"), 1002),
        ("a ping over 125 bytes", [&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0], &[b'x'; 126][..]].concat(), 1002),
        ("a continuation without a start", masked(0x80, b"hi"), 1002),
        ("a message inside a message", [masked(0x01, b"{"), masked(TEXT, b"}")].concat(), 1002),
        ("binary", masked(0x82, b"hi"), 1003),
        ("invalid UTF-8", masked(TEXT, &[0xC0, 0xAF]), 1007),
        ("a surrogate in UTF-8", masked(TEXT, &[0xED, 0xA0, 0x80]), 1007),
        ("half a character", masked(TEXT, &[0xE7, 0x95]), 1007),
        ("a broken character in two frames", [masked(0x01, &[0xC3]), masked(0x80, b"(")].concat(), 1007),
        ("an unassigned close code", masked(0x88, &999_u16.to_be_bytes()), 1002),
        ("a close frame of one byte", masked(0x88, &[3]), 1002),
    ];
    for (what, bytes, code) in rows {
        let mut raw = server.raw().await;
        raw.sends(&bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{what}");
    }
    server.stays_healthy("after broken frames").await;
    server.finish().await;
}

#[tokio::test]
async fn gateway_accepts_unusual_but_valid_frames() {
    let server = BusyGateway::open().await;
    let mut raw = server.raw().await;
    raw.sends_frame(0x01, b"{\"type\":").await;
    raw.sends_frame(0x89, b"between").await;
    raw.sends_frame(0x00, b"").await;
    raw.sends_frame(0x80, b"\"ping\",\"id\":9}").await;
    let mut frames = Vec::new();
    while frames.len() < 2 {
        frames.push(raw.next().await.expect("an open connection"));
    }
    frames.sort_by_key(|frame| frame.opcode);
    assert_eq!((frames[0].opcode, frames[1].opcode, frames[1].payload.as_slice()), (1, 10, &b"between"[..]));
    let pong: Value = serde_json::from_slice(&frames[0].payload).unwrap();
    assert_eq!(pong["id"], 9);

    // One byte at a time.
    let mut frame = vec![0x81, 0x80 | 15, 0, 0, 0, 0];
    frame.extend(b"{\"type\":\"ping\"}");
    for byte in frame {
        raw.sends(&[byte]).await;
    }
    assert_eq!(raw.next().await.expect("an open connection").opcode, 1);
    server.stays_healthy("after odd frames").await;
    server.finish().await;
}

#[tokio::test]
async fn http_port_accepts_only_websockets_and_the_page() {
    let server = BusyGateway::open().await;
    let address = server.gateway.ws();
    let upgrade = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let rows = [
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 200),
        ("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 426),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}\r\nSec-WebSocket-Version: 13\r\n\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{upgrade}\r\n{key}\r\nSec-WebSocket-Version: 8\r\n\r\n"), 426),
        (format!("POST /ws HTTP/1.1\r\n{upgrade}\r\n{key}\r\nSec-WebSocket-Version: 13\r\n\r\n"), 405),
        (format!("GET /ws HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024)), 431),
        (format!("GET /ws HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
        ("hello, is this a chat?\r\n\r\n".to_owned(), 400),
    ];
    for (request, status) in rows {
        let shown: String = request.chars().take(70).collect();
        let answer = http::exchange(address, request.as_bytes()).await.unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
    }
    // A TLS handshake on the plain port ends at once.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03]).await.unwrap();
    stream.write_all(&[0; 512]).await.unwrap();
    tokio::time::timeout(SOON, stream.read_to_end(&mut Vec::new())).await.expect("a closed connection").ok();
    server.stays_healthy("after garbage on the HTTP port").await;
    server.finish().await;
}

#[tokio::test]
async fn gateway_closes_an_endless_handshake() {
    /// The header must be complete within 10 s.
    const HEADER: Duration = Duration::from_secs(13);
    let server = BusyGateway::open().await;
    let mut slow = TcpStream::connect(server.gateway.ws()).await.unwrap();
    slow.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let silent = TcpStream::connect(server.gateway.ws()).await.unwrap();
    for mut stream in [slow, silent] {
        tokio::time::timeout(HEADER, stream.read_to_end(&mut Vec::new())).await.expect("a timely close").ok();
    }
    server.stays_healthy("after slow handshakes").await;
    server.finish().await;
}

#[tokio::test]
async fn gateway_refuses_malformed_lines_and_keeps_connection() {
    let server = BusyGateway::open().await;
    let eve = server.line().await;
    eve.types("hello?").await;
    eve.reads("! not_registered: *").await;
    eve.types("/dance").await;
    eve.reads("! unknown_type: *").await;
    eve.types("/nick").await;
    eve.reads("! bad_request: *").await;
    eve.types("/nick a\u{0}b").await;
    eve.reads("! bad_nick: *").await;
    eve.sends(b"\xC0\xAF\n").await;
    eve.reads("! bad_request: *").await;
    eve.types(&"x".repeat(REQUEST_BYTES_MAX + 1)).await;
    eve.reads("! too_large: *").await;
    eve.types(&"x".repeat(3 * DISCARDED_BYTES_MAX)).await;
    eve.reads("! too_large: *").await;
    eve.sends(b"\r\n\n\r\r\n").await;
    server.stays_healthy("after malformed lines").await;

    // Control characters reach a terminal escaped.
    eve.sends(b"/nick eve\r\n").await;
    eve.reads("* you are now known as eve").await;
    eve.join("#eve").await;
    let mal = server.line().await;
    mal.register("mal").await;
    mal.join("#eve").await;
    let ws = server.ws().await;
    ws.register("wes").await;
    ws.join("#eve").await;
    ws.sends("#eve", "a\u{1b}[2Jb\n[#eve] <ann> forged\u{0}\u{202e}").await;
    mal.reads("[#eve] <wes> a\\u{1b}[2Jb\\n[#eve] <ann> forged\\u{0}\\u{202e}").await;
    assert!(mal.received("[#eve] <ann>*").is_empty(), "a line was forged");
    eve.types("tab\tand nul\u{0}").await;
    ws.receives("#eve", "eve", "tab\tand nul\u{0}").await;
    server.finish().await;
}

#[tokio::test]
async fn text_port_refuses_binary_frames_with_a_reason() {
    let server = BusyGateway::open().await;
    let eve = server.line().await;
    eve.sends(&[0xCA, 0xFE, 0xBA, 0xBE, 1, 0, 0, 0, 0, 0, 1]).await;
    eve.reads("! bad_request: *").await;
    eve.closed().await;
    server.stays_healthy("after binary frames").await;
    server.finish().await;
}

#[tokio::test]
async fn misbehaving_clients_leave_no_state_behind() {
    let server = BusyGateway::open().await;
    let mut registered = None;
    for round in 0..20_u8 {
        let mut raw = server.raw().await;
        raw.sends(&[0x81, 0x80 | 4, 0, 0, 0, 0, b'{', b'}', round, 0xFF]).await;
        assert_eq!(raw.close_code().await, Some(1007));
        let eve = server.ws().await;
        // The session survives the bad input.
        registered = Some(match &registered {
            None => eve.register("eve").await,
            Some(before) => eve.resume(before, json!({})).await,
        });
        eve.join("#eve").await;
        eve.send_message(Message::binary(vec![round])).await;
        assert_eq!(eve.closed().await.code, Some(1003));
        harness::eventually(SOON, "eve offline", || async {
            let ack = server.ann.sends("eve", "still there?").await;
            if ack["delivered"] == "offline" { Ok(()) } else { Err("online") }
        })
        .await;
    }
    server.stays_healthy("after a crowd").await;
    server.finish().await;
}
