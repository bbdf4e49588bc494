//! The newest message that a client has sent to each stream that it receives itself.
//!
//! [`OwnMessages`] is filled by `send` and emptied before the connection leaves a stream. A text client has no other
//! proof of its messages than to receive them. Pure; holds at most one entry for each room and one for the inbox.

use presence::model::stream::StreamId;

/// The last own seq of each stream, in no order. Boxed: a client that only listens has none.
#[derive(Debug, Default)]
pub(super) struct OwnMessages(Option<Box<SentSeqs>>);

#[derive(Debug, Default)]
struct SentSeqs(Vec<(StreamId, u64)>);

impl OwnMessages {
    /// Notes a message that the store has under this seq.
    pub(super) fn note(&mut self, stream: StreamId, seq: u64) {
        let seqs = &mut self.0.get_or_insert_default().0;
        match seqs.iter_mut().find(|(known, _)| *known == stream) {
            Some((_, last)) => *last = seq.max(*last),
            None => {
                // Usually the only entry.
                seqs.reserve_exact(1);
                seqs.push((stream, seq));
            }
        }
    }

    /// Removes the entry of one stream.
    pub(super) fn take(&mut self, stream: &StreamId) -> Option<u64> {
        let seqs = &mut self.0.as_mut()?.0;
        let at = seqs.iter().position(|(known, _)| known == stream)?;
        Some(seqs.swap_remove(at).1)
    }

    /// Removes all entries.
    pub(super) fn take_all(&mut self) -> Vec<(StreamId, u64)> {
        self.0.take().map(|seqs| seqs.0).unwrap_or_default()
    }
}
