//! Rows for the HTTP ports: heads that are not HTTP, refused upgrades, origins, and parameters of the server API.

use std::fmt::Write;

use crate::bad_input::row::{BadInput, Reaction, Surface};

use super::requests::FORGED_CURSORS;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

/// Writes everything but unreserved ASCII as `%XX`.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
    }
    encoded
}

/// A `GET` of the server API that is refused.
pub(super) fn api(path: &str, status: u16, code: &'static str) -> BadInput {
    get(Surface::PresenceApi, path, status, code)
}

fn get(surface: Surface, path: &str, status: u16, code: &'static str) -> BadInput {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let shown = format!("GET {path:.60}");
    BadInput::bytes(surface, shown, request, Reaction::Status(status, code))
}

pub(super) fn rows() -> Vec<BadInput> {
    [head_rows(), upgrade_rows(), origin_rows(), api_rows(), private_rows()].concat()
}

/// Rows for every HTTP port.
fn head_rows() -> Vec<BadInput> {
    let ports = [
        (Surface::ClientPort, "/ws"),
        (Surface::GatewayAdmin, "/livez"),
        (Surface::PresenceAdmin, "/livez"),
        (Surface::PresenceApi, "/v1/rooms"),
    ];
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[0; 512]].concat();
    let mut rows = Vec::new();
    for (surface, path) in ports {
        let head = |more: &str| format!("GET {path} HTTP/1.1\r\n{more}\r\n");
        let status = |name: &str, request: String, status, code| {
            BadInput::bytes(surface, name, request, Reaction::Status(status, code))
        };
        rows.extend([
            status("words", "hello, is this a chat?\r\n\r\n".to_owned(), 400, ""),
            status("HTTP/0.9", format!("GET {path}\r\n\r\n"), 400, ""),
            status("HTTP/9.9", format!("GET {path} HTTP/9.9\r\nHost: x\r\n\r\n"), 400, ""),
            status("a space before the colon", head("Host : x\r\n"), 400, ""),
            status("a NUL in a header", head("Host: x\r\nX: a\0b\r\n"), 400, ""),
            status("a header that is folded", head("Host: x\r\nX: a\r\n b\r\n"), 400, ""),
            status("two lengths", head("Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n"), 400, ""),
            status("a negative length", head("Host: x\r\nContent-Length: -1\r\n"), 400, ""),
            status("a header of 64 KiB", head(&format!("Host: x\r\nX: {}\r\n", "x".repeat(64 << 10))), 431, ""),
            status("a path of 64 KiB", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(64 << 10)), 431, ""),
            status("200 headers", head(&format!("Host: x\r\n{}", "X: y\r\n".repeat(200))), 431, ""),
            status("no Host", head("Connection: close\r\n"), 400, "bad_request"),
            status("two Hosts", head("Host: x\r\nHost: y\r\nConnection: close\r\n"), 400, "bad_request"),
            status("a Host with a space", head("Host: a b\r\nConnection: close\r\n"), 400, "bad_request"),
            status("a Host with a path", head("Host: a/b\r\nConnection: close\r\n"), 400, "bad_request"),
            status("a Host with a user", head("Host: root@a\r\nConnection: close\r\n"), 400, "bad_request"),
            status("a Host with port 99999", head("Host: a:99999\r\nConnection: close\r\n"), 400, "bad_request"),
            BadInput::bytes(surface, "a handshake of TLS", tls.clone(), Reaction::Status(400, "")),
            BadInput::bytes(surface, "HTTP/2", *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reaction::Ended),
        ]);
    }
    rows
}

