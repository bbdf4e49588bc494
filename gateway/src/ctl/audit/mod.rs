//! `ctl audit`: compares the claims of the gateways with the store.
//!
//! Up to four passes within some seconds each read the claims of the gateways and then the store. A single pass also
//! sees requests in flight, so only a difference in every pass, of the same claim, is drift. It changes nothing: a
//! gateway repairs its own drift once a minute. Claims of an ended gateway belong to the reaper and are not drift.

mod compare;
mod holdings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use presence::model::Incarnation;
use presence::registry::LeaseSummary;
use serde::Serialize;
use serde_json::json;

use self::compare::{Drift, compare};
use super::table::{count, table};
use super::{CommandAccess, CtlAnswer, CtlError, no_such_gateway};

/// Pauses between passes. The first is longer than any request; the others rule out a user that repeats the request.
const PAUSES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(1), Duration::from_secs(1)];

/// Findings of one pass.
struct AuditPass {
    drift: BTreeSet<Drift>,
    nodes: BTreeMap<Incarnation, String>,
    sessions: usize,
    memberships: usize,
}

#[derive(Serialize)]
struct DriftRow {
    drift: String,
    /// The key of the nickname.
    nick: String,
    /// The key of the room, for a membership.
    room: Option<String>,
    /// The node id of the owning gateway by the store; its incarnation if it has no lease.
    gateway: Option<String>,
    claim: Option<String>,
}

/// Runs the audit. `addresses` are `NODE=HOST:PORT` of admin ports, which override the addresses in the leases.
pub(super) async fn audit(cluster: &CommandAccess, addresses: &[String]) -> Result<CtlAnswer, CtlError> {
    let addresses = addresses.iter().map(|text| address(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut pass = run_pass(cluster, &addresses).await?;
    for pause in PAUSES {
        if pass.drift.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        let before = std::mem::replace(&mut pass, run_pass(cluster, &addresses).await?).drift;
        pass.drift.retain(|drift| before.contains(drift));
    }
    Ok(answer(&pass))
}

fn address(text: &str) -> Result<(&str, &str), CtlError> {
    text.split_once('=').ok_or_else(|| CtlError::Usage(format!("--gateway {text}: expected NODE=HOST:PORT")))
}

/// Checks that each named gateway serves: a wrong name would leave the address in the lease in effect.
fn check_nodes(addresses: &BTreeMap<&str, &str>, gateways: &[LeaseSummary]) -> Result<(), CtlError> {
    match addresses.keys().find(|node| !gateways.iter().any(|gateway| gateway.node == **node)) {
        Some(node) => Err(no_such_gateway(node, gateways)),
        None => Ok(()),
    }
}

async fn run_pass(cluster: &CommandAccess, addresses: &BTreeMap<&str, &str>) -> Result<AuditPass, CtlError> {
    let (_, mut gateways) = cluster.store.lease_summaries().await?;
    gateways.retain(|gateway| gateway.state.serves());
    check_nodes(addresses, &gateways)?;
    let mut held = BTreeMap::new();
    for gateway in &gateways {
        if let Some(sessions) = holdings::fetch(gateway, addresses.get(gateway.node.as_str()).copied()).await? {
            held.insert(Incarnation::from_store(&gateway.incarnation), sessions);
        }
    }
    let all: Vec<_> = held.values().flatten().cloned().collect();
    let stored = cluster.store.inventory(&all).await?;
    if !stored.generation.is_open() {
        return Err(CtlError::Silent("the store is recovering: repeat the audit afterwards".to_owned()));
    }
    let node = |gateway: &LeaseSummary| (Incarnation::from_store(&gateway.incarnation), gateway.node.clone());
    Ok(AuditPass {
        drift: compare(&stored, &held),
        nodes: gateways.iter().map(node).collect(),
        sessions: all.len(),
        memberships: all.iter().map(|held| held.rooms.len()).sum(),
    })
}

fn answer(AuditPass { drift, nodes, sessions, memberships }: &AuditPass) -> CtlAnswer {
    let row = |Drift { kind, nick, room, gateway, claim }: &Drift| DriftRow {
        drift: kind.text(),
        nick: nick.to_string(),
        room: room.as_ref().map(ToString::to_string),
        gateway: gateway.as_ref().map(|of| nodes.get(of).cloned().unwrap_or_else(|| of.to_string())),
        claim: claim.clone(),
    };
    let rows: Vec<DriftRow> = drift.iter().map(row).collect();
    let (sessions, memberships) = (*sessions as u64, *memberships as u64);
    let cells = |row: &DriftRow| {
        let text = |cell: &Option<String>| cell.clone().unwrap_or_default();
        [row.drift.clone(), row.nick.clone(), text(&row.room), text(&row.gateway), text(&row.claim)]
    };
    let compared = format!(
        "{} and {} on {}",
        count(sessions, "session"),
        count(memberships, "membership"),
        count(nodes.len() as u64, "gateway"),
    );
    let text = match rows.as_slice() {
        [] => format!("no drift: {compared}\n"),
        rows => {
            let cells: Vec<_> = rows.iter().map(cells).collect();
            let table = table(["DRIFT", "NICK", "ROOM", "GATEWAY", "CLAIM"], &cells);
            format!("{table}\n{} among {compared}\n", count(rows.len() as u64, "difference"))
        }
    };
    let json = json!({ "drift": rows, "sessions": sessions, "memberships": memberships, "gateways": nodes.len() });
    CtlAnswer { code: u8::from(!rows.is_empty()), ..CtlAnswer::new(text, &json) }
}
