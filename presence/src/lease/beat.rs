//! The heartbeat of a gateway's own lease.
//!
//! [`OwnLease`] is opened once; a [`Heartbeat`] then renews it once a second, and twice while its echoes are missing.
//! The gateway's lease loop pulls each [`BeatOutcome`] and acts on it; [`LeaseHealth`] is updated first. A lost lease
//! is never renewed: the process starts a new incarnation. Other gateways are judged by [`crate::lease::detector`], not
//! here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior};

use crate::lease::health::LeaseHealth;
use crate::model::Incarnation;
use crate::registry::{Beat, BeatReport, CarriedOut, GatewayInfo, LeaseTable, Registry, RegistryError};

/// Interval between two beats.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// A gateway's own lease: one incarnation in one registry.
#[derive(Debug)]
pub struct OwnLease {
    /// The registry that issues the lease.
    pub registry: Registry,
    /// The health record that beats update.
    pub health: Arc<LeaseHealth>,
    /// The incarnation that holds the lease.
    pub incarnation: Incarnation,
    /// The gateway's entry in the lease table.
    pub info: GatewayInfo,
}

impl OwnLease {
    /// Creates the lease of a new incarnation. It is held after [`OwnLease::open`].
    #[must_use]
    pub fn new(registry: Registry, health: Arc<LeaseHealth>, info: GatewayInfo) -> Self {
        Self { registry, health, incarnation: Incarnation::random(), info }
    }

    /// Replaces a lost lease by one of a new incarnation, which is still to be opened.
    pub fn start_new_incarnation(&mut self) {
        self.incarnation = Incarnation::random();
    }

    /// Opens the lease, waiting while the store is away. Subscribe to the incarnation's channel first, so that the
    /// first beat is echoed.
    ///
    /// Returns false if the incarnation was fenced before its first beat: it can never be opened, and a new incarnation
    /// is needed. Dropping the future may leave a row in the lease table, which the failure detectors fence.
    #[must_use]
    pub async fn open(&self) -> bool {
        let Self { registry, health, incarnation, info } = self;
        let opened = retry_until_answered(incarnation, || registry.open_lease(incarnation, info)).await.is_some();
        if opened {
            health.record_opened(incarnation);
            tracing::info!(%incarnation, "lease opened");
        }
        opened
    }
}

/// Repeats a call for a lease until the store answers. `None` if the incarnation was fenced before its first beat.
pub(super) async fn retry_until_answered<T, F>(incarnation: &Incarnation, mut call: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut tick = tick();
    let mut warned = false;
    loop {
        tick.tick().await;
        match call().await {
            Ok(answer) => return Some(answer),
            Err(RegistryError::Fenced) => {
                tracing::warn!(%incarnation, "lease lost before its first beat");
                return None;
            }
            Err(error) if warned => tracing::debug!(%error, "lease not acquired, retrying"),
            Err(error) => {
                tracing::warn!(%error, "lease not acquired, retrying");
                warned = true;
            }
        }
    }
}

/// One answered read of the lease table, as the failure detector judges it.
#[derive(Debug, Clone)]
pub struct LeaseSample {
    /// The time at which the call was sent.
    pub sent: Instant,
    /// The time at which the answer was received.
    pub received: Instant,
    /// The answer.
    pub table: LeaseTable,
    /// True if the store would have accepted a beat. Otherwise an unchanged counter proves nothing.
    pub accepts_beats: bool,
}

/// Outcome of one beat.
#[derive(Debug)]
pub enum BeatOutcome {
    /// The store renewed the lease.
    Answered(LeaseSample, Box<Beat>),
    /// The store did not answer. The lease may still be held.
    Unanswered,
    /// The lease is lost for good.
    Lost,
}

/// The beats of one open lease.
#[derive(Debug)]
pub struct Heartbeat<'a> {
    lease: &'a OwnLease,
    tick: Interval,
    is_unanswered: bool,
    /// The orders of the last answer, which the caller of [`Heartbeat::next`] has carried out when it calls again.
    carried_out: CarriedOut,
}

impl<'a> Heartbeat<'a> {
    /// Starts the heartbeat of an open lease; the first beat is due at once.
    #[must_use]
    pub fn new(lease: &'a OwnLease) -> Self {
        Self { lease, tick: tick(), is_unanswered: false, carried_out: CarriedOut::default() }
    }

