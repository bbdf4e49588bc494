//! Decodes one client's bytes to events, in pieces of any size.
//!
//! An idle reader owns no memory. A message in one piece is unmasked and returned in place; pieces are collected until
//! the event. Every frame is checked by its header, before its payload arrives.

use std::borrow::Cow;
use std::io::Cursor;
use std::mem;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::mask::{Mask, unmask};
use super::utf8::Utf8;
use super::{DataKind, FrameEvent, MessageLimits, Violation};

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// Maximum number of empty frames in one message. Frames with a payload are bounded by the message's size.
const EMPTY_FRAMES_MAX: u16 = 8192;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// The state of one client's input.
#[derive(Debug)]
pub struct FrameReader {
    limits: MessageLimits,
    state: ReaderState,
    /// The message so far, unless it is skipped, followed by a partial control frame.
    held: Vec<u8>,
    /// The unfinished message.
    kind: Option<DataKind>,
    /// Its length with the present frame. Over the limit it is skipped.
    length: u32,
    /// Number of frames without a payload in it.
    empty_frames: u16,
    utf8: Utf8,
}

#[derive(Debug, Clone, Copy)]
enum ReaderState {
    /// A partial frame header.
    Head { bytes: [u8; HEADER_BYTES_MAX], len: u8 },
    /// Inside the payload of a frame.
    Payload(PartialFrame),
    /// The input is over.
    Over,
}

const BETWEEN_FRAMES: ReaderState = ReaderState::Head { bytes: [0; HEADER_BYTES_MAX], len: 0 };

#[derive(Debug, Clone, Copy)]
struct PartialFrame {
    opcode: OpCode,
    is_final: bool,
    /// True if a piece of it is stored.
    is_begun: bool,
    mask: Mask,
    /// Payload bytes that are still missing.
    left: u32,
}

impl FrameReader {
    /// Creates the reader of a new client.
    #[must_use]
    pub fn new(limits: MessageLimits) -> Self {
        Self {
            limits,
            state: BETWEEN_FRAMES,
            held: Vec::new(),
            kind: None,
            length: 0,
            empty_frames: 0,
            utf8: Utf8::default(),
        }
    }

