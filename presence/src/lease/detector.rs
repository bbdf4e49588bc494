//! Failure detection by unchanged beat counters, and the reaping of fenced gateways.
//!
//! [`FailureDetector`] judges samples of the lease table; [`run`] carries the verdicts out. It runs in every presence
//! process and every gateway: fencing is a compare-and-set and reaping a compare-and-delete, so duplicates are
//! harmless. A counter counts as unchanged only while this process's own samples arrive without a gap from a store that
//! accepts beats. So an outage of the store, refused writes or a pause of this process fence no gateway. No clock of
//! another machine and no TTL is used.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::host::failpoints::{self, Failpoint};
use crate::lease::beat::{BEAT_INTERVAL, LeaseSample};
use crate::model::Incarnation;
use crate::registry::{Lease, LeaseState, LeaseTable, ReapedBatch, Registry, RegistryError};

/// A counter that is unchanged for this long belongs to a failed gateway.
pub const FENCE_AFTER: Duration = Duration::from_secs(8);
/// Maximum time between two samples; a longer gap restarts every observation.
pub const SAMPLE_GAP_MAX: Duration = Duration::from_secs(2);
/// The process that fenced a gateway reaps it; other detectors reap what it still owns after this time.
pub const REAP_AFTER: Duration = Duration::from_secs(3);
/// An ended lease that owns nothing is removed from the lease table after this time.
pub const FORGET_AFTER: Duration = Duration::from_secs(3660);
/// Maximum number of nicknames and memberships that one call reaps, so that the script does not block the store.
const REAP_BATCH: usize = 200;

/// Action that a sample calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureVerdict {
    /// Fence this incarnation if its counter is still the same.
    Fence(Incarnation, u64),
    /// Reap an ended lease that still owns something, or remove its row.
    Reap(Incarnation),
}

/// Pure judge of lease samples; time comes with the samples.
#[derive(Debug, Default)]
pub struct FailureDetector {
    /// The incarnation of this process, which only other processes judge.
    own: Option<Incarnation>,
    last_sample: Option<Instant>,
    /// The generation that the observations belong to.
    generation: u64,
    observed: HashMap<Incarnation, ObservedLease>,
}

#[derive(Debug, Clone, Copy)]
struct ObservedLease {
    counter: u64,
    state: LeaseState,
    /// The time at which the first sample with this counter and state was received.
    since: Instant,
}

impl FailureDetector {
    /// Sets the incarnation of this process.
    pub fn set_own(&mut self, incarnation: Option<Incarnation>) {
        self.own = incarnation;
    }

    /// Judges one sample. A verdict is repeated with every sample until the table has changed.
    pub fn judge(&mut self, sample: &LeaseSample) -> Vec<FailureVerdict> {
        let gap = self.last_sample.map(|last| sample.received.saturating_duration_since(last));
        let LeaseTable { generation, leases } = &sample.table;
        if gap.is_none_or(|gap| gap > SAMPLE_GAP_MAX) || self.generation != generation.number {
            self.observed.clear();
        }
        self.last_sample = Some(sample.received);
        self.generation = generation.number;
        if !generation.is_open() || !sample.accepts_beats {
            // A recovering store fences missing gateways itself, and its counters may be older than the observed ones.
            self.observed.clear();
            return Vec::new();
        }
        self.observed.retain(|known, _| leases.iter().any(|lease| lease.incarnation == *known));
        leases.iter().filter_map(|lease| self.judge_lease(sample, lease)).collect()
    }

