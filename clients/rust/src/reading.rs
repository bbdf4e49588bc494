//! The read mark of a conversation, and the messages after it.

use std::collections::VecDeque;

use crate::events::Message;

/// Number of messages that are counted as unread, at most.
const UNREAD_MAX: usize = 1_000;

/// Positions of a conversation: of its last message, and of the last read one.
#[derive(Debug)]
pub(crate) struct ReadMark {
    /// Seq of the last message.
    pub(crate) seq: u64,
    pub(crate) read_seq: u64,
    unread: VecDeque<u64>,
}

impl ReadMark {
    /// Begins at a position. Without a stored mark everything up to it is read.
    pub(crate) fn new(seq: u64, stored: Option<u64>) -> Self {
        Self { seq, read_seq: stored.unwrap_or(seq).min(seq), unread: VecDeque::new() }
    }

    pub(crate) fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Counts a message that arrived.
    pub(crate) fn count(&mut self, message: &Message) {
        let Some(seq) = message.seq else { return };
        // The inbox of a new session begins again.
        if seq <= self.seq {
            self.rewind(seq.saturating_sub(1));
        }
        self.seq = seq;
        if !message.own && seq > self.read_seq {
            self.unread.push_back(seq);
            if self.unread.len() > UNREAD_MAX {
                self.unread.pop_front();
            }
        }
    }

    /// Forgets everything after `seq`.
    pub(crate) fn rewind(&mut self, seq: u64) {
        self.seq = self.seq.min(seq);
        self.read_seq = self.read_seq.min(seq);
        self.unread.retain(|unread| *unread <= seq);
    }

    /// Marks messages up to `seq` as read. Returns false if nothing changed.
    pub(crate) fn read(&mut self, seq: u64) -> bool {
        let seq = seq.min(self.seq);
        if seq <= self.read_seq {
            return false;
        }
        self.read_seq = seq;
        self.unread.retain(|unread| *unread > seq);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64, own: bool) -> Message {
        let (id, to, from) = (seq.to_string(), "#a".to_owned(), "bob".to_owned());
        let (seq, body) = (Some(seq), 0.into());
        Message { id, to, from, from_user: None, from_api: false, seq, time: 0, body, own, repeated: false }
    }

    #[test]
    fn unread_counts_messages_of_others() {
        let mut mark = ReadMark::new(4, None);
        (5..8).for_each(|seq| mark.count(&message(seq, seq == 6)));
        assert_eq!((mark.unread(), mark.read_seq, mark.seq), (2, 4, 7));
        assert!(mark.read(5) && !mark.read(5));
        assert_eq!((mark.unread(), mark.read_seq), (1, 5));
        mark.rewind(5);
        assert_eq!((mark.unread(), mark.read_seq, mark.seq), (0, 5, 5));
    }

    #[test]
    fn stored_mark_never_exceeds_the_position() {
        assert_eq!(ReadMark::new(4, Some(9)).read_seq, 4);
        assert!(!ReadMark::new(4, Some(4)).read(9));
    }
}
