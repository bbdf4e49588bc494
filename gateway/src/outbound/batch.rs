//! Events on their way to many connections: encoded once per format, whoever asks first, and shared by all of them.
//!
//! The hub and drivers wrap events in it, outboxes ask for the bytes. A [`Round`] is what a log gives everybody in one
//! go: its bytes are ready for the socket, frames and all. Knows no connection.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::message::Accepted;
use crate::wire::{Event, Format};

/// Bytes in each format, made when first asked for.
#[derive(Debug, Default)]
struct PerFormat {
    json: OnceLock<Bytes>,
    line: OnceLock<Bytes>,
}

impl PerFormat {
    fn get(&self, format: Format, make: impl FnOnce() -> Bytes) -> &Bytes {
        let cell = match format {
            Format::Json => &self.json,
            Format::Line => &self.line,
        };
        cell.get_or_init(make)
    }
}

/// An event that many hear.
#[derive(Debug)]
pub struct Broadcast {
    event: Event,
    encoded: PerFormat,
}

impl Broadcast {
    /// Wraps an event for sharing.
    #[must_use]
    pub fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, encoded: PerFormat::default() })
    }

    /// The event in a format, unframed.
    #[must_use]
    pub fn bytes(&self, format: Format) -> Bytes {
        self.encoded.get(format, || format.encode(&self.event)).clone()
    }

    pub(super) fn accepted(&self) -> Accepted {
        if let Event::Message(message) = &self.event { message.accepted } else { Accepted::default() }
    }

    pub(super) fn worth(&self) -> Worth<'_> {
        match &self.event {
            Event::Typing { .. } => Worth::Little,
            Event::Presence { room, .. } => Worth::AskedAgain(room),
            Event::Message(_)
            | Event::Gap { .. }
            | Event::Epoch { .. }
            | Event::Rewound { .. }
            | Event::GoingAway { .. } => Worth::Everything,
        }
    }
}

/// Whether an event may be left out for a reader that falls behind.
#[derive(Debug, Clone, Copy)]
pub(super) enum Worth<'a> {
    /// It may, without a word.
    Little,
    /// It may, if the reader is told to ask for the list of this room again.
    AskedAgain(&'a str),
    /// It must not.
    Everything,
}

/// Events that follow each other, as one piece: one write for each connection, however many they are.
#[derive(Debug)]
pub struct Round {
    events: Vec<Arc<Broadcast>>,
    framed: PerFormat,
}

impl Round {
    /// Puts events together. What can be left out is a round of its own.
    #[must_use]
    pub fn new(events: Vec<Arc<Broadcast>>) -> Self {
        Self { events, framed: PerFormat::default() }
    }

    /// The events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Broadcast>] {
        &self.events
    }

    /// All of it as a connection of this format sends it.
    #[must_use]
    pub fn bytes(&self, format: Format) -> &Bytes {
        self.framed.get(format, || {
            let mut framed = BytesMut::new();
            for event in &self.events {
                format.frame(&event.bytes(format), &mut framed);
            }
            framed.freeze()
        })
    }

    /// When the oldest message of it was accepted.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        self.events.iter().map(|event| event.accepted()).fold(Accepted::default(), Accepted::earlier)
    }

    pub(super) fn worth(&self) -> Worth<'_> {
        match &self.events[..] {
            [event] => event.worth(),
            _ => Worth::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_round_is_put_together_once_per_format_and_shared() {
        let gap = |to_seq| Broadcast::new(Event::Gap { to: "#lobby".into(), from_seq: 1, to_seq });
        let round = Round::new(vec![gap(1), gap(2)]);
        for format in [Format::Json, Format::Line] {
            let framed = round.bytes(format).clone();
            assert_eq!(framed.as_ptr(), round.bytes(format).as_ptr(), "made a second time");
            let mut expected = BytesMut::new();
            round.events().iter().for_each(|event| format.frame(&event.bytes(format), &mut expected));
            assert_eq!(framed, expected);
        }
    }
}
