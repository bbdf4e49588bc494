//! The line protocol on a plain TCP socket.

use super::*;

use crate::wire::{DISCARDED_BYTES_MAX, REQUEST_BYTES_MAX};

#[tokio::test]
async fn gateway_answers_all_lines_before_end_of_input() {
    let fixture = ListenFixture::open();
    let mut client = RawClient::connect(fixture.tcp).await;
    client.send(b"/ping\n/ping\r\n/ping\n/ping").await;
    client.tcp.shutdown().await.unwrap();
    let output = client.rest().await;
    assert_eq!(output.matches("pong").count(), 4, "{output:?}");
    assert_eq!(fixture.state.begun.load(Ordering::SeqCst), 4, "the last line ends with the input");
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn quit_announces_and_closes_the_connection() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    client.send(b"/quit\n").await;
    assert!(client.rest().await.ends_with("* closing: bye\n"));
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn long_line_is_refused_once_and_skipped() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    for size in [REQUEST_BYTES_MAX + 1, 2 * DISCARDED_BYTES_MAX] {
        client.send(&vec![b'x'; size]).await;
        client.send(b"\n/ping\n").await;
        let output = client.until("pong").await;
        assert_eq!((output.matches("! too_large: ").count(), output.lines().count()), (1, 2), "{output:?}");
    }
}

#[tokio::test]
async fn invalid_utf8_line_is_refused_and_connection_continues() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    client.send(b"caf\xE9\n/ping\n").await;
    let output = client.until("pong").await;
    assert!(output.starts_with("! bad_request: "), "{output:?}");
}

#[tokio::test]
async fn reader_accepts_lines_sent_bytewise() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    for byte in b"/ping\r\n" {
        client.send(&[*byte]).await;
    }
    client.until("pong").await;
}

#[tokio::test]
async fn line_client_receives_signs_and_events() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    fixture.outbox(0).push_ping();
    for number in 0..200 {
        fixture.outbox(0).push_event(&message(&format!("nr {number}")));
    }
    let output = client.until("nr 199").await;
    let events = (0..200).map(|number| format!("[#lobby] <ann> nr {number}"));
    let expected: Vec<String> = std::iter::once("* still connected".to_owned()).chain(events).collect();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn line_connection_runs_a_keepalive_timer() {
    let fixture = ListenFixture::open();
    let _client = fixture.line_client().await;
    // The kernel lists a running keepalive timer for the gateway's end of the connection.
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X} ", fixture.tcp.port());
    let ours = sockets.lines().find(|line| {
        line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(local.trim())) && line.contains(" 01 ")
    });
    let timer = ours.unwrap().split_whitespace().nth(5).unwrap();
    assert!(timer.starts_with("02:"), "no keepalive timer: {timer}");
}

#[tokio::test]
async fn interrupt_of_telnet_leaves_the_next_command_intact() {
    let fixture = ListenFixture::open();
    let mut client = fixture.line_client().await;
    client.send(b"\xFF\xF4\xFF\xFD\x06").await;
    let mut answer = [0; 3];
    soon(client.tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, *b"\xFF\xFC\x06", "no WONT TIMING-MARK");
    client.send(b"/ping\r\n").await;
    let output = client.until("pong").await;
    assert_eq!(output.lines().count(), 1, "{output:?}");
}
