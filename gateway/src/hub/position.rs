//! How far one node has heard one log: turns what arrives into one order without holes, or says what is gone.
//!
//! Pure. The hub tells it what arrived and what was read from the log, and hands the [`Step`]s it answers with to
//! every member alike; the reading task reads what it [`StreamTracker::asks`] for. Never waits, never reads a clock.
//!
//! # How it decides
//! - A place is an epoch and a seq. It begins with a top that was read after the subscription was confirmed.
//! - The next seq is given out. Older ones are copies. Later ones are held, as many as are worth it, until what is before
//!   them was read from the log; what the log keeps no more is said to be gone. Nothing held is needed: the log has it.
//! - A doubt (the subscription was away) is settled by any later reading: it shows the top.
//! - A message of another epoch is a doubt as well: whether that one is newer, and how much of the present one is in it,
//!   is known to the log alone. Its head turns the position: what both histories share still holds, the rest is void.
//! - A top below what was known when it was asked for is such a turn too: the store has lost something.

use std::collections::BTreeMap;

use presence::host::failpoints::{self, Failpoint};
use presence::model::stream::StreamEnd;

/// Messages that are held while what is before them is read.
const HELD: usize = 256;

/// Where a node is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// Which counting.
    pub epoch: String,
    /// The last number that was given out or said to be gone.
    pub seq: u64,
    /// The highest number that is known of.
    pub reach: u64,
}

/// What is to be read of a log, and what was known when it was asked for. The answer is judged by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Where it ends.
    Top(StreamPosition),
    /// What it keeps after the place.
    Page(StreamPosition),
}

/// A part of a log, complete from the place it was asked for up to `through`.
#[derive(Debug, Clone)]
pub struct StreamPage<T> {
    /// Where the log ends.
    pub head: StreamEnd,
    /// What is kept, oldest first.
    pub messages: Vec<(u64, T)>,
    /// Up to here nothing else is kept.
    pub through: u64,
}

/// What every listener is given, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// The next message.
    Message(u64, T),
    /// These are gone.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The history is another one from here on.
    EpochChanged {
        /// Where the node was in the one before.
        was: StreamPosition,
        /// The epoch of what follows.
        epoch: String,
        /// The last message that both histories share: what was given after it is void.
        shared: u64,
    },
}

/// How far a node has heard a log.
#[derive(Debug)]
pub struct StreamTracker<T> {
    place: Option<StreamPosition>,
    held: BTreeMap<u64, T>,
    doubted: bool,
}

impl<T> Default for StreamTracker<T> {
    fn default() -> Self {
        Self { place: None, held: BTreeMap::new(), doubted: false }
    }
}

impl<T> StreamTracker<T> {
    /// Where it is; `None` before it has begun.
    #[must_use]
    pub fn place(&self) -> Option<&StreamPosition> {
        self.place.as_ref()
    }

    /// A head that was read after the subscription was confirmed: begins here, unless it has begun.
    pub fn begin(&mut self, head: &StreamEnd, steps: &mut Vec<Step<T>>) {
        match &self.place {
            None => self.place = Some(StreamPosition { epoch: head.epoch.clone(), seq: head.top, reach: head.top }),
            Some(place) if place.epoch == head.epoch => {}
            Some(place) if head.came_from(&place.epoch) => self.turn(head, steps),
            // Read before what we know now, or of a history that has nothing to do with it.
            Some(_) => self.doubted = true,
        }
    }

    /// A message arrived over the subscription.
    pub fn arrived(&mut self, epoch: &str, seq: u64, message: T, steps: &mut Vec<Step<T>>) {
        let Some(place) = self.place.as_mut().filter(|place| place.epoch == epoch) else {
            // The next reading shows whether where we begin, or turn to, covers it.
            self.doubted = true;
            return;
        };
        place.reach = place.reach.max(seq);
        if seq == place.seq + 1 || seq > place.seq && failpoints::takes(Failpoint::Refill) {
            place.seq = seq;
            steps.push(Step::Message(seq, message));
            self.give_held(0, steps);
        } else if seq > place.seq && self.held.len() < HELD {
            self.held.insert(seq, message);
        }
    }

