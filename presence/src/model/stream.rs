//! Streams, their epochs and forks: whether a position from an earlier epoch is still valid.
//!
//! A store that lost its newest messages assigns their seqs again, so a seq means something only within an epoch. The
//! scripts begin an epoch in every generation of the store and record a fork: the end of the former epoch. Registry,
//! backplane and sessions validate positions here. Pure.

use crate::model::{RoomKey, SessionId};

/// The identity of a stream: a numbered list of messages in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StreamId {
    /// The messages of a room.
    Room(RoomKey),
    /// The direct messages to a session.
    Inbox(SessionId),
}

/// Bytes of one page of a stream, unless its reader asks for less.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// The maximum size of one page of a stream. A page has at least one message, if the stream has one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Messages.
    pub messages: usize,
    /// Bytes of their stored payloads.
    pub bytes: usize,
}

impl PageLimit {
    /// At most this number of messages, and [`PAGE_BYTES_MAX`].
    #[must_use]
    pub fn of_messages(messages: usize) -> Self {
        Self { messages, bytes: PAGE_BYTES_MAX }
    }
}

/// The end of a former epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The former epoch.
    pub epoch: String,
    /// Its last message that the following epoch shares.
    pub seq: u64,
}

/// The end of a stream, with its former epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// The present epoch.
    pub epoch: String,
    /// The newest message.
    pub seq: u64,
    /// The ends of former epochs, oldest first. The store keeps only the newest of them.
    pub forks: Vec<Fork>,
}

impl StreamEnd {
    /// Returns the last message that `epoch` shares with this stream. A position up to it remains valid in the present
    /// epoch; messages after it are void. An unknown epoch shares nothing.
    #[must_use]
    pub fn shares(&self, epoch: &str) -> u64 {
        if epoch == self.epoch {
            return self.seq;
        }
        let from = self.forks.iter().position(|fork| fork.epoch == epoch);
        // A later epoch may end below an earlier one.
        from.and_then(|at| self.forks[at..].iter().map(|fork| fork.seq).min()).unwrap_or(0)
    }

    /// Returns true if a position in `epoch` is still valid. In an unknown epoch nothing is valid, seq 0 included.
    #[must_use]
    pub fn holds(&self, epoch: &str, seq: u64) -> bool {
        (epoch == self.epoch || self.came_from(epoch)) && seq <= self.shares(epoch)
    }

    /// Returns true if `epoch` is a former epoch of this stream.
    #[must_use]
    pub fn came_from(&self, epoch: &str) -> bool {
        self.forks.iter().any(|fork| fork.epoch == epoch)
    }
}

/// Parses forks as the scripts store them: `<epoch>:<seq>`, oldest first, separated by blanks. Skips malformed ones.
#[must_use]
pub fn read_forks(text: &str) -> Vec<Fork> {
    let read = |word: &str| {
        let (epoch, seq) = word.rsplit_once(':')?;
        Some(Fork { epoch: epoch.to_owned(), seq: seq.parse().ok()? })
    };
    text.split(' ').filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_valid_up_to_the_lowest_fork() {
        let head = StreamEnd { epoch: "e4".into(), seq: 30, forks: read_forks("e1:20 e2:12 e3:25") };
        for (epoch, shared) in [("e1", 12), ("e2", 12), ("e3", 25), ("e4", 30), ("e0", 0), ("", 0)] {
            assert_eq!(head.shares(epoch), shared, "{epoch}");
            assert_eq!(head.came_from(epoch), epoch != "e4" && shared > 0, "{epoch}");
        }
    }

    #[test]
    fn nothing_is_valid_in_an_unknown_epoch() {
        let forked = StreamEnd { epoch: "e3".into(), seq: 30, forks: read_forks("e1:20 e2:0") };
        let blank = StreamEnd { epoch: "e1".into(), seq: 0, forks: Vec::new() };
        for (end, epoch, seq, holds) in [
            (&forked, "e3", 30, true),
            (&forked, "e3", 31, false),
            (&forked, "e3", 0, true),
            (&forked, "e2", 0, true),
            (&forked, "e2", 1, false),
            (&forked, "e1", 0, true),
            (&forked, "e1", 1, false),
            (&forked, "e0", 0, false),
            (&forked, "e0", 1, false),
            (&forked, "", 0, false),
            (&blank, "e1", 0, true),
            (&blank, "e1", 1, false),
            (&blank, "e0", 0, false),
            (&blank, "", 0, false),
        ] {
            assert_eq!(end.holds(epoch, seq), holds, "{epoch:?} {seq} in {end:?}");
        }
    }

    #[test]
    fn malformed_forks_are_skipped_when_parsing() {
        assert_eq!(read_forks(""), []);
        assert_eq!(read_forks("e1 e2:x :7 e3:18446744073709551616").len(), 1);
        assert_eq!(read_forks("e:1:5"), [Fork { epoch: "e:1".into(), seq: 5 }]);
    }
}
