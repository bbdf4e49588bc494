//! RFC 6455, row by row: what is read from which bytes. Every row is read whole, byte by byte, and cut once anywhere.

use super::compare::{LIMITS, MESSAGE, SKIPPED, ours};
use super::{masked, with_length};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const BINARY: u8 = 0x82;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// What is read, and the frames it is read from.
type Row = (String, Vec<Vec<u8>>);

fn row(read: &str, frames: &[Vec<u8>]) -> Row {
    (read.to_owned(), frames.to_vec())
}

fn check(rows: &[Row]) {
    for (read, frames) in rows {
        let input = frames.concat();
        let whole = ours(LIMITS, [&input[..]]).line();
        assert_eq!(whole, *read, "{input:02x?}");
        assert_eq!(ours(LIMITS, input.chunks(1)).line(), *read, "byte by byte: {input:02x?}");
        for cut in 0..=input.len() {
            let (front, back) = input.split_at(cut);
            assert_eq!(ours(LIMITS, [front, back]).line(), *read, "cut at {cut}: {input:02x?}");
        }
    }
}

fn x(count: usize) -> Vec<u8> {
    vec![b'x'; count]
}

fn text_of(count: usize) -> String {
    format!("text \"{}\"", "x".repeat(count))
}

#[test]
fn opcodes_and_reserved_bits() {
    let mut rows = vec![
        row("text \"hi\"", &[masked(TEXT, b"hi")]),
        row("binary \"hi\"", &[masked(BINARY, b"hi")]),
        row("close 1000 \"\"", &[masked(CLOSE, &[3, 0xE8])]),
        row("ping \"hi\"", &[masked(PING, b"hi")]),
        row("pong \"hi\"", &[masked(PONG, b"hi")]),
        row("!1002", &[masked(ENDS, b"hi")]),
        row("!1002", &[masked(GOES_ON, b"hi")]),
        row("", &[masked(TEXT_BEGINS, b"hi")]),
        row("", &[masked(BINARY_BEGINS, b"hi")]),
    ];
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        rows.push(row("!1002", &[masked(0x80 | opcode, b"")]));
        rows.push(row("text \"a\", !1002", &[masked(TEXT, b"a"), masked(opcode, b"x")]));
    }
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            rows.push(row("!1002", &[masked(opcode | bits << 4, b"")]));
        }
        rows.push(row("!1002", &[masked(TEXT_BEGINS, b"a"), masked(ENDS | bits << 4, b"b")]));
    }
    check(&rows);
}

#[test]
fn masks() {
    let mut zero = masked(TEXT, b"");
    zero.truncate(2);
    zero[1] |= 2;
    zero.extend([0, 0, 0, 0, b'h', b'i']);
    check(&[
        row("text \"hi\"", &[zero]),
        row("!1002", &[vec![TEXT, 2, b'h', b'i']]),
        row("!1002", &[vec![TEXT, 0]]),
        row("!1002", &[vec![BINARY, 0]]),
        row("!1002", &[vec![PING, 0]]),
        row("!1002", &[vec![PONG, 0]]),
        row("!1002", &[vec![CLOSE, 2, 3, 0xE8]]),
        row("!1002", &[vec![TEXT, 126, 0, 126]]),
        row("!1002", &[masked(TEXT_BEGINS, b"a"), vec![ENDS, 1, b'b']]),
        row("text \"a\", !1002", &[masked(TEXT, b"a"), vec![TEXT, 1, b'b']]),
    ]);
}

