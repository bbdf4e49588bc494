//! The newest message that a client has sent to each stream that it receives itself.
//!
//! [`OwnMessages`] is filled by `send` and emptied before the connection leaves a stream. A text client has no other
//! proof of its messages than to receive them. Pure; holds at most one entry for each room and one for the inbox.

use presence::model::stream::StreamId;

/// The last own seq of each stream, in no order.
#[derive(Debug, Default)]
pub(super) struct OwnMessages(Vec<(StreamId, u64)>);

impl OwnMessages {
    /// Notes a message that the store has under this seq.
    pub(super) fn note(&mut self, stream: StreamId, seq: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, last)) => *last = seq.max(*last),
            None => {
                // Usually the only entry.
                self.0.reserve_exact(1);
                self.0.push((stream, seq));
            }
        }
    }

    /// Removes the entry of one stream.
    pub(super) fn take(&mut self, stream: &StreamId) -> Option<u64> {
        let at = self.0.iter().position(|(known, _)| known == stream)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Removes all entries.
    pub(super) fn take_all(&mut self) -> Vec<(StreamId, u64)> {
        std::mem::take(&mut self.0)
    }
}
