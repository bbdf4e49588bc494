//! RFC 6455 as a table of inputs and expected events.
//!
//! Every input is read whole, byte by byte, and in two pieces with every possible cut.

use super::compare::{LIMITS, MESSAGE_BYTES_MAX, SKIPPED_BYTES_MAX, read_with_parley};
use super::{frame_with_length, masked_frame};

const TEXT: u8 = 0x81;
const FIRST_TEXT: u8 = 0x01;
const BINARY: u8 = 0x82;
const FIRST_BINARY: u8 = 0x02;
const CONTINUATION: u8 = 0x00;
const LAST_CONTINUATION: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

/// Expected report line, and the frames that produce it.
type FrameCase = (String, Vec<Vec<u8>>);

fn case(expected: &str, frames: &[Vec<u8>]) -> FrameCase {
    (expected.to_owned(), frames.to_vec())
}

fn assert_cases(cases: &[FrameCase]) {
    for (expected, frames) in cases {
        let input = frames.concat();
        let whole = read_with_parley(LIMITS, [&input[..]]).line();
        assert_eq!(whole, *expected, "{input:02x?}");
        assert_eq!(read_with_parley(LIMITS, input.chunks(1)).line(), *expected, "byte by byte: {input:02x?}");
        for cut in 0..=input.len() {
            let (front, back) = input.split_at(cut);
            assert_eq!(read_with_parley(LIMITS, [front, back]).line(), *expected, "cut at {cut}: {input:02x?}");
        }
    }
}

fn x_bytes(count: usize) -> Vec<u8> {
    vec![b'x'; count]
}

fn text_event(count: usize) -> String {
    format!("text \"{}\"", "x".repeat(count))
}

#[test]
fn reader_limits_the_empty_frames_of_a_message() {
    let message = |empty: usize| {
        let mut frames = vec![masked_frame(FIRST_TEXT, b"h")];
        frames.extend(vec![masked_frame(CONTINUATION, b""); empty]);
        frames.push(masked_frame(LAST_CONTINUATION, b"i"));
        frames.concat()
    };
    let allowed = [message(8192), message(8192)].concat();
    assert_eq!(read_with_parley(LIMITS, [&allowed[..]]).ending, super::compare::ReadEnding::Open);
    assert_eq!(read_with_parley(LIMITS, [&message(8193)[..]]).ending, super::compare::ReadEnding::Broken(1009));
    assert_eq!(read_with_parley(LIMITS, message(500_000).chunks(7)).ending, super::compare::ReadEnding::Broken(1009));
}

#[test]
fn reader_rejects_reserved_opcodes_and_bits() {
    let mut cases = vec![
        case("text \"hi\"", &[masked_frame(TEXT, b"hi")]),
        case("binary \"hi\"", &[masked_frame(BINARY, b"hi")]),
        case("close 1000 \"\"", &[masked_frame(CLOSE, &[3, 0xE8])]),
        case("ping \"hi\"", &[masked_frame(PING, b"hi")]),
        case("pong \"hi\"", &[masked_frame(PONG, b"hi")]),
        case("!1002", &[masked_frame(LAST_CONTINUATION, b"hi")]),
        case("!1002", &[masked_frame(CONTINUATION, b"hi")]),
        case("", &[masked_frame(FIRST_TEXT, b"hi")]),
        case("", &[masked_frame(FIRST_BINARY, b"hi")]),
    ];
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        cases.push(case("!1002", &[masked_frame(0x80 | opcode, b"")]));
        cases.push(case("text \"a\", !1002", &[masked_frame(TEXT, b"a"), masked_frame(opcode, b"x")]));
    }
    for bits in 1..8 {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            cases.push(case("!1002", &[masked_frame(opcode | bits << 4, b"")]));
        }
        cases.push(case("!1002", &[masked_frame(FIRST_TEXT, b"a"), masked_frame(LAST_CONTINUATION | bits << 4, b"b")]));
    }
    assert_cases(&cases);
}