#[test]
fn lengths() {
    const TOP_BIT: &[u8] = &[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1];
    const LARGEST: &[u8] = &[0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255];
    let long = |first, length: u64, payload: &[u8]| {
        with_length(first, &[&[0xFF], &length.to_be_bytes()[..]].concat(), payload)
    };
    let middle = |first, length: u16, payload: &[u8]| {
        with_length(first, &[&[0xFE], &length.to_be_bytes()[..]].concat(), payload)
    };
    let mut rows = vec![
        row("text \"\"", &[masked(TEXT, b"")]),
        row("binary \"\"", &[masked(BINARY, b"")]),
        row(&text_of(1), &[masked(TEXT, &x(1))]),
        row(&text_of(MESSAGE - 1), &[masked(TEXT, &x(MESSAGE - 1))]),
        row(&text_of(MESSAGE), &[masked(TEXT, &x(MESSAGE))]),
        row("too large text", &[masked(TEXT, &x(MESSAGE + 1))]),
        row("too large binary", &[masked(BINARY, &x(MESSAGE + 1))]),
        row("too large text", &[masked(TEXT, &x(125))]),
        row("too large text", &[masked(TEXT, &x(126))]),
        row("too large text", &[masked(TEXT, &x(SKIPPED))]),
        row("too large text, text \"a\"", &[masked(TEXT, &x(SKIPPED)), masked(TEXT, b"a")]),
        row("!1009", &[masked(TEXT, &x(SKIPPED + 1))]),
        row("!1009", &[masked(BINARY, &x(SKIPPED + 1))]),
        row("!1009", &[long(TEXT, 65536, b"")]),
        row("!1009", &[with_length(TEXT, LARGEST, b"")]),
        row("!1009", &[with_length(BINARY_BEGINS, LARGEST, b"")]),
        row("!1002", &[with_length(TEXT, TOP_BIT, b"")]),
        row("!1002", &[with_length(BINARY, TOP_BIT, b"")]),
        row("!1002", &[with_length(TEXT, &[255; 9], b"")]),
        row("!1002", &[masked(TEXT_BEGINS, b"a"), with_length(ENDS, TOP_BIT, b"")]),
        row("!1002", &[with_length(PING, TOP_BIT, b"")]),
        // Longer forms than needed.
        row("!1002", &[middle(TEXT, 0, b"")]),
        row("!1002", &[middle(TEXT, 2, b"hi")]),
        row("!1002", &[middle(TEXT, 125, &x(125))]),
        row("!1002", &[middle(PING, 2, b"hi")]),
        row("!1002", &[long(TEXT, 2, b"hi")]),
        row("!1002", &[long(TEXT, 126, &x(126))]),
        row("!1002", &[long(TEXT, 65535, b"")]),
        row("!1002", &[masked(TEXT_BEGINS, b"a"), middle(ENDS, 1, b"b")]),
        // In pieces.
        row(&text_of(MESSAGE), &[masked(TEXT_BEGINS, &x(MESSAGE - 1)), masked(ENDS, &x(1))]),
        row("too large text", &[masked(TEXT_BEGINS, &x(MESSAGE)), masked(ENDS, &x(1))]),
        row("too large binary", &[masked(BINARY_BEGINS, &x(MESSAGE)), masked(ENDS, &x(1))]),
        row("too large text", &[masked(TEXT_BEGINS, &x(MESSAGE + 1)), masked(ENDS, b"")]),
        row("too large text", &[masked(TEXT_BEGINS, &x(SKIPPED - 1)), masked(ENDS, &x(1))]),
        row("!1009", &[masked(TEXT_BEGINS, &x(SKIPPED)), masked(ENDS, &x(1))]),
        row("!1009", &[masked(TEXT_BEGINS, &x(SKIPPED)), masked(GOES_ON, &x(1))]),
        row("!1009", &[masked(TEXT_BEGINS, b"a"), with_length(ENDS, LARGEST, b"")]),
        row("ping \"b\", too large text", &[masked(TEXT_BEGINS, &x(99)), masked(PING, b"b"), masked(ENDS, b"c")]),
        row("too large text, text \"b\"", &[masked(TEXT, &x(99)), masked(TEXT_BEGINS, b"b"), masked(ENDS, b"")]),
    ];
    for length in [0, 1, 124, 125] {
        rows.push((format!("ping \"{}\"", "x".repeat(length)), vec![masked(PING, &x(length))]));
    }
    for control in [PING, PONG, CLOSE] {
        rows.push(row("!1002", &[masked(control, &x(126))]));
        rows.push(row("!1002", &[masked(control, &x(300))]));
        rows.push(row("!1002", &[long(control, 65536, b"")]));
    }
    check(&rows);
}

