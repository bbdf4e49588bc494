//! The node's position in one stream: turns what arrives into one order without holes, and reports what is lost.
//!
//! [`StreamTracker`] takes messages and refill results and returns [`StreamStep`]s. The hub applies them to every
//! member alike. A [`RefillRequest`] names the next read. Invariant: each step continues where the one
//! before ended. Pure: never waits, reads neither clock nor stream.
//!
//! # Rules
//! - An end that was read after the subscription was confirmed starts the position, or moves it to the end's epoch.
//! - The next seq is delivered. Lower seqs are duplicates. Higher ones are buffered, up to a bound, until the hole
//!   before them is refilled; what the stream no longer holds becomes a gap. The buffer is an optimisation: the stream
//!   has it all.
//! - An unverified position (the subscription was interrupted) requests the stream's end. Any later read verifies it.
//! - A message of another epoch makes the position unverified too: only the stream's end shows which epoch is newer and
//!   where it forked. The position then moves to the new epoch; messages up to the fork stay valid, later ones are
//!   void.
//! - An end below a seq known at the time of the request means that the store lost messages. It is handled the same
//!   way.

use std::collections::BTreeMap;

use presence::host::failpoints::{self, Failpoint};
use presence::model::stream::StreamEnd;

/// Messages that are buffered while a hole before them is refilled.
const BUFFERED_MESSAGES_MAX: usize = 256;

/// The position of a node in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// The epoch that `seq` counts in.
    pub epoch: String,
    /// The last seq that was delivered or reported as lost.
    pub seq: u64,
    /// The highest seq known to exist.
    pub highest_seq: u64,
}

/// A read that a stream needs, with the position at the time of the request. The result is applied against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefillRequest {
    /// The stream's end.
    End(StreamPosition),
    /// Messages after the position.
    Page(StreamPosition),
}

impl RefillRequest {
    /// The position at the time of the request.
    #[must_use]
    pub fn position(&self) -> &StreamPosition {
        let (Self::End(position) | Self::Page(position)) = self;
        position
    }
}

/// A part of a stream, complete from the requested position up to `through`.
#[derive(Debug, Clone)]
pub struct StreamPage<T> {
    /// The stream's end.
    pub end: StreamEnd,
    /// The messages that the stream holds, oldest first.
    pub messages: Vec<(u64, T)>,
    /// The last seq that the page covers.
    pub through: u64,
}

/// A step of the stream, delivered to every subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamStep<T> {
    /// The next message.
    Message(u64, T),
    /// Lost messages.
    Gap {
        /// The first seq.
        from: u64,
        /// The last seq.
        to: u64,
    },
    /// A change of epoch.
    EpochChanged {
        /// The position in the epoch before.
        previous: StreamPosition,
        /// The epoch of everything that follows.
        epoch: String,
        /// The last seq that both epochs share. Messages delivered after it are void.
        shared_seq: u64,
    },
}

/// The state of one stream on one node.
#[derive(Debug)]
pub struct StreamTracker<T> {
    position: Option<StreamPosition>,
    /// Messages after a hole.
    buffered: BTreeMap<u64, T>,
    is_unverified: bool,
}

impl<T> Default for StreamTracker<T> {
    fn default() -> Self {
        Self { position: None, buffered: BTreeMap::new(), is_unverified: false }
    }
}

impl<T> StreamTracker<T> {
    /// The position; `None` before the first end was observed.
    #[must_use]
    pub fn position(&self) -> Option<&StreamPosition> {
        self.position.as_ref()
    }

    /// Starts at an end that was read after the subscription was confirmed, or moves to its epoch.
    pub fn observe_end(&mut self, end: &StreamEnd, steps: &mut Vec<StreamStep<T>>) {
        match &self.position {
            None => {
                self.position = Some(StreamPosition { epoch: end.epoch.clone(), seq: end.seq, highest_seq: end.seq });
            }
            Some(position) if position.epoch == end.epoch => {}
            Some(position) if end.came_from(&position.epoch) => self.apply_epoch(end, steps),
            // Read before our epoch began, or of an unrelated one.
            Some(_) => self.is_unverified = true,
        }
    }

    /// Handles a message from the subscription.
    pub fn receive(&mut self, epoch: &str, seq: u64, message: T, steps: &mut Vec<StreamStep<T>>) {
        let Some(position) = self.position.as_mut().filter(|position| position.epoch == epoch) else {
            // The next read shows whether the start, or the new epoch, covers it.
            self.is_unverified = true;
            return;
        };
        position.highest_seq = position.highest_seq.max(seq);
        if seq == position.seq + 1 || seq > position.seq && failpoints::is_disabled(Failpoint::Refill) {
            position.seq = seq;
            steps.push(StreamStep::Message(seq, message));
            self.deliver_buffered(0, steps);
        } else if seq > position.seq && self.buffered.len() < BUFFERED_MESSAGES_MAX {
            self.buffered.insert(seq, message);
        }
    }