#[test]
fn reader_requires_masked_client_frames() {
    let mut zero = masked_frame(TEXT, b"");
    zero.truncate(2);
    zero[1] |= 2;
    zero.extend([0, 0, 0, 0, b'h', b'i']);
    assert_cases(&[
        case("text \"hi\"", &[zero]),
        case("!1002", &[vec![TEXT, 2, b'h', b'i']]),
        case("!1002", &[vec![TEXT, 0]]),
        case("!1002", &[vec![BINARY, 0]]),
        case("!1002", &[vec![PING, 0]]),
        case("!1002", &[vec![PONG, 0]]),
        case("!1002", &[vec![CLOSE, 2, 3, 0xE8]]),
        case("!1002", &[vec![TEXT, 126, 0, 126]]),
        case("!1002", &[masked_frame(FIRST_TEXT, b"a"), vec![LAST_CONTINUATION, 1, b'b']]),
        case("text \"a\", !1002", &[masked_frame(TEXT, b"a"), vec![TEXT, 1, b'b']]),
    ]);
}

#[test]
fn reader_enforces_length_limits_and_encodings() {
    const TOP_BIT: &[u8] = &[0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1];
    const LARGEST: &[u8] = &[0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255];
    let long = |first, length: u64, payload: &[u8]| {
        frame_with_length(first, &[&[0xFF], &length.to_be_bytes()[..]].concat(), payload)
    };
    let middle = |first, length: u16, payload: &[u8]| {
        frame_with_length(first, &[&[0xFE], &length.to_be_bytes()[..]].concat(), payload)
    };
    let mut cases = vec![
        case("text \"\"", &[masked_frame(TEXT, b"")]),
        case("binary \"\"", &[masked_frame(BINARY, b"")]),
        case(&text_event(1), &[masked_frame(TEXT, &x_bytes(1))]),
        case(&text_event(MESSAGE_BYTES_MAX - 1), &[masked_frame(TEXT, &x_bytes(MESSAGE_BYTES_MAX - 1))]),
        case(&text_event(MESSAGE_BYTES_MAX), &[masked_frame(TEXT, &x_bytes(MESSAGE_BYTES_MAX))]),
        case("too large text", &[masked_frame(TEXT, &x_bytes(MESSAGE_BYTES_MAX + 1))]),
        case("too large binary", &[masked_frame(BINARY, &x_bytes(MESSAGE_BYTES_MAX + 1))]),
        case("too large text", &[masked_frame(TEXT, &x_bytes(125))]),
        case("too large text", &[masked_frame(TEXT, &x_bytes(126))]),
        case("too large text", &[masked_frame(TEXT, &x_bytes(SKIPPED_BYTES_MAX))]),
        case(
            "too large text, text \"a\"",
            &[masked_frame(TEXT, &x_bytes(SKIPPED_BYTES_MAX)), masked_frame(TEXT, b"a")],
        ),
        case("!1009", &[masked_frame(TEXT, &x_bytes(SKIPPED_BYTES_MAX + 1))]),
        case("!1009", &[masked_frame(BINARY, &x_bytes(SKIPPED_BYTES_MAX + 1))]),
        case("!1009", &[long(TEXT, 65536, b"")]),
        case("!1009", &[frame_with_length(TEXT, LARGEST, b"")]),
        case("!1009", &[frame_with_length(FIRST_BINARY, LARGEST, b"")]),
        case("!1002", &[frame_with_length(TEXT, TOP_BIT, b"")]),
        case("!1002", &[frame_with_length(BINARY, TOP_BIT, b"")]),
        case("!1002", &[frame_with_length(TEXT, &[255; 9], b"")]),
        case("!1002", &[masked_frame(FIRST_TEXT, b"a"), frame_with_length(LAST_CONTINUATION, TOP_BIT, b"")]),
        case("!1002", &[frame_with_length(PING, TOP_BIT, b"")]),
        // Lengths in a longer form than necessary.
        case("!1002", &[middle(TEXT, 0, b"")]),
        case("!1002", &[middle(TEXT, 2, b"hi")]),
        case("!1002", &[middle(TEXT, 125, &x_bytes(125))]),
        case("!1002", &[middle(PING, 2, b"hi")]),
        case("!1002", &[long(TEXT, 2, b"hi")]),
        case("!1002", &[long(TEXT, 126, &x_bytes(126))]),
        case("!1002", &[long(TEXT, 65535, b"")]),
        case("!1002", &[masked_frame(FIRST_TEXT, b"a"), middle(LAST_CONTINUATION, 1, b"b")]),
        // In pieces.
        case(
            &text_event(MESSAGE_BYTES_MAX),
            &[masked_frame(FIRST_TEXT, &x_bytes(MESSAGE_BYTES_MAX - 1)), masked_frame(LAST_CONTINUATION, &x_bytes(1))],
        ),
        case(
            "too large text",
            &[masked_frame(FIRST_TEXT, &x_bytes(MESSAGE_BYTES_MAX)), masked_frame(LAST_CONTINUATION, &x_bytes(1))],
        ),
        case(
            "too large binary",
            &[masked_frame(FIRST_BINARY, &x_bytes(MESSAGE_BYTES_MAX)), masked_frame(LAST_CONTINUATION, &x_bytes(1))],
        ),
        case(
            "too large text",
            &[masked_frame(FIRST_TEXT, &x_bytes(MESSAGE_BYTES_MAX + 1)), masked_frame(LAST_CONTINUATION, b"")],
        ),
        case(
            "too large text",
            &[masked_frame(FIRST_TEXT, &x_bytes(SKIPPED_BYTES_MAX - 1)), masked_frame(LAST_CONTINUATION, &x_bytes(1))],
        ),
        case(
            "!1009",
            &[masked_frame(FIRST_TEXT, &x_bytes(SKIPPED_BYTES_MAX)), masked_frame(LAST_CONTINUATION, &x_bytes(1))],
        ),
        case(
            "!1009",
            &[masked_frame(FIRST_TEXT, &x_bytes(SKIPPED_BYTES_MAX)), masked_frame(CONTINUATION, &x_bytes(1))],
        ),
        case("!1009", &[masked_frame(FIRST_TEXT, b"a"), frame_with_length(LAST_CONTINUATION, LARGEST, b"")]),
        case(
            "ping \"b\", too large text",
            &[masked_frame(FIRST_TEXT, &x_bytes(99)), masked_frame(PING, b"b"), masked_frame(LAST_CONTINUATION, b"c")],
        ),
        case(
            "too large text, text \"b\"",
            &[masked_frame(TEXT, &x_bytes(99)), masked_frame(FIRST_TEXT, b"b"), masked_frame(LAST_CONTINUATION, b"")],
        ),
    ];
    for length in [0, 1, 124, 125] {
        cases.push((format!("ping \"{}\"", "x".repeat(length)), vec![masked_frame(PING, &x_bytes(length))]));
    }
    for control in [PING, PONG, CLOSE] {
        cases.push(case("!1002", &[masked_frame(control, &x_bytes(126))]));
        cases.push(case("!1002", &[masked_frame(control, &x_bytes(300))]));
        cases.push(case("!1002", &[long(control, 65536, b"")]));
    }
    assert_cases(&cases);
}

