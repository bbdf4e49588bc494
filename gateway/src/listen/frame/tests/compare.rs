//! Our reader beside tungstenite's: what both make of the same bytes, and which differences are meant.
//!
//! Used by the tests of the framing and by the fuzz target, which both bring `frame` into scope.

use std::fmt::Write as _;
use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::frame::{DataKind, FrameEvent, FrameReader, MessageLimits};

/// The limits under which both read: small, so that short inputs meet them.
pub(super) const LIMITS: MessageLimits = MessageLimits::new(MESSAGE as u32, SKIPPED as u32);
/// The longest message that is read.
pub(super) const MESSAGE: usize = 64;
/// The longest message that is skipped.
pub(super) const SKIPPED: usize = 200;

/// What became of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComparedEnd {
    /// It waits for more.
    Open,
    /// The client closed it.
    Closed,
    /// It was ended with this close code.
    Broken(u16),
}

/// What a reader made of an input: every event as a short text, then how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// The events.
    pub(super) events: Vec<String>,
    /// The end.
    pub(super) ending: ComparedEnd,
}

impl Reading {
    /// All of it in one line: `text "hi", ping "", !1002`.
    pub(super) fn line(&self) -> String {
        let mut line = self.events.join(", ");
        if let ComparedEnd::Broken(code) = self.ending {
            let separator = if line.is_empty() { "" } else { ", " };
            write!(line, "{separator}!{code}").expect("a string takes everything");
        }
        line
    }
}

fn kind(kind: DataKind) -> &'static str {
    match kind {
        DataKind::Text => "text",
        DataKind::Binary => "binary",
    }
}

fn shown(word: &str, bytes: &[u8]) -> String {
    format!("{word} \"{}\"", bytes.escape_ascii())
}

fn close_shown(code: Option<u16>, reason: &str) -> String {
    code.map_or_else(|| "close".to_owned(), |code| shown(&format!("close {code}"), reason.as_bytes()))
}

/// What our reader makes of the pieces of an input.
///
/// # Panics
/// The reader breaks a promise: it leaves input lying, keeps what it has handed out, or goes on after the end.
pub(super) fn ours<'a>(limits: MessageLimits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut reader = FrameReader::new(limits);
    let mut reading = Reading { events: Vec::new(), ending: ComparedEnd::Open };
    for piece in pieces {
        // Every piece lies somewhere else, as in life.
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        loop {
            match reader.next(&mut input) {
                Ok(None) => break,
                // The other one does not tell.
                Ok(Some(FrameEvent::Fragment)) => {}
                Ok(Some(event)) => {
                    assert_eq!(reading.ending, ComparedEnd::Open, "{event:?} after the end");
                    if matches!(event, FrameEvent::Close { .. }) {
                        reading.ending = ComparedEnd::Closed;
                    }
                    reading.events.push(event_shown(&event));
                }
                Err(violation) => {
                    assert_eq!(reading.ending, ComparedEnd::Open, "{violation} after the end");
                    reading.ending = ComparedEnd::Broken(violation.close_code().number());
                }
            }
        }
        assert!(input.is_empty(), "input was left lying");
        assert_eq!(reader.is_over(), reading.ending != ComparedEnd::Open);
    }
    if reading.ending != ComparedEnd::Open {
        assert_eq!(reader.held(), 0, "something is kept after the end");
    }
    reading
}

fn event_shown(event: &FrameEvent<'_>) -> String {
    match event {
        FrameEvent::Text(text) => shown("text", text.as_bytes()),
        FrameEvent::Binary(bytes) => shown("binary", bytes),
        FrameEvent::TooLarge(of) => format!("too large {}", kind(*of)),
        FrameEvent::Fragment => "fragment".to_owned(),
        FrameEvent::Ping(payload) => shown("ping", payload),
        FrameEvent::Pong(payload) => shown("pong", payload),
        FrameEvent::Close { code, reason } => close_shown(*code, reason),
    }
}

/// An input that is all there, and an output that is never read.
struct Tape<'a>(Cursor<&'a [u8]>);

