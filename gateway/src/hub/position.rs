//! How far one node has heard one room: turns what arrives into one order without holes, or says what is gone.
//!
//! Pure. The hub tells it what arrived and what was read from the room's log, and hands the [`Step`]s it answers with to
//! every member alike; the reading task reads what it [`Position::asks`] for. Never waits, never reads a clock.
//!
//! # How it decides
//! - A place is an epoch and a seq. It begins with a top that was read after the subscription was confirmed.
//! - The next seq is given out. Older ones are copies. Later ones are held, as many as are worth it, until what is before
//!   them was read from the log; what the log keeps no more is said to be gone. Nothing held is needed: the log has it.
//! - A doubt (the subscription was away) is settled by any later reading: it shows the top.
//! - Another epoch, or a top below what was known when it was asked for, is another history: everything given is void.

use std::collections::{BTreeMap, VecDeque};

/// Messages that are held while what is before them is read.
const HELD: usize = 256;
/// Epochs that are remembered as past, so that a late message of theirs is not taken for a new history.
const FORMER: usize = 8;

/// Where a node is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which counting.
    pub epoch: String,
    /// The last number that was given out or said to be gone.
    pub seq: u64,
    /// The highest number that is known of.
    pub reach: u64,
}

/// What is to be read for a room, and what was known when it was asked for. The answer is judged by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Where its log ends.
    Top(Place),
    /// What the log keeps after the place.
    Page(Place),
}

/// A part of a room's log, complete from the place it was asked for up to `through`.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The epoch it is of.
    pub epoch: String,
    /// The newest message of the log.
    pub top: u64,
    /// What is kept, oldest first.
    pub messages: Vec<(u64, T)>,
    /// Up to here nothing else is kept.
    pub through: u64,
}

/// What every member is given, in this order.
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
    /// Another history begins, from its first message on.
    Anew {
        /// Its epoch.
        epoch: String,
        /// Whether there was anything before, which is void now.
        voids: bool,
    },
}

/// How far a node has heard a room.
#[derive(Debug)]
pub struct Position<T> {
    place: Option<Place>,
    held: BTreeMap<u64, T>,
    former: VecDeque<String>,
    doubted: bool,
}

impl<T> Default for Position<T> {
    fn default() -> Self {
        Self { place: None, held: BTreeMap::new(), former: VecDeque::new(), doubted: false }
    }
}

impl<T> Position<T> {
    /// Where it is; `None` before it has begun.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// A top that was read after the subscription was confirmed: begins here, unless it has begun.
    pub fn begin(&mut self, epoch: &str, top: u64, steps: &mut Vec<Step<T>>) {
        match &self.place {
            None => self.place = Some(Place { epoch: epoch.to_owned(), seq: top, reach: top }),
            Some(place) if place.epoch == epoch || self.is_former(epoch) => {}
            Some(_) => self.begin_anew(epoch, top, steps),
        }
    }

    /// A message arrived over the subscription.
    pub fn arrived(&mut self, epoch: &str, seq: u64, message: T, steps: &mut Vec<Step<T>>) {
        if self.place.is_none() {
            // Whether the top that we begin with covers it is seen by the next reading.
            self.doubted = true;
            return;
        }
        if self.is_former(epoch) {
            return;
        }
        if self.place.as_ref().is_some_and(|place| place.epoch != epoch) {
            self.begin_anew(epoch, seq, steps);
        }
        let Some(place) = &mut self.place else { return };
        place.reach = place.reach.max(seq);
        if seq == place.seq + 1 {
            place.seq = seq;
            steps.push(Step::Message(seq, message));
            self.give_held(0, steps);
        } else if seq > place.seq && self.held.len() < HELD {
            self.held.insert(seq, message);
        }
    }

    /// The subscription was away, or may have been: something may be missing that nothing later will show.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// What is to be read now, if anything. A doubt counts as asked about from here on.
    pub fn asks(&mut self) -> Option<Ask> {
        let place = self.place.as_ref()?;
        let ask = if place.seq < place.reach { Ask::Page(place.clone()) } else { Ask::Top(place.clone()) };
        let doubted = std::mem::take(&mut self.doubted);
        (doubted || matches!(ask, Ask::Page(_))).then_some(ask)
    }

    /// Whether [`Position::asks`] would ask for something.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.place.as_ref().is_some_and(|place| self.doubted || place.seq < place.reach)
    }

    /// The log ends here, read after `asked`.
    pub fn top(&mut self, asked: &Place, epoch: &str, top: u64, steps: &mut Vec<Step<T>>) {
        if self.place.as_ref().is_none_or(|place| place.epoch != asked.epoch) {
            // Another history began meanwhile, and nobody knows which of the two is the later one.
            self.doubted = true;
            return;
        }
        if epoch != asked.epoch || top < asked.reach {
            self.begin_anew(epoch, top, steps);
        } else if let Some(place) = &mut self.place {
            place.reach = place.reach.max(top);
        }
    }

    /// The log keeps this after `asked`.
    pub fn page(&mut self, asked: &Place, page: Page<T>, steps: &mut Vec<Step<T>>) {
        self.top(asked, &page.epoch, page.top, steps);
        let is_fitting = |place: &&Place| place.epoch == page.epoch && place.seq >= asked.seq;
        let Some(place) = self.place.as_ref().filter(is_fitting) else { return };
        let seq = place.seq;
        self.held.extend(page.messages.into_iter().filter(|(number, _)| *number > seq));
        self.give_held(page.through, steps);
    }

    /// The store knows no such room any more: there is nothing to wait for. Whoever makes it again begins another epoch.
    pub fn vanished(&mut self) {
        self.held.clear();
        if let Some(place) = &mut self.place {
            place.reach = place.seq;
        }
    }

    fn is_former(&self, epoch: &str) -> bool {
        self.former.iter().any(|former| former == epoch)
    }

    /// Nobody knows up to where two histories are the same, so the new one is told from its beginning.
    fn begin_anew(&mut self, epoch: &str, reach: u64, steps: &mut Vec<Step<T>>) {
        self.held.clear();
        self.former.retain(|former| former != epoch);
        let before = self.place.replace(Place { epoch: epoch.to_owned(), seq: 0, reach });
        steps.push(Step::Anew { epoch: epoch.to_owned(), voids: before.as_ref().is_some_and(|place| place.reach > 0) });
        if let Some(before) = before.filter(|before| before.epoch != epoch) {
            self.former.push_back(before.epoch);
            if self.former.len() > FORMER {
                self.former.pop_front();
            }
        }
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
fn skip_to<T>(place: &mut Place, seq: u64, steps: &mut Vec<Step<T>>) {
    if seq > place.seq {
        steps.push(Step::Gap { from: place.seq + 1, to: seq });
        place.seq = seq;
        place.reach = place.reach.max(seq);
    }
}

#[cfg(test)]
mod tests;
