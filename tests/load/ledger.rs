//! Whether every client heard everything once and in order: lost, duplicated, out of order.
//!
//! A *stream* is what one client can count through: a room (by its seqs, dense from 1) or one publisher of a room (by the
//! numbers in its messages, where a peer gives none). What a client still misses in the middle of a stream is kept beside,
//! so a client with nothing missing costs one number per stream. Pure.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What was wrong with what was heard so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryFaults {
    /// Not heard, though a later one of its stream was.
    pub(crate) missing: u64,
    /// Heard a second time.
    pub(crate) duplicated: u64,
    /// Heard, but after a later one.
    pub(crate) out_of_order: u64,
}

/// The ends of one stream over all its readers, to find what nobody heard anything after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamTail {
    /// How many listen to it.
    pub(crate) readers: u64,
    /// The sum of what each of them expects next.
    pub(crate) next: u64,
    /// What a reader that heard everything expects next.
    pub(crate) top: u64,
}

impl StreamTail {
    /// What is missing at the ends.
    pub(crate) fn missing(&self) -> u64 {
        (self.readers * self.top).saturating_sub(self.next)
    }

    /// The same stream as other readers know it.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.readers += other.readers;
        self.next += other.next;
        self.top = self.top.max(other.top);
    }
}

/// The positions of the clients of one process, each with the same number of streams.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// By client and stream: what is expected next; `None` before the client listens.
    next: Vec<Option<u64>>,
    streams: usize,
    holes: HashMap<(usize, usize), Vec<Range<u64>>>,
    faults: DeliveryFaults,
}

impl Ledger {
    /// Nobody listens yet.
    pub(crate) fn new(clients: usize, streams: usize) -> Self {
        Self { next: vec![None; clients * streams], streams, holes: HashMap::new(), faults: DeliveryFaults::default() }
    }

    /// The client hears every stream from `next` on. A position that it has already is kept: it comes back.
    pub(crate) fn listens(&mut self, client: usize, next: u64) {
        for position in &mut self.next[client * self.streams..(client + 1) * self.streams] {
            position.get_or_insert(next);
        }
    }

    /// The client was told that its position in the stream is this one: what is missing before it is no secret.
    pub(crate) fn repositioned(&mut self, client: usize, stream: usize, next: u64) {
        self.next[client * self.streams + stream] = Some(next);
        self.holes.remove(&(client, stream));
    }

    /// What the client expects next.
    pub(crate) fn expects(&self, client: usize, stream: usize) -> Option<u64> {
        self.next[client * self.streams + stream]
    }

    /// The client heard this message of the stream.
    pub(crate) fn hears(&mut self, client: usize, stream: usize, number: u64) {
        let position = &mut self.next[client * self.streams + stream];
        let next = position.unwrap_or(number);
        if number < next {
            return self.hears_late(client, stream, number);
        }
        *position = Some(number + 1);
        if number > next {
            self.faults.missing += number - next;
            self.holes.entry((client, stream)).or_default().push(next..number);
        }
    }

    fn hears_late(&mut self, client: usize, stream: usize, number: u64) {
        let holes = self.holes.get_mut(&(client, stream));
        let Some((holes, at)) = holes.and_then(|holes| {
            let at = holes.iter().position(|hole| hole.contains(&number))?;
            Some((holes, at))
        }) else {
            self.faults.duplicated += 1;
            return;
        };
        let hole = holes.swap_remove(at);
        holes.extend([hole.start..number, number + 1..hole.end].into_iter().filter(|rest| !rest.is_empty()));
        self.faults.missing -= 1;
        self.faults.out_of_order += 1;
    }

    /// What was wrong so far.
    pub(crate) fn faults(&self) -> DeliveryFaults {
        self.faults
    }

    /// The ends of all streams, `named` by client and stream; who does not listen is not in them.
    pub(crate) fn tails(&self, named: impl Fn(usize, usize) -> u32) -> BTreeMap<u32, StreamTail> {
        let mut tails: BTreeMap<u32, StreamTail> = BTreeMap::new();
        for (at, next) in self.next.iter().enumerate() {
            let Some(next) = *next else { continue };
            let name = named(at / self.streams, at % self.streams);
            tails.entry(name).or_default().merge(&StreamTail { readers: 1, next, top: next });
        }
        tails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(numbers: &[u64]) -> DeliveryFaults {
        let mut ledger = Ledger::new(2, 1);
        ledger.listens(1, 1);
        for number in numbers {
            ledger.hears(1, 0, *number);
        }
        ledger.faults()
    }

    #[test]
    fn all_in_order_is_no_fault() {
        assert_eq!(heard(&[1, 2, 3]), DeliveryFaults::default());
    }

    #[test]
    fn a_hole_is_missing_until_it_is_filled_late() {
        assert_eq!(heard(&[1, 5]), DeliveryFaults { missing: 3, ..DeliveryFaults::default() });
        assert_eq!(heard(&[1, 5, 3]), DeliveryFaults { missing: 2, out_of_order: 1, ..DeliveryFaults::default() });
        assert_eq!(heard(&[1, 5, 3, 2, 4, 6]), DeliveryFaults { out_of_order: 3, ..DeliveryFaults::default() });
    }

    #[test]
    fn a_second_copy_is_told_from_a_late_one() {
        assert_eq!(heard(&[1, 1, 2]), DeliveryFaults { duplicated: 1, ..DeliveryFaults::default() });
        assert_eq!(heard(&[3, 2, 2]), DeliveryFaults { missing: 1, duplicated: 1, out_of_order: 1 });
    }

    #[test]
    fn what_nobody_heard_anything_after_is_missing_at_the_end() {
        let mut ledger = Ledger::new(3, 1);
        ledger.listens(0, 1);
        ledger.listens(1, 1);
        ledger.hears(0, 0, 1);
        ledger.hears(0, 0, 2);
        ledger.hears(1, 0, 1);
        let tail = ledger.tails(|_, _| 9)[&9];
        assert_eq!((tail, tail.missing()), (StreamTail { readers: 2, next: 5, top: 3 }, 1));
    }

    #[test]
    fn who_comes_back_goes_on_where_they_were() {
        let mut ledger = Ledger::new(1, 1);
        ledger.listens(0, 1);
        ledger.hears(0, 0, 1);
        ledger.listens(0, 5);
        assert_eq!(ledger.expects(0, 0), Some(2));
        ledger.repositioned(0, 0, 7);
        ledger.hears(0, 0, 7);
        assert_eq!(ledger.faults(), DeliveryFaults::default());
    }
}
