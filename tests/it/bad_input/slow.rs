//! Slow and silent clients: each port has a deadline for each step, and closes a client that misses it.

#![expect(clippy::print_stderr, reason = "shows the figures of a run, with --nocapture")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Cluster, RawWs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::neighbours::Neighbours;
use super::resources::ProcessResources;

/// Clients of each kind.
const CLIENTS: usize = 24;
/// The deadline of the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// The deadline of a registration.
const REGISTER: Duration = Duration::from_secs(30);
/// The deadline of a body of the server API.
const BODY: Duration = Duration::from_secs(5);
/// Time above a deadline, on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(8);

/// A port, the first bytes, the byte of each second, the deadline, and the start of the last line of the answer.
type SlowRow = (SocketAddr, &'static [u8], Option<u8>, Duration, &'static str);

/// Sends bytes, then one byte a second of `drip`. Returns all that is answered, and the time until the end.
async fn slow_client(target: SocketAddr, bytes: &[u8], drip: Option<u8>) -> (String, Duration) {
    let began = Instant::now();
    let (mut input, mut output) = TcpStream::connect(target).await.unwrap().into_split();
    output.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let dripping = async {
        let mut pace = interval(Duration::from_secs(1));
        while let Some(byte) = drip {
            pace.tick().await;
            if output.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = input.read_to_end(&mut answer) => {}
        () = dripping => {}
    }
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_closed_at_their_deadlines() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    let neighbours = Neighbours::open(&cluster.gateways[0]).await;
    neighbours.chat("before").await;
    let pid = cluster.gateways[0].process().pid();
    let (gateway, presence) = (&cluster.gateways[0], &cluster.presence[0]);
    let before = ProcessResources::of(gateway, pid, cluster.redis.address()).await;
    let unfinished = b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: ";
    let body = b"POST /v1/users/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let rows: [SlowRow; 7] = [
        (gateway.ws(), b"", None, HEAD, ""),
        (gateway.ws(), unfinished, None, HEAD, ""),
        (gateway.ws(), unfinished, Some(b'x'), HEAD, ""),
        (presence.api(), unfinished, Some(b'x'), HEAD, ""),
        (presence.api(), body, Some(b' '), BODY, "{\"code\":\"bad_request\""),
        (gateway.tcp(), b"", None, REGISTER, "* closing: register_timeout"),
        (gateway.tcp(), b"/nick ann", Some(b'n'), REGISTER, "* closing: register_timeout"),
    ];
    let clients = rows.iter().flat_map(|row| (0..CLIENTS).map(move |_| row)).map(async |row| {
        let (target, bytes, drip, deadline, last) = row;
        let ended = timeout(*deadline + LATE_MAX, slow_client(*target, bytes, *drip)).await;
        let (answer, took) =
            ended.unwrap_or_else(|_| panic!("{target} never closes {}, {drip:?}", bytes.escape_ascii()));
        let found = answer.lines().last().unwrap_or_default();
        assert!(found.starts_with(last) && (last.is_empty() == found.is_empty()), "{}: {answer}", bytes.escape_ascii());
        assert!(took + Duration::from_millis(500) >= *deadline, "{} ended after {took:?}", bytes.escape_ascii());
    });
    let silent = (0..CLIENTS).map(async |_| {
        let mut socket = RawWs::connect(gateway.ws()).await;
        while let Some(frame) = timeout(REGISTER + LATE_MAX, socket.next_in_time()).await.expect("an end") {
            assert!(frame.opcode != 8 || frame.payload == b"\x0F\xA1register_timeout", "{frame:?}");
        }
    });
    let (over, is_over) = watch::channel(false);
    let slow = async {
        tokio::join!(join_all(clients), join_all(silent));
        over.send(true).unwrap();
    };
    let ((), slowest) = tokio::join!(slow, neighbours.chat_until(is_over));
    eprintln!("p99 of a neighbour of slow clients {slowest:?}");
    neighbours.assert_undisturbed();
    before.until_released(gateway, pid, cluster.redis.address()).await;
    drop(neighbours);
    cluster.finish().await;
}
