//! Packed messages over both carriers. Their contents have tests of their own.

use bytes::BytesMut;
use serde_json::Value;

use super::*;
use crate::wire::frame::{MAGIC, PREFIX_BYTES, put_frame};
use crate::wire::packed::PackedType;
use crate::wire::{DISCARDED_BYTES_MAX, PackedFormat, REQUEST_BYTES_MAX};

/// A client of frames with JSON.
struct JsonFrames(RawClient);

impl JsonFrames {
    async fn connect(fixture: &ListenFixture) -> Self {
        let mut client = RawClient::connect(fixture.tcp).await;
        client.until("/help").await;
        Self(client)
    }

    async fn send(&mut self, kind: PackedType, payload: &[u8]) {
        self.0.send(&json_frame(kind, payload)).await;
    }

    /// Returns the type and the payload of the next frame.
    async fn next(&mut self) -> (u16, Value) {
        loop {
            if let Some((prefix, rest)) = self.0.received.split_at_checked(PREFIX_BYTES) {
                assert_eq!(prefix[..5], [0xCA, 0xFE, 0xBA, 0xBE, 1]);
                let end = 2 + u32::from_be_bytes(*prefix.last_chunk().unwrap()) as usize;
                if let Some(message) = rest.get(..end) {
                    let kind = u16::from_be_bytes(*message.first_chunk().unwrap());
                    let payload = serde_json::from_slice(&message[2..]).unwrap_or_default();
                    self.0.received.drain(..PREFIX_BYTES + end);
                    return (kind, payload);
                }
            }
            assert!(self.0.more().await > 0, "the connection ended: {:?}", self.0.received);
        }
    }

    /// Reads a `closing` frame and the end of the connection.
    async fn closing(mut self) -> Value {
        let (kind, payload) = self.next().await;
        assert_eq!(kind, PackedType::Closing.number(), "{payload}");
        assert_eq!(self.0.rest().await, "");
        payload
    }
}

fn json_frame(kind: PackedType, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    put_frame(PackedFormat::Json, &[&kind.number().to_be_bytes(), payload].concat(), &mut frame);
    frame
}

