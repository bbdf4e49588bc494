//! `ctl audit`: whether the store and the gateways agree about who holds what.
//!
//! Up to four looks within some seconds, each at what the gateways say they hold and then at the store; only what all of
//! them saw, of the same claims, is called drift, because a single look sees requests under way. Changes nothing: a gateway
//! mends what concerns it by itself, once a minute. What a gateway that has ended still owns is left to the reapers and is
//! no drift.

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
use super::{Answer, Cluster, Failure};

/// From one look to the next: at first longer than any request takes, then because somebody may be at the same again.
const LOOK_AGAIN: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(1), Duration::from_secs(1)];

/// What one look saw.
struct Look {
    drift: BTreeSet<Drift>,
    nodes: BTreeMap<Incarnation, String>,
    sessions: usize,
    memberships: usize,
}

#[derive(Serialize)]
struct Row {
    drift: String,
    /// The key of the nickname.
    nick: String,
    /// The key of the room, for a membership.
    room: Option<String>,
    /// The gateway that it is of, by the store; the incarnation of one that nobody knows.
    gateway: Option<String>,
    claim: Option<String>,
}

/// `addresses`: `NODE=HOST:PORT`, where a gateway's operators' door is, over what it tells itself.
pub(super) async fn audit(cluster: &Cluster, addresses: &[String]) -> Result<Answer, Failure> {
    let addresses = addresses.iter().map(|text| address(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let mut look = look_once(cluster, &addresses).await?;
    for pause in LOOK_AGAIN {
        if look.drift.is_empty() {
            break;
        }
        tokio::time::sleep(pause).await;
        let before = std::mem::replace(&mut look, look_once(cluster, &addresses).await?).drift;
        look.drift.retain(|drift| before.contains(drift));
    }
    Ok(answer(&look))
}

fn address(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=').ok_or_else(|| Failure::Usage(format!("--gateway {text}: expected NODE=HOST:PORT")))
}

async fn look_once(cluster: &Cluster, addresses: &BTreeMap<&str, &str>) -> Result<Look, Failure> {
    let (_, mut gateways) = cluster.store.standings().await?;
    gateways.retain(|gateway| gateway.state.serves());
    let mut held = BTreeMap::new();
    for gateway in &gateways {
        if let Some(sessions) = holdings::ask(gateway, addresses.get(gateway.node.as_str()).copied()).await? {
            held.insert(Incarnation::from_store(&gateway.incarnation), sessions);
        }
    }
    let all: Vec<_> = held.values().flatten().cloned().collect();
    let stored = cluster.store.inventory(&all).await?;
    if !stored.generation.is_open() {
        return Err(Failure::Silent("the store is recovering: ask again when it has".to_owned()));
    }
    let node = |gateway: &LeaseSummary| (Incarnation::from_store(&gateway.incarnation), gateway.node.clone());
    Ok(Look {
        drift: compare(&stored, &held),
        nodes: gateways.iter().map(node).collect(),
        sessions: all.len(),
        memberships: all.iter().map(|held| held.rooms.len()).sum(),
    })
}

fn answer(Look { drift, nodes, sessions, memberships }: &Look) -> Answer {
    let row = |Drift { kind, nick, room, gateway, claim }: &Drift| Row {
        drift: kind.text(),
        nick: nick.to_string(),
        room: room.as_ref().map(ToString::to_string),
        gateway: gateway.as_ref().map(|of| nodes.get(of).cloned().unwrap_or_else(|| of.to_string())),
        claim: claim.clone(),
    };
    let rows: Vec<Row> = drift.iter().map(row).collect();
    let (sessions, memberships) = (*sessions as u64, *memberships as u64);
    let cells = |row: &Row| {
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
    Answer { code: u8::from(!rows.is_empty()), ..Answer::new(text, &json) }
}
