//! Events on their way to many connections: encoded once per format, whoever asks first, and shared by all of them.
//!
//! The hub and drivers wrap events in it, outboxes ask for the bytes. A [`Round`] is what a log gives everybody in one
//! go: its bytes are ready for the socket, frames and all. Knows no connection.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

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

    /// The room whose list can be asked for again when this event is left out; `None` when it must not be.
    pub(super) fn expendable(&self) -> Option<&str> {
        match &self.event {
            Event::Presence { room, .. } => Some(room),
            Event::Message(_)
            | Event::Gap { .. }
            | Event::Epoch { .. }
            | Event::Rewound { .. }
            | Event::GoingAway { .. } => None,
        }
    }
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

    /// See [`Broadcast::expendable`].
    pub(super) fn expendable(&self) -> Option<&str> {
        match &self.events[..] {
            [event] => event.expendable(),
            _ => None,
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
