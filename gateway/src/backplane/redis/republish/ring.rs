//! The republish ring: the acknowledged messages that the store may still lose, and the unsettled ones among them.
//!
//! [`RepublishRing`] is pure: its callers pass acks and answered beats with their times. It reads no clock and never
//! waits.
//!
//! # Rules
//! - A store that writes its file once a second may lose about two seconds when it is killed. A message is safe once
//!   beats of one generation have spanned [`SAFE_AFTER`] since its ack; safe messages are removed. A long pause between
//!   two beats proves nothing, so time in which the store was away or paused does not count.
//! - Each message is known to be present in one generation. In another one it is unsettled: its stream is searched, and
//!   the message is republished if it is lost. A check counts like a new ack.
//! - Nothing else removes a message. [`super::SharedRepublishRing`] bounds the size.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::stream::StreamId;

use crate::backplane::redis::message::{AckedMessage, AckedPosition, StoredMessage, WriteTarget};

/// The span of beats of one generation after which a message is safe: more than twice the loss of a kill with
/// `appendfsync everysec`.
pub(in super::super) const SAFE_AFTER: Duration = Duration::from_secs(5);
/// Maximum time from the sending of one beat to the answer of the next; the time between them counts only within it.
const BEAT_SPAN_MAX: Duration = Duration::from_millis(2500);

/// One answered beat.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredBeat {
    /// The generation that answered.
    pub(super) generation: u64,
    /// The time at which it was sent.
    pub(super) sent: Instant,
    /// The time at which the answer was received.
    pub(super) received: Instant,
}

/// A message that must be searched in its stream.
#[derive(Debug, Clone)]
pub(super) struct UnsettledMessage {
    /// Its number in the ring.
    pub(super) number: u64,
    pub(super) target: WriteTarget,
    pub(super) message: Arc<StoredMessage>,
    /// Its last known position.
    pub(super) position: AckedPosition,
}

/// The ring. `S` is the reservation of an entry, released when the entry is dropped.
#[derive(Debug)]
pub(super) struct RepublishRing<S> {
    /// In the order of their acks.
    entries: VecDeque<RingEntry<S>>,
    /// The number of the oldest entry; the others follow without a gap.
    first_number: u64,
    /// The number of entries that are unsettled in the generation of the newest beat.
    unsettled_count: usize,
    /// The newest generation without unsettled messages, in which new messages are written. 0 before the first beat.
    settled: u64,
    beat: Option<AnsweredBeat>,
    /// The sum of proven lifetimes of the store, over all generations: only differences have a meaning.
    proven_age: Duration,
    marks: VecDeque<SafetyMark>,
    /// The time of the newest check of an entry.
    checked_at: Option<Instant>,
}

#[derive(Debug)]
struct RingEntry<S> {
    acked: AckedMessage,
    acked_at: Instant,
    _reservation: S,
}

/// The entries that were acknowledged before a beat was sent, with the proven age at that beat.
#[derive(Debug)]
struct SafetyMark {
    /// The number after the last of these entries.
    end: u64,
    proven_age: Duration,
}

impl<S> Default for RepublishRing<S> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            first_number: 0,
            unsettled_count: 0,
            settled: 0,
            beat: None,
            proven_age: Duration::ZERO,
            marks: VecDeque::new(),
            checked_at: None,
        }
    }
}

impl<S> RepublishRing<S> {
    /// Adds a message acknowledged at `now`. Returns whether it is already unsettled, after a change of generation.
    pub(super) fn add(&mut self, acked: AckedMessage, reservation: S, now: Instant) -> bool {
        let is_unsettled = self.is_unsettled_in_newest(&acked);
        self.unsettled_count += usize::from(is_unsettled);
        self.entries.push_back(RingEntry { acked, acked_at: now, _reservation: reservation });
        is_unsettled
    }

