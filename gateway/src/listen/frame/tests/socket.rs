//! The framing on a TCP stream: buffered bytes, and futures dropped at any point.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::compare::LIMITS;
use super::frame::{FrameEvent, FrameSocket, SocketEnd};
use super::masked_frame;

const PATIENCE: Duration = Duration::from_secs(10);

async fn connected(unread: BytesMut) -> (FrameSocket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (FrameSocket::new(listener.accept().await.unwrap().0, unread, LIMITS), client)
}

async fn text(socket: &mut FrameSocket) -> String {
    let decode = |event: FrameEvent<'_>| match event {
        FrameEvent::Text(text) => text.into_owned(),
        other => panic!("{other:?}"),
    };
    timeout(PATIENCE, socket.next(decode)).await.unwrap().unwrap()
}

#[tokio::test]
async fn socket_holds_no_bytes_between_messages() {
    let mut handshake = BytesMut::with_capacity(8192);
    handshake.extend_from_slice(&masked_frame(0x81, b"early"));
    let (mut socket, mut client) = connected(handshake).await;
    assert_eq!(text(&mut socket).await, "early");
    assert_eq!(socket.held(), 0, "the handshake buffer is still held");
    assert_eq!(connected(BytesMut::with_capacity(8192)).await.0.held(), 0, "the empty handshake buffer is still held");
    let many: Vec<u8> = (0..100).flat_map(|i| masked_frame(0x81, format!("message {i}").as_bytes())).collect();
    client.write_all(&many).await.unwrap();
    for i in 0..100 {
        assert_eq!(text(&mut socket).await, format!("message {i}"));
    }
    assert_eq!(socket.held(), 0, "received bytes are still held");
    socket.output().text(Bytes::from_static(b"out"));
    timeout(PATIENCE, socket.flush()).await.unwrap().unwrap();
    assert_eq!(socket.held(), 0, "sent bytes are still held");
}

#[tokio::test]
async fn socket_returns_after_every_fragment() {
    const FRAGMENTS: usize = 5000;
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    client.write_all(&masked_frame(0x01, b"")).await.unwrap();
    client.write_all(&masked_frame(0x00, b"").repeat(FRAGMENTS)).await.unwrap();
    client.write_all(&masked_frame(0x80, b"")).await.unwrap();
    for fragment in 0..=FRAGMENTS {
        let decode = |event: FrameEvent<'_>| assert_eq!(event, FrameEvent::Fragment, "fragment {fragment}");
        timeout(PATIENCE, socket.next(decode)).await.unwrap().unwrap();
    }
    assert_eq!(text(&mut socket).await, "");
}

#[tokio::test]
async fn dropped_read_keeps_the_partial_message() {
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    let message = masked_frame(0x81, b"bit by bit");
    let (last, first) = message.split_last().unwrap();
    for byte in first {
        client.write_all(&[*byte]).await.unwrap();
        let dropped = timeout(Duration::from_millis(1), socket.next(|_| ())).await;
        assert!(dropped.is_err(), "an incomplete message was returned");
    }
    client.write_all(&[*last]).await.unwrap();
    assert_eq!(text(&mut socket).await, "bit by bit");
    assert_eq!(socket.held(), 0);
}

#[tokio::test]
async fn next_flush_continues_a_dropped_flush() {
    const MESSAGE_BYTES: usize = 100_000;
    const MESSAGES: usize = 200;
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        received
    });
    for i in 0..MESSAGES {
        socket.output().binary(vec![i as u8; MESSAGE_BYTES].into());
        let _ = socket.flush().now_or_never();
    }
    timeout(PATIENCE, socket.close(None)).await.unwrap();
    let received = timeout(PATIENCE, reader).await.unwrap().unwrap();
    let expected: Vec<u8> = (0..MESSAGES)
        .flat_map(|i| [&[0x82, 127], &MESSAGE_BYTES.to_be_bytes()[..], &[i as u8; MESSAGE_BYTES]].concat())
        .collect();
    assert!(received == expected, "received {} bytes of {}", received.len(), expected.len());
}

#[tokio::test]
async fn socket_reports_end_without_close_frame() {
    let (mut socket, client) = connected(BytesMut::new()).await;
    drop(client);
    assert_eq!(timeout(PATIENCE, socket.next(|_| ())).await.unwrap(), Err(SocketEnd::Gone));
}