    /// Notes a message from the subscription that is refilled later.
    pub fn defer(&mut self, epoch: &str, seq: u64) {
        match self.position.as_mut().filter(|position| position.epoch == epoch) {
            Some(position) => position.highest_seq = position.highest_seq.max(seq),
            None => self.is_unverified = true,
        }
    }

    /// Requests the stream's end, because something may be missing that no later message reveals.
    pub fn mark_unverified(&mut self) {
        self.is_unverified = true;
    }

    /// Takes the next refill request, if there is one.
    pub fn take_refill_request(&mut self) -> Option<RefillRequest> {
        if failpoints::is_disabled(Failpoint::Refill) {
            return None;
        }
        let position = self.position.as_ref()?;
        let request = if position.seq < position.highest_seq {
            RefillRequest::Page(position.clone())
        } else {
            RefillRequest::End(position.clone())
        };
        let was_unverified = std::mem::take(&mut self.is_unverified);
        (was_unverified || matches!(request, RefillRequest::Page(_))).then_some(request)
    }

    /// Returns true if [`StreamTracker::take_refill_request`] would return a request.
    #[must_use]
    pub fn needs_refill(&self) -> bool {
        self.position.as_ref().is_some_and(|position| self.is_unverified || position.seq < position.highest_seq)
    }

    /// Applies the stream's end, read after the request.
    pub fn apply_end(&mut self, requested_at: &StreamPosition, end: &StreamEnd, steps: &mut Vec<StreamStep<T>>) {
        if self.position.as_ref().is_none_or(|position| position.epoch != requested_at.epoch) {
            // The epoch changed meanwhile, and the result may be older.
            self.is_unverified = true;
            return;
        }
        if end.epoch != requested_at.epoch || end.seq < requested_at.highest_seq {
            self.apply_epoch(end, steps);
        } else if let Some(position) = &mut self.position {
            position.highest_seq = position.highest_seq.max(end.seq);
        }
    }

    /// Applies the messages that the stream holds after the requested position.
    pub fn apply_page(&mut self, requested_at: &StreamPosition, page: StreamPage<T>, steps: &mut Vec<StreamStep<T>>) {
        self.apply_end(requested_at, &page.end, steps);
        let continues =
            |position: &&StreamPosition| position.epoch == page.end.epoch && position.seq >= requested_at.seq;
        let Some(position) = self.position.as_ref().filter(continues) else { return };
        let delivered_seq = position.seq;
        self.buffered.extend(page.messages.into_iter().filter(|(seq, _)| *seq > delivered_seq));
        self.deliver_buffered(page.through, steps);
    }

    /// Moves to the epoch of this end, at the last seq that it shares with ours.
    fn apply_epoch(&mut self, end: &StreamEnd, steps: &mut Vec<StreamStep<T>>) {
        let Some(previous) = self.position.take() else { return };
        self.buffered.clear();
        let shared_seq = end.shares(&previous.epoch);
        let seq = previous.seq.min(shared_seq);
        self.position = Some(StreamPosition { epoch: end.epoch.clone(), seq, highest_seq: end.seq });
        steps.push(StreamStep::EpochChanged { previous, epoch: end.epoch.clone(), shared_seq });
    }

    /// Delivers buffered messages up to the next hole and discards duplicates. Holes up to `through` become gaps.
    fn deliver_buffered(&mut self, through: u64, steps: &mut Vec<StreamStep<T>>) {
        let Some(position) = &mut self.position else { return };
        while let Some(entry) = self.buffered.first_entry() {
            let seq = *entry.key();
            if seq > through {
                report_gap(position, through, steps);
            }
            if seq > position.seq + 1 && seq > through {
                return;
            }
            let message = entry.remove();
            if seq > position.seq {
                report_gap(position, seq - 1, steps);
                position.seq = seq;
                steps.push(StreamStep::Message(seq, message));
            }
        }
        report_gap(position, through, steps);
    }
}

/// Reports everything after the position and up to `seq` as lost.
fn report_gap<T>(position: &mut StreamPosition, seq: u64, steps: &mut Vec<StreamStep<T>>) {
    if seq > position.seq {
        steps.push(StreamStep::Gap { from: position.seq + 1, to: seq });
        position.seq = seq;
        position.highest_seq = position.highest_seq.max(seq);
    }
}

#[cfg(test)]
mod tests;
