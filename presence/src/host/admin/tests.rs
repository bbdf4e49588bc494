#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Mutex;

use prometheus::{IntCounter, PullingGauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// An admin port whose readiness and metrics a test controls.
struct AdminPort {
    address: SocketAddr,
    reasons: Arc<Mutex<Vec<String>>>,
    metrics: Registry,
    cancel: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl AdminPort {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reasons = Arc::<Mutex<Vec<String>>>::default();
        let asked = reasons.clone();
        let ready: ReadyCheck = Arc::new(move || Readiness { reasons: asked.lock().unwrap().clone() });
        let (metrics, cancel) = (Registry::new(), CancellationToken::new());
        let more: AdminDocument = Arc::new(|| serde_json::json!({ "more": 1 }));
        let documents = vec![("/more", more)];
        let answers = AdminRoutes { metrics: metrics.clone(), ready, before_scrape: None, documents };
        let serving = tokio::spawn(serve(listener, answers, cancel.clone()));
        Self { address, reasons, metrics, cancel, serving }
    }

    /// Sends one request and returns the whole response, with its head.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn readyz_follows_readiness_and_livez_does_not() {
    let port = AdminPort::open().await;
    let ready = port.ask("GET /readyz").await;
    assert_eq!((status(&ready), body(&ready)), ("200", r#"{"ready":true,"reasons":[]}"#));

    *port.reasons.lock().unwrap() = vec!["no echo for 3 s".to_owned(), "draining".to_owned()];
    let red = port.ask("GET /readyz").await;
    assert_eq!((status(&red), body(&red)), ("503", r#"{"ready":false,"reasons":["no echo for 3 s","draining"]}"#));
    assert_eq!(status(&port.ask("GET /livez").await), "200");

    port.reasons.lock().unwrap().clear();
    assert_eq!(status(&port.ask("GET /readyz").await), "200");
}

#[tokio::test]
async fn scrape_reads_the_current_values() {
    let port = AdminPort::open().await;
    let counter = IntCounter::new("a_total", "Counted.").unwrap();
    let truth = Arc::new(Mutex::new(1.0));
    let asked = truth.clone();
    let gauge = PullingGauge::new("b", "Asked.", Box::new(move || *asked.lock().unwrap())).unwrap();
    port.metrics.register(Box::new(counter.clone())).unwrap();
    port.metrics.register(Box::new(gauge)).unwrap();

    let first = port.ask("GET /metrics").await;
    assert!(first.contains("content-type: text/plain; version=0.0.4"), "{first}");
    assert!(body(&first).contains("# HELP a_total Counted.\n# TYPE a_total counter\na_total 0\n"), "{first}");
    assert!(body(&first).contains("\nb 1\n"), "{first}");

    counter.inc();
    *truth.lock().unwrap() = 2.0;
    let second = port.ask("GET /metrics").await;
    assert!(body(&second).contains("\na_total 1\n") && body(&second).contains("\nb 2\n"), "{second}");
}

#[tokio::test]
async fn program_serves_documents_on_its_own_paths() {
    let port = AdminPort::open().await;
    let answer = port.ask("GET /more").await;
    assert_eq!((status(&answer), body(&answer)), ("200", r#"{"more":1}"#), "{answer}");
}

#[tokio::test]
async fn scrape_runs_its_step_then_shows_readiness() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, cancel) = (Registry::new(), CancellationToken::new());
    let looked_up = IntCounter::new("looks_total", "Looks.").unwrap();
    metrics.register(Box::new(looked_up.clone())).unwrap();
    let look: BeforeScrape = Arc::new(move || {
        let looked_up = looked_up.clone();
        Box::pin(async move { looked_up.inc() })
    });
    let red: ReadyCheck = Arc::new(|| Readiness { reasons: vec!["draining".to_owned()] });
    let documents = Vec::new();
    let answers = AdminRoutes { metrics: metrics.clone(), ready: red, before_scrape: Some(look), documents };
    let serving = tokio::spawn(serve(listener, answers, cancel.clone()));
    let port = AdminPort { address, reasons: Arc::default(), metrics, cancel, serving };
    let text = port.ask("GET /metrics").await;
    assert!(text.contains("\nlooks_total 1\n") && text.contains("\nparley_ready 0\n"), "{text}");
    let green = AdminPort::open().await.ask("GET /metrics").await;
    assert!(green.contains("\nparley_ready 1\n"), "{green}");
}

#[tokio::test]
async fn unknown_paths_and_methods_get_problem_documents() {
    let port = AdminPort::open().await;
    for (request, expected, code) in [
        ("GET /", "404", "not_found"),
        ("GET /livez/", "404", "not_found"),
        ("POST /readyz", "405", "method_not_allowed"),
    ] {
        let answer = port.ask(request).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        assert!(body(&answer).contains(&format!(r#""code":"{code}""#)), "{answer}");
    }
}

#[tokio::test]
async fn idle_connections_give_way_to_health_checks() {
    let port = AdminPort::open().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX * 3 {
        idle.push(TcpStream::connect(port.address).await.unwrap());
    }
    assert_eq!(status(&port.ask("GET /livez").await), "200");
    let mut closed = 0;
    for stream in &mut idle[..=CONNECTIONS_MAX * 2] {
        closed += usize::from(matches!(timeout(SOON, stream.read(&mut [0])).await, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, CONNECTIONS_MAX * 2 + 1, "the oldest are closed");
    let newest = idle.last_mut().unwrap();
    newest.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    timeout(SOON, newest.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 200", "the newest stay open");
}

#[tokio::test]
async fn unfinished_request_does_not_delay_the_shutdown() {
    let port = AdminPort::open().await;
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nHos").await.unwrap();
    // Connections are accepted in order: the response to this one means that the other was accepted.
    port.ask("GET /livez").await;

    port.cancel.cancel();
    timeout(SOON, port.serving).await.unwrap().unwrap();
    TcpStream::connect(port.address).await.unwrap_err();
}