#[tokio::test]
async fn frames_are_answered_however_they_arrive() {
    let fixture = ListenFixture::open();
    let request = json_frame(PackedType::Ping, br#"{"id":7}"#);
    for split in 1..request.len() {
        let mut client = JsonFrames::connect(&fixture).await;
        client.0.send(&request[..split]).await;
        client.0.send(&[&request[split..], &request[..]].concat()).await;
        for _ in 0..2 {
            let (kind, payload) = client.next().await;
            assert_eq!((kind, &payload["id"]), (PackedType::Pong.number(), &Value::from(7)), "{split}");
        }
    }
}

#[tokio::test]
async fn bytes_of_telnet_commands_stay_in_frames() {
    let fixture = ListenFixture::open();
    let mut client = JsonFrames::connect(&fixture).await;
    let mut frame = BytesMut::new();
    // IAC WILL ECHO in a type that does not exist.
    put_frame(PackedFormat::Json, &[0x7F, 0xFF, 0xFF, 0xFB, 0x01], &mut frame);
    client.0.send(&frame).await;
    let (kind, payload) = client.next().await;
    assert_eq!((kind, payload["code"].as_str()), (PackedType::Error.number(), Some("bad_request")), "{payload}");
    client.send(PackedType::Ping, b"").await;
    assert_eq!(client.next().await.0, PackedType::Pong.number());
}

#[tokio::test]
async fn broken_framing_closes_with_its_code() {
    let fixture = ListenFixture::open();
    let ping = json_frame(PackedType::Ping, b"");
    let prefixed = |rest: &[u8]| [&MAGIC, rest].concat();
    for (bytes, code) in [
        (prefixed(&[0]), 1002),
        (prefixed(&[9, 0, 0, 0, 0]), 1002),
        ([&ping[..], b"x"].concat(), 1002),
        ([&ping[..], &[0xCA, 0xFE, 0xBA, 0xBF]].concat(), 1002),
        ([&ping[..], &prefixed(&[2])].concat(), 1002),
        (prefixed(&[1, 0x00, 0x10, 0x00, 0x01]), 1009),
        ([&ping[..], &prefixed(&[1, 0xFF, 0xFF, 0xFF, 0xFF])].concat(), 1009),
    ] {
        let mut client = JsonFrames::connect(&fixture).await;
        client.0.send(&bytes).await;
        if bytes.starts_with(&ping) {
            assert_eq!(client.next().await.0, PackedType::Pong.number(), "{bytes:?}");
        }
        assert_eq!(client.closing().await["close_code"], code, "{bytes:?}");
    }
    fixture.permits_returned().await;
}

#[tokio::test]
async fn long_frame_is_refused_once_and_skipped() {
    let fixture = ListenFixture::open();
    let mut client = JsonFrames::connect(&fixture).await;
    for size in [REQUEST_BYTES_MAX + 1, DISCARDED_BYTES_MAX] {
        client.send(PackedType::Send, &vec![b'x'; size]).await;
        client.send(PackedType::Ping, b"").await;
        let (kind, payload) = client.next().await;
        assert_eq!((kind, payload["code"].as_str()), (PackedType::Error.number(), Some("too_large")), "{size}");
        assert_eq!(client.next().await.0, PackedType::Pong.number());
    }
    assert_eq!(fixture.state.begun.load(Ordering::SeqCst), 4, "one answer each");
}

#[tokio::test]
async fn frames_cut_by_the_end_are_no_requests() {
    let fixture = ListenFixture::open();
    let request = json_frame(PackedType::Ping, b"{}");
    for cut in 0..request.len() {
        let mut client = JsonFrames::connect(&fixture).await;
        client.0.send(&request).await;
        client.0.send(&request[..cut]).await;
        client.0.tcp.shutdown().await.unwrap();
        assert_eq!(client.next().await.0, PackedType::Pong.number(), "{cut}");
        assert_eq!(client.0.rest().await, "", "{cut}");
    }
    assert_eq!(fixture.state.begun.load(Ordering::SeqCst), request.len());
    fixture.permits_returned().await;
}

#[tokio::test]
async fn pings_are_heartbeats_that_need_no_reply() {
    let fixture = ListenFixture::open();
    let mut client = JsonFrames::connect(&fixture).await;
    client.send(PackedType::Ping, b"").await;
    client.next().await;
    fixture.outbox(0).push_ping();
    assert_eq!(client.next().await, (PackedType::Heartbeat.number(), Value::Null));
    let inputs = fixture.state.inputs.load(Ordering::SeqCst);
    client.send(PackedType::Heartbeat, b"").await;
    eventually("the heartbeat is noted", || fixture.state.inputs.load(Ordering::SeqCst) > inputs).await;
    client.send(PackedType::Heartbeat, b"{}").await;
    assert_eq!(client.next().await.1["code"], "unknown_type", "a heartbeat has no payload");
    client.send(PackedType::Ping, b"").await;
    assert_eq!(client.next().await.0, PackedType::Pong.number());
}

/// The client may continue in any version.
#[tokio::test]
async fn heartbeats_wait_for_the_version() {
    let fixture = ListenFixture::open();
    let mut client = RawClient::connect(fixture.tcp).await;
    let greeting = client.until("/help").await;
    client.send(&MAGIC).await;
    fixture.outbox(0).push_ping();
    client.send(&[3, 0, 0, 0, 0, 0, 14]).await;
    let pong = [&MAGIC[..], &[3, 0, 0, 0, 0, 1, 14]].concat();
    while !client.received.ends_with(&pong) {
        assert!(client.more().await > 0, "{greeting} {:?}", client.received);
    }
    // The ping may have come before the magic, and then it is text.
    let first = client.received.windows(4).position(|bytes| bytes == MAGIC).unwrap();
    assert_eq!(client.received[first..], pong, "{:?}", client.received);
}

#[tokio::test]
async fn batches_and_events_arrive_in_frames() {
    let fixture = ListenFixture::open();
    let mut client = JsonFrames::connect(&fixture).await;
    client.send(PackedType::Ping, b"").await;
    client.next().await;
    let outbox = fixture.outbox(0);
    outbox.push_event(&message("queued"));
    let batch = crate::outbound::outbox::FanOutBatch::new(vec![message("one"), message("two")]);
    outbox.push_batch(&batch, &AtomicBool::new(true));
    for text in ["queued", "one", "two"] {
        let (kind, payload) = client.next().await;
        assert_eq!((kind, payload["body"].as_str()), (PackedType::Message.number(), Some(text)));
    }
}

#[tokio::test]
async fn websocket_frames_of_the_other_kind_close() {
    let fixture = ListenFixture::open();
    for (offer, opcode, code) in [
        ("", 0x2, Some(1003)),
        ("Sec-WebSocket-Protocol: parley.v1\r\n", 0x2, Some(1003)),
        ("Sec-WebSocket-Protocol: parley.v1.msgpack\r\n", 0x1, Some(1003)),
        ("Sec-WebSocket-Protocol: parley.v1.protobuf\r\n", 0x1, Some(1003)),
        ("Sec-WebSocket-Protocol: parley.v1.protobuf\r\n", 0x2, None),
        ("Sec-WebSocket-Protocol: parley.v1.msgpack\r\n", 0x2, None),
    ] {
        let mut client = RawClient::connect(fixture.ws).await;
        client.send(upgrade_request(offer).as_bytes()).await;
        client.head().await;
        // A `ping` without fields, masked with zeros.
        client.send(&[0x80 | opcode, 0x82, 0, 0, 0, 0, 0, 14]).await;
        while client.received.len() < 4 {
            assert!(client.more().await > 0, "{offer}");
        }
        match code {
            Some(code) => {
                assert_eq!(client.received[..4], [0x88, client.received[1], 3, (code - 768) as u8], "{offer}")
            }
            None => assert_eq!(client.received[..1], [0x82], "{offer}"),
        }
        if code.is_none() {
            assert_eq!(client.received[2..4], PackedType::Pong.number().to_be_bytes(), "{offer}");
        }
    }
}
