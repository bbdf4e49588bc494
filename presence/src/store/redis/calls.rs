//! Metrics of calls to Redis: duration and failures, by [`CallKind`].
//!
//! [`super::RedisStore::timed`] records a call in [`CallMetrics`]; a program registers them once. There are few
//! fixed kinds: a slow kind points at the cause, and the SLOWLOG of Redis shows the command. Nothing here retries or
//! limits calls.

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::host::metrics::{Bounds, Family, Histogram, Label, Labelled};

/// Purpose of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Appends messages of one room to its stream and publishes them on its channel.
    Publish,
    /// Sends a direct message.
    Direct,
    /// Publishes that a user is typing.
    Typing,
    /// Reads from streams.
    Log,
    /// Renews the lease.
    Beat,
    /// Changes names, memberships or leases.
    Write,
    /// Reads names, memberships or leases.
    Read,
    /// Waits for a pooled connection, where a stalled Redis is noticed first.
    Connect,
    /// Changes the channels of a subscription.
    Subscribe,
    /// Tries whether a write is accepted.
    Probe,
}

impl Label for CallKind {
    const ROWS: &'static [Self] = &[
        Self::Publish,
        Self::Direct,
        Self::Typing,
        Self::Log,
        Self::Beat,
        Self::Write,
        Self::Read,
        Self::Connect,
        Self::Subscribe,
        Self::Probe,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Direct => "direct",
            Self::Typing => "typing",
            Self::Log => "log",
            Self::Beat => "beat",
            Self::Write => "write",
            Self::Read => "read",
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Probe => "probe",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// Metrics of all calls over one [`super::RedisStore`].
#[derive(Debug)]
pub struct CallMetrics {
    seconds: Labelled<CallKind, Histogram>,
    failures: Labelled<CallKind, IntCounter>,
    collected: (Family, IntCounterVec),
}

impl CallMetrics {
    /// Registers the metrics. Must be called once for each registry.
    ///
    /// # Panics
    /// On a second call.
    pub fn register(&self, registry: &Registry) {
        let (seconds, failures) = self.collected.clone();
        let both: [Box<dyn Collector>; 2] = [Box::new(seconds), Box::new(failures)];
        both.into_iter().for_each(|numbers| registry.register(numbers).expect("registered once"));
    }

    /// Records a finished call.
    pub(super) fn record(&self, call: CallKind, began: Instant, failed: bool) {
        self.seconds[call].record(began.elapsed());
        if failed {
            self.failures[call].inc();
        }
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        let (family, seconds) = Family::labelled(
            "parley_redis_call_seconds",
            "Time from a call to Redis to its answer or timeout.",
            "call",
            Bounds::SECONDS,
        );
        let counted =
            Opts::new("parley_redis_call_failures_total", "Calls to Redis that were refused or not answered, by call.");
        let failed = IntCounterVec::new(counted, &["call"]).expect("the name is valid");
        let failures = Labelled::new(|value| failed.with_label_values(&[value]));
        Self { seconds, failures, collected: (family, failed) }
    }
}