#[test]
fn fragments_and_what_comes_between_them() {
    let (begin, more, end) = (masked(TEXT_BEGINS, b"a"), masked(GOES_ON, b"b"), masked(ENDS, b"c"));
    let mut rows = vec![
        row("text \"ac\"", &[begin.clone(), end.clone()]),
        row("text \"abc\"", &[begin.clone(), more.clone(), end.clone()]),
        row("text \"abbbc\"", &[begin.clone(), more.clone(), more.clone(), more.clone(), end.clone()]),
        row("text \"a\"", &[begin.clone(), masked(ENDS, b"")]),
        row("text \"c\"", &[masked(TEXT_BEGINS, b""), end.clone()]),
        row("text \"\"", &[masked(TEXT_BEGINS, b""), masked(GOES_ON, b""), masked(ENDS, b"")]),
        row("binary \"\"", &[masked(BINARY_BEGINS, b""), masked(ENDS, b"")]),
        row("binary \"xc\"", &[masked(BINARY_BEGINS, b"x"), end.clone()]),
        row("text \"ac\", text \"ac\"", &[begin.clone(), end.clone(), begin.clone(), end.clone()]),
        row("text \"ac\", text \"d\"", &[begin.clone(), end.clone(), masked(TEXT, b"d")]),
        row("ping \"p\", text \"ac\"", &[begin.clone(), masked(PING, b"p"), end.clone()]),
        row("ping \"\", text \"ac\"", &[begin.clone(), masked(PING, b""), end.clone()]),
        row("pong \"p\", text \"ac\"", &[begin.clone(), masked(PONG, b"p"), end.clone()]),
        row(
            "ping \"p\", pong \"q\", text \"abc\"",
            &[begin.clone(), masked(PING, b"p"), more.clone(), masked(PONG, b"q"), end.clone()],
        ),
        row("close 1000 \"\"", &[begin.clone(), masked(CLOSE, &[3, 0xE8])]),
        row("text \"ac\", !1002", &[begin.clone(), end.clone(), end.clone()]),
        row("text \"d\", !1002", &[masked(TEXT, b"d"), more]),
        row("ping \"\", !1002", &[masked(PING, b""), end]),
    ];
    for begin in [begin, masked(BINARY_BEGINS, b"a")] {
        for another in [TEXT, TEXT_BEGINS, BINARY, BINARY_BEGINS] {
            rows.push(row("!1002", &[begin.clone(), masked(another, b"d")]));
        }
        for control in [PING, PONG, CLOSE] {
            rows.push(row("!1002", &[begin.clone(), masked(control & 0x7F, b"")]));
        }
    }
    for control in [PING, PONG, CLOSE] {
        rows.push(row("!1002", &[masked(control & 0x7F, b"x")]));
    }
    check(&rows);
}

