//! Histograms for the hot path: a record is two relaxed additions in a shard of the thread.
//!
//! The library's histogram shares its cells between all threads and records one value at a time. A [`Histogram`]
//! records a batch as one value with a weight, and threads rarely share cache lines. Shards are summed at the scrape
//! only.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};

use super::{Label, Labelled, REGISTERED_ONCE};

/// Number of shards that threads are spread over.
const SHARDS: usize = 8;

/// Unit and buckets of a histogram.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Upper bounds of the buckets, rising, in multiples of `step`.
    ends: &'static [u64],
    /// Value of a recorded 1 in the exported unit.
    step: f64,
}

impl Bounds {
    /// Durations, recorded in microseconds and exported in seconds: 50 us to 10 s.
    pub const SECONDS: Self = Self {
        ends: &[
            50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
            2_000_000, 5_000_000, 10_000_000,
        ],
        step: 1e-6,
    };
    /// Counts of receivers: 1 to 100,000.
    pub const RECEIVERS: Self =
        Self { ends: &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000], step: 1.0 };
}

/// One histogram. Cheap to clone; clones share their numbers.
#[derive(Clone)]
pub struct Histogram {
    bounds: Bounds,
    shards: Arc<[HistogramShard; SHARDS]>,
}

/// Cells of the threads that share it. As wide as two cache lines, which processors fetch in pairs.
#[repr(align(128))]
struct HistogramShard {
    /// One cell for each bucket, and one for values above the last bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Creates an empty histogram that is not exported; [`Family`] creates the exported ones.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let shard = |_| HistogramShard {
            counts: (0..=bounds.ends.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        };
        Self { bounds, shards: Arc::new(std::array::from_fn(shard)) }
    }

    /// Records `count` equal values, in the recorded unit of the bounds.
    pub fn record_many(&self, value: u64, count: u64) {
        let shard = &self.shards[own_shard()];
        shard.counts[self.bounds.ends.partition_point(|end| *end < value)].fetch_add(count, Relaxed);
        shard.sum.fetch_add(value.saturating_mul(count), Relaxed);
    }

    /// Records one duration; for [`Bounds::SECONDS`].
    pub fn record(&self, time: Duration) {
        self.record_many(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), 1);
    }

    fn shown(&self) -> proto::Histogram {
        let count_of = |bucket: usize| self.shards.iter().map(|shard| shard.counts[bucket].load(Relaxed)).sum::<u64>();
        let mut total = 0;
        let mut buckets = Vec::with_capacity(self.bounds.ends.len());
        for (bucket, end) in self.bounds.ends.iter().enumerate() {
            total += count_of(bucket);
            let mut shown = proto::Bucket::default();
            shown.set_cumulative_count(total);
            // Rounded, so that 50 us is exported as 0.00005 without rounding errors.
            shown.set_upper_bound((*end as f64 * self.bounds.step * 1e6).round() / 1e6);
            buckets.push(shown);
        }
        let sum: u64 = self.shards.iter().map(|shard| shard.sum.load(Relaxed)).sum();
        let mut shown = proto::Histogram::default();
        shown.set_bucket(buckets);
        // From the same reads as the buckets, so they are always consistent.
        shown.set_sample_count(total + count_of(self.bounds.ends.len()));
        shown.set_sample_sum(sum as f64 * self.bounds.step);
        shown
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("count", &self.shown().get_sample_count()).finish_non_exhaustive()
    }
}

fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
}

/// The exported histograms of one name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Family {
    desc: Desc,
    label: Option<&'static str>,
    /// Histograms with their label values.
    children: Arc<[(&'static str, Histogram)]>,
}

impl Family {
    /// Registers one histogram without a label.
    #[must_use]
    pub fn single(registry: &Registry, name: &str, help: &str, bounds: Bounds) -> Histogram {
        let histogram = Histogram::new(bounds);
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new()).expect(REGISTERED_ONCE);
        let family = Self { desc, label: None, children: Arc::new([("", histogram.clone())]) };
        registry.register(Box::new(family)).expect(REGISTERED_ONCE);
        histogram
    }

    /// Creates one histogram for each row of a table, with the row in `label`. The caller registers the family.
    #[must_use]
    pub fn labelled<L: Label>(
        name: &str,
        help: &str,
        label: &'static str,
        bounds: Bounds,
    ) -> (Self, Labelled<L, Histogram>) {
        let children: Arc<[_]> = L::ROWS.iter().map(|row| (row.value(), Histogram::new(bounds))).collect();
        let desc =
            Desc::new(name.to_owned(), help.to_owned(), vec![label.to_owned()], HashMap::new()).expect(REGISTERED_ONCE);
        let mut rows = children.iter().map(|(_, histogram)| histogram.clone());
        let labelled = Labelled::new(|_| rows.next().expect("one histogram for each row"));
        (Self { desc, label: Some(label), children }, labelled)
    }
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let metrics = self.children.iter().map(|(value, histogram)| {
            let mut metric =
                proto::Metric::from_label(self.label.map(|label| pair(label, value)).into_iter().collect());
            metric.set_histogram(histogram.shown());
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

/// Returns a label with its value.
pub(super) fn pair(label: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(label.to_owned());
    pair.set_value(value.to_owned());
    pair
}
