//! What a gateway answers at its operators' door beside `/livez` and `/metrics`: whether it is ready, and what it holds.
//!
//! Started by the server; read by balancers, and by `gateway ctl audit`, which compares `/holdings` with the store. Reads
//! only. Tokens of sessions are no part of it.

use std::sync::Arc;
use std::time::Instant;

use presence::host::admin::{self, AdminRoutes, Readiness};
use presence::lease::beat::NotReady;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listen::Admission;
use crate::session::Services;

/// What a gateway holds: the answer of `GET /holdings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its node id.
    pub node: String,
    /// Its present life; `None` without a lease.
    pub incarnation: Option<String>,
    /// Every session that has a nickname, with a connection or without one.
    pub sessions: Vec<Session>,
}

/// A session in an [`Account`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The nickname as it is shown.
    pub nick: String,
    /// The claim, as the store writes it.
    pub claim: String,
    /// The rooms that it is in.
    pub rooms: Vec<String>,
    /// Whether it has no connection.
    pub detached: bool,
}

impl Account {
    fn of(services: &Services) -> Self {
        let incarnation = services.tenure.incarnation();
        let mut holdings = services.holdings.all();
        // What is left of a lost lease is on its way out.
        holdings.retain(|holding| Some(&holding.owner.incarnation) == incarnation.as_ref());
        let session = |holding: presence::registry::LocalClaim| Session {
            nick: holding.nick.as_str().to_owned(),
            claim: holding.owner.token(),
            rooms: holding.rooms.iter().map(|room| room.as_str().to_owned()).collect(),
            detached: holding.detached,
        };
        Self {
            node: services.node.to_string(),
            incarnation: incarnation.map(|incarnation| incarnation.to_string()),
            sessions: holdings.into_iter().map(session).collect(),
        }
    }
}

/// Answers until `cancel`.
pub(crate) async fn serve(
    listener: TcpListener,
    services: Arc<Services>,
    admission: Arc<Admission>,
    cancel: CancellationToken,
) {
    let metrics = services.metrics.registry.clone();
    let accountable = Arc::clone(&services);
    let ready = move || readiness(&services, &admission);
    let holdings = move || serde_json::to_value(Account::of(&accountable)).expect("names are always JSON");
    let documents: Vec<(_, admin::AdminDocument)> = vec![("/holdings", Arc::new(holdings))];
    let answers = AdminRoutes { metrics, ready: Arc::new(ready), before_scrape: None, documents };
    if let Err(error) = admin::serve(listener, answers, cancel).await {
        tracing::error!(%error, "the admin door broke");
    }
}

/// Whether this node can publish and receive: what it acked before is to be back in the store first.
pub(crate) fn ready(services: &Services) -> Result<(), NotReady> {
    services.tenure.ready(Instant::now())?;
    let is_whole = services.backplane.is_complete(services.tenure.generation());
    is_whole.then_some(()).ok_or(NotReady::Recovering)
}

fn readiness(services: &Services, admission: &Admission) -> Readiness {
    let mut reasons = Vec::new();
    if admission.is_leaving() {
        reasons.push("draining".to_owned());
    }
    if let Err(reason) = ready(services) {
        reasons.push(reason.to_string());
    }
    Readiness { reasons }
}
