//! Metrics of the presence program ([`PresenceMetrics`]), and the building blocks that the gateway's metrics share.
//!
//! Metrics are registered on a [`Registry`] that is created at the start and passed down, never on a global one:
//! several nodes share a test process. Invariant: label values come from closed tables ([`Label`]), so clients cannot
//! add series. Every series exists from the start with the value 0, so a rate includes the first event.

mod api;
mod histogram;
mod pulled;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;

use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Registry, register_int_counter_vec_with_registry,
    register_int_counter_with_registry, register_int_gauge_vec_with_registry, register_int_gauge_with_registry,
};

use crate::model::codes::{CloseCode, ErrorCode};
use crate::model::moderation::ModerationAction;

pub use self::api::ApiMetrics;
pub use self::histogram::{Bounds, Family, Histogram};
pub use self::pulled::Pulled;

/// Message if a registration fails: names and labels are literals, and one function builds each registry.
const REGISTERED_ONCE: &str = "metric names are valid and registered once";

/// A closed table whose rows are the values of a metric's label.
pub trait Label: Copy + 'static {
    /// Every row, each at the index that [`Label::row`] returns.
    const ROWS: &'static [Self];

    /// Returns the row as a label value.
    fn value(self) -> &'static str;

    /// Returns its index in [`Label::ROWS`].
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

impl Label for ModerationAction {
    const ROWS: &'static [Self] = Self::ALL;

    fn value(self) -> &'static str {
        self.as_str()
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

/// One metric for each row of a table, created at the start: `refusals[ErrorCode::BadNick].inc()` needs no look-up.
pub struct Labelled<L, M> {
    children: Box<[M]>,
    table: PhantomData<fn(L)>,
}

impl<L: Label, M> Labelled<L, M> {
    /// Creates a child for each row from its label value.
    pub fn new(child: impl FnMut(&'static str) -> M) -> Self {
        Self { children: L::ROWS.iter().map(|row| row.value()).map(child).collect(), table: PhantomData }
    }
}

impl<L: Label> Labelled<L, IntCounter> {
    /// Registers a counter for each row, with the row in `label`.
    #[must_use]
    pub fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Self {
        let family = register_int_counter_vec_with_registry!(name, help, &[label], registry).expect(REGISTERED_ONCE);
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

/// Registers a counter without labels.
#[must_use]
pub fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    register_int_counter_with_registry!(name, help, registry).expect(REGISTERED_ONCE)
}

/// Registers a gauge without labels.
#[must_use]
pub fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    register_int_gauge_with_registry!(name, help, registry).expect(REGISTERED_ONCE)
}

/// Registers a gauge that is always 1 and carries its information in a label.
#[must_use]
pub fn info(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    register_int_gauge_vec_with_registry!(name, help, &[label], registry).expect(REGISTERED_ONCE)
}

/// Returns a registry with the metrics of every program: `parley_build_info{version}`, always 1, and on Linux the
/// `process_*` family (memory, CPU, descriptors, start time).
#[must_use]
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    let build = info(&registry, "parley_build_info", "Always 1; the version is in the label.", "version");
    build.with_label_values(&[version]).set(1);
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect(REGISTERED_ONCE);
    registry
}

/// Metrics of one presence process, updated by the HTTP API and the reaper.
#[derive(Debug, Clone)]
pub struct PresenceMetrics {
    /// Registry of all fields below; the admin port exports it.
    pub registry: Registry,
    /// Incarnations declared dead by this process.
    pub fences: IntCounter,
    /// Nicknames freed after a gateway was fenced.
    pub reaped_nicks: IntCounter,
    /// Memberships removed after a gateway was fenced.
    pub reaped_members: IntCounter,
    /// The HTTP API.
    pub api: ApiMetrics,
}

impl PresenceMetrics {
    /// Creates the metrics on a new registry.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry(env!("CARGO_PKG_VERSION"));
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
            api: ApiMetrics::new(&registry),
            registry,
        }
    }
}

impl Default for PresenceMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
