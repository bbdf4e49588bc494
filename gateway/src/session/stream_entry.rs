//! The position at which a client enters a stream: decided by the core, carried out by the replay.
//!
//! A value only. Streams are rooms that the session has joined, and its inbox.

use presence::model::stream::{StreamEnd, StreamId};

use crate::wire::Since;

/// The entry of a client into a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// The stream.
    pub stream: StreamId,
    /// The name of the stream in the events that the client receives.
    pub shown: String,
    /// The end of the stream when the session entered it.
    pub end: StreamEnd,
    /// The client's epoch.
    pub epoch: String,
    /// The client's last seq in that epoch: it receives everything after it.
    pub after: u64,
}

impl StreamEntry {
    /// An entry at the client's position, or at the end of the stream for a client without one.
    #[must_use]
    pub fn new(stream: StreamId, shown: &str, end: StreamEnd, since: Option<Since>) -> Self {
        let Since { epoch, seq: after } = since.unwrap_or_else(|| Since { epoch: end.epoch.clone(), seq: end.seq });
        Self { stream, shown: shown.to_owned(), end, epoch, after }
    }
}
