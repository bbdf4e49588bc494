//! Clients that stop reading, flood or disconnect during a request, and a process without free descriptors.

use super::super::permits::{PARTIAL_BYTES_FREE, PARTIAL_BYTES_MAX};
use super::*;

/// Queues messages until the connection is closed.
/// Returns the bytes accepted by outbox, transport and kernel together.
pub(super) async fn flood(outbox: &Outbox) -> usize {
    const MESSAGE_BYTES: usize = 32 * 1024;
    let text = message(&"x".repeat(MESSAGE_BYTES));
    let start = Instant::now();
    let mut accepted = 0;
    while outbox.close_code().is_none() {
        assert!(start.elapsed() < PATIENCE, "the stalled reader was never closed as slow");
        outbox.push_event(&text);
        accepted += MESSAGE_BYTES;
        tokio::task::yield_now().await;
    }
    accepted
}

#[tokio::test]
async fn pipelined_requests_receive_answers_in_order() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    let sent: Vec<u8> =
        (0..500u32).flat_map(|id| frame(0x81, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes())).collect();
    client.0.send(&sent).await;
    for id in 0..500 {
        assert_eq!(client.text().await, format!(r#"{{"type":"pong","id":{id}}}"#));
    }
}

#[tokio::test]
async fn output_continues_while_a_request_runs() {
    let fixture = ListenFixture::open();
    let mut ws = fixture.websocket().await;
    let mut line = fixture.line_client().await;
    ws.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    ws.send_ping(2).await;
    line.send(b"/nick bob\n").await;
    eventually("the requests started", || fixture.state.begun.load(Ordering::SeqCst) == 3).await;
    fixture.outbox(0).push_event(&message("meanwhile"));
    fixture.outbox(1).push_event(&message("meanwhile"));
    assert!(ws.text().await.contains("meanwhile"));
    line.until("meanwhile").await;
    fixture.state.gate.add_permits(2);
    assert_eq!(ws.text().await, r#"{"type":"pong","id":1}"#);
    assert_eq!(ws.text().await, r#"{"type":"pong","id":2}"#);
    line.until("pong").await;
}

#[tokio::test]
async fn request_completes_after_its_client_disconnects() {
    let fixture = ListenFixture::open();
    for reset in [false, true] {
        let before = fixture.finished();
        let mut client = fixture.websocket().await;
        client.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
        eventually("the request started", || fixture.state.begun.load(Ordering::SeqCst) == before + 1).await;
        if reset {
            client.0.tcp.set_zero_linger().unwrap();
        }
        drop(client);
        let session = fixture.state.outboxes.lock().unwrap().len() - 1;
        for _ in 0..10 {
            fixture.outbox(session).push_event(&message("unread"));
            tokio::task::yield_now().await;
        }
        assert_eq!(fixture.finished(), before);
        fixture.state.gate.add_permits(1);
        eventually("the request finished", || fixture.finished() == before + 1).await;
    }
    fixture.assert_left_reasons(&[LeftReason::Closed; 2]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn request_that_waits_for_space_ends_with_connection() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.send(r#"{"type":"rooms","id":1}"#).await;
    eventually("the request started", || fixture.state.begun.load(Ordering::SeqCst) == 1).await;
    let outbox = fixture.outbox(0);
    outbox.push_event(&message(&"x".repeat(SLOW_READER.burst_bytes_max / 2)));
    eventually("the transport writes", || outbox.queued_bytes() == 0).await;
    outbox.push_event(&message(&"x".repeat(2 * SLOW_READER.droppable_bytes_max)));
    fixture.state.gate.add_permits(1);
    client.0.tcp.set_zero_linger().unwrap();
    drop(client);
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn slow_reader_receives_its_close_code() {
    let fixture = ListenFixture::with(ConnectionLimits { close_wait: PATIENCE / 4, ..limits() }, None);
    let client = fixture.websocket().await;
    let line = fixture.line_client().await;
    flood(&fixture.outbox(0)).await;
    flood(&fixture.outbox(1)).await;
    assert_eq!(client.closed().await, (4002, "slow_consumer".to_owned()));
    assert!(line.rest().await.ends_with("\n* closing: slow_consumer\n"));
    fixture.assert_left_reasons(&[LeftReason::Closed; 2]).await;
}

#[tokio::test]
async fn stalled_reader_is_dropped_without_delaying_others() {
    let fixture = ListenFixture::open();
    let mut healthy = fixture.websocket().await;
    let stalled_ws = fixture.websocket().await;
    let stalled_line = fixture.line_client().await;
    let (ws, line) = (fixture.outbox(1), fixture.outbox(2));
    let worst = async {
        let mut worst = Duration::ZERO;
        while fixture.left_reasons().len() < 2 {
            let start = Instant::now();
            healthy.assert_alive().await;
            worst = worst.max(start.elapsed());
        }
        worst
    };
    let (worst, ws_took, line_took) = soon(async { tokio::join!(worst, flood(&ws), flood(&line)) }).await;
    let bound = SLOW_READER.burst_bytes_max + 2 * 1024 * 1024;
    assert!(ws_took.max(line_took) < bound, "stalled readers buffered {ws_took} and {line_took} bytes");
    assert!(worst < Duration::from_millis(500), "another client waited {worst:?}");
    assert_eq!((ws.close_code(), line.close_code()), (Some(CloseCode::Slow), Some(CloseCode::Slow)));
    eventually("the stalled connections closed", || {
        fixture.metrics.open(ListenerKind::Ws) == 1 && fixture.metrics.open(ListenerKind::Tcp) == 0
    })
    .await;
    drop((stalled_ws, stalled_line));
}

#[tokio::test]
async fn stalled_write_times_out_with_small_outbox() {
    let fixture = ListenFixture::with(ConnectionLimits { write_stall: Duration::from_millis(300), ..limits() }, None);
    let _client = fixture.websocket().await;
    let outbox = fixture.outbox(0);
    let text = message(&"x".repeat(32 * 1024));
    // The outbox stays below its limit, so only the socket stalls.
    let start = Instant::now();
    while fixture.left_reasons().is_empty() {
        assert!(start.elapsed() < PATIENCE, "the stalled write never timed out");
        assert_eq!(outbox.close_code(), None);
        outbox.push_event(&text);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    fixture.permits_returned().await;
}

#[tokio::test]
async fn ping_flood_without_reading_ends_connection() {
    let fixture = ListenFixture::with(ConnectionLimits { write_stall: Duration::from_millis(300), ..limits() }, None);
    let mut client = fixture.websocket().await;
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    let flood = async { while client.0.tcp.write_all(&pings).await.is_ok() {} };
    soon(flood).await;
    fixture.assert_left_reasons(&[LeftReason::Closed]).await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn flooding_client_does_not_delay_other_clients() {
    let fixture = ListenFixture::open();
    let (pongs, mut fragments) = (fixture.websocket().await, fixture.websocket().await);
    fragments.0.send(&frame(0x01, b"")).await;
    // Input that needs no answer, so only reading it costs time.
    for (label, client, flood) in [
        ("lines", RawClient::connect(fixture.tcp).await, vec![b'\n'; 64 * 1024]),
        ("pongs", pongs.0, frame(0x8A, b"").repeat(10_000)),
        ("fragments", fragments.0, frame(0x00, b"").repeat(10_000)),
    ] {
        let wait = mean_answer_time(&fixture, client, flood).await;
        assert!(wait < Duration::from_millis(50), "{label}: another client waited {wait:?}");
    }
    fixture.drain(Duration::ZERO, Duration::ZERO);
    fixture.permits_returned().await;
}

#[tokio::test]
async fn pipelined_requests_take_turns_with_neighbours() {
    const BEHIND_GATE: usize = 100;
    let fixture = ListenFixture::open();
    let mut clients = Vec::new();
    // One neighbour is woken before the client that pipelines, one after it.
    for (session, requests) in [1, BEHIND_GATE, 1].into_iter().enumerate() {
        let mut client = fixture.line_client().await;
        let before = fixture.finished();
        client.send(format!("/nick n{session}\n{}", "/ping\n".repeat(requests)).as_bytes()).await;
        eventually("its first request waits", || fixture.state.begun.load(Ordering::SeqCst) > before + session).await;
        clients.push(client);
    }
    let before = fixture.finished();
    fixture.state.gate.add_permits(clients.len());
    eventually("all requests finished", || fixture.finished() == before + clients.len() + BEHIND_GATE + 2).await;
    let order = fixture.state.finished.lock().unwrap()[before..].to_vec();
    let turns_before = |neighbour| {
        let last = order.iter().rposition(|&session| session == neighbour).unwrap();
        order[..last].iter().filter(|&&session| session == 1).count()
    };
    let waited = turns_before(0).max(turns_before(2));
    assert!(waited <= 4, "a neighbour waited for {waited} requests of another client: {order:?}");
}

/// Returns the mean answer time of another client while one client floods.
/// A single answer may be late on a busy machine.
async fn mean_answer_time(fixture: &ListenFixture, client: RawClient, flood: Vec<u8>) -> Duration {
    let mut healthy = fixture.websocket().await;
    let mut hostile = client.tcp.into_std().unwrap();
    hostile.set_nonblocking(false).unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) && hostile.write_all(&flood).is_ok() {}
    });
    let (start, mut answers) = (Instant::now(), 0);
    while answers == 0 || !sender.is_finished() {
        healthy.assert_alive().await;
        answers += 1;
    }
    start.elapsed() / answers
}

const DESCRIPTOR_TEST: &str = "listen::tests::pressure::listeners_resume_after_running_out_of_descriptors";

/// Runs again in its own process with few descriptors and no other test.
#[tokio::test]
async fn listeners_resume_after_running_out_of_descriptors() {
    if std::env::var_os("PARLEY_TEST_FEW_DESCRIPTORS").is_none() {
        let limited = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(DESCRIPTOR_TEST)
            .env("PARLEY_TEST_FEW_DESCRIPTORS", "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&limited.stdout);
        assert!(limited.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    let fixture = ListenFixture::open();
    let mut inside = fixture.websocket().await;
    let new_client = tokio::net::TcpSocket::new_v4().unwrap();
    let mut open_files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        open_files.push(file);
    }
    // The kernel completes this connection, but the accept loop has no descriptor for it.
    let tcp = soon(new_client.connect(fixture.tcp)).await.unwrap();
    let mut new_client = RawClient { tcp, received: Vec::new() };
    new_client.send(b"/ping\n").await;
    for _ in 0..20 {
        inside.assert_alive().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(fixture.metrics.open(ListenerKind::Tcp), 0, "a descriptor was still free");
    drop(open_files);
    new_client.until("pong").await;
}

#[tokio::test]
async fn partial_first_requests_share_a_bounded_memory() {
    const CLIENTS: usize = 600;
    let addresses = Arc::new(AddressLimits { connections: CLIENTS * 2, ..AddressLimits::default() });
    let fixture = ListenFixture::with(ConnectionLimits { addresses, connections: CLIENTS * 4, ..limits() }, None);
    let mut registered = fixture.websocket().await;
    fixture.state.gate.add_permits(1);
    registered.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    assert!(registered.text().await.contains("pong"));

    // Half of a frame of 60,000 bytes, whose memory is needed at once.
    let whole = frame(0x81, &vec![b'x'; 60_000]);
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = fixture.websocket().await;
        client.0.send(&whole[..30_000]).await;
        held.push(client);
    }
    let most = PARTIAL_BYTES_MAX / (60_000 - PARTIAL_BYTES_FREE);
    eventually("the others are closed", || {
        let closed = fixture.state.endings.lock().unwrap();
        closed.iter().filter(|end| **end == ConnectionEnd::Closed(CloseCode::RegisterTimeout)).count() >= CLIENTS - most
    })
    .await;
    let refused = held.last_mut().unwrap().text().await;
    assert!(refused.contains(r#""code":"overloaded""#) && refused.contains(r#""retry_after_ms":1000"#), "{refused}");

    // A registered client, and small requests of others, are not affected.
    registered.0.send(&whole[..30_000]).await;
    let mut small = fixture.websocket().await;
    let ping = frame(0x81, br#"{"type":"ping","id":7}"#);
    small.0.send(&ping[..10]).await;
    small.0.send(&ping[10..]).await;
    assert_eq!(small.text().await, r#"{"type":"pong","id":7}"#);
    registered.0.send(&whole[30_000..]).await;
    assert!(registered.text().await.contains("bad_request"));

    // The memory returns with the connections.
    drop(held);
    eventually("the connections ended", || fixture.metrics.open(ListenerKind::Ws) == 2).await;
    let mut late = fixture.websocket().await;
    late.0.send(&whole[..30_000]).await;
    late.0.send(&whole[30_000..]).await;
    assert!(late.text().await.contains("bad_request"));
}

#[tokio::test]
async fn partial_first_lines_share_the_same_memory() {
    const CLIENTS: usize = 400;
    let addresses = Arc::new(AddressLimits { connections: CLIENTS * 2, ..AddressLimits::default() });
    let fixture = ListenFixture::with(ConnectionLimits { addresses, connections: CLIENTS * 4, ..limits() }, None);
    let mut held = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = fixture.line_client().await;
        client.send(&vec![b'x'; 64_000]).await;
        held.push(client);
    }
    eventually("some are closed", || {
        let closed = fixture.state.endings.lock().unwrap();
        closed.contains(&ConnectionEnd::Closed(CloseCode::RegisterTimeout))
    })
    .await;
}
