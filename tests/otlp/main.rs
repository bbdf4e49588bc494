//! Tests of span export: a gateway with a collector in the test. Each message is one trace over two gateways.
//!
//! A separate binary, because it needs a gateway built with the `otlp` feature: `make test-otlp`.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Node, Redis, WsClient, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Maximum wait for spans; the exporter sends every 5 s.
const EXPORTED: Duration = Duration::from_secs(20);
/// Message body that must not appear in any span.
const BODY: &str = "xyzzy-plugh-8d3f";

/// Collector that accepts every request; dropping it stops it.
struct Collector {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posted = Arc::<Mutex<Vec<String>>>::default();
        let kept = posted.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let body = take(stream).await;
                kept.lock().unwrap().push(body);
            }
        });
        Self { address, posted, task }
    }

    fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// Returns all received spans, each with the node that sent it.
    fn spans(&self) -> Vec<(String, Value)> {
        let mut spans = Vec::new();
        for body in self.posted.lock().unwrap().iter() {
            let body: Value = serde_json::from_str(body).unwrap();
            for resource in body["resourceSpans"].as_array().unwrap() {
                let node = attribute(&resource["resource"], "service.instance.id");
                let spans_of = resource["scopeSpans"].as_array().unwrap().iter();
                let spans_of = spans_of.flat_map(|scope| scope["spans"].as_array().unwrap());
                spans.extend(spans_of.map(|span| (node.clone(), span.clone())));
            }
        }
        spans
    }
}

/// Reads one request and answers it as the protocol requires.
async fn take(stream: TcpStream) -> String {
    let mut stream = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while stream.read_line(&mut line).await.unwrap() > 2 {
        if line.starts_with("POST ") {
            assert!(line.starts_with("POST /v1/traces "), "{line}");
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "content-type" => assert_eq!(value.trim(), "application/json"),
                _ => {}
            }
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(body).unwrap()
}

fn attribute(of: &Value, key: &str) -> String {
    let mut attributes = of["attributes"].as_array().unwrap().iter();
    let value = attributes.find(|attribute| attribute["key"] == key).map(|attribute| &attribute["value"]);
    let value = value.unwrap_or_else(|| panic!("no {key} in {of}"));
    value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap().to_owned()
}

#[tokio::test]
async fn message_forms_one_trace_over_two_gateways() {
    let (redis, collector) = (Redis::running().await, Collector::start().await);
    let start = async |name| {
        let node = Node::gateway(name).redis(&redis).setting("PARLEY__OTLP__ENDPOINT", &collector.endpoint());
        node.start().await
    };
    let (mut g1, mut g2) = (start("g1").await, start("g2").await);
    let (ann, bob) = (WsClient::connect(g1.ws()).await, WsClient::connect(g2.ws()).await);
    ann.register("ann").await;
    bob.register("bob").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let id = ann.sends("#lobby", BODY).await["msg_id"].as_str().unwrap().to_owned();
    let trace = id.replace('-', "");

    let of_message = || {
        let mut spans = collector.spans();
        spans.retain(|(_, span)| span["traceId"] == trace.as_str());
        spans.sort_by_key(|(node, span)| (span["name"].to_string(), node.clone()));
        spans
    };
    let spans = eventually(EXPORTED, "three spans of the message are exported", async || {
        let spans = of_message();
        if spans.len() == 3 { Ok(spans) } else { Err(collector.spans()) }
    })
    .await;
    let names: Vec<(&str, &str)> =
        spans.iter().map(|(node, span)| (node.as_str(), span["name"].as_str().unwrap())).collect();
    assert_eq!(names, [("g1", "deliver"), ("g2", "deliver"), ("g1", "publish")]);
    let published = &spans[2].1;
    assert!(
        published["parentSpanId"].as_str().unwrap_or_default().is_empty(),
        "publish span has a parent: {published}"
    );
    for (_, span) in &spans {
        assert_eq!(attribute(span, "to"), "#lobby");
        assert_eq!(attribute(span, "msg_id"), id);
        if span["name"] == "deliver" {
            assert_eq!(span["parentSpanId"], published["spanId"]);
            assert_eq!(attribute(span, "seq"), "1");
        }
    }

    // The gateway exports the last spans when it ends. At the usual log level it logs no spans.
    let last = ann.sends("bob", BODY).await["msg_id"].as_str().unwrap().replace('-', "");
    assert_eq!((g1.end().await, g2.end().await), (Some(0), Some(0)));
    let left = collector.spans().into_iter().filter(|(_, span)| span["traceId"] == last.as_str()).count();
    assert_eq!(left, 2, "the last message has one publish span and one deliver span");
    assert!(!g1.log().holds(&id) && !g2.log().holds(&id), "spans are logged although the level is info");
    assert!(collector.posted.lock().unwrap().iter().all(|body| !body.contains(BODY)));
    assert_eq!(g1.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn unreachable_collector_is_logged_and_blocks_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}/v1/traces");
    let mut gateway = Node::gateway("g1").setting("PARLEY__OTLP__ENDPOINT", &endpoint).start().await;
    let ann = WsClient::connect(gateway.ws()).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "hi").await;
    eventually(EXPORTED, "the failed export is logged", async || {
        if gateway.log().holds("spans not exported") { Ok(()) } else { Err(gateway.log().lines()) }
    })
    .await;
    ann.sends("#lobby", "still here").await;
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]).len(), 1);
}
