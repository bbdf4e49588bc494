//! HTTP answers of the WebSocket port, before the upgrade.

use presence::model::SanctionChange;

use super::super::handshake::tests::page_rows;
use super::*;
use crate::sanctions::ReadChanges;

/// Sends a request and returns the head of the response.
async fn response_head(fixture: &ListenFixture, request: &str) -> String {
    let mut client = RawClient::connect(fixture.ws).await;
    client.send(request.as_bytes()).await;
    client.head().await
}

#[tokio::test]
async fn rfc_handshake_receives_the_rfc_answer() {
    let fixture = ListenFixture::open();
    let head = response_head(&fixture, &upgrade_request("")).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    assert!(!head.contains("sec-websocket-protocol") && !head.contains("close"), "{head}");
}

#[tokio::test]
async fn handshake_selects_only_the_offered_parley_subprotocol() {
    let fixture = ListenFixture::open();
    for (offer, selected) in [
        ("Sec-WebSocket-Protocol: parley.v1\r\n", Some("parley.v1")),
        ("Sec-WebSocket-Protocol: parley.v9, parley.v1\r\n", Some("parley.v1")),
        ("Sec-WebSocket-Protocol: parley.v9\r\nSec-WebSocket-Protocol: parley.v1\r\n", Some("parley.v1")),
        ("Sec-WebSocket-Protocol: parley.v1.msgpack, parley.v1\r\n", Some("parley.v1.msgpack")),
        ("Sec-WebSocket-Protocol: parley.v1.cbor,parley.v1.protobuf\r\n", Some("parley.v1.protobuf")),
        ("Sec-WebSocket-Protocol: parley.v1\r\nSec-WebSocket-Protocol: parley.v1.msgpack\r\n", Some("parley.v1")),
        ("Sec-WebSocket-Protocol: parley.v10\r\n", None),
    ] {
        let head = response_head(&fixture, &upgrade_request(offer)).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{offer}: {head}");
        let answered = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(answered, selected, "{offer}: {head}");
    }
}

