//! What the presence program counts, and the few shapes that the gateway's metrics are made of too.
//!
//! Everything is registered on a [`Registry`] that is made at the start and handed down, never on a global one: several
//! nodes share a test process. Label values come from closed tables, so nobody outside decides how many series there
//! are, and each of them exists from the start with the value 0, so a rate sees the first event.

mod histogram;
mod pulled;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::time::Duration;

use prometheus::{
    HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, exponential_buckets,
    register_histogram_vec_with_registry, register_int_counter_vec_with_registry, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};

use crate::model::codes::{CloseCode, ErrorCode};

pub use self::histogram::{Bounds, Family, Histogram};
pub use self::pulled::{Pulled, Rises};

/// Why registering cannot fail: names and labels are literals of ours, and each registry is built by one function.
const LITERAL: &str = "metric names are valid and registered once";

/// A closed table whose rows are the values of a metric's label.
pub trait Label: Copy + 'static {
    /// Every row, each at the place that [`Label::row`] says.
    const ROWS: &'static [Self];

    /// The row as a label value.
    fn value(self) -> &'static str;

    /// Its place in [`Label::ROWS`].
    fn row(self) -> usize;
}

impl Label for ErrorCode {
    const ROWS: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.slug()
    }

    fn row(self) -> usize {
        self as usize
    }
}

impl Label for CloseCode {
    const ROWS: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.slug()
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// One metric for each row of a table, made at the start: `refusals[ErrorCode::BadNick].inc()` looks nothing up.
pub struct Labelled<L, M> {
    children: Box<[M]>,
    table: PhantomData<fn(L)>,
}

impl<L: Label, M> Labelled<L, M> {
    /// A child for each row, made of its value.
    pub fn new(child: impl FnMut(&'static str) -> M) -> Self {
        Self { children: L::ROWS.iter().map(|row| row.value()).map(child).collect(), table: PhantomData }
    }
}

impl<L: Label> Labelled<L, IntCounter> {
    /// A counter for each row, told apart by `label`.
    #[must_use]
    pub fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = register_int_counter_vec_with_registry!(name, help, &[label], registry).expect(LITERAL);
        Self::new(|value| family.with_label_values(&[value]))
    }
}

impl<L: Label> Labelled<L, IntGauge> {
    /// A gauge for each row, told apart by `label`.
    #[must_use]
    pub fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = register_int_gauge_vec_with_registry!(name, help, &[label], registry).expect(LITERAL);
        Self::new(|value| family.with_label_values(&[value]))
    }
}

impl<L: Label, M> Index<L> for Labelled<L, M> {
    type Output = M;

    fn index(&self, row: L) -> &M {
        &self.children[row.row()]
    }
}

impl<L, M> fmt::Debug for Labelled<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled").field("children", &self.children.len()).finish()
    }
}

/// A counter without labels.
#[must_use]
pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register_int_counter_with_registry!(name, help, registry).expect(LITERAL)
}

/// A gauge without labels.
#[must_use]
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register_int_gauge_with_registry!(name, help, registry).expect(LITERAL)
}

/// A gauge that is always 1 and tells something in its label.
#[must_use]
pub fn info(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    register_int_gauge_vec_with_registry!(name, help, &[label], registry).expect(LITERAL)
}

/// A registry with what every program tells about itself: `parley_build_info{version}`, always 1, and the `process_*`
/// family (memory, CPU, descriptors, start time) where there is `/proc`.
#[must_use]
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    let build = info(&registry, "parley_build_info", "Always 1; the version is in the label.", "version");
    build.with_label_values(&[version]).set(1);
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect(LITERAL);
    registry
}

/// The numbers of one presence process. The HTTP API and the reaper count into it.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where everything below is registered; the admin door reads it.
    pub registry: Registry,
    /// Incarnations that this process declared dead.
    pub fences: IntCounter,
    /// Nicknames freed after their gateway was gone.
    pub reaped_nicks: IntCounter,
    /// Memberships taken away after their gateway was gone.
    pub reaped_members: IntCounter,
    api_requests: IntCounterVec,
    api_request_seconds: HistogramVec,
}

impl Metrics {
    /// Fresh metrics on a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry(env!("CARGO_PKG_VERSION"));
        // 0.5 ms to 4 s, doubling.
        let buckets = exponential_buckets(0.0005, 2.0, 14).expect("a positive start and a factor over 1");
        Self {
            fences: counter(&registry, "parley_fences_total", "Gateway incarnations declared dead by this process."),
            reaped_nicks: counter(
                &registry,
                "parley_reaped_nicks_total",
                "Nicknames freed after a gateway was fenced.",
            ),
            reaped_members: counter(
                &registry,
                "parley_reaped_members_total",
                "Memberships removed after a gateway was fenced.",
            ),
            api_requests: register_int_counter_vec_with_registry!(
                "parley_api_requests_total",
                "Requests answered by the HTTP API, by route and status.",
                &["route", "status"],
                registry
            )
            .expect(LITERAL),
            api_request_seconds: register_histogram_vec_with_registry!(
                "parley_api_request_seconds",
                "Time from the head of a request to the head of its response.",
                &["route"],
                buckets,
                registry
            )
            .expect(LITERAL),
            registry,
        }
    }

    /// Counts an answered request. `route` is the route's pattern (`/v1/users/{nick}`) or one fixed word for what
    /// matched none, never the path that was asked for.
    pub fn api_request(&self, route: &str, status: u16, took: Duration) {
        self.api_requests.with_label_values(&[route, &status.to_string()]).inc();
        self.api_request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