    /// A message arrived, and there was no room for it: it is to be read from the log.
    pub fn passed_over(&mut self, epoch: &str, seq: u64) {
        match self.place.as_mut().filter(|place| place.epoch == epoch) {
            Some(place) => place.reach = place.reach.max(seq),
            None => self.doubted = true,
        }
    }

    /// The subscription was away, or may have been: something may be missing that nothing later will show.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// What is to be read now, if anything. A doubt counts as asked about from here on.
    pub fn asks(&mut self) -> Option<Ask> {
        if failpoints::takes(Failpoint::Refill) {
            return None;
        }
        let place = self.place.as_ref()?;
        let ask = if place.seq < place.reach { Ask::Page(place.clone()) } else { Ask::Top(place.clone()) };
        let doubted = std::mem::take(&mut self.doubted);
        (doubted || matches!(ask, Ask::Page(_))).then_some(ask)
    }

    /// Whether [`StreamTracker::asks`] would ask for something.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.place.as_ref().is_some_and(|place| self.doubted || place.seq < place.reach)
    }

    /// The log ends here, read after `asked`.
    pub fn top(&mut self, asked: &StreamPosition, head: &StreamEnd, steps: &mut Vec<Step<T>>) {
        if self.place.as_ref().is_none_or(|place| place.epoch != asked.epoch) {
            // Another history began meanwhile, and nobody knows which of the two is the later one.
            self.doubted = true;
            return;
        }
        if head.epoch != asked.epoch || head.top < asked.reach {
            self.turn(head, steps);
        } else if let Some(place) = &mut self.place {
            place.reach = place.reach.max(head.top);
        }
    }

    /// The log keeps this after `asked`.
    pub fn page(&mut self, asked: &StreamPosition, page: StreamPage<T>, steps: &mut Vec<Step<T>>) {
        self.top(asked, &page.head, steps);
        let is_fitting = |place: &&StreamPosition| place.epoch == page.head.epoch && place.seq >= asked.seq;
        let Some(place) = self.place.as_ref().filter(is_fitting) else { return };
        let seq = place.seq;
        self.held.extend(page.messages.into_iter().filter(|(number, _)| *number > seq));
        self.give_held(page.through, steps);
    }

    /// Goes on in another history, from the last message that it shares with ours.
    fn turn(&mut self, head: &StreamEnd, steps: &mut Vec<Step<T>>) {
        let Some(was) = self.place.take() else { return };
        self.held.clear();
        let shared = head.shares(&was.epoch);
        self.place = Some(StreamPosition { epoch: head.epoch.clone(), seq: was.seq.min(shared), reach: head.top });
        steps.push(Step::EpochChanged { was, epoch: head.epoch.clone(), shared });
    }

    /// Gives out what is held and next, and forgets what came otherwise. Up to `through`, what is not held is gone.
    fn give_held(&mut self, through: u64, steps: &mut Vec<Step<T>>) {
        let Some(place) = &mut self.place else { return };
        while let Some(entry) = self.held.first_entry() {
            let seq = *entry.key();
            if seq > through {
                skip_to(place, through, steps);
            }
            if seq > place.seq + 1 && seq > through {
                return;
            }
            let message = entry.remove();
            if seq > place.seq {
                skip_to(place, seq - 1, steps);
                place.seq = seq;
                steps.push(Step::Message(seq, message));
            }
        }
        skip_to(place, through, steps);
    }
}

/// Everything up to `seq` is gone, if it was not given out.
fn skip_to<T>(place: &mut StreamPosition, seq: u64, steps: &mut Vec<Step<T>>) {
    if seq > place.seq {
        steps.push(Step::Gap { from: place.seq + 1, to: seq });
        place.seq = seq;
        place.reach = place.reach.max(seq);
    }
}

#[cfg(test)]
mod tests;
