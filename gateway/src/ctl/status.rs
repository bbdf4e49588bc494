//! `ctl status`: Redis, every gateway and the totals, each read once.

use std::time::Duration;

use presence::lease::health::ECHO_LIMIT;
use presence::registry::LeaseSummary;
use presence::store::redis::ServerInfo;
use serde::Serialize;

use super::table::{count, duration, mebibytes, table};
use super::{CommandAccess, CtlAnswer, CtlError};

#[derive(Serialize)]
struct ClusterStatus {
    redis: RedisStatus,
    gateways: Vec<LeaseSummary>,
    sessions: u64,
    rooms: u64,
    /// Generation of the store.
    generation: u64,
    /// True while the store waits for the claims of the gateways and refuses everything else.
    recovering: bool,
}

#[derive(Serialize)]
struct RedisStatus {
    address: String,
    #[serde(flatten)]
    server: ServerInfo,
}

pub(super) async fn status(cluster: &CommandAccess) -> Result<CtlAnswer, CtlError> {
    let server = cluster.redis.server().await?;
    let (generation, gateways) = cluster.store.lease_summaries().await?;
    let sessions = gateways.iter().filter(|gateway| gateway.state.serves()).map(|gateway| gateway.sessions).sum();
    let rooms = cluster.registry.stats().await?.rooms;
    let redis = RedisStatus { address: cluster.address.clone(), server };
    let (generation, recovering) = (generation.number, !generation.is_open());
    let status = ClusterStatus { redis, gateways, sessions, rooms, generation, recovering };
    Ok(CtlAnswer::new(text(&status), &status))
}

fn text(status: &ClusterStatus) -> String {
    let ClusterStatus { redis: RedisStatus { address, server }, gateways, sessions, rooms, .. } = status;
    let memory = match server.memory_limit_bytes {
        0 => mebibytes(server.memory_bytes),
        limit => format!("{} of {}", mebibytes(server.memory_bytes), mebibytes(limit)),
    };
    let redis = [
        address.clone(),
        server.role.clone(),
        server.replicas.to_string(),
        server.version.clone(),
        duration(server.uptime_seconds * 1000),
        memory,
        if server.append_only { "yes" } else { "no" }.to_owned(),
    ];
    let rows: Vec<[String; 8]> = gateways.iter().map(row).collect();
    let serving = gateways.iter().filter(|gateway| gateway.state.serves()).count() as u64;
    let recovering = if status.recovering { ", the store is recovering" } else { "" };
    [
        table(["REDIS", "ROLE", "REPLICAS", "VERSION", "UP", "MEMORY", "APPEND-ONLY FILE"], &[redis]),
        table(["GATEWAY", "STATE", "SESSIONS", "LAST BEAT", "UP", "VERSION", "WEBSOCKET", "LINES"], &rows),
        format!(
            "{} on {}, {}{recovering}\n",
            count(*sessions, "session"),
            count(serving, "gateway"),
            count(*rooms, "room"),
        ),
    ]
    .join("\n")
}

fn row(gateway: &LeaseSummary) -> [String; 8] {
    let silent = gateway.beat_age_ms.map(Duration::from_millis).is_none_or(|age| age > ECHO_LIMIT);
    let state = gateway.state.as_str();
    [
        gateway.node.clone(),
        if silent && gateway.state.serves() { format!("{state}, silent") } else { state.to_owned() },
        gateway.sessions.to_string(),
        gateway.beat_age_ms.map_or_else(|| "never".to_owned(), duration),
        duration(gateway.age_ms),
        gateway.version.clone(),
        gateway.ws.clone(),
        gateway.tcp.clone(),
    ]
}
