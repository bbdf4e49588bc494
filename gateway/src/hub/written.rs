//! Progress of a stream into its members' outboxes, for sessions that wait for their own messages before they end.
//!
//! [`WrittenSeq`] is part of a feed; a finished fan-out job advances it. Invariant: a wait ends with the batch that
//! holds its seq, or with the feed. The waiting session limits the time.

use tokio::sync::oneshot;

/// The last seq that is in every member's outbox, and the waits for later ones.
#[derive(Debug, Default)]
pub(super) struct WrittenSeq {
    seq: u64,
    /// Mostly empty: only a session that is about to end waits.
    waits: Vec<(u64, oneshot::Sender<()>)>,
}

impl WrittenSeq {
    /// Returns the end of a wait for this seq; `None` if it is written.
    pub(super) fn wait_for(&mut self, seq: u64) -> Option<oneshot::Receiver<()>> {
        if seq <= self.seq {
            return None;
        }
        let (written, wait) = oneshot::channel();
        self.waits.retain(|(_, other)| !other.is_closed());
        self.waits.push((seq, written));
        Some(wait)
    }

    /// Advances to this seq and ends the waits for everything up to it.
    pub(super) fn advance(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
        for (_, written) in self.waits.extract_if(.., |(seq, _)| *seq <= self.seq) {
            let _ = written.send(());
        }
    }

    /// Goes back to the fork of a new epoch, which assigns the seqs after it again.
    pub(super) fn rewind(&mut self, fork: u64) {
        self.seq = self.seq.min(fork);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_ends_with_its_seq() {
        let mut written = WrittenSeq::default();
        let (mut third, mut fifth) = (written.wait_for(3), written.wait_for(5));
        written.advance(4);
        let has_ended = |wait: &mut Option<oneshot::Receiver<()>>| wait.as_mut().is_none_or(|it| it.try_recv().is_ok());
        assert_eq!((has_ended(&mut third), has_ended(&mut fifth)), (true, false));
        assert!(written.wait_for(4).is_none(), "4 is written");
        written.advance(2);
        assert!(written.wait_for(4).is_none(), "an older batch moves nothing back");
        written.rewind(1);
        assert!(written.wait_for(2).is_some(), "a new epoch assigns 2 again");
        drop(written);
        assert!(!has_ended(&mut fifth), "the feed ended without it");
    }

    #[test]
    fn abandoned_waits_are_removed() {
        let mut written = WrittenSeq::default();
        for _ in 0..1000 {
            drop(written.wait_for(7));
        }
        assert!(written.waits.len() <= 1, "{} waits are left", written.waits.len());
    }
}