    /// Waits until the next beat is due, sends it, and records its outcome in the lease's health.
    ///
    /// `usage` returns what the limits of addresses and users have seen since the last beat, and the id of the newest
    /// report that is known here. If the beat is not answered, its usage is not reported again: it may have arrived.
    pub async fn next(&mut self, usage: impl FnOnce() -> (String, String)) -> BeatOutcome {
        let OwnLease { registry, health, incarnation, .. } = self.lease;
        self.due().await;
        let sent = Instant::now();
        health.record_sent(sent);
        let (active, (usage, usage_seen)) = (health.take_active(), usage());
        let carried_out = Some(self.carried_out);
        let report = BeatReport { active: &active, usage: &usage, usage_seen: &usage_seen, carried_out };
        match registry.send_beat(incarnation, report).await {
            Ok(beat) => {
                health.record_answer(beat.generation, beat.counter, sent);
                self.carried_out = beat.handed_out;
                if std::mem::take(&mut self.is_unanswered) {
                    tracing::info!("beats restored");
                }
                let table = LeaseTable { generation: beat.generation, leases: beat.leases.clone() };
                let sample = LeaseSample { sent, received: Instant::now(), table, accepts_beats: true };
                BeatOutcome::Answered(sample, Box::new(beat))
            }
            Err(RegistryError::Fenced) => {
                health.record_lost();
                tracing::warn!(%incarnation, "lease lost");
                BeatOutcome::Lost
            }
            Err(error) => {
                // A refusal of the store is logged by the store.
                if self.is_unanswered || registry.is_refused() {
                    tracing::debug!(%error, "beat not answered");
                } else {
                    tracing::warn!(%error, "beat not answered");
                    self.is_unanswered = true;
                }
                BeatOutcome::Unanswered
            }
        }
    }
}

impl Heartbeat<'_> {
    /// Waits until the next beat is due. Without an echo of the last one, orders that pub/sub loses wait for a beat, so
    /// it comes after half the time.
    async fn due(&mut self) {
        let is_due = tokio::time::timeout(BEAT_INTERVAL / 2, self.tick.tick()).await.is_ok();
        if !is_due && !self.lease.health.is_echo_missing() {
            self.tick.tick().await;
        }
    }
}

fn tick() -> Interval {
    let mut tick = tokio::time::interval(BEAT_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::registry::MemoryRegistry;
    use crate::store::memory::Store;

    fn new_lease() -> OwnLease {
        let empty = String::new;
        let info = GatewayInfo { node: "g1".into(), version: "1".into(), ws: empty(), tcp: empty(), admin: empty() };
        OwnLease::new(Registry::Memory(MemoryRegistry::new(Store::default())), Arc::default(), info)
    }

    #[tokio::test]
    async fn open_gives_up_an_incarnation_fenced_early() {
        let mut lease = new_lease();
        // The row was written, its answer was lost, and no beat followed until a detector fenced it.
        lease.registry.open_lease(&lease.incarnation, &lease.info).await.unwrap();
        assert!(lease.registry.fence(&lease.incarnation, 0).await.unwrap());
        let opened = tokio::time::timeout(BEAT_INTERVAL * 10, lease.open()).await;
        assert_eq!(opened, Ok(false), "a new incarnation is needed");
        assert_eq!(lease.health.incarnation(), None);
        lease.start_new_incarnation();
        assert!(lease.open().await);
    }

    #[tokio::test]
    async fn beat_reports_a_fenced_lease_as_lost() {
        let lease = new_lease();
        assert!(lease.open().await);
        let mut heartbeat = Heartbeat::new(&lease);
        let BeatOutcome::Answered(sample, beat) = heartbeat.next(Default::default).await else {
            panic!("the store is there")
        };
        assert_eq!((sample.table.leases.len(), lease.health.is_store_answering(sample.received)), (1, true));
        assert!(lease.registry.fence(&lease.incarnation, beat.counter).await.unwrap());
        assert!(matches!(heartbeat.next(Default::default).await, BeatOutcome::Lost));
        assert_eq!(lease.health.incarnation(), None);
    }

    #[tokio::test]
    async fn beat_without_echo_comes_twice_as_often() {
        let lease = new_lease();
        assert!(lease.open().await);
        let mut heartbeat = Heartbeat::new(&lease);
        let mut pauses = Vec::new();
        for is_echoed in [false, false, true, false] {
            let start = Instant::now();
            let BeatOutcome::Answered(_, beat) = heartbeat.next(Default::default).await else {
                panic!("the store is there")
            };
            pauses.push(start.elapsed());
            if is_echoed {
                lease.health.echoed(&lease.incarnation, beat.counter);
            }
        }
        let [_, without_echo, _, with_echo] = pauses[..] else { unreachable!("four beats") };
        assert!(without_echo < with_echo * 3 / 4, "{pauses:?}");
    }
}
