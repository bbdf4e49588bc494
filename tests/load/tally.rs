//! Results of the clients of one process: counts, faults and latencies, and their merge over several processes.
//!
//! Workers send it as JSON. A histogram travels as its buckets (value, count), without loss because both ends use the
//! same buckets.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Nanos;
use crate::ledger::{DeliveryFaults, StreamTail};

/// Maximum recorded latency, one hour; longer ones count as this.
const LATENCY_NANOS_MAX: Nanos = 3_600_000_000_000;
/// Significant decimal digits of a latency.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Distribution of latencies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // The bounds are constants that the library accepts; otherwise the histogram resizes itself.
        Self(
            Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, SIGNIFICANT_DIGITS)
                .unwrap_or_else(|_| unreachable!("constant bounds")),
        )
    }
}

impl Latencies {
    /// Adds one latency.
    pub(crate) fn record(&mut self, latency: Nanos) {
        self.0.saturating_record(latency);
    }

    /// Adds all latencies of the other distribution.
    pub(crate) fn merge(&mut self, other: &Self) {
        for bucket in other.0.iter_recorded() {
            self.0.saturating_record_n(bucket.value_iterated_to(), bucket.count_at_value());
        }
    }

    /// Returns the number of latencies.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the latency of this percentile in milliseconds.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1e6
    }

    /// Returns the average in milliseconds.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.0.mean() / 1e6
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_seq(self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latencies = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latencies.0.saturating_record_n(value, count);
        }
        Ok(latencies)
    }
}

/// Progress of the clients: small enough to be reported several times a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientProgress {
    /// Clients that are connected, registered and in their room.
    pub(crate) ready: u64,
    /// Clients that gave up after too many refusals.
    pub(crate) failed: u64,
    /// Messages and pings sent.
    pub(crate) sent: u64,
    /// Messages and pings answered, whether accepted or refused.
    pub(crate) answered: u64,
    /// Messages and pings refused or left unanswered by a lost connection.
    pub(crate) refused: u64,
    /// Messages received.
    pub(crate) delivered: u64,
    /// Sessions resumed.
    pub(crate) resumed: u64,
}

impl ClientProgress {
    /// Returns the progress since an earlier one; the clients' states stay as they are.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(earlier.sent),
            answered: self.answered.saturating_sub(earlier.answered),
            refused: self.refused.saturating_sub(earlier.refused),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            ..*self
        }
    }

    /// Adds the progress of other clients.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.failed += other.failed;
        self.sent += other.sent;
        self.answered += other.answered;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.resumed += other.resumed;
    }
}

/// Counts of the messages that were due in the measured window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowCounts {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) echoed: u64,
    pub(crate) delivered: u64,
    /// Maximum number of unanswered messages of one client.
    pub(crate) unanswered_max: u64,
    /// Socket reads that contained at least one of these messages.
    pub(crate) reads: u64,
    /// Bytes of these reads.
    pub(crate) read_bytes: u64,
    /// Time of the last received message or answer.
    pub(crate) last: Nanos,
}

/// All results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) progress: ClientProgress,
    pub(crate) measured: WindowCounts,
    /// Refusals, closes and broken connections by their code.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) faults: DeliveryFaults,
    pub(crate) tails: BTreeMap<u32, StreamTail>,
    /// Time at which the last client was ready.
    pub(crate) last_ready_at: Nanos,
    /// From the due time of a login to the join of the room.
    pub(crate) login: Latencies,
    /// From the loss of a connection to the resumed session.
    pub(crate) resume: Latencies,
    /// From the due time of a message to each delivery of it.
    pub(crate) delivery: Latencies,
    /// From the due time of a message to its ack.
    pub(crate) ack: Latencies,
    /// From the due time of a ping to its answer.
    pub(crate) echo: Latencies,
}