#[test]
fn reader_joins_fragments_around_control_frames() {
    let (begin, more, end) =
        (masked_frame(FIRST_TEXT, b"a"), masked_frame(CONTINUATION, b"b"), masked_frame(LAST_CONTINUATION, b"c"));
    let mut cases = vec![
        case("text \"ac\"", &[begin.clone(), end.clone()]),
        case("text \"abc\"", &[begin.clone(), more.clone(), end.clone()]),
        case("text \"abbbc\"", &[begin.clone(), more.clone(), more.clone(), more.clone(), end.clone()]),
        case("text \"a\"", &[begin.clone(), masked_frame(LAST_CONTINUATION, b"")]),
        case("text \"c\"", &[masked_frame(FIRST_TEXT, b""), end.clone()]),
        case(
            "text \"\"",
            &[masked_frame(FIRST_TEXT, b""), masked_frame(CONTINUATION, b""), masked_frame(LAST_CONTINUATION, b"")],
        ),
        case("binary \"\"", &[masked_frame(FIRST_BINARY, b""), masked_frame(LAST_CONTINUATION, b"")]),
        case("binary \"xc\"", &[masked_frame(FIRST_BINARY, b"x"), end.clone()]),
        case("text \"ac\", text \"ac\"", &[begin.clone(), end.clone(), begin.clone(), end.clone()]),
        case("text \"ac\", text \"d\"", &[begin.clone(), end.clone(), masked_frame(TEXT, b"d")]),
        case("ping \"p\", text \"ac\"", &[begin.clone(), masked_frame(PING, b"p"), end.clone()]),
        case("ping \"\", text \"ac\"", &[begin.clone(), masked_frame(PING, b""), end.clone()]),
        case("pong \"p\", text \"ac\"", &[begin.clone(), masked_frame(PONG, b"p"), end.clone()]),
        case(
            "ping \"p\", pong \"q\", text \"abc\"",
            &[begin.clone(), masked_frame(PING, b"p"), more.clone(), masked_frame(PONG, b"q"), end.clone()],
        ),
        case("close 1000 \"\"", &[begin.clone(), masked_frame(CLOSE, &[3, 0xE8])]),
        case("text \"ac\", !1002", &[begin.clone(), end.clone(), end.clone()]),
        case("text \"d\", !1002", &[masked_frame(TEXT, b"d"), more]),
        case("ping \"\", !1002", &[masked_frame(PING, b""), end]),
    ];
    for begin in [begin, masked_frame(FIRST_BINARY, b"a")] {
        for another in [TEXT, FIRST_TEXT, BINARY, FIRST_BINARY] {
            cases.push(case("!1002", &[begin.clone(), masked_frame(another, b"d")]));
        }
        for control in [PING, PONG, CLOSE] {
            cases.push(case("!1002", &[begin.clone(), masked_frame(control & 0x7F, b"")]));
        }
    }
    for control in [PING, PONG, CLOSE] {
        cases.push(case("!1002", &[masked_frame(control & 0x7F, b"x")]));
    }
    assert_cases(&cases);
}

