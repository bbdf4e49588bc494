//! Logs: whose they are, and how they are counted. An epoch is one counting, a fork is where it ended, and together they
//! tell what a position from before is worth now.
//!
//! A store that lost its newest messages gives their numbers out again, so a seq alone says nothing: the scripts begin
//! another epoch in every generation of the store, and note up to where the one before is the same. Registry, backplane
//! and sessions ask here whether somebody's position still holds. Pure; writes and reads nothing.

use crate::model::{RoomKey, SessionId};

/// A numbered list of messages that the store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StreamId {
    /// What was said in a room.
    Room(RoomKey),
    /// The direct messages to a session.
    Inbox(SessionId),
}

/// Where a former epoch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The former epoch.
    pub epoch: String,
    /// Its last message that the following epoch took over.
    pub seq: u64,
}

/// Where a log ends, and what it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    /// The present epoch.
    pub epoch: String,
    /// The newest message.
    pub top: u64,
    /// The ends of former epochs, oldest first. The store remembers the newest of them only.
    pub forks: Vec<Fork>,
}

impl StreamEnd {
    /// Up to which message a history of `epoch` is this log's: a position there that is not past it holds, and goes on
    /// under the present epoch. What came after it is void. Of an epoch that nobody knows, everything is.
    #[must_use]
    pub fn shares(&self, epoch: &str) -> u64 {
        if epoch == self.epoch {
            return self.top;
        }
        let from = self.forks.iter().position(|fork| fork.epoch == epoch);
        // A later epoch may have been cut back below an earlier one.
        from.and_then(|at| self.forks[at..].iter().map(|fork| fork.seq).min()).unwrap_or(0)
    }

    /// Whether the log was counted by `epoch` before.
    #[must_use]
    pub fn came_from(&self, epoch: &str) -> bool {
        self.forks.iter().any(|fork| fork.epoch == epoch)
    }
}

/// Reads forks as the scripts keep them: `<epoch>:<seq>`, oldest first, a blank between two. What is none is left out.
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
    fn a_position_holds_up_to_the_lowest_fork_since() {
        let head = StreamEnd { epoch: "e4".into(), top: 30, forks: read_forks("e1:20 e2:12 e3:25") };
        for (epoch, shared) in [("e1", 12), ("e2", 12), ("e3", 25), ("e4", 30), ("e0", 0), ("", 0)] {
            assert_eq!(head.shares(epoch), shared, "{epoch}");
            assert_eq!(head.came_from(epoch), epoch != "e4" && shared > 0, "{epoch}");
        }
    }

    #[test]
    fn what_is_no_fork_is_left_out() {
        assert_eq!(read_forks(""), []);
        assert_eq!(read_forks("e1 e2:x :7 e3:18446744073709551616").len(), 1);
        assert_eq!(read_forks("e:1:5"), [Fork { epoch: "e:1".into(), seq: 5 }]);
    }
}
