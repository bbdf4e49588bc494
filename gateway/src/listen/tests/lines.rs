//! Text lines on a plain TCP socket.

use super::*;

use crate::wire::{DISCARDED_BYTES_MAX, REQUEST_BYTES_MAX};

#[tokio::test]
async fn everything_piped_in_before_the_end_of_input_is_answered() {
    let world = ListenFixture::open();
    let mut client = Wire::connect(world.tcp).await;
    client.send(b"/ping\n/ping\r\n/ping\nand half a li").await;
    client.tcp.shutdown().await.unwrap();
    let said = client.rest().await;
    assert_eq!(said.matches("pong").count(), 3, "{said:?}");
    assert_eq!(world.stage.begun.load(Ordering::SeqCst), 3, "the unfinished line is no request");
    world.ended_as(&[LeftReason::Closed]).await;
    world.empty().await;
}

#[tokio::test]
async fn quit_says_so_and_hangs_up() {
    let world = ListenFixture::open();
    let mut client = world.line_client().await;
    client.send(b"/quit\n").await;
    assert!(client.rest().await.ends_with("* closing: bye\n"));
    world.ended_as(&[LeftReason::Closed]).await;
    world.empty().await;
}

#[tokio::test]
async fn a_long_line_is_refused_once_and_skipped_to_its_end() {
    let world = ListenFixture::open();
    let mut client = world.line_client().await;
    for size in [REQUEST_BYTES_MAX + 1, 2 * DISCARDED_BYTES_MAX] {
        client.send(&vec![b'x'; size]).await;
        client.send(b"\n/ping\n").await;
        let said = client.until("pong").await;
        assert_eq!((said.matches("! too_large: ").count(), said.lines().count()), (1, 2), "{said:?}");
    }
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_refused_and_the_connection_lives() {
    let world = ListenFixture::open();
    let mut client = world.line_client().await;
    client.send(b"caf\xE9\n/ping\n").await;
    let said = client.until("pong").await;
    assert!(said.starts_with("! bad_request: "), "{said:?}");
}

#[tokio::test]
async fn binary_frames_are_refused_with_a_line() {
    let world = ListenFixture::open();
    let mut client = Wire::connect(world.tcp).await;
    client.send(&[0xCA, 0xFE, 0xBA, 0xBE, 1, 0, 0, 0, 0, 0, 1]).await;
    let said = client.rest().await;
    assert_eq!(said.matches("! bad_request: ").count(), 1, "{said:?}");
    assert!(said.ends_with("* closing: unsupported_data\n"), "{said:?}");
    world.empty().await;
}

#[tokio::test]
async fn lines_may_come_one_byte_at_a_time() {
    let world = ListenFixture::open();
    let mut client = world.line_client().await;
    for byte in b"/ping\r\n" {
        client.send(&[*byte]).await;
    }
    client.until("pong").await;
}

#[tokio::test]
async fn there_are_no_pings_on_lines_and_events_come_as_they_are() {
    let world = ListenFixture::open();
    let mut client = world.line_client().await;
    world.outbox(0).push_ping();
    for number in 0..200 {
        world.outbox(0).push_event(&message(&format!("nr {number}")));
    }
    let said = client.until("nr 199").await;
    let expected: Vec<String> = (0..200).map(|number| format!("[#lobby] <ann> nr {number}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_dead_are_found_by_keepalive_since_nobody_is_asked_to_type() {
    let world = ListenFixture::open();
    let _client = world.line_client().await;
    // What the kernel reports about our end of the connection: a keepalive timer runs.
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X} ", world.tcp.port());
    let ours = sockets.lines().find(|line| {
        line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(local.trim())) && line.contains(" 01 ")
    });
    let timer = ours.unwrap().split_whitespace().nth(5).unwrap();
    assert!(timer.starts_with("02:"), "no keepalive timer: {timer}");
}
