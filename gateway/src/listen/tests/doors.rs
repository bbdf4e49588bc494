//! Both transports: the connections that are accepted, and how all of them end.

use super::*;

#[tokio::test]
async fn a_gateway_that_is_not_ready_lets_nobody_in_and_says_when_to_come_back() {
    let world = ListenFixture::open();
    let mut inside = world.websocket().await;
    world.ready.store(false, Ordering::Relaxed);
    assert_eq!(refusals(&world).await, ["unavailable", "unavailable"]);
    world.ready.store(true, Ordering::Relaxed);
    world.websocket().await;
    world.line_client().await;
    world.admission.go_away();
    assert_eq!(refusals(&world).await, ["going_away", "going_away"]);
    world.ready.store(true, Ordering::Relaxed);
    assert_eq!(refusals(&world).await, ["going_away", "going_away"], "a drain is not taken back");
    inside.is_alive().await;
}

/// The slugs with which both doors refuse a newcomer.
async fn refusals(world: &ListenFixture) -> [String; 2] {
    let mut ws = Wire::connect(world.ws).await;
    ws.send(upgrade_request("").as_bytes()).await;
    let answer = ws.rest().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let line = Wire::connect(world.tcp).await.rest().await;
    assert_eq!(line.lines().count(), 1, "{line:?}");
    let slug = line.strip_prefix("! ").unwrap().split(':').next().unwrap();
    [body["code"].as_str().unwrap().to_owned(), slug.to_owned()]
}

#[tokio::test]
async fn one_connection_too_many_is_refused_until_somebody_leaves() {
    let world = ListenFixture::with(ConnectionLimits { connections: 2, ..limits() }, None);
    let mut ws = world.websocket().await;
    let mut line = world.line_client().await;
    assert_eq!(refusals(&world).await, ["overloaded", "overloaded"]);
    ws.is_alive().await;
    line.send(b"/quit\n").await;
    line.rest().await;
    eventually("the permit is free", || world.metrics.open(ListenerKind::Tcp) == 0).await;
    world.websocket().await;
}

#[tokio::test]
async fn at_the_stop_everybody_hears_why_and_every_task_ends() {
    let world = ListenFixture::open();
    let mut ws = world.websocket().await;
    ws.is_alive().await;
    let line = world.line_client().await;
    let silent = Wire::connect(world.ws).await;
    eventually("the silent one is in", || world.metrics.open(ListenerKind::Ws) == 2).await;
    world.leave(Duration::ZERO, Duration::ZERO);
    assert_eq!(ws.text().await, r#"{"type":"going_away","retry_after_ms":0}"#);
    assert_eq!(ws.closed().await, (1012, "restart".to_owned()));
    let last_words = "* going away: this server ends in 0 s, connect again then\n* closing: restart\n";
    assert_eq!(line.rest().await, last_words);
    assert_eq!(silent.rest().await, "");
    soon(world.tasks.wait()).await;
    world.ended_as(&[LeftReason::Closed; 2]).await;
    assert!(TcpStream::connect(world.ws).await.is_err() && TcpStream::connect(world.tcp).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_for_the_request_that_is_being_handled() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    client.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    eventually("the request has begun", || world.stage.begun.load(Ordering::SeqCst) == 1).await;
    world.leave(Duration::ZERO, Duration::ZERO);
    world.stage.gate.add_permits(1);
    assert_eq!(client.text().await, r#"{"type":"pong","id":1}"#);
    assert!(client.text().await.contains("going_away"));
    assert_eq!(client.closed().await.0, 1012);
    soon(world.tasks.wait()).await;
}

#[tokio::test]
async fn a_session_that_falls_silent_ends_as_a_timeout() {
    let world =
        ListenFixture::with(limits(), Some((Duration::from_millis(20), |outbox| outbox.close(CloseCode::Timeout))));
    assert_eq!(world.websocket().await.closed().await, (4000, "timeout".to_owned()));
    assert!(Wire::connect(world.tcp).await.rest().await.ends_with("* closing: timeout\n"));
    world.ended_as(&[LeftReason::Timeout; 2]).await;
}

#[tokio::test]
async fn what_is_queued_before_a_close_is_written_before_it() {
    let world = ListenFixture::open();
    let mut client = world.websocket().await;
    client.is_alive().await;
    world.outbox(0).push_event(&message("first"));
    world.outbox(0).close(CloseCode::Kicked);
    world.outbox(0).push_event(&message("too late"));
    assert!(client.text().await.contains("first"));
    assert_eq!(client.closed().await, (4003, "kicked".to_owned()));
    world.ended_as(&[LeftReason::Kicked]).await;
}
