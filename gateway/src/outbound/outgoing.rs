//! The items that a transport takes from an outbox.

use std::collections::VecDeque;

use bytes::Bytes;
use presence::model::codes::CloseCode;

use crate::wire::Reply;

/// One thing to write.
#[derive(Debug)]
pub enum Outgoing {
    /// The answer to a request of this connection.
    Reply(Reply),
    /// An event, encoded in this connection's dialect, without a frame.
    Event(Bytes),
    /// A fan-out batch with its frames.
    Batch(Bytes),
    /// The remainder of a batch that is partly written. Nothing may precede it, and it is written even if the
    /// connection ends.
    Remainder(Bytes),
    /// A ping; transports without pings skip it.
    Ping,
}

/// Everything that was queued, for the transport to write.
#[derive(Debug)]
pub struct TakenItems {
    /// Items to write, in order.
    pub items: VecDeque<Outgoing>,
    /// The code to close with afterwards.
    pub close: Option<CloseCode>,
    /// Messages are among the items, or among earlier ones that are not written yet. Their transport reports the write
    /// with [`Outbox::finish_write`](crate::outbound::Outbox::finish_write).
    pub has_messages: bool,
}
