//! Draining the connections of a gateway.
//!
//! Each connection receives `going_away` at once and closes at its own moment. Requests sent before the close are
//! answered. A client that floods or stops reading cannot delay the end.

use super::*;

/// Returns the retry delay of a `going_away` event.
fn retry_after(event: &str) -> u64 {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["type"], "going_away", "{event}");
    event["retry_after_ms"].as_u64().unwrap()
}

#[tokio::test]
async fn drain_announces_at_once_and_spreads_closes() {
    const NOTICE: u64 = 200;
    const WINDOW: u64 = 800;
    let fixture = ListenFixture::open();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(fixture.websocket().await);
    }
    let start = Instant::now();
    fixture.drain(Duration::from_millis(NOTICE), Duration::from_millis(WINDOW));
    let mut delays = Vec::new();
    for client in &mut clients {
        delays.push(retry_after(&client.text().await));
    }
    assert!(start.elapsed() < Duration::from_millis(NOTICE), "the announcements took longer than the notice");
    clients[0].assert_alive().await;
    let closes = clients.into_iter().map(async |client| {
        assert_eq!(client.closed().await, (1012, "restart".to_owned()));
        u64::try_from(start.elapsed().as_millis()).unwrap()
    });
    let closed = soon(futures_util::future::join_all(closes)).await;
    for (delay, closed) in delays.iter().zip(&closed) {
        assert!((NOTICE - 100..=NOTICE + WINDOW).contains(delay), "announced {delay}");
        // These clients leave the connection open, so the end comes after `close_wait`.
        assert!((*delay..delay + 1500).contains(closed), "announced {delay}, closed after {closed}");
    }
    let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
    assert!(spread > WINDOW / 2, "40 delays span only {spread} ms of {WINDOW}");
    assert!(!delays.is_sorted(), "the delays follow the connection order");
    soon(fixture.tasks.wait()).await;
}

#[tokio::test]
async fn drain_answers_earlier_requests_before_closing() {
    let fixture = ListenFixture::open();
    let mut ws = fixture.websocket().await;
    let mut line = fixture.line_client().await;
    ws.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    eventually("the request started", || fixture.state.begun.load(Ordering::SeqCst) == 2).await;
    let requests: Vec<u8> =
        (2..200u32).flat_map(|id| frame(0x81, format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes())).collect();
    ws.0.send(&requests).await;
    fixture.drain(Duration::ZERO, Duration::ZERO);
    line.send(b"/ping\n").await;
    fixture.state.gate.add_permits(1);
    let mut answered = Vec::new();
    while answered.len() < 199 {
        let event: serde_json::Value = serde_json::from_str(&ws.text().await).unwrap();
        answered.extend(event["id"].as_u64());
    }
    assert_eq!(answered, (1..200).collect::<Vec<_>>());
    assert_eq!(ws.closed().await.0, 1012);
    let output = line.rest().await;
    assert!(output.contains("pong") && output.ends_with("\n* closing: restart\n"), "{output}");
    soon(fixture.tasks.wait()).await;
}

#[tokio::test]
async fn drain_closes_client_that_keeps_sending() {
    let fixture = ListenFixture::open();
    let client = fixture.websocket().await;
    let start = Instant::now();
    fixture.drain(Duration::ZERO, Duration::ZERO);
    let (mut reader, mut writer) = client.0.tcp.into_split();
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    let flood = async { while writer.write_all(&ping).await.is_ok() {} };
    let read = async { while reader.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
    soon(async { tokio::join!(flood, read) }).await;
    soon(fixture.tasks.wait()).await;
    assert!(start.elapsed() < limits().close_wait * 5, "the drain took {:?}", start.elapsed());
}

#[tokio::test]
async fn stalled_readers_do_not_delay_the_drain() {
    let fixture = ListenFixture::open();
    let _stalled = (fixture.websocket().await, fixture.line_client().await);
    // More bytes than the kernel buffers for a stalled reader, so both transports stop in the middle of the answer.
    let item = lobby_message(&"x".repeat(64 * 1024));
    for session in [0, 1] {
        let answer = Answer::History { to: "#lobby".to_owned(), items: vec![item.clone(); 200], more: false };
        fixture.outbox(session).push_reply(Reply { id: None, answer });
    }
    fixture.drain(Duration::ZERO, Duration::ZERO);
    soon(fixture.tasks.wait()).await;
    fixture.assert_left_reasons(&[LeftReason::Closed; 2]).await;
}
