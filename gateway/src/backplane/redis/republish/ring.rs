//! The ring itself: which acked messages are kept, until when, and which of them a generation of the store still owes.
//!
//! Pure: it is told what was acked and which beats were answered, with their times; it never reads a clock and never waits.
//!
//! # How it decides
//! - A store that writes its file once a second may lose about two seconds when it is killed. What beats of one generation
//!   have spanned [`SAFE_AFTER`] since it was acked, it will not lose any more: that is forgotten. A pause between two beats
//!   proves nothing, so time in which the store was away or stood still does not count.
//! - Each message is known to be in the store in one generation. In another one it is owed: its log has to be looked at,
//!   and the message put back if it is gone. What was looked at counts as acked anew.
//! - Nothing leaves the ring otherwise. Its bound is kept by who fills it, see [`super::RepublishBuffer`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::stream::StreamId;

use crate::backplane::redis::message::{AckedMessage, AckedPosition, StoredMessage, WriteTarget};

/// What one generation must have lived since a message was acked: more than twice what a kill costs with
/// `appendfsync everysec`.
pub(in super::super) const SAFE_AFTER: Duration = Duration::from_secs(5);
/// From the sending of one beat to the answer of the next at most, or nothing is known about the time between them.
const BREAK: Duration = Duration::from_millis(2500);

/// One answered beat.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredBeat {
    /// The generation that answered.
    pub(super) generation: u64,
    /// When it went out.
    pub(super) sent: Instant,
    /// When the answer was in.
    pub(super) received: Instant,
}

/// A message that is to be looked for.
#[derive(Debug, Clone)]
pub(super) struct UnsettledMessage {
    /// By what the ring knows it.
    pub(super) number: u64,
    pub(super) target: WriteTarget,
    pub(super) message: Arc<StoredMessage>,
    /// Where it was.
    pub(super) position: AckedPosition,
}

/// The ring. `S` is what an entry takes of the bound; it is given back when the entry is dropped.
#[derive(Debug)]
pub(super) struct RepublishRing<S> {
    /// In the order of their acks.
    kept: VecDeque<RingEntry<S>>,
    /// The number of the oldest entry; the others follow without a hole.
    first: u64,
    /// How many of them the generation of the newest beat owes.
    unsettled_count: usize,
    /// The generation in which nothing was owed any more: what is new is written in it. 0 before the first beat.
    settled: u64,
    beat: Option<AnsweredBeat>,
    /// For how long the store is known to have lived, over all generations: only differences mean something.
    lived: Duration,
    marks: VecDeque<SafetyMark>,
    /// When an entry was found or put back last.
    checked_at: Option<Instant>,
}

#[derive(Debug)]
struct RingEntry<S> {
    acked: AckedMessage,
    at: Instant,
    _reservation: S,
}

/// What was acked before a beat went out, and how long the store had lived then.
#[derive(Debug)]
struct SafetyMark {
    /// The first number that is not meant.
    before: u64,
    lived: Duration,
}

impl<S> Default for RepublishRing<S> {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            first: 0,
            unsettled_count: 0,
            settled: 0,
            beat: None,
            lived: Duration::ZERO,
            marks: VecDeque::new(),
            checked_at: None,
        }
    }
}

impl<S> RepublishRing<S> {
    /// A message was acked, now. Returns whether it is owed already: the store has moved on meanwhile.
    pub(super) fn keep(&mut self, acked: AckedMessage, reservation: S, now: Instant) -> bool {
        let is_unsettled_message = self.is_unsettled_message(&acked);
        self.unsettled_count += usize::from(is_unsettled_message);
        self.kept.push_back(RingEntry { acked, at: now, _reservation: reservation });
        is_unsettled_message
    }