#[test]
fn reader_rejects_invalid_utf8_text() {
    let mut cases = vec![
        case(r#"text "\xc3\xa9""#, &[masked_frame(TEXT, "é".as_bytes())]),
        case(r#"text "\xef\xbb\xbfa""#, &[masked_frame(TEXT, "\u{feff}a".as_bytes())]),
        case(r#"text "\x00""#, &[masked_frame(TEXT, &[0])]),
        case(r#"text "\xf4\x8f\xbf\xbf""#, &[masked_frame(TEXT, "\u{10ffff}".as_bytes())]),
        case(r#"text "\xed\x9f\xbf\xee\x80\x80""#, &[masked_frame(TEXT, "\u{d7ff}\u{e000}".as_bytes())]),
        case(r#"binary "\xff\xfe""#, &[masked_frame(BINARY, &[0xFF, 0xFE])]),
        case(r#"text "\xc3\xa9""#, &[masked_frame(FIRST_TEXT, &[0xC3]), masked_frame(LAST_CONTINUATION, &[0xA9])]),
        case(
            r#"text "\xf0\x9f\x98\x80""#,
            &[
                masked_frame(FIRST_TEXT, &[0xF0]),
                masked_frame(CONTINUATION, &[0x9F]),
                masked_frame(CONTINUATION, &[0x98]),
                masked_frame(LAST_CONTINUATION, &[0x80]),
            ],
        ),
        case(
            r#"ping "\xff", text "\xc3\xa9""#,
            &[masked_frame(FIRST_TEXT, &[0xC3]), masked_frame(PING, &[0xFF]), masked_frame(LAST_CONTINUATION, &[0xA9])],
        ),
        case(
            r#"text "\xc3\xa9""#,
            &[
                masked_frame(FIRST_TEXT, &[0xC3]),
                masked_frame(CONTINUATION, b""),
                masked_frame(LAST_CONTINUATION, &[0xA9]),
            ],
        ),
        case("!1007", &[masked_frame(FIRST_TEXT, &[0xC3]), masked_frame(LAST_CONTINUATION, b"(")]),
        case("!1007", &[masked_frame(FIRST_TEXT, &[0xC3]), masked_frame(LAST_CONTINUATION, b"")]),
        case("!1007", &[masked_frame(FIRST_TEXT, b"a"), masked_frame(LAST_CONTINUATION, &[0xE2, 0x82])]),
        // Skipped messages are validated too.
        case("!1007", &[masked_frame(TEXT, &[x_bytes(99), vec![0xFF]].concat())]),
        case("!1007", &[masked_frame(TEXT, &[x_bytes(99), vec![0xC3]].concat())]),
        case("!1007", &[masked_frame(FIRST_TEXT, &x_bytes(99)), masked_frame(LAST_CONTINUATION, &[0xC3])]),
        case(
            "too large text",
            &[masked_frame(FIRST_TEXT, &[x_bytes(99), vec![0xC3]].concat()), masked_frame(LAST_CONTINUATION, &[0xA9])],
        ),
        case("too large binary", &[masked_frame(BINARY, &[0xFF; 99])]),
        // The first invalid byte rejects a text before the rest arrives.
        case("!1007", &[masked_frame(FIRST_TEXT, &[0xFF])]),
        case("!1007", &[frame_with_length(TEXT, &[0x80 | 50], &[0xC0])]),
        case("!1007", &[frame_with_length(TEXT, &[0x80 | 50], &[b'a', 0xED, 0xA0])]),
        case("", &[frame_with_length(TEXT, &[0x80 | 50], &[b'a', 0xE2, 0x82])]),
        // A ping may carry any bytes.
        case(r#"ping "\xff\xc0""#, &[masked_frame(PING, &[0xFF, 0xC0])]),
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
    cases.extend(bad.iter().map(|bad| case("!1007", &[masked_frame(TEXT, &[b"a", *bad].concat())])));
    assert_cases(&cases);
}

#[test]
fn reader_validates_close_codes_and_reasons() {
    let close = |code: u16, reason: &[u8]| masked_frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    let mut cases = vec![
        case("close", &[masked_frame(CLOSE, b"")]),
        case("!1002", &[masked_frame(CLOSE, &[3])]),
        case("close 1000 \"bye\"", &[close(1000, b"bye")]),
        (format!("close 1000 \"{}\"", "x".repeat(123)), vec![close(1000, &x_bytes(123))]),
        case("!1002", &[close(1000, &x_bytes(124))]),
        case(r#"close 1000 "\xc3\xa9""#, &[close(1000, "é".as_bytes())]),
        case("!1007", &[close(1000, &[0xFF])]),
        case("!1007", &[close(1000, &[0xC3])]),
        case("!1002", &[close(1005, &[0xFF])]),
        // The reader ignores everything after a close frame.
        case("close", &[masked_frame(CLOSE, b""), masked_frame(TEXT, b"late")]),
        case("close", &[masked_frame(CLOSE, b""), masked_frame(0xF3, b"")]),
        case("close", &[masked_frame(CLOSE, b""), masked_frame(CLOSE, b"")]),
        case("text \"a\", close 1001 \"\"", &[masked_frame(TEXT, b"a"), close(1001, b""), masked_frame(TEXT, b"late")]),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        cases.push((format!("close {code} \"\""), vec![close(code, b"")]));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65535] {
        cases.push(case("!1002", &[close(code, b"")]));
    }
    assert_cases(&cases);
}

/// The caller sets the limits.
#[test]
fn reader_accepts_messages_up_to_configured_limit() {
    const MIB: u32 = 1024 * 1024;
    let limits = super::frame::MessageLimits::new(16 * MIB, 16 * MIB);
    let input = masked_frame(BINARY, &x_bytes(16 * MIB as usize));
    let report = read_with_parley(limits, input.chunks(64 * 1024));
    assert_eq!(report.events.len(), 1);
    assert_eq!(report.events[0].len(), "binary \"\"".len() + 16 * MIB as usize);
    let input = masked_frame(BINARY, &x_bytes(16 * MIB as usize + 1));
    assert_eq!(read_with_parley(limits, input.chunks(64 * 1024)).line(), "!1009");
}
