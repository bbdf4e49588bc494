#![allow(clippy::unwrap_used)]

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// The shortest deadline that a busy machine keeps.
const DEADLINE: Duration = Duration::from_millis(500);

/// Serves one connection: reads the head of a request, and writes the answer as often as it is read.
async fn serve(answer: &'static [u8], times: usize) -> CallbackUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?key=1", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        for _ in 0..times {
            if socket.write_all(answer).await.is_err() {
                return;
            }
        }
        // Waits for the end of the connection, so that an unfinished answer hangs.
        while socket.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
    });
    url
}

async fn post(client: &CallbackClient, url: &CallbackUrl) -> Result<CallbackAnswer, CallbackError> {
    let header = ("x-test", "1".to_owned());
    client.post(CallbackRequest { url, header, body: Bytes::from_static(b"{}"), deadline: DEADLINE }).await
}

fn near() -> CallbackClient {
    CallbackClient::new(true)
}

#[tokio::test]
async fn answer_has_its_status_and_body() {
    let url = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1).await;
    let answer = post(&near(), &url).await.unwrap();
    assert_eq!((answer.status, &answer.body[..], answer.is_whole), (200, &b"ok"[..], true));
}

#[tokio::test]
async fn redirect_is_an_answer_and_never_followed() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let head =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\n\r\n", other.local_addr().unwrap());
    let url = serve(head.leak().as_bytes(), 1).await;
    assert_eq!(post(&near(), &url).await.unwrap().status, 302);
    let visited = tokio::time::timeout(Duration::from_millis(100), other.accept()).await;
    assert!(visited.is_err(), "the redirect was followed");
}

#[tokio::test]
async fn endless_answer_is_cut_at_its_bound() {
    let url =
        serve(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 100_000).await;
    let answer = post(&near(), &url).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (200, ANSWER_BYTES_MAX, false));
}

#[tokio::test]
async fn hanging_receiver_costs_only_the_deadline() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"] {
        let url = serve(answer, 1).await;
        let began = Instant::now();
        assert_eq!(post(&near(), &url).await, Err(CallbackError::Late));
        assert!(began.elapsed() < DEADLINE * 4);
    }
}

#[tokio::test]
async fn garbage_and_refused_connections_are_errors() {
    let url = serve(b"SSH-2.0-x\r\n\r\n", 1).await;
    assert!(matches!(post(&near(), &url).await, Err(CallbackError::Broken(_))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    assert!(matches!(post(&near(), &url).await, Err(CallbackError::Unconnected(_))));
    let url = "http://no-such-name.invalid/".parse().unwrap();
    assert!(matches!(post(&near(), &url).await, Err(CallbackError::Unresolved(_) | CallbackError::Late)));
}

#[tokio::test]
async fn loopback_is_refused_under_every_name() {
    let client = CallbackClient::new(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        assert!(matches!(post(&client, &url).await, Err(CallbackError::Refused(_))), "{host}");
    }
    let visited = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(visited.is_err(), "connected all the same");
}

#[tokio::test]
async fn receiver_without_a_known_certificate_is_refused() {
    let url: CallbackUrl = serve(b"HTTP/1.1 200 OK\r\n\r\n", 1).await;
    let url = format!("https://{}:{}/", url.host(), url.port()).parse().unwrap();
    assert!(matches!(post(&near(), &url).await, Err(CallbackError::Tls(_))));
}