    /// A beat was answered. Forgets what is safe.
    pub(super) fn beat(&mut self, beat: AnsweredBeat) {
        let last = self.beat.replace(beat);
        match last.filter(|last| last.generation == beat.generation) {
            Some(last) if beat.received.saturating_duration_since(last.sent) <= BREAK => {
                self.lived += beat.sent.saturating_duration_since(last.sent);
            }
            Some(_) => {}
            None => {
                self.marks.clear();
                self.unsettled_count = self.kept.iter().filter(|entry| self.is_unsettled_message(&entry.acked)).count();
            }
        }
        if self.checked_at.is_none_or(|at| at < beat.sent) {
            let before = self.first + self.kept.partition_point(|entry| entry.at < beat.sent) as u64;
            match self.marks.back_mut().filter(|mark| mark.lived == self.lived) {
                Some(mark) => mark.before = before,
                None => self.marks.push_back(SafetyMark { before, lived: self.lived }),
            }
        }
        self.forget();
        self.settle();
    }

    /// What the present generation owes, each log's in its old order.
    pub(super) fn unsettled(&self) -> Vec<Vec<UnsettledMessage>> {
        let mut logs: HashMap<StreamId, Vec<UnsettledMessage>> = HashMap::new();
        for (number, RingEntry { acked, .. }) in (self.first..).zip(&self.kept) {
            if self.is_unsettled_message(acked) {
                let AckedMessage { target, message, position, .. } = acked;
                let owed = UnsettledMessage {
                    number,
                    target: target.clone(),
                    message: message.clone(),
                    position: position.clone(),
                };
                logs.entry(target.stream()).or_default().push(owed);
            }
        }
        logs.into_values().map(sort_by_position).collect()
    }

    /// The message is in the store, there, in this generation.
    pub(super) fn mark_present(&mut self, number: u64, position: AckedPosition, generation: u64, now: Instant) {
        let newest = self.generation();
        let entry = number.checked_sub(self.first).and_then(|at| self.kept.get_mut(usize::try_from(at).ok()?));
        if let Some(RingEntry { acked, .. }) = entry {
            self.unsettled_count -= usize::from(acked.generation != newest);
            self.unsettled_count += usize::from(generation != newest);
            acked.position = position;
            acked.generation = generation;
        }
        self.marks.clear();
        self.checked_at = Some(now);
        self.settle();
    }

    /// The generation of the newest beat; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.beat.map_or(0, |beat| beat.generation)
    }

    /// The newest generation in which nothing was owed any more: what is new may be written in it, and in no other.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the generation of the newest beat owes something.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled_count > 0
    }

    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn is_unsettled_message(&self, acked: &AckedMessage) -> bool {
        self.beat.is_some_and(|beat| beat.generation != acked.generation)
    }

    fn settle(&mut self) {
        if self.unsettled_count == 0 {
            self.settled = self.generation();
        }
    }

    fn forget(&mut self) {
        while let Some(mark) = self.marks.front().filter(|mark| self.lived - mark.lived >= SAFE_AFTER) {
            while self.first < mark.before {
                if self.kept.front().is_none_or(|entry| self.is_unsettled_message(&entry.acked)) {
                    return;
                }
                self.kept.pop_front();
                self.first += 1;
            }
            self.marks.pop_front();
        }
    }
}

/// By seq, as far as the entries are of one epoch. What was put back before is of a later one, and came before the rest.
fn sort_by_position(mut owed: Vec<UnsettledMessage>) -> Vec<UnsettledMessage> {
    let mut epochs: Vec<String> = Vec::new();
    let mut rank = |epoch: &str| {
        epochs.iter().position(|known| known == epoch).unwrap_or_else(|| {
            epochs.push(epoch.to_owned());
            epochs.len() - 1
        })
    };
    let ranks: HashMap<u64, usize> = owed.iter().map(|owed| (owed.number, rank(&owed.position.epoch))).collect();
    owed.sort_by_key(|owed| (ranks[&owed.number], owed.position.seq));
    owed
}

#[cfg(test)]
mod tests;
