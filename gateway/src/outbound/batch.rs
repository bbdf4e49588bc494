//! Events on their way to many connections: encoded once per format, whoever asks first, and shared by all of them.
//!
//! The hub and drivers wrap events in it, outboxes ask for the bytes. A [`FanOutBatch`] is what a log gives everybody in one
//! go: its bytes are ready for the socket, frames and all. Knows no connection.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::listen::frame::header;
use crate::message::Accepted;
use crate::wire::{Dialect, Event};

/// Bytes in each format, made when first asked for.
#[derive(Debug, Default)]
struct PerDialect {
    json: OnceLock<Bytes>,
    line: OnceLock<Bytes>,
}

impl PerDialect {
    fn get(&self, format: Dialect, make: impl FnOnce() -> Bytes) -> &Bytes {
        let cell = match format {
            Dialect::Json => &self.json,
            Dialect::Line => &self.line,
        };
        cell.get_or_init(make)
    }
}

/// An event that many hear.
#[derive(Debug)]
pub struct Broadcast {
    event: Event,
    encoded: PerDialect,
}

impl Broadcast {
    /// Wraps an event for sharing.
    #[must_use]
    pub fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, encoded: PerDialect::default() })
    }

    /// The event in a format, unframed.
    #[must_use]
    pub fn bytes(&self, format: Dialect) -> Bytes {
        self.encoded.get(format, || format.encode(&self.event)).clone()
    }

    pub(super) fn accepted(&self) -> Accepted {
        if let Event::Message(message) = &self.event { message.accepted } else { Accepted::default() }
    }

    pub(super) fn worth(&self) -> DropPolicy<'_> {
        match &self.event {
            Event::Typing { .. } => DropPolicy::Little,
            Event::Presence { room, .. } => DropPolicy::AskedAgain(room),
            Event::Message(_)
            | Event::Gap { .. }
            | Event::Epoch { .. }
            | Event::Rewound { .. }
            | Event::GoingAway { .. } => DropPolicy::Everything,
        }
    }
}

/// Whether an event may be left out for a reader that falls behind.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropPolicy<'a> {
    /// It may, without a word.
    Little,
    /// It may, if the reader is told to ask for the list of this room again.
    AskedAgain(&'a str),
    /// It must not.
    Everything,
}

/// Events that follow each other, as one piece: one write for each connection, however many they are.
#[derive(Debug)]
pub struct FanOutBatch {
    events: Vec<Arc<Broadcast>>,
    framed: PerDialect,
}

impl FanOutBatch {
    /// Puts events together. What can be left out is a round of its own.
    #[must_use]
    pub fn new(events: Vec<Arc<Broadcast>>) -> Self {
        Self { events, framed: PerDialect::default() }
    }

    /// The events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Broadcast>] {
        &self.events
    }

    /// All of it as a connection of this format sends it.
    #[must_use]
    pub fn bytes(&self, format: Dialect) -> &Bytes {
        self.framed.get(format, || {
            let mut framed = BytesMut::new();
            for event in &self.events {
                frame(format, &event.bytes(format), &mut framed);
            }
            framed.freeze()
        })
    }

    /// When the oldest message of it was accepted.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        self.events.iter().map(|event| event.accepted()).fold(Accepted::default(), Accepted::earlier)
    }

    pub(super) fn worth(&self) -> DropPolicy<'_> {
        match &self.events[..] {
            [event] => event.worth(),
            _ => DropPolicy::Everything,
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
    fn a_round_is_put_together_once_per_format_and_shared() {
        let gap = |to_seq| Broadcast::new(Event::Gap { to: "#lobby".into(), from_seq: 1, to_seq });
        let round = FanOutBatch::new(vec![gap(1), gap(2)]);
        for format in [Dialect::Json, Dialect::Line] {
            let framed = round.bytes(format).clone();
            assert_eq!(framed.as_ptr(), round.bytes(format).as_ptr(), "made a second time");
            let mut expected = BytesMut::new();
            round.events().iter().for_each(|event| frame(format, &event.bytes(format), &mut expected));
            assert_eq!(framed, expected);
        }
    }
}
