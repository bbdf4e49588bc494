//! Events for many connections: encoded once per dialect and shared.
//!
//! [`Broadcast`] is one event; [`FanOutBatch`] is what one fan-out writes to each subscriber of a stream, with the
//! frames of every event. Invariant: the first connection of a dialect encodes, all others share its bytes. Knows no
//! connection.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::listen::frame::header;
use crate::message::Accepted;
use crate::outbound::policy::DropPolicy;
use crate::wire::{Dialect, Event};

/// Bytes in each dialect, encoded on first use.
#[derive(Debug, Default)]
struct BytesByDialect {
    json: OnceLock<Bytes>,
    line: OnceLock<Bytes>,
}

impl BytesByDialect {
    fn get_or_encode(&self, dialect: Dialect, encode: impl FnOnce() -> Bytes) -> &Bytes {
        let cell = match dialect {
            Dialect::Json => &self.json,
            Dialect::Line => &self.line,
        };
        cell.get_or_init(encode)
    }
}

/// An event for many recipients.
#[derive(Debug)]
pub struct Broadcast {
    event: Event,
    encoded: BytesByDialect,
}

impl Broadcast {
    /// Wraps an event for sharing.
    #[must_use]
    pub fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, encoded: BytesByDialect::default() })
    }

    /// The encoded event, without a frame.
    #[must_use]
    pub fn bytes(&self, dialect: Dialect) -> Bytes {
        self.encoded.get_or_encode(dialect, || dialect.encode(&self.event)).clone()
    }

    pub(super) fn accepted(&self) -> Accepted {
        if let Event::Message(message) = &self.event { message.accepted } else { Accepted::default() }
    }

    pub(super) fn drop_policy(&self) -> DropPolicy<'_> {
        DropPolicy::of(&self.event)
    }
}

/// Consecutive events of one stream, written to each connection with a single call.
#[derive(Debug)]
pub struct FanOutBatch {
    events: Vec<Arc<Broadcast>>,
    framed: BytesByDialect,
}

impl FanOutBatch {
    /// Joins events, oldest first. An event that may be dropped must be alone in its batch.
    #[must_use]
    pub fn new(events: Vec<Arc<Broadcast>>) -> Self {
        Self { events, framed: BytesByDialect::default() }
    }

    /// The events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Broadcast>] {
        &self.events
    }

    /// The events with their frames, ready for the socket.
    #[must_use]
    pub fn bytes(&self, dialect: Dialect) -> &Bytes {
        self.framed.get_or_encode(dialect, || {
            let mut framed = BytesMut::new();
            for event in &self.events {
                frame(dialect, &event.bytes(dialect), &mut framed);
            }
            framed.freeze()
        })
    }

    /// The acceptance time of the oldest message.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        self.events.iter().map(|event| event.accepted()).fold(Accepted::default(), Accepted::earlier)
    }

    pub(super) fn drop_policy(&self) -> DropPolicy<'_> {
        match &self.events[..] {
            [event] => event.drop_policy(),
            _ => DropPolicy::Never,
        }
    }
}

/// Appends an encoded event as the socket takes it: in a WebSocket frame, or as the lines that it is.
pub fn frame(dialect: Dialect, encoded: &[u8], out: &mut BytesMut) {
    match dialect {
        Dialect::Json => header::put_text(encoded, out),
        Dialect::Line => out.extend_from_slice(encoded),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn batch_is_framed_once_per_dialect_and_shared() {
        let gap = |to_seq| Broadcast::new(Event::Gap { to: "#lobby".into(), from_seq: 1, to_seq });
        let batch = FanOutBatch::new(vec![gap(1), gap(2)]);
        for dialect in [Dialect::Json, Dialect::Line] {
            let framed = batch.bytes(dialect).clone();
            assert_eq!(framed.as_ptr(), batch.bytes(dialect).as_ptr(), "the second call returns the same buffer");
            let mut expected = BytesMut::new();
            batch.events().iter().for_each(|event| frame(dialect, &event.bytes(dialect), &mut expected));
            assert_eq!(framed, expected);
        }
    }
}
