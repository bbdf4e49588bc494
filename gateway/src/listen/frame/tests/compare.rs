//! Compares the results of Parley's frame reader and tungstenite for the same bytes.
//!
//! [`compare_readers`] accepts equal reports and a short list of intended differences. The framing tests and the fuzz
//! target both include this file, and each brings `frame` into scope.

use std::fmt::Write as _;
use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::frame::{DataKind, FrameEvent, FrameReader, MessageLimits};

/// MessageLimits of both readers, small enough for short inputs to reach them.
pub(super) const LIMITS: MessageLimits = MessageLimits::new(MESSAGE_BYTES_MAX as u32, SKIPPED_BYTES_MAX as u32);
/// Maximum size of a message that is returned.
pub(super) const MESSAGE_BYTES_MAX: usize = 64;
/// Maximum size of a message that is skipped.
pub(super) const SKIPPED_BYTES_MAX: usize = 200;

/// State of the connection after the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnding {
    /// The reader waits for more input.
    Open,
    /// The client sent a close frame.
    Closed,
    /// The reader ended it with this close code.
    Broken(u16),
}

/// Result of reading an input: every event as a short text, and the final state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadReport {
    /// Events in input order.
    pub(super) events: Vec<String>,
    /// State after the last event.
    pub(super) ending: ReadEnding,
}

impl ReadReport {
    /// Returns the report as one line: `text "hi", ping "", !1002`.
    pub(super) fn line(&self) -> String {
        let mut line = self.events.join(", ");
        if let ReadEnding::Broken(code) = self.ending {
            let separator = if line.is_empty() { "" } else { ", " };
            write!(line, "{separator}!{code}").expect("writing to a string succeeds");
        }
        line
    }
}

fn kind_name(kind: DataKind) -> &'static str {
    match kind {
        DataKind::Text => "text",
        DataKind::Binary => "binary",
    }
}

fn render_event(word: &str, bytes: &[u8]) -> String {
    format!("{word} \"{}\"", bytes.escape_ascii())
}

fn render_close(code: Option<u16>, reason: &str) -> String {
    code.map_or_else(|| "close".to_owned(), |code| render_event(&format!("close {code}"), reason.as_bytes()))
}

/// Reads the pieces of an input with Parley's reader.
///
/// # Panics
/// The reader leaves input unread, keeps returned data, or continues after its end.
pub(super) fn read_with_parley<'a>(limits: MessageLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> ReadReport {
    let mut reader = FrameReader::new(limits);
    let mut report = ReadReport { events: Vec::new(), ending: ReadEnding::Open };
    for piece in pieces {
        // Each piece has its own allocation, like separate socket reads.
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match reader.next(&mut input) {
                Ok(None) => break,
                // Tungstenite does not report fragments.
                Ok(Some(FrameEvent::Fragment)) => {}
                Ok(Some(event)) => {
                    assert_eq!(report.ending, ReadEnding::Open, "{event:?} after the end");
                    if matches!(event, FrameEvent::Close { .. }) {
                        report.ending = ReadEnding::Closed;
                    }
                    report.events.push(event_text(&event));
                }
                Err(violation) => {
                    assert_eq!(report.ending, ReadEnding::Open, "{violation} after the end");
                    report.ending = ReadEnding::Broken(violation.close_code().number());
                }
            }
        }
        assert!(input.is_empty(), "the reader left input unread");
        assert_eq!(reader.is_over(), report.ending != ReadEnding::Open);
    }
    if report.ending != ReadEnding::Open {
        assert_eq!(reader.held(), 0, "the reader keeps data after its end");
    }
    report
}

fn event_text(event: &FrameEvent<'_>) -> String {
    match event {
        FrameEvent::Text(text) => render_event("text", text.as_bytes()),
        FrameEvent::Binary(bytes) => render_event("binary", bytes),
        FrameEvent::TooLarge(of) => format!("too large {}", kind_name(*of)),
        FrameEvent::Fragment => "fragment".to_owned(),
        FrameEvent::Ping(payload) => render_event("ping", payload),
        FrameEvent::Pong(payload) => render_event("pong", payload),
        FrameEvent::Close { code, reason } => render_close(*code, reason),
    }
}

/// A stream with a complete input that discards its output.
struct InputTape<'a>(Cursor<&'a [u8]>);