#[tokio::test]
async fn invalid_handshake_receives_the_matching_status() {
    let fixture = ListenFixture::open();
    let valid = upgrade_request("");
    let without = |line: &str| valid.replacen(line, "", 1);
    for (request, status, also) in [
        (valid.replacen("/ws", "/chat", 1), 404, ""),
        (valid.replacen("/ws", "/wsx", 1), 404, ""),
        (valid.replacen("/ws", "//ws", 1), 404, ""),
        (valid.replacen("/ws", "http://parley/wsx", 1), 404, ""),
        (valid.replacen("/ws", "ws", 1), 404, ""),
        (valid.replacen("/ws", "*", 1), 404, ""),
        (valid.replacen("/ws", "ws/ws", 1), 400, ""),
        (valid.replacen("/ws", "/ws a", 1), 400, ""),
        (valid.replacen("GET", "POST", 1), 405, "allow: get\r\n"),
        (without("Upgrade: websocket\r\n"), 426, "upgrade: websocket\r\n"),
        (valid.replacen("keep-alive, Upgrade", "keep-alive", 1), 426, "upgrade: websocket\r\n"),
        (valid.replacen("Version: 13", "Version: 8", 1), 426, "sec-websocket-version: 13\r\n"),
        (without("Sec-WebSocket-Version: 13\r\n"), 426, "sec-websocket-version: 13\r\n"),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, ""),
        (valid.replacen("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 1), 400, ""),
        (valid.replacen("dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ==", 1), 400, ""),
        (without("Host: parley\r\n"), 400, ""),
        (valid.replacen("HTTP/1.1", "HTTP/1.0", 1), 400, ""),
        (valid.replacen("Host: parley", "Host: a b@c/", 1), 400, ""),
        (valid.replacen("Host: parley", "Host: ann@parley", 1), 400, ""),
        (valid.replacen("Host: parley", "Host:", 1), 400, ""),
        (valid.replacen("Host: parley", "Host: parley:99999", 1), 400, ""),
        (valid.replacen("Host: parley", "Host: parley:ws", 1), 400, ""),
        (upgrade_request("Host: parley\r\n"), 400, ""),
        (upgrade_request("Host: another\r\n"), 400, ""),
        (upgrade_request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400, ""),
        (upgrade_request("Sec-WebSocket-Version: 8\r\n"), 400, ""),
        (upgrade_request("Sec-WebSocket-Version: 13\r\n"), 400, ""),
        (upgrade_request("Content-Length: 5\r\n") + "hello", 400, ""),
        (upgrade_request("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", 400, ""),
        (valid.replacen("Upgrade: websocket", "Upgrade: h2c", 1), 426, "upgrade: websocket\r\n"),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned(), 400, ""),
        (upgrade_request(&"X-A: b\r\n".repeat(100)), 431, ""),
        (upgrade_request(&format!("X-A: {}\r\n", "b".repeat(64 * 1024))), 431, ""),
        (valid.replacen("/ws", &format!("/ws?{}", "b".repeat(64 * 1024)), 1), 431, ""),
        (upgrade_request("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, ""),
        (upgrade_request("Content-Length: 0\r\nContent-Length: 7\r\n"), 400, ""),
    ] {
        let mut client = RawClient::connect(fixture.ws).await;
        client.send(request.as_bytes()).await;
        let head = client.head().await;
        client.rest().await;
        assert!(head.split(' ').nth(1) == Some(&status.to_string()), "{status} expected: {head}");
        assert!(head.contains(also), "{also:?} expected: {head}");
    }
    fixture.permits_returned().await;
    assert!(fixture.left_reasons().is_empty(), "a refused request started a session");
}

#[tokio::test]
async fn every_valid_form_of_the_target_is_accepted() {
    let fixture = ListenFixture::open();
    for target in ["/ws?", "/ws?a=b&c", "http://parley/ws", "http://another:8080/ws?a"] {
        for (host, more) in [("parley", ""), ("parley:8080", "X-A: b\r\n"), ("[::1]:80", "")] {
            let request =
                upgrade_request(more).replacen("/ws", target, 1).replacen("parley\r", &format!("{host}\r"), 1);
            let head = response_head(&fixture, &request).await;
            assert!(head.starts_with("HTTP/1.1 101"), "{target} {host}: {head}");
        }
    }
}

/// A request, and the change of the gateway before it.
type HandshakeRequest = (String, fn(&ListenFixture));

fn ban_this_machine(fixture: &ListenFixture) {
    let line = r#"ban 1 1 0 {"kind":"ban","address":"127.0.0.1","by":"ann"}"#;
    let changes = SanctionChange::parse("id", line).into_iter().collect();
    fixture.sanctions.apply(ReadChanges { version: 1, is_whole: true, changes });
}

/// Returns a request for each row of the table in PROTOCOL.md, in its order.
fn refused_requests() -> Vec<HandshakeRequest> {
    let valid = upgrade_request("");
    let as_is: fn(&ListenFixture) = |_| {};
    vec![
        (valid.clone(), as_is),
        (valid.clone(), as_is),
        (valid.clone(), ban_this_machine),
        (valid.replacen("/ws", "/wss", 1), as_is),
        (valid.replacen("GET /ws", "POST /", 1), as_is),
        (valid.clone(), |fixture| fixture.admission.go_away()),
        (valid.clone(), |fixture| fixture.ready.store(false, Ordering::Relaxed)),
        (upgrade_request("Host: another\r\n"), as_is),
        (upgrade_request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), as_is),
        (upgrade_request("Origin: https://evil.example\r\n"), as_is),
        (valid.replacen("GET", "HEAD", 1), as_is),
        (valid.replacen("HTTP/1.1", "HTTP/1.0", 1), as_is),
        ("GET /ws HTTP/1.1\r\nHost: parley\r\n\r\n".to_owned(), as_is),
        (valid.replacen("Version: 13", "Version: 7", 1), as_is),
        (valid.replacen("dGhlIHNhbXBsZSBub25jZQ==", "short", 1), as_is),
        (upgrade_request("Content-Length: 2\r\n") + "hi", as_is),
        (valid, as_is),
    ]
}

#[tokio::test]
async fn answers_match_the_rows_of_the_page() {
    let (rows, requests) = (page_rows(), refused_requests());
    assert_eq!(rows.len(), requests.len());
    let last = rows.len() - 1;
    for (number, (row, (request, change))) in rows.into_iter().zip(requests).enumerate() {
        let connections = if number == 0 { 0 } else { 1 };
        let origins = listed(&["https://chat.example.org"]);
        let share = if number == 1 { 0 } else { 1 };
        let addresses = Arc::new(AddressLimits { connections: share, ..AddressLimits::default() });
        let limits = ConnectionLimits { connections, addresses, origins, ..limits() };
        let fixture = match number == last {
            true => ListenFixture::over(limits, None, Some(tls::certificate())),
            false => ListenFixture::with(limits, None),
        };
        change(&fixture);
        let mut client = RawClient::connect(fixture.ws).await;
        client.send(request.as_bytes()).await;
        let (head, body) = (client.head().await, client.rest().await);
        let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [status, code, header, cause] = cells[..] else { panic!("{row}") };
        assert_eq!(head.split(' ').nth(1), Some(status), "{cause}: {head}");
        assert!(head.contains("content-type: application/problem+json\r\n"), "{cause}: {head}");
        assert!(head.contains("connection: close") || head.contains("connection: upgrade, close\r\n"), "{head}");
        assert!(header.is_empty() || head.contains(&format!("{}\r\n", header.to_lowercase())), "{header}: {head}");
        assert_eq!(head.contains("retry-after: 1\r\n"), header.starts_with("retry-after"), "{cause}: {head}");
        assert_eq!(head.contains("\r\nallow:"), header.starts_with("allow"), "{cause}: {head}");
        // An answer to HEAD has no body.
        if !request.starts_with("HEAD") {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&body["code"], &body["type"]), (&code.into(), &"about:blank".into()), "{cause}");
            assert_eq!(body["status"].to_string(), status, "{cause}");
            assert_eq!(body.get("detail").is_some(), status == "426" || number == last, "{cause}");
        }
        fixture.permits_returned().await;
        assert!(fixture.left_reasons().is_empty(), "{cause}: a refused request started a session");
    }
}

