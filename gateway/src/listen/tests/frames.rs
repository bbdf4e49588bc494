//! RFC 6455 over a socket: answers to frames, and the close code of each violation.

use super::*;

use crate::wire::{DISCARDED_BYTES_MAX, REQUEST_BYTES_MAX};

fn header_without_payload(first: u8, length_bytes: &[u8]) -> Vec<u8> {
    let mut header = vec![first];
    header.extend(length_bytes);
    header.extend([1, 2, 3, 4]);
    header
}

#[tokio::test]
async fn forbidden_frames_close_with_the_rfc_code() {
    let fixture = ListenFixture::open();
    let mut control = fixture.websocket().await;
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("unmasked", vec![0x81, 0x02, b'h', b'i'], 1002),
        ("reserved bit 1", frame(0xC1, b"{}"), 1002),
        ("reserved bit 2", frame(0xA1, b"{}"), 1002),
        ("reserved bit 3", frame(0x91, b"{}"), 1002),
        ("opcode 3", frame(0x83, b""), 1002),
        ("opcode 7", frame(0x87, b""), 1002),
        ("opcode 11", frame(0x8B, b""), 1002),
        ("opcode 15", frame(0x8F, b""), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("fragmented close", frame(0x08, &[0x03, 0xE8]), 1002),
        ("ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("pong of 126 bytes", frame(0x8A, &[0; 126]), 1002),
        ("continuation first", frame(0x80, b"x"), 1002),
        ("text inside a fragmented text", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002),
        ("binary", frame(0x82, b"x"), 1003),
        ("fragmented binary", [frame(0x02, b"x"), frame(0x80, b"y")].concat(), 1003),
        ("not UTF-8", frame(0x81, &[0xC3, 0x28]), 1007),
        ("overlong UTF-8", frame(0x81, &[0xC0, 0xAF]), 1007),
        ("surrogate", frame(0x81, &[0xED, 0xA0, 0x80]), 1007),
        ("beyond U+10FFFF", frame(0x81, &[0xF4, 0x90, 0x80, 0x80]), 1007),
        ("UTF-8 that stops in the middle", frame(0x81, &[0xE2, 0x82]), 1007),
        ("UTF-8 broken across fragments", [frame(0x01, &[0xE2]), frame(0x80, &[0x28, 0xA1])].concat(), 1007),
        ("UTF-8 fragments that stop in the middle", [frame(0x01, b"a"), frame(0x80, &[0xE2])].concat(), 1007),
        (
            "2^63 - 1 bytes announced",
            header_without_payload(0x81, &[0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255]),
            1009,
        ),
        (
            "2^64 - 1 bytes announced",
            header_without_payload(0x81, &[0xFF, 255, 255, 255, 255, 255, 255, 255, 255]),
            1002,
        ),
        ("over the hard limit", frame(0x81, &vec![b' '; DISCARDED_BYTES_MAX + 1]), 1009),
        (
            "over the hard limit in fragments",
            [frame(0x01, &vec![b' '; DISCARDED_BYTES_MAX / 2 + 1]), frame(0x80, &vec![b' '; DISCARDED_BYTES_MAX / 2])]
                .concat(),
            1009,
        ),
        ("close of 1 byte", frame(0x88, &[3]), 1002),
        ("close 999", frame(0x88, &999u16.to_be_bytes()), 1002),
        ("close 1004", frame(0x88, &1004u16.to_be_bytes()), 1002),
        ("close 1005", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("close 1006", frame(0x88, &1006u16.to_be_bytes()), 1002),
        ("close 1015", frame(0x88, &1015u16.to_be_bytes()), 1002),
        ("close 2999", frame(0x88, &2999u16.to_be_bytes()), 1002),
        ("close 65535", frame(0x88, &65535u16.to_be_bytes()), 1002),
        ("close with a reason of 124 bytes", frame(0x88, &[[0x03, 0xE8].as_slice(), &[b'x'; 124]].concat()), 1002),
        ("close with a reason that is not UTF-8", frame(0x88, &[0x03, 0xE8, 0xFF]), 1007),
    ];
    for (label, bytes, expected) in rows {
        let mut client = fixture.websocket().await;
        client.0.send(bytes).await;
        let (code, _) = client.closed().await;
        assert_eq!(code, *expected, "{label}");
        control.assert_alive().await;
    }
    fixture.assert_left_reasons(&vec![LeftReason::Closed; rows.len()]).await;
}

#[tokio::test]
async fn gateway_answers_close_with_the_same_code() {
    let fixture = ListenFixture::open();
    for code in [1000u16, 1001, 1012, 3000, 4999] {
        let mut client = fixture.websocket().await;
        client.0.send(&frame(0x88, &code.to_be_bytes())).await;
        assert_eq!(client.closed().await.0, code);
    }
    let mut client = fixture.websocket().await;
    client.0.send(&frame(0x88, b"")).await;
    assert_eq!(client.closed().await.0, 1005, "the answer to a close without a code carries no code");
    fixture.assert_left_reasons(&[LeftReason::Closed; 6]).await;
    let (done, gone) = (ConnectionEnd::Goodbye, ConnectionEnd::Gone);
    assert_eq!(
        fixture.endings(),
        [done, gone, gone, gone, gone, done],
        "only 1000 or a missing code counts as a goodbye"
    );
    fixture.permits_returned().await;
}

#[tokio::test]
async fn gateway_close_carries_code_and_awaits_answer() {
    let fixture = ListenFixture::with(ConnectionLimits { close_wait: PATIENCE * 10, ..limits() }, None);
    let mut client = fixture.websocket().await;
    client.send(r#"{"type":"bye"}"#).await;
    assert_eq!(client.frame().await.unwrap(), (0x88, [&1000u16.to_be_bytes(), b"bye".as_slice()].concat()));
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    client.0.send(&frame(0x88, &1000u16.to_be_bytes())).await;
    assert_eq!(client.frame().await, None);
    drop(client);
    fixture.permits_returned().await;
}

#[tokio::test]
async fn gateway_drops_client_that_ignores_its_close() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    fixture.outbox(0).close(CloseCode::Kicked);
    assert_eq!(client.frame().await.unwrap().0, 0x88);
    fixture.assert_left_reasons(&[LeftReason::Kicked]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn oversized_frame_is_refused_and_connection_continues() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    for size in [REQUEST_BYTES_MAX + 1, DISCARDED_BYTES_MAX] {
        client.0.send(&frame(0x81, &vec![b' '; size])).await;
        assert!(client.text().await.contains(r#""code":"too_large""#));
        client.assert_alive().await;
    }
    client.0.send(&frame(0x81, &vec![b' '; REQUEST_BYTES_MAX])).await;
    assert!(client.text().await.contains(r#""code":"bad_request""#), "a frame at the limit was not decoded");
}

#[tokio::test]
async fn close_code_reaches_client_that_keeps_sending() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.0.send(&frame(0x81, &vec![b' '; 4 * DISCARDED_BYTES_MAX])).await;
    assert_eq!(client.closed().await, (1009, "too_big".to_owned()));
}

#[tokio::test]
async fn fragmented_text_allows_pings_between_fragments() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    let body = r#"{"type":"ping","id":"é"}"#.as_bytes();
    let cut = body.iter().position(|&b| b == 0xC3).unwrap() + 1;
    client.0.send(&frame(0x01, &body[..cut])).await;
    client.0.send(&frame(0x89, b"there?")).await;
    assert_eq!(client.frame().await.unwrap(), (0x8A, b"there?".to_vec()));
    client.0.send(&frame(0x00, b"")).await;
    client.0.send(&frame(0x80, &body[cut..])).await;
    assert_eq!(client.text().await, r#"{"type":"pong","id":"é"}"#);
}

#[tokio::test]
async fn reader_accepts_frames_sent_bytewise() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    for byte in frame(0x81, br#"{"type":"ping","id":1}"#) {
        client.0.send(&[byte]).await;
    }
    assert_eq!(client.text().await, r#"{"type":"pong","id":1}"#);
}

#[tokio::test]
async fn pings_and_pongs_count_as_input() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.0.send(&frame(0x89, b"")).await;
    assert_eq!(client.frame().await.unwrap(), (0x8A, Vec::new()));
    client.0.send(&frame(0x8A, b"")).await;
    eventually("both frames counted as input", || fixture.state.inputs.load(Ordering::SeqCst) == 2).await;
    assert_eq!(fixture.state.begun.load(Ordering::SeqCst), 0, "a control frame counted as a request");
}

#[tokio::test]
async fn session_ping_sends_a_ping_frame() {
    let fixture = ListenFixture::with(limits(), Some((Duration::from_millis(20), |outbox| outbox.push_ping())));
    let mut client = fixture.websocket().await;
    assert_eq!(client.frame().await.unwrap(), (0x89, Vec::new()));
    client.assert_alive().await;
}

#[tokio::test]
async fn closed_socket_ends_its_session() {
    let fixture = ListenFixture::open();
    drop(fixture.websocket().await);
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn tungstenite_client_completes_a_whole_session() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let fixture = ListenFixture::open();
    let tcp = TcpStream::connect(fixture.ws).await.unwrap();
    let (mut client, _) = soon(tokio_tungstenite::client_async("ws://parley/ws", tcp)).await.unwrap();
    client.send(Message::text(r#"{"type":"ping","id":1}"#)).await.unwrap();
    assert_eq!(soon(client.next()).await.unwrap().unwrap(), Message::text(r#"{"type":"pong","id":1}"#));
    client.send(Message::text(r#"{"type":"bye","id":2}"#)).await.unwrap();
    let Message::Close(Some(close)) = soon(client.next()).await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1000, "bye"));
    assert!(soon(client.next()).await.is_none(), "the connection stayed open after the close handshake");
    fixture.permits_returned().await;
}