impl Read for InputTape<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for InputTape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an input with tungstenite.
///
/// # Panics
/// Tungstenite fails for a reason other than the input.
pub(super) fn read_with_tungstenite(input: &[u8]) -> ReadReport {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(SKIPPED_BYTES_MAX))
        .max_frame_size(Some(SKIPPED_BYTES_MAX))
        .accept_unmasked_frames(false);
    let mut socket = WebSocket::from_raw_socket(InputTape(Cursor::new(input)), Role::Server, Some(config));
    let mut events = Vec::new();
    let ending = loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) if text.len() > MESSAGE_BYTES_MAX => "too large text".to_owned(),
            Ok(Message::Binary(bytes)) if bytes.len() > MESSAGE_BYTES_MAX => "too large binary".to_owned(),
            Ok(Message::Text(text)) => render_event("text", text.as_bytes()),
            Ok(Message::Binary(bytes)) => render_event("binary", &bytes),
            Ok(Message::Ping(payload)) => render_event("ping", &payload),
            Ok(Message::Pong(payload)) => render_event("pong", &payload),
            Ok(Message::Close(close)) => {
                let reason = close.as_ref().map_or("", |close| close.reason.as_str());
                // Tungstenite reports a forbidden close code as an event with this reason.
                if reason == "Protocol violation" {
                    break ReadEnding::Broken(1002);
                }
                events.push(render_close(close.as_ref().map(|close| close.code.into()), reason));
                break ReadEnding::Closed;
            }
            Ok(Message::Frame(_)) => panic!("tungstenite returned a raw frame"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break ReadEnding::Open,
            Err(Error::Capacity(_)) => break ReadEnding::Broken(1009),
            Err(Error::Utf8(_)) => break ReadEnding::Broken(1007),
            Err(Error::Protocol(_)) => break ReadEnding::Broken(1002),
            Err(error) => panic!("{error}"),
        });
    };
    ReadReport { events, ending }
}

/// Reads the input with both readers.
///
/// # Errors
/// The reports differ in an unintended way.
pub(super) fn compare_readers(input: &[u8]) -> Result<(), String> {
    let (parley, tungstenite) = (read_with_parley(LIMITS, [input]), read_with_tungstenite(input));
    if parley == tungstenite || is_intended(input, &parley, &tungstenite) {
        return Ok(());
    }
    Err(format!("parley read {parley:?}\ntungstenite read {tungstenite:?}\nin {input:02x?}"))
}

/// Returns true for an intended difference. Up to that point both reports must be equal.
fn is_intended(input: &[u8], parley: &ReadReport, tungstenite: &ReadReport) -> bool {
    let same = parley.events == tungstenite.events;
    let header = deciding_header(input);
    match (parley.ending, tungstenite.ending) {
        // Parley rejects a bad header before its payload arrives. It also rejects an invalid text, or a message
        // announced as too long, before the rest arrives.
        (ReadEnding::Broken(_), ReadEnding::Open) if same => true,
        // Two violations in one frame: too long and malformed, or a close frame with a bad code and a bad reason.
        (ReadEnding::Broken(1002), ReadEnding::Broken(1009)) if same && header.is_some_and(|it| it.is_long) => true,
        (ReadEnding::Broken(1002), ReadEnding::Broken(1007)) if same && header.is_some_and(|it| it.is_close) => true,
        // Tungstenite accepts lengths that are not in their shortest form.
        (ReadEnding::Broken(1002), _) => {
            tungstenite.events.starts_with(&parley.events) && header.is_some_and(|it| !it.is_shortest)
        }
        // Code 1014 (bad gateway) was registered after the RFC.
        (ReadEnding::Closed, ReadEnding::Broken(1002)) => {
            parley.events.last().is_some_and(|it| it.starts_with("close 1014"))
        }
        _ => false,
    }
}

#[derive(Debug, Clone, Copy)]
struct ScannedHeader {
    is_shortest: bool,
    is_long: bool,
    is_close: bool,
}

/// Finds the first header that stops both readers, or else the last header.
/// It examines little more than the lengths.
fn deciding_header(mut input: &[u8]) -> Option<ScannedHeader> {
    let mut last = None;
    loop {
        let &[first, second, ..] = input else { return last };
        let (length, head, least) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(*input.get(2..4)?.first_chunk()?)), 4, 126),
            127 => (u64::from_be_bytes(*input.get(2..10)?.first_chunk()?), 10, 65536),
            short => (u64::from(short), 2, 0),
        };
        let header = ScannedHeader {
            is_shortest: length >= least,
            is_long: length > SKIPPED_BYTES_MAX as u64,
            is_close: first & 0x0F == 8,
        };
        last = Some(header);
        let whole = head + 4 * usize::from(second >> 7) + length.min(SKIPPED_BYTES_MAX as u64) as usize;
        match input.get(whole..) {
            Some(rest) if header.is_shortest && !header.is_long && !header.is_close => input = rest,
            _ => return last,
        }
    }
}
