//! How calls to Redis did: their time and their failures by kind.
//!
//! Every call that goes through [`super::Redis::timed`] is counted here; a program registers the numbers once. The kinds
//! are few and fixed, because a slow kind tells where to look and a slow command is found in Redis' own SLOWLOG.

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::host::metrics::{Bounds, Family, Histogram, Label, Labelled};
use crate::registry::RegistryError;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Puts messages of one room into its log and onto its channel.
    Publish,
    /// Sends a direct message.
    Direct,
    /// Tells that somebody is writing.
    Typing,
    /// Reads from logs.
    Log,
    /// Renews the lease.
    Beat,
    /// Changes names, memberships or leases.
    Write,
    /// Asks about names, memberships or leases.
    Read,
    /// Waits for a connection to ask over, which is where a Redis that stands still is noticed first.
    Connect,
}

impl Label for Call {
    const ROWS: &'static [Self] =
        &[Self::Publish, Self::Direct, Self::Typing, Self::Log, Self::Beat, Self::Write, Self::Read, Self::Connect];

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
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// What is counted of all calls over one [`super::Redis`].
#[derive(Debug)]
pub struct Calls {
    seconds: Labelled<Call, Histogram>,
    failures: Labelled<Call, IntCounter>,
    collected: (Family, IntCounterVec),
}

impl Calls {
    /// Shows the numbers on `registry`. Call it once for each.
    ///
    /// # Panics
    /// On a second call.
    pub fn register(&self, registry: &Registry) {
        let (seconds, failures) = self.collected.clone();
        let both: [Box<dyn Collector>; 2] = [Box::new(seconds), Box::new(failures)];
        both.into_iter().for_each(|numbers| registry.register(numbers).expect("registered once"));
    }

    /// Waits for a call and counts it. A call whose future is dropped is not counted.
    pub(super) async fn count<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let began = Instant::now();
        let answer = answer.await;
        self.took(call, began, answer.is_err());
        answer
    }

    /// Counts a call that is over.
    pub(super) fn took(&self, call: Call, began: Instant, failed: bool) {
        self.seconds[call].took(began.elapsed());
        if failed {
            self.failures[call].inc();
        }
    }
}

impl Default for Calls {
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
