//! The failure detector and the clean-up after the dead.
//!
//! Runs in every presence process and every gateway, on samples of the lease table; any number of them may run, since
//! fencing is a compare-and-set and cleaning up a compare-and-delete. Judges by counters that stand still while its own
//! questions are answered: no clock of another machine, no TTL. Never fences anybody while its own view has gaps or the
//! store is recovering, so an outage of the store, or a pause of this process, makes no user flap.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::host::failpoints::{self, Failpoint};
use crate::lease::beat::Sample;
use crate::model::Incarnation;
use crate::registry::{Lease, LeaseState, LeaseTable, ReapedBatch, Registry, RegistryError};

/// A counter that stands still for so long belongs to a dead gateway.
pub const FENCE_AFTER: Duration = Duration::from_secs(8);
/// A longer break between our own answers starts every count anew.
pub const VIEW_BREAK: Duration = Duration::from_secs(2);
/// Whoever fenced an incarnation cleans up after it; others step in when it still owns something after so long.
pub const STEP_IN_AFTER: Duration = Duration::from_secs(3);
/// A row of the lease table that ended and owns nothing is asked to be forgotten after so long.
pub const FORGET_AFTER: Duration = Duration::from_secs(3660);
/// Nicks and memberships that one call cleans up, at most, so that no script holds the store up.
const REAP_BATCH: usize = 200;

/// What a sample calls for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This counter stood still for too long: fence it if it still does.
    Fence(Incarnation, u64),
    /// It is dead, and nobody tidied up or nobody needs its row any more.
    Reap(Incarnation),
}

/// Judges samples. Pure: time comes with the samples.
#[derive(Debug, Default)]
pub struct Detector {
    /// Ourselves, if we hold a lease: judged by everybody else.
    own: Option<Incarnation>,
    last_answer: Option<Instant>,
    /// The generation that the counts belong to.
    generation: u64,
    seen: HashMap<Incarnation, Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    counter: u64,
    state: LeaseState,
    /// When the first answer with this counter and state was in.
    since: Instant,
}

impl Detector {
    /// Says which incarnation is our own from now on.
    pub fn set_own(&mut self, incarnation: Option<Incarnation>) {
        self.own = incarnation;
    }

    /// Takes a sample and says what to do. A verdict is repeated with every sample until the table has changed.
    pub fn judge(&mut self, sample: &Sample) -> Vec<Verdict> {
        let gap = self.last_answer.map(|last| sample.received.saturating_duration_since(last));
        let LeaseTable { generation, leases } = &sample.table;
        if gap.is_none_or(|gap| gap > VIEW_BREAK) || self.generation != generation.number {
            self.seen.clear();
        }
        self.last_answer = Some(sample.received);
        self.generation = generation.number;
        if !generation.is_open() {
            // The store waits for everybody by itself, and what it holds may not be what it held.
            self.seen.clear();
            return Vec::new();
        }
        self.seen.retain(|known, _| leases.iter().any(|lease| lease.incarnation == *known));
        leases.iter().filter_map(|lease| self.judge_one(sample, lease)).collect()
    }

    fn judge_one(&mut self, sample: &Sample, lease: &Lease) -> Option<Verdict> {
        if self.own.as_ref() == Some(&lease.incarnation) {
            return None;
        }
        let now = Seen { counter: lease.counter, state: lease.state, since: sample.received };
        let seen = self.seen.entry(lease.incarnation.clone()).or_insert(now);
        if (seen.counter, seen.state) != (now.counter, now.state) {
            *seen = now;
        }
        // From the first answer that held it to the last question: the counter stood still at least that long.
        let still = sample.sent.saturating_duration_since(seen.since);
        let patience = if failpoints::takes(Failpoint::Patience) { FENCE_AFTER / 4 } else { FENCE_AFTER };
        match lease.state {
            LeaseState::Live | LeaseState::Draining if still >= patience => {
                Some(Verdict::Fence(lease.incarnation.clone(), lease.counter))
            }
            LeaseState::Fenced | LeaseState::Drained => {
                let due = if lease.owns { STEP_IN_AFTER } else { FORGET_AFTER };
                (still >= due).then(|| Verdict::Reap(lease.incarnation.clone()))
            }
            LeaseState::Live | LeaseState::Draining => None,
        }
    }
}

/// What was done, for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapOutcome {
    /// A gateway was fenced, by us.
    Fenced,
    /// Nicks and memberships were cleaned up, by us.
    Reaped(ReapedBatch),
}

/// Judges every new sample and carries the verdicts out, until the sender of samples is gone. `own` is asked for our own
/// incarnation with each sample.
pub async fn run(
    registry: Registry,
    mut samples: watch::Receiver<Option<Sample>>,
    own: impl Fn() -> Option<Incarnation> + Send,
    count: impl Fn(ReapOutcome) + Send,
) {
    let mut detector = Detector::default();
    while samples.changed().await.is_ok() {
        let Some(sample) = samples.borrow_and_update().clone() else { continue };
        detector.set_own(own());
        for verdict in detector.judge(&sample) {
            let outcome = match &verdict {
                Verdict::Fence(incarnation, counter) => fence(&registry, incarnation, *counter, &count).await,
                Verdict::Reap(incarnation) => reap(&registry, incarnation, &count).await,
            };
            if let Err(error) = outcome {
                // The next sample brings the same verdict again.
                tracing::debug!(%error, ?verdict, "verdict not carried out");
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
    tracing::warn!(%incarnation, counter, "gateway fenced: its beat stood still");
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

/// Samples the lease table once a second, for processes without a lease of their own. Ends when `samples` has no
/// receiver left.
pub async fn observe(registry: &Registry, samples: watch::Sender<Option<Sample>>) {
    let mut tick = tokio::time::interval(crate::lease::beat::BEAT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !samples.is_closed() {
        tick.tick().await;
        let sent = Instant::now();
        match registry.leases().await {
            Ok(table) => drop(samples.send_replace(Some(Sample { sent, received: Instant::now(), table }))),
            Err(error) => tracing::debug!(%error, "lease table not read"),
        }
    }
}

#[cfg(test)]
mod tests;
