//! Security headers on every answer of every port, for each route and each kind of refusal; and no cookies.

use std::net::SocketAddr;
use std::time::Duration;

use harness::http::{HttpResponse, exchange, get};
use harness::{Cluster, Node, WsClient, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// Headers with the same value everywhere.
const FIXED: [(&str, &str); 4] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];
/// The policy of pages and their files; other answers load nothing.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";
const NO_CONTENT_POLICY: &str = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

/// A request, as a page of another site sends it.
fn foreign_request(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\nCookie: session=stolen\r\n\
         Sec-Fetch-Site: cross-site\r\n{more}\r\n"
    )
}

/// Asserts the headers of an answer. `is_page` is true for the files of a page.
fn assert_headers(label: &str, answer: &HttpResponse, is_page: bool) {
    for (name, value) in FIXED {
        assert_eq!(answer.header(name), Some(value), "{label}: {answer:?}");
    }
    let (policy, cache) = if is_page { (PAGE_POLICY, "no-cache") } else { (NO_CONTENT_POLICY, "no-store") };
    assert_eq!(answer.header("content-security-policy"), Some(policy), "{label}");
    assert_eq!(answer.header("cache-control"), Some(cache), "{label}");
    let features = answer.header("permissions-policy").unwrap_or_default();
    assert!(features.contains("camera=()") && features.split(", ").all(|feature| feature.ends_with("=()")), "{label}");
    for line in answer.headers.to_ascii_lowercase().lines() {
        assert!(!line.starts_with("set-cookie") && !line.starts_with("access-control"), "{label}: {line}");
    }
}

/// Sends a request with and without a cookie and an origin, and asserts that they change nothing.
async fn ask(address: SocketAddr, method: &str, path: &str, more: &str) -> HttpResponse {
    let foreign = exchange(address, foreign_request(method, path, more).as_bytes()).await.unwrap();
    let plain = format!("{method} {path} HTTP/1.1\r\nHost: parley\r\nConnection: close\r\n{more}\r\n");
    let plain = exchange(address, plain.as_bytes()).await.unwrap();
    let lines = |answer: &HttpResponse| -> Vec<String> {
        let changes = |line: &&str| !line.starts_with("date:") && !line.starts_with("content-length:");
        answer.headers.lines().filter(changes).map(str::to_owned).collect()
    };
    assert_eq!((foreign.status, lines(&foreign)), (plain.status, lines(&plain)), "{method} {path}: a cookie counts");
    foreign
}

