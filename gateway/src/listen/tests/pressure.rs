//! Clients that do not read, do not wait, or leave in the middle; and a process that is out of descriptors.

use super::*;

/// Talks to a connection until it is closed, and returns how many bytes it took in: outbox, transport and kernel
/// together.
async fn flood(outbox: &Outbox) -> usize {
    const SIZE: usize = 32 * 1024;
    let text = message(&"x".repeat(SIZE));
    let start = Instant::now();
    let mut taken = 0;
    while outbox.close_code().is_none() {
        assert!(start.elapsed() < PATIENCE, "a reader that reads nothing was never found too slow");
        outbox.push_event(&text);
        taken += SIZE;
        tokio::task::yield_now().await;
    }
    taken
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_order() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    let sent: Vec<u8> =
        (0..500u32).flat_map(|id| frame(0x81, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes())).collect();
    client.0.send(&sent).await;
    for id in 0..500 {
        assert_eq!(client.text().await, format!(r#"{{"type":"pong","id":{id}}}"#));
    }
}

#[tokio::test]
async fn output_goes_out_while_a_request_is_being_handled() {
    let world = ListenFixture::open();
    let mut ws = world.websocket().await;
    let mut line = world.line_client().await;
    ws.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    ws.pings(2).await;
    line.send(b"/nick bob\n").await;
    eventually("both requests have begun", || world.stage.begun.load(Ordering::SeqCst) == 3).await;
    world.outbox(0).push_event(&message("meanwhile"));
    world.outbox(1).push_event(&message("meanwhile"));
    assert!(ws.text().await.contains("meanwhile"));
    line.until("meanwhile").await;
    world.stage.gate.add_permits(2);
    assert_eq!(ws.text().await, r#"{"type":"pong","id":1}"#);
    assert_eq!(ws.text().await, r#"{"type":"pong","id":2}"#);
    line.until("pong").await;
}

#[tokio::test]
async fn a_request_is_run_to_its_end_although_its_client_has_gone() {
    let world = ListenFixture::open();
    for reset in [false, true] {
        let before = world.stage.finished.load(Ordering::SeqCst);
        let mut client = world.websocket().await;
        client.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
        eventually("the request has begun", || world.stage.begun.load(Ordering::SeqCst) == before + 1).await;
        if reset {
            client.0.tcp.set_zero_linger().unwrap();
        }
        drop(client);
        let session = world.stage.outboxes.lock().unwrap().len() - 1;
        for _ in 0..10 {
            world.outbox(session).push_event(&message("anybody?"));
            tokio::task::yield_now().await;
        }
        assert_eq!(world.stage.finished.load(Ordering::SeqCst), before);
        world.stage.gate.add_permits(1);
        eventually("the request has ended", || world.stage.finished.load(Ordering::SeqCst) == before + 1).await;
    }
    world.ended_as(&[LeftReason::Closed; 2]).await;
    world.empty().await;
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_closed_as_slow_and_told_so_if_it_catches_up() {
    let world = ListenFixture::with(ConnectionLimits { close_wait: PATIENCE / 4, ..limits() }, None);
    let client = world.websocket().await;
    let line = world.line_client().await;
    flood(&world.outbox(0)).await;
    flood(&world.outbox(1)).await;
    assert_eq!(client.closed().await, (4002, "slow_consumer".to_owned()));
    assert!(line.rest().await.ends_with("\n* closing: slow_consumer\n"));
    world.ended_as(&[LeftReason::Closed; 2]).await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_dropped_and_others_do_not_notice() {
    let world = ListenFixture::open();
    let mut healthy = world.websocket().await;
    let stalled_ws = world.websocket().await;
    let stalled_line = world.line_client().await;
    let (ws, line) = (world.outbox(1), world.outbox(2));
    let worst = async {
        let mut worst = Duration::ZERO;
        while world.ends().len() < 2 {
            let start = Instant::now();
            healthy.is_alive().await;
            worst = worst.max(start.elapsed());
        }
        worst
    };
    let (worst, ws_took, line_took) = soon(async { tokio::join!(worst, flood(&ws), flood(&line)) }).await;
    let bound = SLOW_READER.burst_bytes_max + 2 * 1024 * 1024;
    assert!(ws_took.max(line_took) < bound, "a stalled reader cost {ws_took} or {line_took} bytes");
    assert!(worst < Duration::from_millis(500), "a neighbour waited {worst:?}");
    assert_eq!((ws.close_code(), line.close_code()), (Some(CloseCode::Slow), Some(CloseCode::Slow)));
    eventually("the stalled connections are gone", || {
        world.metrics.open(ListenerKind::Ws) == 1 && world.metrics.open(ListenerKind::Tcp) == 0
    })
    .await;
    drop((stalled_ws, stalled_line));
}

#[tokio::test]
async fn a_stalled_write_is_given_up_although_nothing_more_is_queued() {
    let world = ListenFixture::with(ConnectionLimits { write_stall: Duration::from_millis(300), ..limits() }, None);
    let _client = world.websocket().await;
    let outbox = world.outbox(0);
    let text = message(&"x".repeat(32 * 1024));
    // Keeps the outbox well below its bound: what stalls is the socket.
    let start = Instant::now();
    while world.ends().is_empty() {
        assert!(start.elapsed() < PATIENCE, "the stalled write was never given up");
        assert_eq!(outbox.close_code(), None);
        outbox.push_event(&text);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    world.empty().await;
}

#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_reads_nothing_piles_up_nothing() {
    let world = ListenFixture::with(ConnectionLimits { write_stall: Duration::from_millis(300), ..limits() }, None);
    let mut client = world.websocket().await;
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    let flood = async { while client.0.tcp.write_all(&pings).await.is_ok() {} };
    soon(flood).await;
    world.ended_as(&[LeftReason::Closed]).await;
    world.empty().await;
}

#[tokio::test]
async fn a_client_that_sends_without_a_pause_does_not_keep_its_neighbours_waiting() {
    let world = ListenFixture::open();
    let (pongs, mut fragments) = (world.websocket().await, world.websocket().await);
    fragments.0.send(&frame(0x01, b"")).await;
    // What asks for nothing, so that only reading it takes time.
    for (what, client, flood) in [
        ("lines", Wire::connect(world.tcp).await, vec![b'\n'; 64 * 1024]),
        ("pongs", pongs.0, frame(0x8A, b"").repeat(10_000)),
        ("fragments", fragments.0, frame(0x00, b"").repeat(10_000)),
    ] {
        let wait = usual_wait(&world, client, flood).await;
        assert!(wait < Duration::from_millis(50), "{what}: a neighbour waited {wait:?}");
    }
    world.leave(Duration::ZERO, Duration::ZERO);
    world.empty().await;
}

/// How long a neighbour waits for an answer while a client sends without a pause: the mean, since a busy machine may
/// hold up any one of them.
async fn usual_wait(world: &ListenFixture, client: Wire, flood: Vec<u8>) -> Duration {
    let mut healthy = world.websocket().await;
    let mut hostile = client.tcp.into_std().unwrap();
    hostile.set_nonblocking(false).unwrap();
    let sender = std::thread::spawn(move || {
        use std::io::Write;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) && hostile.write_all(&flood).is_ok() {}
    });
    let (start, mut answers) = (Instant::now(), 0);
    while answers == 0 || !sender.is_finished() {
        healthy.is_alive().await;
        answers += 1;
    }
    start.elapsed() / answers
}

const OUT_OF_DESCRIPTORS: &str = "listen::tests::pressure::the_doors_open_again_after_a_lack_of_descriptors";

/// Runs once more in a process of its own, where descriptors are few and no other test needs them.
#[tokio::test]
async fn the_doors_open_again_after_a_lack_of_descriptors() {
    if std::env::var_os("PARLEY_TEST_FEW_DESCRIPTORS").is_none() {
        let limited = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(OUT_OF_DESCRIPTORS)
            .env("PARLEY_TEST_FEW_DESCRIPTORS", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&limited.stdout);
        assert!(limited.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let world = ListenFixture::open();
    let mut inside = world.websocket().await;
    let newcomer = tokio::net::TcpSocket::new_v4().unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    // The kernel completes this one; the accept loop has no descriptor for it.
    let tcp = soon(newcomer.connect(world.tcp)).await.unwrap();
    let mut newcomer = Wire { tcp, seen: Vec::new() };
    newcomer.send(b"/ping\n").await;
    for _ in 0..20 {
        inside.is_alive().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.metrics.open(ListenerKind::Tcp), 0, "there was a descriptor left after all");
    drop(hoard);
    newcomer.until("pong").await;
}