#[test]
fn utf8() {
    let mut rows = vec![
        row(r#"text "\xc3\xa9""#, &[masked(TEXT, "é".as_bytes())]),
        row(r#"text "\xef\xbb\xbfa""#, &[masked(TEXT, "\u{feff}a".as_bytes())]),
        row(r#"text "\x00""#, &[masked(TEXT, &[0])]),
        row(r#"text "\xf4\x8f\xbf\xbf""#, &[masked(TEXT, "\u{10ffff}".as_bytes())]),
        row(r#"text "\xed\x9f\xbf\xee\x80\x80""#, &[masked(TEXT, "\u{d7ff}\u{e000}".as_bytes())]),
        row(r#"binary "\xff\xfe""#, &[masked(BINARY, &[0xFF, 0xFE])]),
        row(r#"text "\xc3\xa9""#, &[masked(TEXT_BEGINS, &[0xC3]), masked(ENDS, &[0xA9])]),
        row(
            r#"text "\xf0\x9f\x98\x80""#,
            &[masked(TEXT_BEGINS, &[0xF0]), masked(GOES_ON, &[0x9F]), masked(GOES_ON, &[0x98]), masked(ENDS, &[0x80])],
        ),
        row(
            r#"ping "\xff", text "\xc3\xa9""#,
            &[masked(TEXT_BEGINS, &[0xC3]), masked(PING, &[0xFF]), masked(ENDS, &[0xA9])],
        ),
        row(r#"text "\xc3\xa9""#, &[masked(TEXT_BEGINS, &[0xC3]), masked(GOES_ON, b""), masked(ENDS, &[0xA9])]),
        row("!1007", &[masked(TEXT_BEGINS, &[0xC3]), masked(ENDS, b"(")]),
        row("!1007", &[masked(TEXT_BEGINS, &[0xC3]), masked(ENDS, b"")]),
        row("!1007", &[masked(TEXT_BEGINS, b"a"), masked(ENDS, &[0xE2, 0x82])]),
        // Skipped, and yet looked at.
        row("!1007", &[masked(TEXT, &[x(99), vec![0xFF]].concat())]),
        row("!1007", &[masked(TEXT, &[x(99), vec![0xC3]].concat())]),
        row("!1007", &[masked(TEXT_BEGINS, &x(99)), masked(ENDS, &[0xC3])]),
        row("too large text", &[masked(TEXT_BEGINS, &[x(99), vec![0xC3]].concat()), masked(ENDS, &[0xA9])]),
        row("too large binary", &[masked(BINARY, &[0xFF; 99])]),
        // A text is refused with its first bad byte, while the rest of it is still to come.
        row("!1007", &[masked(TEXT_BEGINS, &[0xFF])]),
        row("!1007", &[with_length(TEXT, &[0x80 | 50], &[0xC0])]),
        row("!1007", &[with_length(TEXT, &[0x80 | 50], &[b'a', 0xED, 0xA0])]),
        row("", &[with_length(TEXT, &[0x80 | 50], &[b'a', 0xE2, 0x82])]),
        // A ping may hold anything.
        row(r#"ping "\xff\xc0""#, &[masked(PING, &[0xFF, 0xC0])]),
    ];
    let bad: &[&[u8]] = &[
        &[0x80],
        &[0xBF],
        &[0xC0, 0xAF],
        &[0xC1, 0xBF],
        &[0xC3, 0x28],
        &[0xE0, 0x80, 0xAF],
        &[0xE0, 0x9F, 0xBF],
        &[0xE2, 0x82],
        &[0xE2, 0x28, 0xA1],
        &[0xED, 0xA0, 0x80],
        &[0xED, 0xBF, 0xBF],
        &[0xF0, 0x80, 0x80, 0xAF],
        &[0xF0, 0x9F, 0x98],
        &[0xF4, 0x90, 0x80, 0x80],
        &[0xF5, 0x80, 0x80, 0x80],
        &[0xF8, 0x88, 0x80, 0x80, 0x80],
        &[0xFE],
        &[0xFF],
    ];
    rows.extend(bad.iter().map(|bad| row("!1007", &[masked(TEXT, &[b"a", *bad].concat())])));
    check(&rows);
}

#[test]
fn closes() {
    let close = |code: u16, reason: &[u8]| masked(CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    let mut rows = vec![
        row("close", &[masked(CLOSE, b"")]),
        row("!1002", &[masked(CLOSE, &[3])]),
        row("close 1000 \"bye\"", &[close(1000, b"bye")]),
        (format!("close 1000 \"{}\"", "x".repeat(123)), vec![close(1000, &x(123))]),
        row("!1002", &[close(1000, &x(124))]),
        row(r#"close 1000 "\xc3\xa9""#, &[close(1000, "é".as_bytes())]),
        row("!1007", &[close(1000, &[0xFF])]),
        row("!1007", &[close(1000, &[0xC3])]),
        row("!1002", &[close(1005, &[0xFF])]),
        // Nothing is read after it.
        row("close", &[masked(CLOSE, b""), masked(TEXT, b"late")]),
        row("close", &[masked(CLOSE, b""), masked(0xF3, b"")]),
        row("close", &[masked(CLOSE, b""), masked(CLOSE, b"")]),
        row("text \"a\", close 1001 \"\"", &[masked(TEXT, b"a"), close(1001, b""), masked(TEXT, b"late")]),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        rows.push((format!("close {code} \"\""), vec![close(code, b"")]));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65535] {
        rows.push(row("!1002", &[close(code, b"")]));
    }
    check(&rows);
}

/// The limits are the caller's.
#[test]
fn sixteen_mebibytes_are_a_message_if_the_limit_says_so() {
    const MIB: u32 = 1024 * 1024;
    let limits = super::frame::MessageLimits::new(16 * MIB, 16 * MIB);
    let input = masked(BINARY, &x(16 * MIB as usize));
    let reading = ours(limits, input.chunks(64 * 1024));
    assert_eq!(reading.events.len(), 1);
    assert_eq!(reading.events[0].len(), "binary \"\"".len() + 16 * MIB as usize);
    let input = masked(BINARY, &x(16 * MIB as usize + 1));
    assert_eq!(ours(limits, input.chunks(64 * 1024)).line(), "!1009");
}