/// Returns the head of the event stream, which has no end.
async fn event_stream(address: SocketAddr) -> HttpResponse {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(foreign_request("GET", "/v1/events", "Origin: https://evil.example\r\n").as_bytes())
        .await
        .unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("\r\n\r\n") {
        assert!(timeout(SOON, stream.read_buf(&mut bytes)).await.unwrap().unwrap() > 0, "the stream ended");
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    HttpResponse { status: status[9..12].parse().unwrap(), headers: headers.to_owned(), body: String::new() }
}

const ORIGIN: &str = "Origin: https://evil.example\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const FOREIGN_UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://evil.example\r\n";
const PREFLIGHT: &str = "Origin: https://evil.example\r\nAccess-Control-Request-Method: GET\r\n";

#[tokio::test]
async fn every_route_sends_the_security_headers() {
    let mut cluster = Cluster::builder().gateways(1).presence(1).start().await;
    for text in ["not ready", "beat not answered", "subscription", "registry not answering", "redis"] {
        cluster.allow(text);
    }
    cluster.person("ann").await.join("#lobby").await;
    let (gateway, presence) = (&cluster.gateways[0], &cluster.presence[0]);
    let (ws, api) = (gateway.ws(), presence.api());

    // Files of the pages, and refusals of the same paths.
    for (address, paths) in [
        (ws, &["/", "/page/app.js", "/page/style/base.css", "/page/icon.svg", "/parley/parley.js"][..]),
        (api, &["/", "/docs", "/docs/docs.js", "/docs/docs.css", "/page/page.js", "/page/style.css", "/page/icon.svg"]),
    ] {
        for path in paths {
            let answer = ask(address, "GET", path, "").await;
            assert_eq!(answer.status, 200, "{path}");
            assert_headers(path, &answer, true);
            let tag = format!("If-None-Match: {}\r\n", answer.header("etag").unwrap());
            let unchanged = ask(address, "GET", path, &tag).await;
            assert_eq!(unchanged.status, 304, "{path}");
            assert_headers(path, &unchanged, true);
            for (method, more) in [("POST", "Content-Length: 0\r\n"), ("OPTIONS", PREFLIGHT)] {
                let refused = ask(address, method, path, more).await;
                assert_eq!(refused.status, 405, "{method} {path}");
                assert_headers(path, &refused, false);
            }
        }
    }

    // Every path of the OpenAPI document, and the other answers of all ports.
    let document = get(api, "/openapi.json").await.unwrap().json();
    let documented: Vec<String> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert!(documented.len() >= 9, "{documented:?}");
    let mut requests = vec![
        (api, "GET", "/openapi.json".to_owned(), ORIGIN, 200),
        (api, "GET", "/".to_owned(), "Accept: application/json\r\n", 307),
        (api, "GET", "/none".to_owned(), ORIGIN, 404),
        (api, "GET", "/v1/users/nobody".to_owned(), ORIGIN, 404),
        (api, "GET", "/v1/rooms?limit=0".to_owned(), ORIGIN, 400),
        (api, "POST", "/v1/users/lookup".to_owned(), "Content-Length: 600000\r\n", 413),
        (ws, "GET", "/none".to_owned(), ORIGIN, 404),
        (ws, "GET", "/ws".to_owned(), "", 426),
        (ws, "POST", "/ws".to_owned(), UPGRADE, 405),
        (ws, "GET", "/ws".to_owned(), FOREIGN_UPGRADE, 403),
    ];
    for path in documented.iter().filter(|path| *path != "/v1/events") {
        let filled = path
            .replace("{nick}", "ann")
            .replace("{room}", "%23lobby")
            .replace("{user}", "nobody")
            .replace("{seq}", "1")
            .replace("{webhook}", "none")
            .replace("{id}", "none");
        assert!(!filled.contains('{'), "{path} has an unknown parameter");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let about = &document["paths"][path][method.to_lowercase()];
            let (more, status) = match method {
                // The one read by POST. By GET the path is that of a user called `lookup`.
                "POST" if path == "/v1/users/lookup" => continue,
                "GET" if path == "/v1/users/lookup" => (ORIGIN, 404),
                _ if about.is_null() => ("Content-Length: 0\r\n", 405),
                "GET" if about["tags"][0] != "sanctions" => (ORIGIN, if path.contains("{user}") { 404 } else { 200 }),
                // The others need a key.
                _ => ("Content-Length: 0\r\n", 401),
            };
            let query = if method == "GET" && path == "/v1/users" { "?online=true" } else { "" };
            requests.push((api, method, format!("{filled}{query}"), more, status));
        }
        if document["paths"][path]["get"].is_object() {
            requests.push((api, "OPTIONS", filled, PREFLIGHT, 405));
        }
    }
    for node in [gateway, presence] {
        for path in ["/livez", "/readyz", "/metrics"] {
            requests.push((node.admin(), "GET", path.to_owned(), ORIGIN, 200));
            requests.push((node.admin(), "POST", path.to_owned(), "Content-Length: 0\r\n", 405));
        }
        requests.push((node.admin(), "GET", "/none".to_owned(), ORIGIN, 404));
    }
    requests.push((gateway.admin(), "GET", "/holdings".to_owned(), ORIGIN, 200));
    for (address, method, path, more, status) in requests {
        let answer = ask(address, method, &path, more).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_headers(&format!("{method} {path}"), &answer, false);
    }
    let events = event_stream(api).await;
    assert_eq!(events.status, 200);
    assert_headers("/v1/events", &events, false);

    cluster.redis.kill9();
    for (address, path) in
        [(ws, "/ws"), (api, "/v1/stats"), (gateway.admin(), "/readyz"), (presence.admin(), "/readyz")]
    {
        eventually(SOON, &format!("{path} is refused without redis"), async || {
            let answer = ask(address, "GET", path, "").await;
            if answer.status != 503 {
                return Err(answer);
            }
            assert_headers(path, &answer, false);
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn full_ports_send_the_security_headers() {
    let node = Node::gateway("g1")
        .setting("PARLEY__LISTEN__TRUSTED_PROXIES", "127.0.0.1")
        .setting("PARLEY__LIMITS__CONNECTIONS", "2")
        .setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", "1")
        .start()
        .await;
    let ann = WsClient::connect(node.ws()).await;
    ann.register("ann").await;
    let share = exchange(node.ws(), foreign_request("GET", "/ws", UPGRADE).as_bytes()).await.unwrap();
    assert_eq!(share.status, 429);
    assert_headers("the share of an address", &share, false);
    // The seat of the refused request may not be free at once.
    let mut silent = Vec::new();
    let full = eventually(SOON, "the gateway is full", async || {
        silent.push(TcpStream::connect(node.ws()).await.unwrap());
        let answer = exchange(node.ws(), foreign_request("GET", "/", "").as_bytes()).await?;
        if answer.status == 503 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_headers("a full gateway", &full, false);
}