    /// Returns the next event and removes it from the input. `None`: all input is used and more is needed.
    ///
    /// # Errors
    /// The input is a violation. All later input is ignored.
    pub fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<FrameEvent<'a>>, Violation> {
        let found = self.advance(input);
        if matches!(found, Err(_) | Ok(Some(FrameEvent::Close { .. }))) {
            self.state = ReaderState::Over;
            self.held = Vec::new();
        }
        found
    }

    /// Returns true if the client's last frame, or a violation, was read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, ReaderState::Over)
    }

    /// Releases what is stored. All later input is ignored.
    pub fn discard(&mut self) {
        self.state = ReaderState::Over;
        self.held = Vec::new();
    }

    /// Returns the stored bytes of an unfinished message.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    fn advance<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<FrameEvent<'a>>, Violation> {
        let mut frame = match self.state {
            ReaderState::Head { bytes, len } => match self.head(bytes, usize::from(len), input)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
            ReaderState::Payload(frame) => frame,
            ReaderState::Over => {
                *input = &mut [];
                return Ok(None);
            }
        };
        let piece = take(input, frame.left as usize);
        frame.mask = unmask(piece, frame.mask);
        frame.left -= piece.len() as u32;
        if frame.left > 0 {
            self.keep(frame, piece)?;
            self.state = ReaderState::Payload(PartialFrame { is_begun: true, ..frame });
            return Ok(None);
        }
        self.state = BETWEEN_FRAMES;
        Ok(Some(match frame.opcode {
            OpCode::Control(control) => self.control(frame, control, piece)?,
            OpCode::Data(_) => self.data(frame, piece)?,
        }))
    }

    /// Reads a header of which `len` bytes arrived earlier.
    fn head(
        &mut self,
        mut bytes: [u8; HEADER_BYTES_MAX],
        len: usize,
        input: &mut &mut [u8],
    ) -> Result<Option<PartialFrame>, Violation> {
        let fresh = input.len().min(HEADER_BYTES_MAX - len);
        bytes[len..len + fresh].copy_from_slice(&input[..fresh]);
        let mut cursor = Cursor::new(&bytes[..len + fresh]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol)? else {
            take(input, fresh);
            self.state = ReaderState::Head { bytes, len: (len + fresh) as u8 };
            return Ok(None);
        };
        let whole = cursor.position() as usize;
        take(input, whole - len);
        // Only the shortest form of a length is allowed.
        if header.len(length) != whole {
            return Err(Violation::Protocol);
        }
        self.check_frame(&header, length).map(Some)
    }

    fn check_frame(&mut self, header: &FrameHeader, length: u64) -> Result<PartialFrame, Violation> {
        let Some(mask) = header.mask else { return Err(Violation::Protocol) };
        if header.rsv1 || header.rsv2 || header.rsv3 || length > i64::MAX as u64 {
            return Err(Violation::Protocol);
        }
        match (header.opcode, self.kind) {
            (OpCode::Control(Control::Close | Control::Ping | Control::Pong), _) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(Violation::Protocol);
                }
            }
            (OpCode::Data(Data::Continue), Some(_)) => self.add_to_message(length)?,
            (OpCode::Data(Data::Text), None) => self.begin(DataKind::Text, length)?,
            (OpCode::Data(Data::Binary), None) => self.begin(DataKind::Binary, length)?,
            _ => return Err(Violation::Protocol),
        }
        // In range: a longer data frame was refused above.
        let left = length as u32;
        Ok(PartialFrame { opcode: header.opcode, is_final: header.is_final, is_begun: false, mask, left })
    }

    fn begin(&mut self, kind: DataKind, length: u64) -> Result<(), Violation> {
        self.kind = Some(kind);
        self.length = 0;
        self.empty_frames = 0;
        self.utf8 = Utf8::default();
        self.add_to_message(length)
    }

    fn add_to_message(&mut self, by: u64) -> Result<(), Violation> {
        self.empty_frames += u16::from(by == 0);
        if self.empty_frames > EMPTY_FRAMES_MAX {
            return Err(Violation::TooBig);
        }
        let length = by.saturating_add(self.length.into());
        if length > self.limits.skipped.into() {
            return Err(Violation::TooBig);
        }
        self.length = length as u32;
        if self.is_skipping() {
            self.held = Vec::new();
        }
        Ok(())
    }

    fn is_skipping(&self) -> bool {
        self.length > self.limits.message
    }

    /// Stores a piece of an unfinished frame or message.
    fn keep(&mut self, frame: PartialFrame, piece: &[u8]) -> Result<(), Violation> {
        if matches!(frame.opcode, OpCode::Data(_)) {
            if self.kind == Some(DataKind::Text) {
                self.utf8.check(piece)?;
            }
            if self.is_skipping() {
                return Ok(());
            }
        }
        // Space for the whole frame at once: the limit bounds it.
        self.held.reserve(piece.len() + frame.left as usize);
        self.held.extend_from_slice(piece);
        Ok(())
    }

    /// Completes a control frame, usually with its only piece.
    fn control<'a>(
        &mut self,
        frame: PartialFrame,
        control: Control,
        piece: &'a mut [u8],
    ) -> Result<FrameEvent<'a>, Violation> {
        let payload = if frame.is_begun {
            self.held.extend_from_slice(piece);
            // The interrupted message is stored before it.
            let start = if self.kind.is_none() || self.is_skipping() { 0 } else { self.length as usize };
            let payload = self.held.split_off(start);
            if start == 0 {
                self.held = Vec::new();
            }
            Cow::Owned(payload)
        } else {
            Cow::Borrowed(&*piece)
        };
        match control {
            Control::Ping => Ok(FrameEvent::Ping(payload)),
            Control::Pong => Ok(FrameEvent::Pong(payload)),
            _ => close(payload),
        }
    }

    /// Completes a data frame, usually with its only piece, and possibly its message.
    fn data<'a>(&mut self, frame: PartialFrame, piece: &'a mut [u8]) -> Result<FrameEvent<'a>, Violation> {
        let is_in_one_piece = frame.is_final && !frame.is_begun && frame.opcode != OpCode::Data(Data::Continue);
        if !is_in_one_piece || self.is_skipping() {
            self.keep(frame, piece)?;
        }
        if !frame.is_final {
            return Ok(FrameEvent::Fragment);
        }
        let (kind, is_skipped) = (self.kind.take().unwrap_or(DataKind::Binary), self.is_skipping());
        self.length = 0;
        Ok(match (kind, is_in_one_piece) {
            (DataKind::Text, _) if !self.utf8.is_complete() => return Err(Violation::BadUtf8),
            _ if is_skipped => FrameEvent::TooLarge(kind),
            (DataKind::Binary, true) => FrameEvent::Binary(Cow::Borrowed(piece)),
            (DataKind::Binary, false) => FrameEvent::Binary(Cow::Owned(mem::take(&mut self.held))),
            (DataKind::Text, true) => {
                FrameEvent::Text(Cow::Borrowed(str::from_utf8(piece).map_err(|_| Violation::BadUtf8)?))
            }
            // Each piece was checked as UTF-8; the second check is the price of text in pieces.
            (DataKind::Text, false) => FrameEvent::Text(Cow::Owned(
                String::from_utf8(mem::take(&mut self.held)).map_err(|_| Violation::BadUtf8)?,
            )),
        })
    }
}

/// Splits bytes off the front of the input, at most all of it.
fn take<'a>(input: &mut &'a mut [u8], most: usize) -> &'a mut [u8] {
    let most = most.min(input.len());
    let (front, rest) = mem::take(input).split_at_mut(most);
    *input = rest;
    front
}

fn close(payload: Cow<'_, [u8]>) -> Result<FrameEvent<'_>, Violation> {
    if payload.is_empty() {
        return Ok(FrameEvent::Close { code: None, reason: Cow::Borrowed("") });
    }
    let Some(code) = payload.first_chunk().map(|code| u16::from_be_bytes(*code)).filter(|code| may_be_sent(*code))
    else {
        return Err(Violation::Protocol);
    };
    let reason = match payload {
        Cow::Borrowed(payload) => str::from_utf8(&payload[2..]).map(Cow::Borrowed),
        Cow::Owned(payload) => str::from_utf8(&payload[2..]).map(|reason| Cow::Owned(reason.to_owned())),
    };
    Ok(FrameEvent::Close { code: Some(code), reason: reason.map_err(|_| Violation::BadUtf8)? })
}

/// Returns true if a close code may appear in a frame: the codes of the RFC and of IANA's registry that are not
/// reserved for use inside an endpoint, and the ranges for libraries and private use.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
