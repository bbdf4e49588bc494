//! Bad input that takes more than one row: odd but valid frames, texts that attack a terminal or a log, and state that
//! is left over.

use std::time::Duration;

use harness::{LineClient, Node, RawWs, WsClient};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::neighbours::Neighbours;

const SOON: Duration = Duration::from_secs(5);

/// A gateway with two healthy clients that chat while other clients misbehave.
struct BusyGateway {
    gateway: Node,
    neighbours: Neighbours,
}

impl BusyGateway {
    async fn open() -> Self {
        let gateway = Node::gateway("g1").start().await;
        let neighbours = Neighbours::open(&gateway).await;
        Self { gateway, neighbours }
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
        self.neighbours.chat(after).await;
    }

    /// Checks that the healthy clients were unaffected and the log has no warning, then stops the gateway.
    async fn finish(mut self) {
        self.neighbours.assert_undisturbed();
        assert_eq!(self.gateway.end().await, Some(0));
        assert_eq!(self.gateway.problems(&[]), Vec::<String>::new());
    }
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
async fn hostile_text_controls_no_terminal_and_no_log() {
    // A text, and the line that a person sees.
    let texts = [
        ("a\u{1b}[2Jb\n[#eve] <ann> forged\u{0}\u{202e}", "a\\u{1b}[2Jb\\n[#eve] <ann> forged\\u{0}\\u{202e}"),
        ("over\r\n* you are now known as root", "over\\u{d}\\n* you are now known as root"),
        ("\u{9b}31mred\u{85}next\u{2028}line\u{2029}", "\\u{9b}31mred\\u{85}next\\u{2028}line\\u{2029}"),
        ("\u{1b}]0;title\u{7}\u{8}\u{7f}", "\\u{1b}]0;title\\u{7}\\u{8}\\u{7f}"),
        ("\u{2066}abc\u{2069}\u{200f}\u{61c}", "\\u{2066}abc\\u{2069}\\u{200f}\\u{61c}"),
        ("{\"level\":\"ERROR\",\"message\":\"forged\"}\n", "{\"level\":\"ERROR\",\"message\":\"forged\"}\\n"),
    ];
    let server = BusyGateway::open().await;
    let (eve, mal) = (server.line().await, server.line().await);
    for (client, nick) in [(&eve, "eve"), (&mal, "mal")] {
        client.register(nick).await;
        client.join("#eve").await;
    }
    let ws = server.ws().await;
    ws.register("wes").await;
    ws.join("#eve").await;
    for (text, shown) in texts {
        ws.sends("#eve", text).await;
        mal.receives("#eve", "wes", shown).await;
        ws.sends("mal", text).await;
        mal.reads(&format!("<- wes: {shown}")).await;
        ws.receives("#eve", "wes", text).await;
    }
    // Right-to-left text is no attack by itself, and is shown as it is.
    let hebrew = "\u{5d0}".repeat(30_000);
    ws.sends("#eve", &hebrew).await;
    mal.receives("#eve", "wes", &hebrew).await;
    let forged = mal.unused(|line| line.starts_with("[#eve] <ann>") || line == "* you are now known as root");
    assert!(forged.is_empty(), "{forged:?}");
    eve.types("tab\tand nul\u{0}").await;
    ws.receives("#eve", "eve", "tab\tand nul\u{0}").await;
    assert!(!server.gateway.log().holds("forged"), "a body is in the log");
    server.stays_healthy("after hostile texts").await;
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
            let ack = server.neighbours.ann().sends("eve", "still there?").await;
            if ack["delivered"] == "offline" { Ok(()) } else { Err("online") }
        })
        .await;
    }
    server.stays_healthy("after a crowd").await;
    server.finish().await;
}
