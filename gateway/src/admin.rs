//! The gateway's part of the admin listener: readiness, and the claims that `gateway ctl audit` compares with the
//! store.
//!
//! `AdminEndpoint` serves `/readyz` and `/holdings` in addition to the common `/livez` and `/metrics`. It only reads.
//! A report never contains a resume token.

use std::sync::Arc;

use presence::host::admin::{self, AdminRoutes, Readiness};
use presence::registry::LocalClaim;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::lease::LeaseContext;
use crate::listen::Admission;

/// Claims of a gateway: the answer of `GET /holdings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsReport {
    /// Node id of the gateway.
    pub node: String,
    /// Its present incarnation; `None` without a lease.
    pub incarnation: Option<String>,
    /// Every session with a nickname, attached or detached.
    pub sessions: Vec<SessionReport>,
}

/// A session in a [`ClaimsReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The nickname in its display form.
    pub nick: String,
    /// The claim in the store's notation.
    pub claim: String,
    /// The rooms of the session.
    pub rooms: Vec<String>,
    /// True for a session without a connection.
    pub detached: bool,
}

impl ClaimsReport {
    fn new(node: &str, lease: &LeaseContext) -> Self {
        let incarnation = lease.health.incarnation();
        let mut claims = lease.claims.all();
        // Claims of a lost lease are about to be dropped.
        claims.retain(|claim| Some(&claim.owner.incarnation) == incarnation.as_ref());
        Self {
            node: node.to_owned(),
            incarnation: incarnation.map(|incarnation| incarnation.to_string()),
            sessions: claims.into_iter().map(SessionReport::from).collect(),
        }
    }
}

impl From<LocalClaim> for SessionReport {
    fn from(claim: LocalClaim) -> Self {
        Self {
            nick: claim.nick.as_str().to_owned(),
            claim: claim.owner.token(),
            rooms: claim.rooms.iter().map(|room| room.as_str().to_owned()).collect(),
            detached: claim.detached,
        }
    }
}

/// Sources of the admin listener's answers.
#[derive(Debug)]
pub(crate) struct AdminEndpoint {
    /// Node id of this gateway.
    pub(crate) node: Arc<str>,
    /// The lease: readiness and claims.
    pub(crate) lease: Arc<LeaseContext>,
    /// Admission of new connections, which a drain closes.
    pub(crate) admission: Arc<Admission>,
}

impl AdminEndpoint {
    /// Serves until `cancel`.
    pub(crate) async fn serve(self, listener: TcpListener, cancel: CancellationToken) {
        let Self { node, lease, admission } = self;
        let metrics = lease.metrics.registry.clone();
        let reported = Arc::clone(&lease);
        let claims = move || serde_json::to_value(ClaimsReport::new(&node, &reported)).expect("names are valid JSON");
        let documents: Vec<(_, admin::AdminDocument)> = vec![("/holdings", Arc::new(claims))];
        let ready = Arc::new(move || readiness(&lease, &admission));
        let answers = AdminRoutes { metrics, ready, before_scrape: None, documents };
        admin::serve(listener, answers, cancel).await;
    }
}

fn readiness(lease: &LeaseContext, admission: &Admission) -> Readiness {
    let mut reasons = Vec::new();
    if admission.is_leaving() {
        reasons.push("draining".to_owned());
    }
    reasons.extend(lease.reasons());
    Readiness { reasons }
}
