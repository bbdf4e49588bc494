//! The end of a context: all clients are told and answered, none holds it up, and they do not leave all at once.

use super::*;

/// When a client is to come back, from what it was told.
fn retry_after(told: &str) -> u64 {
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!(told["type"], "going_away", "{told}");
    told["retry_after_ms"].as_u64().unwrap()
}

#[tokio::test]
async fn everybody_is_told_at_once_and_goes_at_a_moment_of_its_own() {
    const NOTICE: u64 = 200;
    const WINDOW: u64 = 800;
    let world = ListenFixture::open();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(world.websocket().await);
    }
    let start = Instant::now();
    world.leave(Duration::from_millis(NOTICE), Duration::from_millis(WINDOW));
    let mut told = Vec::new();
    for client in &mut clients {
        told.push(retry_after(&client.text().await));
    }
    assert!(start.elapsed() < Duration::from_millis(NOTICE), "told before anybody goes");
    clients[0].is_alive().await;
    let closes = clients.into_iter().map(async |client| {
        assert_eq!(client.closed().await, (1012, "restart".to_owned()));
        u64::try_from(start.elapsed().as_millis()).unwrap()
    });
    let closed = soon(futures_util::future::join_all(closes)).await;
    for (told, closed) in told.iter().zip(&closed) {
        assert!((NOTICE - 100..=NOTICE + WINDOW).contains(told), "told {told}");
        // These clients do not hang up themselves, so the end comes after `close_wait`.
        assert!((*told..told + 1500).contains(closed), "told {told}, closed after {closed}");
    }
    let spread = told.iter().max().unwrap() - told.iter().min().unwrap();
    assert!(spread > WINDOW / 2, "40 moments within {spread} ms of {WINDOW}");
    assert!(!told.is_sorted(), "not in the order in which they came");
    soon(world.tasks.wait()).await;
}

#[tokio::test]
async fn what_was_asked_before_the_goodbye_is_answered_before_it() {
    let world = ListenFixture::open();
    let mut ws = world.websocket().await;
    let mut line = world.line_client().await;
    ws.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    eventually("the request has begun", || world.stage.begun.load(Ordering::SeqCst) == 2).await;
    let asked: Vec<u8> =
        (2..200u32).flat_map(|id| frame(0x81, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes())).collect();
    ws.0.send(&asked).await;
    world.leave(Duration::ZERO, Duration::ZERO);
    line.send(b"/ping\n").await;
    world.stage.gate.add_permits(1);
    let mut answered = Vec::new();
    while answered.len() < 199 {
        let said: serde_json::Value = serde_json::from_str(&ws.text().await).unwrap();
        answered.extend(said["id"].as_u64());
    }
    assert_eq!(answered, (1..200).collect::<Vec<_>>());
    assert_eq!(ws.closed().await.0, 1012);
    let said = line.rest().await;
    assert!(said.contains("pong") && said.ends_with("\n* closing: restart\n"), "{said}");
    soon(world.tasks.wait()).await;
}

#[tokio::test]
async fn who_asks_without_end_goes_nevertheless() {
    let world = ListenFixture::open();
    let client = world.websocket().await;
    let start = Instant::now();
    world.leave(Duration::ZERO, Duration::ZERO);
    let (mut reader, mut writer) = client.0.tcp.into_split();
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    let flood = async { while writer.write_all(&ping).await.is_ok() {} };
    let read = async { while reader.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
    soon(async { tokio::join!(flood, read) }).await;
    soon(world.tasks.wait()).await;
    assert!(start.elapsed() < limits().close_wait * 5, "it took {:?}", start.elapsed());
}

#[tokio::test]
async fn who_reads_nothing_does_not_hold_up_the_end() {
    let world = ListenFixture::open();
    let _stalled = (world.websocket().await, world.line_client().await);
    // More than the kernel takes for a reader that reads nothing: both doors stand still in the middle of it.
    let said = lobby_message(&"x".repeat(64 * 1024));
    for session in [0, 1] {
        let answer = Answer::History { to: "#lobby".to_owned(), items: vec![said.clone(); 200], more: false };
        world.outbox(session).push_reply(Reply { id: None, answer });
    }
    world.leave(Duration::ZERO, Duration::ZERO);
    soon(world.tasks.wait()).await;
    world.ended_as(&[LeftReason::Closed; 2]).await;
}