fn upgrade_rows() -> Vec<BadInput> {
    let row = |name: &str, request: String, status, code| {
        BadInput::bytes(Surface::ClientPort, name, request, Reaction::Status(status, code))
    };
    let ws = |more: String| format!("GET /ws HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let close = "Connection: close\r\n";
    vec![
        row("an unknown path", format!("GET /chat HTTP/1.1\r\nHost: x\r\n{close}\r\n"), 404, "not_found"),
        row(
            "a path with dots",
            format!("GET /page/../../etc/passwd HTTP/1.1\r\nHost: x\r\n{close}\r\n"),
            404,
            "not_found",
        ),
        row(
            "a path with encoded dots",
            format!("GET /page/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n{close}\r\n"),
            404,
            "not_found",
        ),
        row("no upgrade", ws(close.to_owned()), 426, "bad_request"),
        row(
            "an upgrade to h2c",
            ws(format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{KEY}{VERSION}")),
            426,
            "bad_request",
        ),
        row("no version", ws(format!("{UPGRADE}{KEY}")), 426, "bad_request"),
        row("version 8", ws(format!("{UPGRADE}{KEY}Sec-WebSocket-Version: 8\r\n")), 426, "bad_request"),
        row("two versions", ws(format!("{UPGRADE}{KEY}{VERSION}{VERSION}")), 400, "bad_request"),
        row("no key", ws(format!("{UPGRADE}{VERSION}")), 400, "bad_request"),
        row("two keys", ws(format!("{UPGRADE}{KEY}{KEY}{VERSION}")), 400, "bad_request"),
        row("a key of 3 bytes", ws(format!("{UPGRADE}Sec-WebSocket-Key: YWJj\r\n{VERSION}")), 400, "bad_request"),
        row(
            "a key that is no base64",
            ws(format!("{UPGRADE}Sec-WebSocket-Key: {}\r\n{VERSION}", "*".repeat(24))),
            400,
            "bad_request",
        ),
        row("a body", ws(format!("{UPGRADE}{KEY}{VERSION}Content-Length: 2\r\n")) + "hi", 400, "bad_request"),
        row(
            "a POST",
            format!("POST /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}{VERSION}\r\n"),
            405,
            "method_not_allowed",
        ),
        row("HTTP/1.0", format!("GET /ws HTTP/1.0\r\nHost: x\r\n{UPGRADE}{KEY}{VERSION}\r\n"), 400, "bad_request"),
        row(
            "a POST of the page",
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{close}\r\n"),
            405,
            "method_not_allowed",
        ),
        row("a CONNECT", format!("CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n{close}\r\n"), 404, "not_found"),
    ]
}

fn origin_rows() -> Vec<BadInput> {
    let row = |origin: &str, status, code| {
        // Without a version, so that an origin that is allowed is refused for the row behind it.
        let request = format!("GET /ws HTTP/1.1\r\nHost: chat.example\r\n{UPGRADE}{KEY}{origin}\r\n");
        BadInput::bytes(Surface::ClientPort, format!("{origin:?}"), request, Reaction::Status(status, code))
    };
    let refused = [
        "null",
        "https://evil.example",
        "https://chat.example.evil.example",
        "https://evilchat.example",
        "https://evil.chat.example",
        "https://chat.example:8443",
        "https://chat.example@evil.example",
        "https://chat.example/",
        "https://chat.example.",
        "chat.example",
        "file://",
        "https://",
        "",
        "https://chat.example https://evil.example",
        "https://chat.example, https://evil.example",
        "\u{0}",
    ];
    let mut rows: Vec<_> = refused[..refused.len() - 1]
        .iter()
        .map(|origin| row(&format!("Origin: {origin}\r\n"), 403, "forbidden_origin"))
        .collect();
    rows.push(row("Origin: https://chat.example\r\nOrigin: https://chat.example\r\n", 403, "forbidden_origin"));
    rows.push(row(&format!("Origin: https://{}\r\n", "a".repeat(8_000)), 403, "forbidden_origin"));
    for allowed in ["https://chat.example", "https://CHAT.Example", "HTTPS://chat.example:443"] {
        rows.push(row(&format!("Origin: {allowed}\r\n"), 426, "bad_request"));
    }
    rows
}

fn api_rows() -> Vec<BadInput> {
    let mut rows = Vec::new();
    for limit in ["0", "-1", "1001", "1.5", "1e2", "", "ten", "%00", "99999999999999999999", "1%27%20OR%201=1"] {
        rows.push(api(&format!("/v1/rooms?limit={limit}"), 400, "bad_request"));
        rows.push(api(&format!("/v1/users?online=true&limit={limit}"), 400, "bad_request"));
    }
    for cursor in ["", "%2A", "%7B0%7D", "%00", "a%20b", "..", "-%2F", "%C0%AF"] {
        rows.push(api(&format!("/v1/rooms?cursor={cursor}"), 400, "bad_request"));
    }
    for cursor in FORGED_CURSORS.into_iter().chain(["\u{ff}"]) {
        let cursor = percent_encoded(cursor);
        rows.push(api(&format!("/v1/users?online=true&cursor={cursor}"), 400, "bad_request"));
        rows.push(api(&format!("/v1/rooms/home/members?cursor={cursor}"), 400, "bad_request"));
    }
    rows.push(api("/v1/users", 400, "bad_request"));
    rows.push(api("/v1/users?online=false", 400, "bad_request"));
    rows.push(api("/v1/rooms?limit=1&limit=2", 400, "bad_request"));
    rows.push(api(&format!("/v1/rooms?x={}", "y".repeat(1 << 20)), 431, ""));
    for path in ["/v1/users/%C0%AF", "/v1/users/%ff"] {
        rows.push(api(path, 400, "bad_request"));
    }
    for path in ["/v1/users/%00", "/v1/users/a%0d%0ab", "/v1/users/%7B0%7D", "/v1/users/a%2A", "/v1/users/%"] {
        rows.push(api(path, 400, "bad_nick"));
    }
    for path in
        ["/v2/rooms", "/v1/users/a/b", "/v1/../etc/passwd", "/v1/rooms/home/members/x/y", "/debug", "//v1/rooms"]
    {
        rows.push(api(path, 404, "not_found"));
    }
    let lookup = |name: &str, body: String, status, code| {
        let length = body.len();
        let head = format!(
            "POST /v1/users/lookup HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        BadInput::bytes(Surface::PresenceApi, name, head + &body, Reaction::Status(status, code))
    };
    let nested = format!("{{\"nicks\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let many = format!("{{\"nicks\":[{}\"a\"]}}", "\"a\",".repeat(1000));
    rows.extend([
        lookup("a lookup of nothing", String::new(), 400, "bad_request"),
        lookup("a lookup of a list", "[]".to_owned(), 400, "bad_request"),
        lookup("a lookup of a text", "{\"nicks\":\"ann\"}".to_owned(), 400, "bad_request"),
        lookup("a lookup of numbers", "{\"nicks\":[1]}".to_owned(), 400, "bad_request"),
        lookup("a lookup with its field twice", "{\"nicks\":[],\"nicks\":[]}".to_owned(), 400, "bad_request"),
        lookup("a lookup of 10,000 levels", nested, 400, "bad_request"),
        lookup("a lookup of 1,001 names", many, 400, "bad_request"),
        lookup("a lookup of 1 MiB", "x".repeat(1 << 20), 413, "too_large"),
        lookup("a lookup with half a surrogate pair", "{\"nicks\":[\"\\ud800\"]}".to_owned(), 400, "bad_request"),
    ]);
    for id in ["x", "-", "1-", "-1-0", "1-1-1", "18446744073709551616-0", "$", ">", "+"] {
        let request = format!("GET /v1/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {id}\r\nConnection: close\r\n\r\n");
        rows.push(BadInput::bytes(
            Surface::PresenceApi,
            format!("event {id:?}"),
            request,
            Reaction::Status(400, "bad_request"),
        ));
    }
    rows
}

/// Rows for what is private, and for methods and paths of the admin ports.
fn private_rows() -> Vec<BadInput> {
    let mut rows = Vec::new();
    for path in ["/metrics", "/livez", "/readyz", "/debug", "/v1/rooms", "/admin", "/.git/config", "/page/%00"] {
        rows.push(get(Surface::ClientPort, path, 404, "not_found"));
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        rows.push(get(Surface::PresenceApi, path, 404, "not_found"));
    }
    for surface in [Surface::GatewayAdmin, Surface::PresenceAdmin] {
        rows.push(get(surface, "/metrics/../../etc/passwd", 404, "not_found"));
        rows.push(get(surface, "/debug/pprof", 404, "not_found"));
        let post = *b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        rows.push(BadInput::bytes(surface, "POST /metrics", post, Reaction::Status(405, "method_not_allowed")));
    }
    for forwarded in ["", "localhost", "198.51.100.7:x", "unknown", "<script>", "1.2.3.4, ", "::ffff:1.2.3.999"] {
        let request =
            format!("GET /ws HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n");
        for surface in [Surface::ClientPort, Surface::ProxyPort] {
            let name = format!("X-Forwarded-For {forwarded:?}");
            rows.push(BadInput::bytes(surface, name, request.clone(), Reaction::Status(426, "bad_request")));
        }
    }
    rows
}
