//! The shared parts of a gateway: registry, backplane, hub, local claims, lease health and metrics.
//!
//! [`Services`] is built once by the server and shared by every driver. The lease tasks, the expiry of detached
//! sessions among them, share [`LeaseContext`](crate::lease::LeaseContext) instead. Holds no session and decides
//! nothing.

use std::sync::Arc;

use presence::host::reloadable::Reloadable;
use presence::lease::LeaseHealth;
use presence::registry::{HoldTerms, Registry};

use crate::backplane::Backplane;
use crate::hooks::ApplicationHooks;
use crate::hub::Hub;
use crate::identity::IdentityGate;
use crate::lease::local_claims::LocalClaims;
use crate::metrics::Metrics;
use crate::outbound::reply_budget::ReplyBudget;
use crate::quota::Quotas;
use crate::sanctions::ClusterSanctions;

use super::send_rates::SendRates;
use super::session_limits::SessionLimits;

/// The shared parts of one gateway.
#[derive(Debug)]
pub struct Services {
    /// The configured node id.
    pub node: Arc<str>,
    /// Admits clients by `auth.mode`.
    pub identity: IdentityGate,
    /// Names and memberships.
    pub registry: Registry,
    /// Messages between nodes.
    pub backplane: Backplane,
    /// Sessions and rooms of this node.
    pub hub: Arc<Hub>,
    /// The claims of this node's sessions.
    pub claims: Arc<LocalClaims>,
    /// The list of sanctions of the cluster.
    pub sanctions: Arc<ClusterSanctions>,
    /// Questions to the application.
    pub hooks: Arc<ApplicationHooks>,
    /// The hold of a nickname for a session that lost its connection.
    pub hold: HoldTerms,
    /// This node's lease.
    pub health: Arc<LeaseHealth>,
    /// The bytes of lists that clients may leave unread.
    pub replies: ReplyBudget,
    /// The limits of each session.
    pub session_limits: Reloadable<SessionLimits>,
    /// The spent limits of addresses and users.
    pub quotas: Arc<Quotas>,
    /// True if the log names the addresses of refused clients.
    pub log_addresses: bool,
    /// The byte rates of rooms and inboxes.
    pub send_rates: SendRates,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
}
