//! The position in a numbered stream: the messages of a room, or the inbox. Every message is released once and in
//! order. A paused stream releases nothing and keeps its position.

use std::collections::{HashSet, VecDeque};

use crate::events::Message;
use crate::wire::{EventFrame, MessageFrame, WirePosition};

/// Number of delivered messages that are recognised when they come again.
const RECENT_IDS_MAX: usize = 1_000;

/// An event of the stream that the application receives.
#[derive(Debug, PartialEq)]
pub(super) enum StreamMove {
    Message(MessageFrame, bool),
    Gap { from_seq: u64, to_seq: u64 },
    Rewind { seq: u64 },
}

/// Epoch and seq of the last released message.
#[derive(Debug)]
pub(super) struct StreamCursor {
    pub(super) position: WirePosition,
    pub(super) is_paused: bool,
    recent: RecentIds,
}

impl StreamCursor {
    pub(super) fn at(position: WirePosition) -> Self {
        Self { position, is_paused: false, recent: RecentIds::default() }
    }

    /// Moves over an event. Returns the part of it that was not released before.
    pub(super) fn apply(&mut self, event: EventFrame) -> Option<StreamMove> {
        if self.is_paused {
            return None;
        }
        let seq = self.position.seq;
        match event {
            EventFrame::Message(message) => {
                if message.seq <= seq {
                    return None;
                }
                self.position.seq = message.seq;
                let is_repeated = !self.recent.insert(&message.msg_id);
                Some(StreamMove::Message(message, is_repeated))
            }
            EventFrame::Gap { from_seq, to_seq, .. } => {
                if to_seq <= seq {
                    return None;
                }
                self.position.seq = to_seq;
                Some(StreamMove::Gap { from_seq: from_seq.max(seq + 1), to_seq })
            }
            EventFrame::Rewound { epoch, seq: last, .. } => {
                self.position = WirePosition { epoch, seq: seq.min(last) };
                Some(StreamMove::Rewind { seq: self.position.seq })
            }
            EventFrame::Epoch { epoch, seq: last, .. } => {
                let is_lost = epoch != self.position.epoch && seq > last;
                self.position = WirePosition { epoch, seq: if is_lost { last } else { seq } };
                is_lost.then_some(StreamMove::Rewind { seq: last })
            }
            EventFrame::Presence(_) | EventFrame::Typing { .. } | EventFrame::Left { .. } | EventFrame::Joined(_) => {
                None
            }
        }
    }
}

/// The newest ids that were inserted.
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl RecentIds {
    /// Returns false if the id is known.
    pub(super) fn insert(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > RECENT_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }
}

/// Returns a message of the wire as the application sees it.
pub(crate) fn message_of(frame: MessageFrame, own: bool, repeated: bool) -> Message {
    let MessageFrame { to, from, from_user, from_api, msg_id, seq, time, body } = frame;
    Message { id: msg_id, to, from, from_user, from_api, seq: Some(seq), time, body, own, repeated }
}