impl Tally {
    /// Counts an error by its code.
    pub(crate) fn error(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(code.to_owned(), 1)),
        }
    }

    /// Returns the number of messages that did not arrive, those at the ends of streams included.
    pub(crate) fn missing(&self) -> u64 {
        self.faults.missing + self.tails.values().map(StreamTail::missing).sum::<u64>()
    }

    /// Returns the results since an earlier tally of the same clients. The latencies and the counts of the window are
    /// those of the latest window in both.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut errors = self.errors.clone();
        for (code, count) in &mut errors {
            *count = count.saturating_sub(earlier.errors.get(code).copied().unwrap_or_default());
        }
        errors.retain(|_, count| *count > 0);
        let (faults, before) = (self.faults, earlier.faults);
        let faults = DeliveryFaults {
            missing: self.missing().saturating_sub(earlier.missing()),
            duplicated: faults.duplicated.saturating_sub(before.duplicated),
            out_of_order: faults.out_of_order.saturating_sub(before.out_of_order),
        };
        let progress = self.progress.since(&earlier.progress);
        Self { progress, errors, faults, tails: BTreeMap::new(), ..self.clone() }
    }

    /// Forgets the counts and latencies of a former window.
    pub(crate) fn begin_window(&mut self) {
        self.measured = WindowCounts::default();
        self.delivery = Latencies::default();
        self.ack = Latencies::default();
        self.echo = Latencies::default();
    }

    /// Adds the results of another process.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.progress.add(&other.progress);
        self.measured.sent += other.measured.sent;
        self.measured.acked += other.measured.acked;
        self.measured.echoed += other.measured.echoed;
        self.measured.delivered += other.measured.delivered;
        self.measured.unanswered_max = self.measured.unanswered_max.max(other.measured.unanswered_max);
        self.measured.reads += other.measured.reads;
        self.measured.read_bytes += other.measured.read_bytes;
        self.measured.last = self.measured.last.max(other.measured.last);
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.faults.missing += other.faults.missing;
        self.faults.duplicated += other.faults.duplicated;
        self.faults.out_of_order += other.faults.out_of_order;
        for (name, tail) in &other.tails {
            self.tails.entry(*name).or_default().merge(tail);
        }
        self.last_ready_at = self.last_ready_at.max(other.last_ready_at);
        self.login.merge(&other.login);
        self.resume.merge(&other.resume);
        self.delivery.merge(&other.delivery);
        self.ack.merge(&other.ack);
        self.echo.merge(&other.echo);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tally_of(latencies: impl IntoIterator<Item = u64>) -> Tally {
        let mut tally = Tally::default();
        for latency in latencies {
            tally.delivery.record(latency);
        }
        tally
    }

    #[test]
    fn merged_tallies_equal_one_combined_tally() {
        let values: Vec<u64> = (1..=10_000_u64).map(|number| number * number * 37).collect();
        let mut all = tally_of(values.iter().copied());
        let (some, others) = values.split_at(3333);
        let mut merged = tally_of(some.iter().copied());
        merged.error("overloaded");
        merged.tails.insert(3, StreamTail { readers: 1, next: 5, top: 5 });
        let mut other = tally_of(others.iter().copied());
        other.error("overloaded");
        other.tails.insert(3, StreamTail { readers: 2, next: 9, top: 6 });
        let json = serde_json::to_string(&other).unwrap();
        merged.merge(&serde_json::from_str(&json).unwrap());

        all.errors.insert("overloaded".to_owned(), 2);
        all.tails.insert(3, StreamTail { readers: 3, next: 14, top: 6 });
        for percentile in [0.0, 50.0, 99.0, 99.9, 100.0] {
            let (one, two) = (all.delivery.percentile_ms(percentile), merged.delivery.percentile_ms(percentile));
            assert!((one - two).abs() <= one * 1e-3, "{percentile}: {one} {two}");
        }
        assert_eq!(merged.delivery.count(), 10_000);
        assert_eq!((merged.errors, merged.tails), (all.errors, all.tails));
    }

    #[test]
    fn later_tally_contains_only_new_events() {
        let mut earlier = tally_of([5]);
        earlier.error("overloaded");
        earlier.progress = ClientProgress { ready: 2, sent: 10, delivered: 9, ..ClientProgress::default() };
        earlier.tails.insert(3, StreamTail { readers: 1, next: 9, top: 10 });
        let mut later = earlier.clone();
        later.begin_window();
        later.error("gap");
        later.progress.sent = 15;
        later.faults.missing = 1;
        later.tails.insert(3, StreamTail { readers: 1, next: 12, top: 15 });
        let since = later.since(&earlier);
        assert_eq!((since.progress.ready, since.progress.sent, since.progress.delivered), (2, 5, 0));
        assert_eq!((since.missing(), since.delivery.count()), (3, 0));
        assert_eq!(since.errors, BTreeMap::from([("gap".to_owned(), 1)]));
    }

    #[test]
    fn latency_beyond_bounds_counts_as_maximum() {
        let tally = tally_of([u64::MAX, 0]);
        assert!(tally.delivery.percentile_ms(100.0) >= LATENCY_NANOS_MAX as f64 / 1e6 * 0.999);
    }
}