    fn judge_lease(&mut self, sample: &LeaseSample, lease: &Lease) -> Option<FailureVerdict> {
        if self.own.as_ref() == Some(&lease.incarnation) {
            return None;
        }
        let now = ObservedLease { counter: lease.counter, state: lease.state, since: sample.received };
        let observed = self.observed.entry(lease.incarnation.clone()).or_insert(now);
        if (observed.counter, observed.state) != (now.counter, now.state) {
            *observed = now;
        }
        // From the first answer with this counter to the sending of the last call, so it is never too long.
        let unchanged_for = sample.sent.saturating_duration_since(observed.since);
        let fence_after = if failpoints::is_disabled(Failpoint::DetectionTime) { FENCE_AFTER / 4 } else { FENCE_AFTER };
        match lease.state {
            LeaseState::Live | LeaseState::Draining if unchanged_for >= fence_after => {
                Some(FailureVerdict::Fence(lease.incarnation.clone(), lease.counter))
            }
            LeaseState::Fenced | LeaseState::Drained => {
                let due = if lease.owns { REAP_AFTER } else { FORGET_AFTER };
                (unchanged_for >= due).then(|| FailureVerdict::Reap(lease.incarnation.clone()))
            }
            LeaseState::Live | LeaseState::Draining => None,
        }
    }
}

/// An action of this process's detector, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapOutcome {
    /// It fenced a gateway.
    Fenced,
    /// It reaped nicknames and memberships.
    Reaped(ReapedBatch),
}

/// Judges every new sample and carries out the verdicts, until the sender of samples is dropped. `own` returns the
/// incarnation of this process; `count` receives every action.
pub async fn run(
    registry: Registry,
    mut samples: watch::Receiver<Option<LeaseSample>>,
    own: impl Fn() -> Option<Incarnation> + Send,
    count: impl Fn(ReapOutcome) + Send,
) {
    let mut detector = FailureDetector::default();
    while samples.changed().await.is_ok() {
        let Some(sample) = samples.borrow_and_update().clone() else { continue };
        detector.set_own(own());
        for verdict in detector.judge(&sample) {
            let outcome = match &verdict {
                FailureVerdict::Fence(incarnation, counter) => fence(&registry, incarnation, *counter, &count).await,
                FailureVerdict::Reap(incarnation) => reap(&registry, incarnation, &count).await,
            };
            if let Err(error) = outcome {
                // The next sample brings the same verdict again.
                let (FailureVerdict::Fence(incarnation, _) | FailureVerdict::Reap(incarnation)) = &verdict;
                tracing::debug!(%error, %incarnation, "verdict not carried out");
            }
        }
    }
}

async fn fence(
    registry: &Registry,
    incarnation: &Incarnation,
    counter: u64,
    count: &impl Fn(ReapOutcome),
) -> Result<(), RegistryError> {
    if !registry.fence(incarnation, counter).await? {
        return Ok(());
    }
    tracing::warn!(%incarnation, counter, "gateway fenced: beat counter unchanged");
    count(ReapOutcome::Fenced);
    reap(registry, incarnation, count).await
}

async fn reap(
    registry: &Registry,
    incarnation: &Incarnation,
    count: &impl Fn(ReapOutcome),
) -> Result<(), RegistryError> {
    loop {
        let reaped = registry.reap(incarnation, REAP_BATCH).await?;
        count(ReapOutcome::Reaped(reaped));
        if !reaped.more {
            return Ok(());
        }
    }
}

/// Samples the lease table once a second, for a process without a lease of its own. Ends when `samples` has no receiver
/// left.
pub async fn observe(registry: Registry, samples: watch::Sender<Option<LeaseSample>>) {
    let mut tick = tokio::time::interval(BEAT_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !samples.is_closed() {
        tick.tick().await;
        let sent = Instant::now();
        let (accepts_beats, answer) = match registry.observe().await {
            // Refused, or not sent: the table is still read, since readiness needs an answer of the store.
            Err(RegistryError::Unavailable(_)) => (false, registry.leases().await),
            answer => (true, answer),
        };
        match answer {
            Ok(table) => {
                drop(samples.send_replace(Some(LeaseSample { sent, received: Instant::now(), table, accepts_beats })));
            }
            Err(error) => tracing::debug!(%error, "lease table not read"),
        }
    }
}

#[cfg(test)]
mod tests;
