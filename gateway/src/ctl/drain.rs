//! `ctl drain`: a gateway is ordered to end as on SIGTERM, and has taken the order when this returns.

use std::time::Duration;

use presence::registry::{LeaseState, LeaseSummary};
use serde_json::json;
use tokio::time::Instant;

use super::table::{count, duration};
use super::{Answer, Cluster, Failure};

/// Several beats: a gateway collects its orders with each.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
/// From one look to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn drain(cluster: &Cluster, node: &str) -> Result<Answer, Failure> {
    let gateway = find(cluster, node).await?;
    if gateway.state == LeaseState::Live {
        order(cluster, &gateway).await?;
    }
    let sessions = gateway.sessions;
    let text = format!("{node} drains: {} to go\n", count(sessions, "session"));
    Ok(Answer::new(text, &json!({ "draining": node, "incarnation": gateway.incarnation, "sessions": sessions })))
}

/// The newest life of the gateway. An earlier one that has died is none of our business.
async fn find(cluster: &Cluster, node: &str) -> Result<LeaseSummary, Failure> {
    let mut serving = cluster.store.standings().await?.1;
    serving.retain(|gateway| gateway.state.serves());
    match serving.iter().position(|gateway| gateway.node == node) {
        Some(position) => Ok(serving.swap_remove(position)),
        None => {
            let mut nodes: Vec<&str> = serving.iter().map(|gateway| gateway.node.as_str()).collect();
            nodes.dedup();
            let there =
                if nodes.is_empty() { "there is none".to_owned() } else { format!("there is {}", nodes.join(", ")) };
            Err(Failure::Refused(format!("no gateway {node} serves; {there}")))
        }
    }
}

async fn order(cluster: &Cluster, gateway: &LeaseSummary) -> Result<(), Failure> {
    let LeaseSummary { node, incarnation, .. } = gateway;
    let incarnation = presence::model::Incarnation::from_store(incarnation);
    if !cluster.registry.drain(&incarnation).await? {
        return Err(Failure::Refused(format!("{node} has ended")));
    }
    let deadline = Instant::now() + TAKEN_WITHIN;
    while Instant::now() < deadline {
        let leases = cluster.registry.leases().await?.leases;
        let lease = leases.into_iter().find(|lease| lease.incarnation == incarnation);
        match lease.map(|lease| lease.state) {
            Some(LeaseState::Live) => tokio::time::sleep(LOOK_AGAIN).await,
            Some(LeaseState::Draining | LeaseState::Drained) => return Ok(()),
            Some(LeaseState::Fenced) | None => return Err(Failure::Refused(format!("{node} was declared dead"))),
        }
    }
    let last = gateway.beat_age_ms.map_or_else(|| "never".to_owned(), |age| format!("{} ago", duration(age)));
    Err(Failure::Silent(format!("{node} has not taken the order within 5 s: when we asked it had last beaten {last}")))
}
