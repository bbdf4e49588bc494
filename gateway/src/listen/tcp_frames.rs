//! Splits the bytes of a TCP connection into frames.
//!
//! Stores at most one frame and one read, and nothing between frames: it waits for bytes before it allocates.
//! Invariant: the input is the same however the bytes arrive. Knows no format.

use std::future::poll_fn;
use std::io;

use bytes::{Buf, BytesMut};
use presence::model::codes::ErrorCode;

use crate::wire::frame::{FrameFault, FramePrefix, PREFIX_BYTES, TYPE_BYTES};
use crate::wire::{PackedCarrier, PackedDialect, REQUEST_BYTES_MAX, packed};

use super::connection::TransportInput;
use super::frame::ClientStream;

/// The buffer space for one read at least.
const READ_BYTES: usize = 2 * 1024;
/// The buffer space for one read of a long frame.
const LONG_READ_BYTES: usize = 16 * 1024;

/// The input of one connection.
#[derive(Debug, Default)]
pub(super) struct FrameSplitter {
    bytes: BytesMut,
    /// Bytes of an overlong frame that are still to be skipped.
    skipped: usize,
}

impl FrameSplitter {
    /// Creates the splitter of a connection of which these bytes are already read.
    pub(super) fn after(bytes: BytesMut) -> Self {
        Self { bytes, skipped: 0 }
    }

    /// Returns the bytes of partial input that are stored.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Reads the bytes that have arrived. Returns their number, 0 at the end of the input. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The socket is broken.
    pub(super) async fn fill(&mut self, stream: &mut impl ClientStream) -> io::Result<usize> {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        let most = if self.bytes.len() < READ_BYTES { READ_BYTES } else { LONG_READ_BYTES };
        poll_fn(|cx| stream.poll_fill(cx, most, &mut self.bytes)).await
    }

    /// Returns the next frame once it has arrived. The version of the first one sets the dialect before that.
    ///
    /// # Errors
    /// The bytes are not a frame of this connection.
    pub(super) fn next(&mut self, dialect: &mut Option<PackedDialect>) -> Result<Option<TransportInput>, FrameFault> {
        let skipped = self.skipped.min(self.bytes.len());
        self.bytes.advance(skipped);
        self.skipped -= skipped;
        if self.skipped > 0 {
            return Ok(None);
        }
        let Some(PackedDialect { format, .. }) = *dialect else {
            let Some(format) = FramePrefix::format(&self.bytes)? else { return Ok(None) };
            let first = PackedDialect { format, carrier: PackedCarrier::Frames, compresses: false };
            *dialect = Some(first);
            return Ok(Some(TransportInput::Dialect(first)));
        };
        let Some(FramePrefix { message_bytes, .. }) = FramePrefix::parse(&self.bytes, format)? else {
            return Ok(None);
        };
        if message_bytes > TYPE_BYTES + REQUEST_BYTES_MAX {
            self.skipped = PREFIX_BYTES + message_bytes;
            return Ok(Some(TransportInput::Request(Err((None, ErrorCode::TooLarge.into())))));
        }
        if self.bytes.len() < PREFIX_BYTES + message_bytes {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        let message = self.bytes.split_to(message_bytes);
        if message == packed::heartbeat() {
            return Ok(Some(TransportInput::Handled));
        }
        Ok(Some(TransportInput::Request(packed::decode(format, &message))))
    }
}
