//! The output queue of one client, in frames.
//!
//! Payloads are shared and never copied; headers are built on the stack at the write. Does no IO: it returns the next
//! slices and is advanced by the written bytes, so a partial write continues where it stopped.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::header::EncodedHeader;

/// Maximum number of frames in one write.
const WRITE_FRAMES_MAX: usize = 32;
/// The longest reason of a close frame.
const REASON_BYTES_MAX: usize = 123;

/// The output of one connection.
#[derive(Debug, Default)]
pub struct FrameWriter {
    frames: VecDeque<QueuedFrame>,
    /// Written bytes of the first frame.
    written: usize,
    /// True if a close frame is queued or written: nothing may follow it.
    is_closed: bool,
}

#[derive(Debug)]
struct QueuedFrame {
    /// `None`: the payload consists of whole frames, or is the remainder of one.
    opcode: Option<OpCode>,
    payload: Bytes,
}

impl QueuedFrame {
    fn header(&self) -> EncodedHeader {
        self.opcode.map_or_else(EncodedHeader::default, |opcode| EncodedHeader::new(opcode, self.payload.len()))
    }

    fn len(&self) -> usize {
        self.header().as_bytes().len() + self.payload.len()
    }
}

impl FrameWriter {
    /// Queues a text, which the caller knows to be UTF-8.
    pub fn text(&mut self, text: Bytes) {
        self.push(OpCode::Data(Data::Text), text);
    }

    /// Queues a binary message.
    pub fn binary(&mut self, bytes: Bytes) {
        self.push(OpCode::Data(Data::Binary), bytes);
    }

    /// Queues bytes that are whole frames already.
    pub fn framed(&mut self, frames: Bytes) {
        if !self.is_closed {
            self.frames.push_back(QueuedFrame { opcode: None, payload: frames });
        }
    }

    /// Puts the remainder of a frame of the second writer before everything else, even a close. No frame of this queue
    /// may be partly written.
    pub fn rest(&mut self, frames: Bytes) {
        debug_assert!(self.written == 0, "two writers in the middle of a frame");
        self.frames.push_front(QueuedFrame { opcode: None, payload: frames });
    }

    /// Queues a ping without a payload.
    pub fn ping(&mut self) {
        self.push(OpCode::Control(Control::Ping), Bytes::new());
    }

    /// Queues a pong. It replaces a pong at the end of the queue: only the newest ping needs an answer.
    pub fn pong(&mut self, payload: &[u8]) {
        let waits = self.frames.len() > usize::from(self.written > 0);
        if let Some(last) =
            self.frames.back_mut().filter(|last| waits && last.opcode == Some(OpCode::Control(Control::Pong)))
        {
            last.payload = Bytes::copy_from_slice(payload);
        } else {
            self.push(OpCode::Control(Control::Pong), Bytes::copy_from_slice(payload));
        }
    }

    /// Queues the last frame; later frames are dropped. An overlong reason is omitted.
    pub fn close(&mut self, code: Option<u16>, reason: &str) {
        let mut payload = BytesMut::new();
        if let Some(code) = code {
            payload.put_u16(code);
            if reason.len() <= REASON_BYTES_MAX {
                payload.put_slice(reason.as_bytes());
            }
        }
        self.push(OpCode::Control(Control::Close), payload.freeze());
        self.is_closed = true;
    }

    /// Returns true if everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the capacity of the queue in frames.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.frames.capacity()
    }

    /// Returns the next slices for one vectored write. Empty only if nothing is queued.
    pub fn show<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut headers = [EncodedHeader::default(); WRITE_FRAMES_MAX];
        for (header, frame) in headers.iter_mut().zip(&self.frames) {
            *header = frame.header();
        }
        let mut slices = [IoSlice::new(&[]); 2 * WRITE_FRAMES_MAX];
        let mut used = 0;
        let mut written = self.written;
        for (header, frame) in headers.iter().zip(&self.frames) {
            for part in [header.as_bytes(), &frame.payload[..]] {
                let out = written.min(part.len());
                written -= out;
                if out < part.len() {
                    slices[used] = IoSlice::new(&part[out..]);
                    used += 1;
                }
            }
        }
        write(&slices[..used])
    }

    /// Advances by the written bytes and frees what it can.
    pub fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(len) = self.frames.front().map(QueuedFrame::len).filter(|&len| len <= self.written) {
            self.written -= len;
            self.frames.pop_front();
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    fn push(&mut self, opcode: OpCode, payload: Bytes) {
        if !self.is_closed {
            self.frames.push_back(QueuedFrame { opcode: Some(opcode), payload });
        }
    }
}