#[tokio::test]
async fn upgrade_keeps_frames_sent_with_the_request() {
    let fixture = ListenFixture::open();
    let mut bytes = upgrade_request("").into_bytes();
    bytes.extend(frame(0x81, br#"{"type":"ping","id":1}"#));
    bytes.extend(frame(0x81, br#"{"type":"ping","id":2}"#));
    let mut client = FrameClient(RawClient::connect(fixture.ws).await);
    client.0.send(&bytes).await;
    assert!(client.0.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(client.text().await, r#"{"type":"pong","id":1}"#);
    assert_eq!(client.text().await, r#"{"type":"pong","id":2}"#);
}

#[tokio::test]
async fn gateway_closes_client_with_unfinished_header() {
    let fixture = ListenFixture::with(ConnectionLimits { header_wait: Duration::from_millis(200), ..limits() }, None);
    let silent = RawClient::connect(fixture.ws).await;
    let mut slow = RawClient::connect(fixture.ws).await;
    slow.send(b"GET /ws HTTP/1.1\r\nHost: par").await;
    let both_closed = async { tokio::join!(silent.rest(), slow.rest()) };
    soon(both_closed).await;
    fixture.permits_returned().await;
}

/// Returns the origins of a setting.
fn listed(words: &[&str]) -> AllowedOrigins {
    words.iter().map(|word| word.parse().unwrap()).collect::<Vec<OriginWord>>().into()
}

/// Returns the status of a handshake with these header lines, at the host `parley`.
async fn handshake_status(fixture: &ListenFixture, headers: &str) -> u16 {
    let head = response_head(fixture, &upgrade_request(headers)).await;
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn handshake_accepts_only_the_allowed_origins() {
    let limits = Reloadable::from(limits());
    let fixture = ListenFixture::with(limits.clone(), None);
    let sent = [
        "",
        "Origin: https://parley\r\n",
        "Origin: https://chat.example.org\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin:\r\n",
        "Origin: https://parley\r\nOrigin: https://parley\r\n",
    ];
    let mut refused = 0;
    for (words, statuses) in [
        (&[][..], [101, 101, 403, 403, 403, 403, 403]),
        (&["https://chat.example.org"], [101, 403, 101, 403, 403, 403, 403]),
        (&["*"], [101, 101, 101, 101, 403, 403, 403]),
    ] {
        limits.set(ConnectionLimits { origins: listed(words), ..limits.get() });
        for (headers, status) in sent.into_iter().zip(statuses) {
            assert_eq!(handshake_status(&fixture, headers).await, status, "{words:?} {headers}");
            refused += u64::from(status == 403);
            assert_eq!(fixture.metrics.origins_refused.get(), refused, "{words:?} {headers}");
        }
    }
}

#[tokio::test]
async fn trusted_proxy_names_the_scheme_of_pages() {
    let limits = Reloadable::from(limits());
    let fixture = ListenFixture::with(limits.clone(), None);
    let table = [
        ("https", "https", 101),
        ("WSS", "https", 101),
        ("https, http", "https", 101),
        ("https", "http", 403),
        ("http", "https", 403),
        ("ws", "http", 101),
        ("gopher", "http", 101),
    ];
    for (forwarded, scheme, status) in table {
        let headers = format!("X-Forwarded-Proto: {forwarded}\r\nOrigin: {scheme}://parley\r\n");
        assert_eq!(handshake_status(&fixture, &headers).await, status, "{headers}");
    }
    let addresses = Arc::new(AddressLimits { proxies: Vec::new().into(), ..AddressLimits::default() });
    limits.set(ConnectionLimits { addresses, ..limits.get() });
    for (forwarded, scheme, _) in table {
        let headers = format!("X-Forwarded-Proto: {forwarded}\r\nOrigin: {scheme}://parley\r\n");
        assert_eq!(handshake_status(&fixture, &headers).await, 101, "{headers}: not from a trusted proxy");
    }
}

#[tokio::test]
async fn handshake_accepts_every_form_of_header_lists() {
    let fixture = ListenFixture::open();
    let valid = upgrade_request("");
    for request in [
        valid.replacen("Upgrade: websocket", "Upgrade: h2c, websocket", 1),
        valid.replacen("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: WebSocket", 1),
        valid.replacen("keep-alive, Upgrade", "keep-alive\r\nConnection: upgrade", 1),
        valid.replacen("Host: parley", "Host: [::1]:8080", 1),
        upgrade_request("Content-Length: 0\r\n"),
    ] {
        let head = response_head(&fixture, &request).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{request}: {head}");
    }
}

#[tokio::test]
async fn request_without_upgrade_receives_a_matching_problem() {
    let fixture = ListenFixture::open();
    let mut client = RawClient::connect(fixture.ws).await;
    client.send(b"GET /ws HTTP/1.1\r\nHost: parley\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("http/1.1 426") || answer.starts_with("HTTP/1.1 426"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((body["code"].as_str(), body["status"].as_u64()), (Some("bad_request"), Some(426)));
    assert!(body["detail"].as_str().unwrap().starts_with("this is a WebSocket address"), "{body}");
}
