//! Events for many connections: encoded once per dialect and shared.
//!
//! [`Broadcast`] is one event; [`FanOutBatch`] is what one fan-out writes to each subscriber of a stream, with the
//! frames of every event. Invariant: the first connection of a dialect encodes, all others share its bytes. Knows no
//! connection.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::listen::frame::header;
use crate::message::Accepted;
use crate::outbound::outbox_id::OutboxId;
use crate::outbound::policy::DropPolicy;
use crate::wire::{Dialect, Event, PackedCarrier, PackedDialect, frame as wire_frame};

/// Bytes in each dialect that was asked for, encoded once. A further dialect is a further link of the chain.
#[derive(Debug, Default)]
struct BytesByDialect(OnceLock<EncodedBytes>);

#[derive(Debug)]
struct EncodedBytes {
    dialect: Dialect,
    bytes: Bytes,
    next: OnceLock<Box<EncodedBytes>>,
}

impl BytesByDialect {
    fn get_or_encode(&self, dialect: Dialect, encode: impl Fn() -> Bytes) -> &Bytes {
        let make = || EncodedBytes { dialect, bytes: encode(), next: OnceLock::new() };
        let mut encoded = self.0.get_or_init(make);
        while encoded.dialect != dialect {
            encoded = encoded.next.get_or_init(|| Box::new(make()));
        }
        &encoded.bytes
    }
}

/// An event for many recipients.
#[derive(Debug)]
pub struct Broadcast {
    event: Event,
    encoded: BytesByDialect,
    /// The connection that does not receive it.
    except: Option<OutboxId>,
}

impl Broadcast {
    /// Wraps an event for sharing.
    #[must_use]
    pub fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, encoded: BytesByDialect::default(), except: None })
    }

    /// Wraps an event for all connections but one: its sender, if it wants no echo.
    #[must_use]
    pub fn except(event: Event, left_out: OutboxId) -> Arc<Self> {
        Arc::new(Self { event, encoded: BytesByDialect::default(), except: Some(left_out) })
    }

    /// Returns true if it leaves out the outbox with this state.
    pub(super) fn leaves_out<T>(&self, state: &Arc<T>) -> bool {
        self.except.as_ref().is_some_and(|left_out| left_out.is_of(state))
    }

    /// The encoded event, without a frame.
    #[must_use]
    pub fn bytes(&self, dialect: Dialect) -> Bytes {
        self.encoded.get_or_encode(dialect.unframed(), || dialect.encode(&self.event)).clone()
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
    /// True if an event leaves out a connection.
    has_exception: bool,
}

impl FanOutBatch {
    /// Joins events, oldest first. An event that may be dropped must be alone in its batch.
    #[must_use]
    pub fn new(events: Vec<Arc<Broadcast>>) -> Self {
        let has_exception = events.iter().any(|event| event.except.is_some());
        Self { events, framed: BytesByDialect::default(), has_exception }
    }

    /// The events, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Arc<Broadcast>] {
        &self.events
    }

    /// The events with their frames, ready for the socket.
    #[must_use]
    pub fn bytes(&self, dialect: Dialect) -> &Bytes {
        self.framed.get_or_encode(dialect, || self.frame_events(dialect, |_| true))
    }

    /// The events for the outbox with this state, if some of them leave it out, with their frames. `None` if it
    /// receives all: then [`FanOutBatch::bytes`] has them.
    pub(super) fn bytes_without<T>(&self, state: &Arc<T>, dialect: Dialect) -> Option<Bytes> {
        let leaves_out = self.has_exception && self.events.iter().any(|event| event.leaves_out(state));
        leaves_out.then(|| self.frame_events(dialect, |event| !event.leaves_out(state)))
    }

    fn frame_events(&self, dialect: Dialect, includes: impl Fn(&Broadcast) -> bool) -> Bytes {
        let mut framed = BytesMut::new();
        for event in self.events.iter().filter(|event| includes(event)) {
            frame(dialect, &event.bytes(dialect), &mut framed);
        }
        framed.freeze()
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
        Dialect::Packed(PackedDialect { carrier: PackedCarrier::WebSocket, .. }) => header::put_binary(encoded, out),
        Dialect::Packed(dialect) => wire_frame::put_frame(dialect.format, encoded, out),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::PackedFormat;

    #[test]
    fn batch_is_framed_once_per_dialect_and_shared() {
        let gap = |to_seq| Broadcast::new(Event::Gap { to: "#lobby".into(), from_seq: 1, to_seq });
        let batch = FanOutBatch::new(vec![gap(1), gap(2)]);
        let packed =
            |carrier| Dialect::Packed(PackedDialect { format: PackedFormat::MessagePack, carrier, compresses: false });
        let [frames, web_socket] = [PackedCarrier::Frames, PackedCarrier::WebSocket].map(packed);
        for dialect in [Dialect::Json, Dialect::Line, frames, web_socket] {
            let framed = batch.bytes(dialect).clone();
            assert_eq!(framed.as_ptr(), batch.bytes(dialect).as_ptr(), "the second call returns the same buffer");
            let mut expected = BytesMut::new();
            batch.events().iter().for_each(|event| frame(dialect, &event.bytes(dialect), &mut expected));
            assert_eq!(framed, expected);
        }
        let event = &batch.events()[0];
        assert_eq!(event.bytes(frames).as_ptr(), event.bytes(web_socket).as_ptr(), "a message is encoded once");
    }
}