    /// Applies an answered beat and removes the messages that are safe.
    pub(super) fn beat(&mut self, beat: AnsweredBeat) {
        let last = self.beat.replace(beat);
        match last.filter(|last| last.generation == beat.generation) {
            Some(last) if beat.received.saturating_duration_since(last.sent) <= BEAT_SPAN_MAX => {
                self.proven_age += beat.sent.saturating_duration_since(last.sent);
            }
            Some(_) => {}
            None => {
                self.marks.clear();
                self.unsettled_count =
                    self.entries.iter().filter(|entry| self.is_unsettled_in_newest(&entry.acked)).count();
            }
        }
        if self.checked_at.is_none_or(|checked_at| checked_at < beat.sent) {
            let end = self.first_number + self.entries.partition_point(|entry| entry.acked_at < beat.sent) as u64;
            match self.marks.back_mut().filter(|mark| mark.proven_age == self.proven_age) {
                Some(mark) => mark.end = end,
                None => self.marks.push_back(SafetyMark { end, proven_age: self.proven_age }),
            }
        }
        self.remove_safe();
        self.update_settled();
    }

    /// Returns the unsettled messages of the present generation, each stream's in its old order.
    pub(super) fn unsettled(&self) -> Vec<Vec<UnsettledMessage>> {
        let mut streams: HashMap<StreamId, Vec<UnsettledMessage>> = HashMap::new();
        for (number, RingEntry { acked, .. }) in (self.first_number..).zip(&self.entries) {
            if self.is_unsettled_in_newest(acked) {
                let AckedMessage { target, message, position, .. } = acked;
                let unsettled = UnsettledMessage {
                    number,
                    target: target.clone(),
                    message: message.clone(),
                    position: position.clone(),
                };
                streams.entry(target.stream()).or_default().push(unsettled);
            }
        }
        streams.into_values().map(sort_by_position).collect()
    }

    /// Records that the message is in the store at this position, in this generation.
    pub(super) fn mark_present(&mut self, number: u64, position: AckedPosition, generation: u64, now: Instant) {
        let newest = self.generation();
        let entry =
            number.checked_sub(self.first_number).and_then(|index| self.entries.get_mut(usize::try_from(index).ok()?));
        if let Some(RingEntry { acked, .. }) = entry {
            self.unsettled_count -= usize::from(acked.generation != newest);
            self.unsettled_count += usize::from(generation != newest);
            acked.position = position;
            acked.generation = generation;
        }
        self.marks.clear();
        self.checked_at = Some(now);
        self.update_settled();
    }

    /// Returns the generation of the newest beat; 0 before the first.
    pub(super) fn generation(&self) -> u64 {
        self.beat.map_or(0, |beat| beat.generation)
    }

    /// Returns the newest generation without unsettled messages: the only one that accepts new messages.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns true if messages are unsettled in the generation of the newest beat.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled_count > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn is_unsettled_in_newest(&self, acked: &AckedMessage) -> bool {
        self.beat.is_some_and(|beat| beat.generation != acked.generation)
    }

    fn update_settled(&mut self) {
        if self.unsettled_count == 0 {
            self.settled = self.generation();
        }
    }

    fn remove_safe(&mut self) {
        while let Some(mark) = self.marks.front().filter(|mark| self.proven_age - mark.proven_age >= SAFE_AFTER) {
            while self.first_number < mark.end {
                if self.entries.front().is_none_or(|entry| self.is_unsettled_in_newest(&entry.acked)) {
                    return;
                }
                self.entries.pop_front();
                self.first_number += 1;
            }
            self.marks.pop_front();
        }
    }
}

/// Sorts by seq within an epoch. Messages republished before are of a later epoch, and precede the rest.
fn sort_by_position(mut unsettled: Vec<UnsettledMessage>) -> Vec<UnsettledMessage> {
    let mut epochs: Vec<String> = Vec::new();
    let mut rank = |epoch: &str| {
        epochs.iter().position(|known| known == epoch).unwrap_or_else(|| {
            epochs.push(epoch.to_owned());
            epochs.len() - 1
        })
    };
    let ranks: HashMap<u64, usize> =
        unsettled.iter().map(|unsettled| (unsettled.number, rank(&unsettled.position.epoch))).collect();
    unsettled.sort_by_key(|unsettled| (ranks[&unsettled.number], unsettled.position.seq));
    unsettled
}

#[cfg(test)]
mod tests;
