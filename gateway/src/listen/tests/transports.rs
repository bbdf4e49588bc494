//! Admission of new connections, and the end of a connection on both transports.

use super::*;

#[tokio::test]
async fn unready_gateway_refuses_connections_with_retry_delay() {
    let fixture = ListenFixture::open();
    let mut inside = fixture.websocket().await;
    fixture.ready.store(false, Ordering::Relaxed);
    assert_eq!(refusals(&fixture).await, ["unavailable", "unavailable"]);
    fixture.ready.store(true, Ordering::Relaxed);
    fixture.websocket().await;
    fixture.line_client().await;
    fixture.admission.go_away();
    assert_eq!(refusals(&fixture).await, ["going_away", "going_away"]);
    fixture.ready.store(true, Ordering::Relaxed);
    assert_eq!(refusals(&fixture).await, ["going_away", "going_away"], "readiness cancelled the drain");
    inside.assert_alive().await;
}

/// Returns the refusal slugs of both transports for a new connection.
async fn refusals(fixture: &ListenFixture) -> [String; 2] {
    let mut ws = RawClient::connect(fixture.ws).await;
    ws.send(upgrade_request("").as_bytes()).await;
    let answer = ws.rest().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let line = RawClient::connect(fixture.tcp).await.rest().await;
    assert_eq!(line.lines().count(), 1, "{line:?}");
    let slug = line.strip_prefix("! ").unwrap().split(':').next().unwrap();
    [body["code"].as_str().unwrap().to_owned(), slug.to_owned()]
}

#[tokio::test]
async fn full_gateway_refuses_connections_until_one_closes() {
    let fixture = ListenFixture::with(ConnectionLimits { connections: 2, ..limits() }, None);
    let mut ws = fixture.websocket().await;
    let mut line = fixture.line_client().await;
    assert_eq!(refusals(&fixture).await, ["overloaded", "overloaded"]);
    ws.assert_alive().await;
    line.send(b"/quit\n").await;
    line.rest().await;
    eventually("the permit is returned", || fixture.metrics.open(ListenerKind::Tcp) == 0).await;
    fixture.websocket().await;
}

#[tokio::test]
async fn stop_announces_the_restart_and_ends_tasks() {
    let fixture = ListenFixture::open();
    let mut ws = fixture.websocket().await;
    ws.assert_alive().await;
    let line = fixture.line_client().await;
    let silent = RawClient::connect(fixture.ws).await;
    eventually("the silent client holds a permit", || fixture.metrics.open(ListenerKind::Ws) == 2).await;
    fixture.drain(Duration::ZERO, Duration::ZERO);
    assert_eq!(ws.text().await, r#"{"type":"going_away","retry_after_ms":0}"#);
    assert_eq!(ws.closed().await, (1012, "restart".to_owned()));
    let closing_lines = "* going away: this server shuts down in 0 s, connect again after that\n* closing: restart\n";
    assert_eq!(line.rest().await, closing_lines);
    assert_eq!(silent.rest().await, "");
    soon(fixture.tasks.wait()).await;
    fixture.assert_left_reasons(&[LeftReason::Closed; 2]).await;
    assert!(TcpStream::connect(fixture.ws).await.is_err() && TcpStream::connect(fixture.tcp).await.is_err());
}

#[tokio::test]
async fn stop_waits_for_the_running_request() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.send(r#"{"type":"register","id":1,"nick":"ann"}"#).await;
    eventually("the request started", || fixture.state.begun.load(Ordering::SeqCst) == 1).await;
    fixture.drain(Duration::ZERO, Duration::ZERO);
    fixture.state.gate.add_permits(1);
    assert_eq!(client.text().await, r#"{"type":"pong","id":1}"#);
    assert!(client.text().await.contains("going_away"));
    assert_eq!(client.closed().await.0, 1012);
    soon(fixture.tasks.wait()).await;
}

#[tokio::test]
async fn silent_session_ends_with_a_timeout() {
    let fixture =
        ListenFixture::with(limits(), Some((Duration::from_millis(20), |outbox| outbox.close(CloseCode::Timeout))));
    assert_eq!(fixture.websocket().await.closed().await, (4000, "timeout".to_owned()));
    assert!(RawClient::connect(fixture.tcp).await.rest().await.ends_with("* closing: timeout\n"));
    fixture.assert_left_reasons(&[LeftReason::Timeout; 2]).await;
}

#[tokio::test]
async fn close_follows_the_messages_queued_before_it() {
    let fixture = ListenFixture::open();
    let mut client = fixture.websocket().await;
    client.assert_alive().await;
    fixture.outbox(0).push_event(&message("first"));
    fixture.outbox(0).close(CloseCode::Kicked);
    fixture.outbox(0).push_event(&message("too late"));
    assert!(client.text().await.contains("first"));
    assert_eq!(client.closed().await, (4003, "kicked".to_owned()));
    fixture.assert_left_reasons(&[LeftReason::Kicked]).await;
}