impl Read for Tape<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of an input.
///
/// # Panics
/// It fails in a way that has nothing to do with the input.
pub(super) fn theirs(input: &[u8]) -> Reading {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(SKIPPED))
        .max_frame_size(Some(SKIPPED))
        .accept_unmasked_frames(false);
    let mut socket = WebSocket::from_raw_socket(Tape(Cursor::new(input)), Role::Server, Some(config));
    let mut events = Vec::new();
    let ending = loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) if text.len() > MESSAGE => "too large text".to_owned(),
            Ok(Message::Binary(bytes)) if bytes.len() > MESSAGE => "too large binary".to_owned(),
            Ok(Message::Text(text)) => shown("text", text.as_bytes()),
            Ok(Message::Binary(bytes)) => shown("binary", &bytes),
            Ok(Message::Ping(payload)) => shown("ping", &payload),
            Ok(Message::Pong(payload)) => shown("pong", &payload),
            Ok(Message::Close(close)) => {
                let reason = close.as_ref().map_or("", |close| close.reason.as_str());
                // A code that must not be sent is no error to it: it says so in the event.
                if reason == "Protocol violation" {
                    break ComparedEnd::Broken(1002);
                }
                events.push(close_shown(close.as_ref().map(|close| close.code.into()), reason));
                break ComparedEnd::Closed;
            }
            Ok(Message::Frame(_)) => panic!("a server reads messages"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break ComparedEnd::Open,
            Err(Error::Capacity(_)) => break ComparedEnd::Broken(1009),
            Err(Error::Utf8(_)) => break ComparedEnd::Broken(1007),
            Err(Error::Protocol(_)) => break ComparedEnd::Broken(1002),
            Err(error) => panic!("{error}"),
        });
    };
    Reading { events, ending }
}

/// Reads the input in both ways.
///
/// # Errors
/// They differ in a way that is not meant.
pub(super) fn agree(input: &[u8]) -> Result<(), String> {
    let (ours, theirs) = (ours(LIMITS, [input]), theirs(input));
    if ours == theirs || is_meant(input, &ours, &theirs) {
        return Ok(());
    }
    Err(format!("we read {:?}\nthey read {:?}\nin {input:02x?}", ours, theirs))
}

/// The differences that are meant. Until they differ both have read the same.
fn is_meant(input: &[u8], ours: &Reading, theirs: &Reading) -> bool {
    let same = ours.events == theirs.events;
    let header = telling_header(input);
    match (ours.ending, theirs.ending) {
        // A header says everything, so we do not wait for the payload. Nor for the rest of a text that went bad, or the
        // rest of a message that is too long as announced.
        (ComparedEnd::Broken(_), ComparedEnd::Open) if same => true,
        // Forbidden for two reasons: a frame that is too long and wrong, a close frame with a bad code and a bad
        // reason.
        (ComparedEnd::Broken(1002), ComparedEnd::Broken(1009)) if same && header.is_some_and(|it| it.is_long) => true,
        (ComparedEnd::Broken(1002), ComparedEnd::Broken(1007)) if same && header.is_some_and(|it| it.is_close) => true,
        // They read lengths that are not in their shortest form.
        (ComparedEnd::Broken(1002), _) => {
            theirs.events.starts_with(&ours.events) && header.is_some_and(|it| !it.is_shortest)
        }
        // 1014 (bad gateway) was registered after the RFC.
        (ComparedEnd::Closed, ComparedEnd::Broken(1002)) => {
            ours.events.last().is_some_and(|it| it.starts_with("close 1014"))
        }
        _ => false,
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    is_shortest: bool,
    is_long: bool,
    is_close: bool,
}

/// The first header after which neither reads on, or the last one, found by little more than the lengths.
fn telling_header(mut input: &[u8]) -> Option<Header> {
    let mut last = None;
    loop {
        let &[first, second, ..] = input else { return last };
        let (length, head, least) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(*input.get(2..4)?.first_chunk()?)), 4, 126),
            127 => (u64::from_be_bytes(*input.get(2..10)?.first_chunk()?), 10, 65536),
            short => (u64::from(short), 2, 0),
        };
        let header =
            Header { is_shortest: length >= least, is_long: length > SKIPPED as u64, is_close: first & 0x0F == 8 };
        last = Some(header);
        let whole = head + 4 * usize::from(second >> 7) + length.min(SKIPPED as u64) as usize;
        match input.get(whole..) {
            Some(rest) if header.is_shortest && !header.is_long && !header.is_close => input = rest,
            _ => return last,
        }
    }
}
