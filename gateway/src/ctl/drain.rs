//! `ctl drain`: orders a gateway to drain as on SIGTERM, and returns once the gateway has accepted the order.

use std::time::Duration;

use presence::registry::{LeaseState, LeaseSummary};
use serde_json::json;
use tokio::time::Instant;

use super::table::{count, duration};
use super::{CommandAccess, CtlAnswer, CtlError, no_such_gateway};

/// Time to accept the order: several beats, because a gateway reads its orders with each beat.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two checks.
const CHECK_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn drain(cluster: &CommandAccess, node: &str) -> Result<CtlAnswer, CtlError> {
    let gateway = find(cluster, node).await?;
    if gateway.state == LeaseState::Live {
        order(cluster, &gateway).await?;
    }
    let sessions = gateway.sessions;
    let text = format!("{node} drains: {} to go\n", count(sessions, "session"));
    Ok(CtlAnswer::new(text, &json!({ "draining": node, "incarnation": gateway.incarnation, "sessions": sessions })))
}

/// Returns the newest serving incarnation of the gateway.
async fn find(cluster: &CommandAccess, node: &str) -> Result<LeaseSummary, CtlError> {
    let mut serving = cluster.store.lease_summaries().await?.1;
    serving.retain(|gateway| gateway.state.serves());
    match serving.iter().position(|gateway| gateway.node == node) {
        Some(position) => Ok(serving.swap_remove(position)),
        None => Err(no_such_gateway(node, &serving)),
    }
}

async fn order(cluster: &CommandAccess, gateway: &LeaseSummary) -> Result<(), CtlError> {
    let LeaseSummary { node, incarnation, .. } = gateway;
    let incarnation = presence::model::Incarnation::from_store(incarnation);
    if !cluster.registry.drain(&incarnation).await? {
        return Err(CtlError::Refused(format!("{node} has ended")));
    }
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    while Instant::now() < deadline {
        let leases = cluster.registry.leases().await?.leases;
        let lease = leases.into_iter().find(|lease| lease.incarnation == incarnation);
        match lease.map(|lease| lease.state) {
            Some(LeaseState::Live) => tokio::time::sleep(CHECK_PAUSE).await,
            Some(LeaseState::Draining | LeaseState::Drained) => return Ok(()),
            Some(LeaseState::Fenced) | None => return Err(CtlError::Refused(format!("{node} was declared dead"))),
        }
    }
    let last = gateway.beat_age_ms.map_or_else(|| "never".to_owned(), |age| format!("{} ago", duration(age)));
    Err(CtlError::Silent(format!(
        "{node} has not accepted the order within 5 s; its last beat before the order was {last}"
    )))
}
