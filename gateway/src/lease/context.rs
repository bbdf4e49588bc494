//! Shared state of a gateway's leases: readiness, mailbox orders, transitions, stop requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::lease::node_id::NodeIdConflict;
use presence::lease::{LeaseHealth, LeaseSample, NotReady, StoreReasons};
use presence::registry::{LeaseTransition, MailboxOrder, Registry};
use tokio::sync::{SetOnce, watch};

use crate::backplane::Backplane;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::sanctions::ClusterSanctions;

use super::local_claims::LocalClaims;
use super::orders::SessionOrders;

/// Time limit for recording a lease transition.
const TRANSITION_TIMEOUT: Duration = Duration::from_secs(1);

/// Shared parts of a gateway's lease. One per gateway; it outlives every incarnation.
#[derive(Debug)]
pub struct LeaseContext {
    /// The registry that issues leases.
    pub registry: Registry,
    /// The backplane, which needs every answered beat.
    pub backplane: Backplane,
    /// The health of the present lease.
    pub health: Arc<LeaseHealth>,
    /// The claims of this gateway's sessions.
    pub claims: Arc<LocalClaims>,
    /// The spent limits of addresses and users, which each beat exchanges.
    pub quotas: Arc<Quotas>,
    /// The list of sanctions of the cluster.
    pub sanctions: Arc<ClusterSanctions>,
    /// Ends sessions of this gateway.
    pub orders: SessionOrders,
    /// The newest sample of the lease table, which the failure detector judges.
    pub samples: watch::Sender<Option<LeaseSample>>,
    /// Set once this gateway is to end.
    pub stop: StopRequest,
    /// Counters of lost leases, fences and reaped records.
    pub metrics: Arc<Metrics>,
    /// The store's own reasons against readiness.
    pub store: StoreReasons,
}

impl LeaseContext {
    /// Checks that this gateway can publish and receive, that every message it acknowledged is in the present
    /// generation, and that it knows the sanctions of the cluster.
    ///
    /// # Errors
    /// The first condition that is not met.
    pub fn ready(&self) -> Result<(), NotReady> {
        self.health.ready(Instant::now())?;
        let is_republished = self.backplane.has_all_acknowledged(self.health.generation());
        is_republished.then_some(()).ok_or(NotReady::Recovering)?;
        self.sanctions.is_known().then_some(()).ok_or(NotReady::SanctionsUnread)
    }

    /// Returns every reason against readiness, of the lease and of the store; none if this gateway is ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let lease = self.ready().err().map(|reason| reason.to_string());
        lease.into_iter().chain(self.store.get()).collect()
    }

    /// Carries out the orders of the mailbox that came with a beat, and those that were early before.
    pub(super) fn carry_out(&self, mailbox: Vec<MailboxOrder>) {
        self.orders.repeat_entries();
        for order in mailbox {
            match order {
                MailboxOrder::Kick(session) => self.orders.kick(&session),
                MailboxOrder::Taken { session, fence } => self.orders.take_over(&session, fence),
                MailboxOrder::Remove(removal) => self.orders.remove(&removal),
                MailboxOrder::Enter(entry) => self.orders.enter(&entry),
                MailboxOrder::Announce(announcement) => self.orders.announce(&announcement),
                MailboxOrder::Drain => {
                    tracing::info!("drain ordered by an operator");
                    self.stop.request_drain();
                }
            }
        }
    }

    /// Records a lease transition in the registry, once. If that fails, the failure detectors fence and reap the lease.
    pub async fn record_transition(&self, transition: LeaseTransition) {
        let Some(incarnation) = self.health.incarnation() else { return };
        let call = self.registry.set_lease(&incarnation, transition);
        let state = transition.state().as_str();
        match tokio::time::timeout(TRANSITION_TIMEOUT, call).await {
            Ok(Ok(())) => tracing::info!(state, "lease state recorded"),
            Ok(Err(error)) => tracing::info!(state, %error, "lease state not recorded"),
            Err(_) => tracing::info!(state, "lease state not recorded in time"),
        }
    }
}

/// A request to end this gateway that arrives through the store instead of a signal. Later requests are ignored.
#[derive(Debug, Default)]
pub struct StopRequest(SetOnce<Result<(), NodeIdConflict>>);

impl StopRequest {
    /// Requests a drain, by order of an operator.
    pub fn request_drain(&self) {
        let _ = self.0.set(Ok(()));
    }

    /// Reports that another live gateway has this node id.
    pub fn report_conflict(&self, conflict: NodeIdConflict) {
        let _ = self.0.set(Err(conflict));
    }

    /// Waits for a request. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Another live gateway has this node id; this one has served no client.
    pub async fn requested(&self) -> Result<(), NodeIdConflict> {
        self.0.wait().await.clone()
    }
}
