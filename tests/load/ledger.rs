//! Delivery checks of every client: each message received once and in order.
//!
//! A *stream* is a sequence that one client can count: a room (by its dense seqs from 1) or one publisher of a room.
//! The publisher's own numbers serve for peers without seqs. Missing numbers are stored separately, so a client without
//! gaps needs one number per stream. Pure.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Delivery faults so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryFaults {
    /// Messages not received although a later one of their stream was.
    pub(crate) missing: u64,
    /// Messages received again.
    pub(crate) duplicated: u64,
    /// Messages received after a later one.
    pub(crate) out_of_order: u64,
}

/// End of one stream over all its readers; it reveals missing messages at the end of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamTail {
    /// Number of readers.
    pub(crate) readers: u64,
    /// Sum of the next expected numbers of all readers.
    pub(crate) next: u64,
    /// Next expected number of a reader that received everything.
    pub(crate) top: u64,
}

impl StreamTail {
    /// Returns the number of messages missing at the end.
    pub(crate) fn missing(&self) -> u64 {
        (self.readers * self.top).saturating_sub(self.next)
    }

    /// Merges the same stream as observed by other readers.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.readers += other.readers;
        self.next += other.next;
        self.top = self.top.max(other.top);
    }
}

/// Positions of the clients of one process, each with the same number of streams.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Next expected number by client and stream; `None` before the stream starts.
    next: Vec<Option<u64>>,
    streams: usize,
    holes: HashMap<(usize, usize), Vec<Range<u64>>>,
    faults: DeliveryFaults,
}

impl Ledger {
    /// Creates a ledger in which no stream has started.
    pub(crate) fn new(clients: usize, streams: usize) -> Self {
        Self { next: vec![None; clients * streams], streams, holes: HashMap::new(), faults: DeliveryFaults::default() }
    }

    /// Starts every stream of the client at `next`. A returning client keeps the positions that it has.
    pub(crate) fn start_streams(&mut self, client: usize, next: u64) {
        for position in &mut self.next[client * self.streams..(client + 1) * self.streams] {
            position.get_or_insert(next);
        }
    }

    /// Moves the client to the position that the server announced; earlier messages do not count as missing.
    pub(crate) fn reposition(&mut self, client: usize, stream: usize, next: u64) {
        self.next[client * self.streams + stream] = Some(next);
        self.holes.remove(&(client, stream));
    }

    /// Returns the next number that the client expects.
    pub(crate) fn next_expected(&self, client: usize, stream: usize) -> Option<u64> {
        self.next[client * self.streams + stream]
    }

    /// Records that the client received this message of the stream.
    pub(crate) fn record_received(&mut self, client: usize, stream: usize, number: u64) {
        let position = &mut self.next[client * self.streams + stream];
        let next = position.unwrap_or(number);
        if number < next {
            return self.record_late(client, stream, number);
        }
        *position = Some(number + 1);
        if number > next {
            self.faults.missing += number - next;
            self.holes.entry((client, stream)).or_default().push(next..number);
        }
    }

    fn record_late(&mut self, client: usize, stream: usize, number: u64) {
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

    /// Returns the faults so far.
    pub(crate) fn faults(&self) -> DeliveryFaults {
        self.faults
    }

    /// Returns the ends of all streams, `named` by client and stream, without streams that have not started.
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

    fn faults_after(numbers: &[u64]) -> DeliveryFaults {
        let mut ledger = Ledger::new(2, 1);
        ledger.start_streams(1, 1);
        for number in numbers {
            ledger.record_received(1, 0, *number);
        }
        ledger.faults()
    }

    #[test]
    fn messages_in_order_cause_no_fault() {
        assert_eq!(faults_after(&[1, 2, 3]), DeliveryFaults::default());
    }

    #[test]
    fn gap_counts_missing_until_late_messages_fill_it() {
        assert_eq!(faults_after(&[1, 5]), DeliveryFaults { missing: 3, ..DeliveryFaults::default() });
        assert_eq!(
            faults_after(&[1, 5, 3]),
            DeliveryFaults { missing: 2, out_of_order: 1, ..DeliveryFaults::default() }
        );
        assert_eq!(faults_after(&[1, 5, 3, 2, 4, 6]), DeliveryFaults { out_of_order: 3, ..DeliveryFaults::default() });
    }

    #[test]
    fn ledger_separates_duplicates_from_late_messages() {
        assert_eq!(faults_after(&[1, 1, 2]), DeliveryFaults { duplicated: 1, ..DeliveryFaults::default() });
        assert_eq!(faults_after(&[3, 2, 2]), DeliveryFaults { missing: 1, duplicated: 1, out_of_order: 1 });
    }

    #[test]
    fn stream_tail_counts_unreceived_messages_as_missing() {
        let mut ledger = Ledger::new(3, 1);
        ledger.start_streams(0, 1);
        ledger.start_streams(1, 1);
        ledger.record_received(0, 0, 1);
        ledger.record_received(0, 0, 2);
        ledger.record_received(1, 0, 1);
        let tail = ledger.tails(|_, _| 9)[&9];
        assert_eq!((tail, tail.missing()), (StreamTail { readers: 2, next: 5, top: 3 }, 1));
    }

    #[test]
    fn returning_client_keeps_its_stream_position() {
        let mut ledger = Ledger::new(1, 1);
        ledger.start_streams(0, 1);
        ledger.record_received(0, 0, 1);
        ledger.start_streams(0, 5);
        assert_eq!(ledger.next_expected(0, 0), Some(2));
        ledger.reposition(0, 0, 7);
        ledger.record_received(0, 0, 7);
        assert_eq!(ledger.faults(), DeliveryFaults::default());
    }
}
