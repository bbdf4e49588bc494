//! The framing on a real stream: what it holds, and that a future may be dropped anywhere.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::compare::LIMITS;
use super::frame::{FrameEvent, FrameSocket, SocketEnd};
use super::masked;

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
async fn nothing_is_held_between_messages() {
    let mut handshake = BytesMut::with_capacity(8192);
    handshake.extend_from_slice(&masked(0x81, b"early"));
    let (mut socket, mut client) = connected(handshake).await;
    assert_eq!(text(&mut socket).await, "early");
    assert_eq!(socket.held(), 0, "the buffer of the handshake");
    assert_eq!(connected(BytesMut::with_capacity(8192)).await.0.held(), 0, "the empty buffer of the handshake");
    let many: Vec<u8> = (0..100).flat_map(|i| masked(0x81, format!("message {i}").as_bytes())).collect();
    client.write_all(&many).await.unwrap();
    for i in 0..100 {
        assert_eq!(text(&mut socket).await, format!("message {i}"));
    }
    assert_eq!(socket.held(), 0, "what one read brought");
    socket.output().text(Bytes::from_static(b"out"));
    timeout(PATIENCE, socket.flush()).await.unwrap().unwrap();
    assert_eq!(socket.held(), 0, "what went out");
}

#[tokio::test]
async fn every_frame_is_a_turn_of_its_own() {
    const FRAGMENTS: usize = 5000;
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    client.write_all(&masked(0x01, b"")).await.unwrap();
    client.write_all(&masked(0x00, b"").repeat(FRAGMENTS)).await.unwrap();
    client.write_all(&masked(0x80, b"")).await.unwrap();
    for turn in 0..=FRAGMENTS {
        let decode = |event: FrameEvent<'_>| assert_eq!(event, FrameEvent::Fragment, "turn {turn}");
        timeout(PATIENCE, socket.next(decode)).await.unwrap().unwrap();
    }
    assert_eq!(text(&mut socket).await, "");
}

#[tokio::test]
async fn a_wait_for_input_may_be_dropped_anywhere() {
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    let message = masked(0x81, b"bit by bit");
    let (last, first) = message.split_last().unwrap();
    for byte in first {
        client.write_all(&[*byte]).await.unwrap();
        let dropped = timeout(Duration::from_millis(1), socket.next(|_| ())).await;
        assert!(dropped.is_err(), "a message before its end");
    }
    client.write_all(&[*last]).await.unwrap();
    assert_eq!(text(&mut socket).await, "bit by bit");
    assert_eq!(socket.held(), 0);
}

#[tokio::test]
async fn a_flush_may_be_dropped_anywhere_and_the_next_one_goes_on() {
    const SIZE: usize = 100_000;
    const MESSAGES: usize = 200;
    let (mut socket, mut client) = connected(BytesMut::new()).await;
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        seen
    });
    for i in 0..MESSAGES {
        socket.output().binary(vec![i as u8; SIZE].into());
        let _ = socket.flush().now_or_never();
    }
    timeout(PATIENCE, socket.close(None)).await.unwrap();
    let seen = timeout(PATIENCE, reading).await.unwrap().unwrap();
    let expected: Vec<u8> =
        (0..MESSAGES).flat_map(|i| [&[0x82, 127], &SIZE.to_be_bytes()[..], &[i as u8; SIZE]].concat()).collect();
    assert!(seen == expected, "{} bytes of {} came", seen.len(), expected.len());
}

#[tokio::test]
async fn an_end_without_a_close_frame_is_just_an_end() {
    let (mut socket, client) = connected(BytesMut::new()).await;
    drop(client);
    assert_eq!(timeout(PATIENCE, socket.next(|_| ())).await.unwrap(), Err(SocketEnd::Gone));
}
