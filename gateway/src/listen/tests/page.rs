//! The chat page over HTTP: headers, validators, kept connections and their limits.

use super::super::upgrade::REQUESTS_MAX;
use super::*;

/// A request for the page with extra header lines.
fn page_request(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: parley\r\n{headers}\r\n")
}

fn access(served: bool) -> Arc<PageAccess> {
    Arc::new(PageAccess { served, ..PageAccess::default() })
}

/// Returns the value of a header in a lower-case head.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A client that requests files over one connection.
struct PageClient(RawClient);

impl PageClient {
    async fn connect(fixture: &ListenFixture) -> Self {
        Self(RawClient::connect(fixture.ws).await)
    }

    /// Sends a request and returns the head and the body of its answer.
    async fn exchange(&mut self, request: &str) -> (String, Vec<u8>) {
        self.0.send(request.as_bytes()).await;
        let head = self.0.head().await;
        let length = header(&head, "content-length").filter(|_| !request.starts_with("HEAD "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.0.received.len() < length {
            assert!(self.0.more().await > 0, "the connection ended inside a body");
        }
        (head, self.0.received.drain(..length).collect())
    }
}

#[tokio::test]
async fn page_has_type_tag_and_security_headers() {
    let fixture = ListenFixture::open();
    let (head, body) = PageClient::connect(&fixture).await.exchange(&page_request("")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for line in [
        "content-type: text/html; charset=utf-8",
        "cache-control: no-cache",
        "vary: accept-encoding",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
    ] {
        assert!(head.lines().any(|known| known == line), "no {line:?} in {head}");
    }
    let policy = header(&head, "permissions-policy").unwrap();
    assert!(policy.contains("camera=()") && policy.split(", ").all(|feature| feature.ends_with("=()")), "{policy}");
    assert!(header(&head, "content-encoding").is_none() && header(&head, "connection").is_none(), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"), "{body}");
}

#[tokio::test]
async fn listed_sites_may_frame_the_page_only() {
    let embedders: Vec<PageEmbedder> = vec!["https://www.example.org".parse().unwrap()];
    let limits = ConnectionLimits {
        page: Arc::new(PageAccess { embedders: embedders.into(), ..PageAccess::default() }),
        ..limits()
    };
    let fixture = ListenFixture::with(limits, None);
    for (path, ancestors) in
        [("/", "https://www.example.org"), ("/page/app.js", "https://www.example.org"), ("/elsewhere", "'none'")]
    {
        let request = format!("GET {path} HTTP/1.1\r\nHost: parley\r\n\r\n");
        let (head, _) = PageClient::connect(&fixture).await.exchange(&request).await;
        let policy = header(&head, "content-security-policy").unwrap();
        assert!(policy.contains(&format!("frame-ancestors {ancestors};")), "{path}: {policy}");
    }
}

#[tokio::test]
async fn known_tag_is_answered_without_content() {
    let fixture = ListenFixture::open();
    let mut client = PageClient::connect(&fixture).await;
    let mut tags = Vec::new();
    for accept in ["", "Accept-Encoding: gzip, deflate, br\r\n"] {
        let (head, body) = client.exchange(&page_request(accept)).await;
        assert_eq!(header(&head, "content-encoding"), (!accept.is_empty()).then_some("gzip"), "{head}");
        assert_eq!(body.starts_with(&[0x1f, 0x8b]), !accept.is_empty());
        let tag = header(&head, "etag").unwrap().to_owned();
        let (head, _) = client.exchange(&page_request(&format!("{accept}If-None-Match: {tag}\r\n"))).await;
        assert!(head.starts_with("HTTP/1.1 304"), "{head}");
        assert_eq!(header(&head, "etag"), Some(tag.as_str()), "{head}");
        for name in ["cache-control", "vary", "content-security-policy"] {
            assert!(header(&head, name).is_some(), "no {name} in {head}");
        }
        assert!(header(&head, "content-length").is_none() && header(&head, "content-type").is_none(), "{head}");
        let (head, body) = client.exchange(&page_request(&format!("{accept}If-None-Match: \"old\"\r\n"))).await;
        assert!(head.starts_with("HTTP/1.1 200") && !body.is_empty(), "{head}");
        tags.push(tag);
    }
    assert_ne!(tags[0], tags[1], "each encoding has its own tag");
}

#[tokio::test]
async fn head_request_receives_the_head_alone() {
    let fixture = ListenFixture::open();
    let mut client = PageClient::connect(&fixture).await;
    let (get, body) = client.exchange(&page_request("")).await;
    let (head, _) = client.exchange(&page_request("").replacen("GET", "HEAD", 1)).await;
    let without_date =
        |head: &str| head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n");
    assert_eq!(without_date(&head), without_date(&get));
    assert_eq!(header(&head, "content-length"), Some(body.len().to_string().as_str()));
    // The next answer begins directly after the head.
    let (next, _) = client.exchange(&page_request("")).await;
    assert!(next.starts_with("HTTP/1.1 200"), "{next}");
}

#[tokio::test]
async fn page_requests_are_refused_like_all_others() {
    let fixture = ListenFixture::open();
    for (request, status, also) in [
        (page_request("").replacen("GET", "POST", 1), 405, "allow: get, head\r\n"),
        (page_request("").replacen("GET", "OPTIONS", 1), 405, "allow: get, head\r\n"),
        (page_request("Host: another\r\n"), 400, ""),
        (page_request("").replacen("Host: parley\r\n", "", 1), 400, ""),
        (page_request("Content-Length: 2\r\n") + "hi", 400, ""),
        (page_request("").replacen(" / ", " /page/../ws ", 1), 404, ""),
        (page_request("").replacen(" / ", " /page/ ", 1), 404, ""),
        (page_request("").replacen(" / ", " /page/%2e%2e/Cargo.toml ", 1), 404, ""),
        (page_request("").replacen(" / ", " // ", 1), 404, ""),
    ] {
        let mut client = RawClient::connect(fixture.ws).await;
        client.send(request.as_bytes()).await;
        let head = client.head().await;
        client.rest().await;
        assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{request}: {head}");
        assert!(head.contains(also) && head.contains("connection: close\r\n"), "{request}: {head}");
    }
    fixture.permits_returned().await;
}

#[tokio::test]
async fn page_is_served_with_any_query() {
    let fixture = ListenFixture::open();
    let mut client = PageClient::connect(&fixture).await;
    for path in ["/?room=%23lobby", "/?", "http://parley/?a=b"] {
        let (head, _) = client.exchange(&page_request("").replacen(" / ", &format!(" {path} "), 1)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    }
    let (head, _) = client.exchange("GET / HTTP/1.0\r\nHost: parley\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn page_can_be_turned_off_and_on() {
    let limits = Reloadable::from(ConnectionLimits { page: access(false), ..limits() });
    let fixture = ListenFixture::with(limits.clone(), None);
    let status = async || {
        let (head, _) = PageClient::connect(&fixture).await.exchange(&page_request("")).await;
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status().await, "404");
    limits.set(ConnectionLimits { page: access(true), ..limits.get() });
    assert_eq!(status().await, "200");
}

#[tokio::test]
async fn page_is_served_while_the_gateway_is_unready() {
    let fixture = ListenFixture::open();
    fixture.ready.store(false, Ordering::Relaxed);
    let mut client = PageClient::connect(&fixture).await;
    let (head, _) = client.exchange(&page_request("")).await;
    assert!(head.starts_with("HTTP/1.1 200") && header(&head, "connection").is_none(), "{head}");
    fixture.admission.go_away();
    let (head, body) = client.exchange(&page_request("")).await;
    assert!(head.starts_with("HTTP/1.1 200") && !body.is_empty(), "{head}");
    assert_eq!(header(&head, "connection"), Some("close"), "a draining gateway keeps no connection");
    client.0.rest().await;
}

#[tokio::test]
async fn full_gateway_refuses_the_page_too() {
    let fixture = ListenFixture::with(ConnectionLimits { connections: 1, ..limits() }, None);
    let mut first = PageClient::connect(&fixture).await;
    first.exchange(&page_request("")).await;
    let (head, _) = PageClient::connect(&fixture).await.exchange(&page_request("")).await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1\r\n"), "{head}");
    drop(first);
    fixture.permits_returned().await;
}

#[tokio::test]
async fn websocket_follows_files_on_one_connection() {
    let fixture = ListenFixture::open();
    let mut client = PageClient::connect(&fixture).await;
    for _ in 0..3 {
        client.exchange(&page_request("")).await;
    }
    client.0.send((page_request("") + &upgrade_request("")).as_bytes()).await;
    let (head, _) = client.exchange("").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(client.0.head().await.starts_with("HTTP/1.1 101"));
    let mut socket = FrameClient(client.0);
    socket.assert_alive().await;
    assert_eq!(fixture.metrics.open(ListenerKind::Ws), 1, "one connection has one permit");
    drop(socket);
    fixture.permits_returned().await;
}

#[tokio::test]
async fn number_of_requests_is_limited_per_connection() {
    let fixture = ListenFixture::open();
    let mut client = PageClient::connect(&fixture).await;
    for number in 1..=REQUESTS_MAX {
        let (head, _) = client.exchange(&page_request("")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(header(&head, "connection") == Some("close"), number == REQUESTS_MAX, "request {number}: {head}");
    }
    assert_eq!(client.0.rest().await, "");
    fixture.permits_returned().await;
}

#[tokio::test]
async fn idle_connection_after_a_file_is_closed() {
    let limits = ConnectionLimits { header_wait: PATIENCE * 2, ..limits() };
    let fixture = ListenFixture::with(limits, None);
    let mut client = PageClient::connect(&fixture).await;
    client.exchange(&page_request("")).await;
    assert_eq!(client.0.rest().await, "");
    fixture.permits_returned().await;
}

#[tokio::test]
async fn unfinished_header_after_a_file_is_closed() {
    let limits = ConnectionLimits { header_wait: Duration::from_millis(200), ..limits() };
    let fixture = ListenFixture::with(limits, None);
    let mut client = PageClient::connect(&fixture).await;
    client.exchange(&page_request("")).await;
    client.0.send(b"GET / HTTP/1.1\r\nHost: par").await;
    client.0.rest().await;
    fixture.permits_returned().await;
}

#[tokio::test]
async fn drain_ends_idle_page_connections_at_once() {
    let limits = ConnectionLimits { close_wait: PATIENCE * 2, ..limits() };
    let fixture = ListenFixture::with(limits, None);
    let mut client = PageClient::connect(&fixture).await;
    client.exchange(&page_request("")).await;
    let silent = RawClient::connect(fixture.ws).await;
    eventually("both are accepted", || fixture.metrics.open(ListenerKind::Ws) == 2).await;
    fixture.drain(Duration::ZERO, Duration::ZERO);
    assert_eq!(client.0.rest().await, "");
    assert_eq!(silent.rest().await, "");
    soon(fixture.tasks.wait()).await;
}
