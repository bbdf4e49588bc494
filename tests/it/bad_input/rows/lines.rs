//! Rows for the TCP port: lines without an end, control characters, broken frames and headers of proxies.

use presence::model::codes::CloseCode;

use crate::bad_input::attacker::PROXY_HEADER;
use crate::bad_input::row::{BadInput, Reaction, Surface};

const LINE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn rows() -> Vec<BadInput> {
    [newcomer_rows(), member_rows(), header_rows()].concat()
}

fn newcomer_rows() -> Vec<BadInput> {
    let row = |name: &str, line: &[u8], code| BadInput::bytes(Surface::Lines, name, line, Reaction::Refused(code));
    vec![
        row("a text without a nickname", b"hello?\n", "not_registered"),
        row("an unknown command", b"/dance\n", "unknown_type"),
        row("no command", b"/\n", "unknown_type"),
        row("a command with a NUL", b"/ni\0ck a\n", "unknown_type"),
        row("a nickname without an argument", b"/nick\n", "bad_request"),
        row("a nickname of blanks", b"/nick   \t \n", "bad_request"),
        row("a token without an argument", b"/auth\n", "bad_request"),
        row("a carriage return alone", b"/ni\rck\n", "unknown_type"),
        row("carriage returns without a line feed", b"/dance\r/dance\r\r\n", "unknown_type"),
        row("a NUL in a nickname", b"/nick a\0b\n", "bad_nick"),
        row("a line that is not UTF-8", b"\xC0\xAF\n", "bad_request"),
        row("half a character", b"/nick \xE7\x95\n", "bad_request"),
        row("only NULs", b"\0\0\0\0\n", "not_registered"),
        row("a terminal sequence", b"\x1b[2J\x1b[H\n", "not_registered"),
        row("a request of HTTP", b"GET / HTTP/1.1\r\n", "not_registered"),
        row("a JSON request", b"{\"type\":\"ping\"}\n", "not_registered"),
        row("a line of 64 KiB and a byte", &[&[b'x'; LINE_BYTES_MAX + 1], &b"\n"[..]].concat(), "too_large"),
        row("a line of 3 MiB", &[&[b'x'; 3 << 20][..], b"\n"].concat(), "too_large"),
        row("a line of 64 KiB that quotes to more", &[b"/nick a ", &[b'"'; 60_000][..], b"\n"].concat(), "bad_nick"),
        BadInput::bytes(Surface::Lines, "blank lines first", *b"\r\n\n \n\t\r\n/ping\n", Reaction::Accepted("* pong")),
        BadInput::bytes(
            Surface::Lines,
            "commands of telnet",
            *b"\xFF\xFD\x01\xFF\xFB\x03/ping\r\n",
            Reaction::Accepted("* pong"),
        ),
    ]
}

fn member_rows() -> Vec<BadInput> {
    let row = |line: &str, code| {
        let bytes = format!("{line}\n");
        BadInput::bytes(Surface::MemberLines, line, bytes, Reaction::Refused(code))
    };
    let quoted = format!("/msg ann {}", "\"".repeat(60_000));
    vec![
        row("/msg", "bad_request"),
        row("/msg ann", "bad_request"),
        row("/msg a*b hi", "bad_nick"),
        row("/msg #home hi", "not_in_room"),
        row("/history 0", "bad_request"),
        row("/history 201", "bad_request"),
        row("/history -1", "bad_request"),
        row("/history 1e2", "bad_request"),
        row("/history 99999999999999999999", "bad_request"),
        row("/more", "bad_request"),
        row("/who a b", "bad_request"),
        row("/back now", "bad_request"),
        row("/ping pong", "bad_request"),
        row("/leave #home", "not_in_room"),
        row("/whois", "bad_request"),
        row("/auth x.y.z", "token_invalid"),
        row(&format!("/away {}", "t".repeat(257)), "bad_request"),
        row("/away a\u{1b}[2J", "bad_request"),
        BadInput::bytes(
            Surface::MemberLines,
            "a text that quotes to 120 KiB",
            format!("{quoted}\n"),
            Reaction::Refused("too_large"),
        ),
    ]
}

fn header_rows() -> Vec<BadInput> {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x0A\0\0\x01\x0A\0\0\x02\0\x01\0\x02";
    let closed = |name: &str, bytes: &[u8], code| BadInput::bytes(Surface::Lines, name, bytes, Reaction::Closed(code));
    let mut rows = vec![
        closed("a frame with another magic", &[0xCA, 0xFE, 0xBA, 0xBF], CloseCode::ProtocolError),
        closed("a frame of an unknown version", &[0xCA, 0xFE, 0xBA, 0xBE, 9], CloseCode::ProtocolError),
        closed("a frame of over 1 MiB", &[0xCA, 0xFE, 0xBA, 0xBE, 1, 0, 0x10, 0, 1], CloseCode::TooBig),
        closed("a forged PROXY header, version 1", PROXY_HEADER, CloseCode::ProtocolError),
        closed("a forged PROXY header, version 2", v2, CloseCode::ProtocolError),
        closed("a forged PROXY header without an address", b"PROXY UNKNOWN\r\n", CloseCode::ProtocolError),
    ];
    let valid = [PROXY_HEADER, b"/dance\n"].concat();
    let row = BadInput::bytes(
        Surface::ProxyLines,
        "a bad line behind a PROXY header",
        valid,
        Reaction::Refused("unknown_type"),
    );
    rows.push(BadInput { reaction: Reaction::Refused("unknown_type"), ..row });
    for (name, bytes) in [
        ("no PROXY header", &b"/nick ann\n"[..]),
        ("an address in words", b"PROXY TCP4 localhost localhost 1 2\r\n"),
        ("a port above 65535", b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"),
        ("a header without its CR", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"),
        ("an unknown family", b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"),
        ("a header that never ends", &[b'P'; 600]),
        ("version 3", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0C\x0A\0\0\x01\x0A\0\0\x02\0\x01\0\x02"),
        ("a length above the maximum", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF\x0A\0\0\x01\x0A\0\0\x02\0\x01\0\x02"),
        ("a request of HTTP", b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        rows.push(BadInput::bytes(Surface::ProxyLines, name, bytes, Reaction::Dismissed("bad_request")));
    }
    rows
}
