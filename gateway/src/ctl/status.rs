//! `ctl status`: Redis and what fills it, every gateway and the totals, each read once.

use std::time::Duration;

use presence::lease::health::ECHO_LIMIT;
use presence::registry::{LargestStreams, LeaseSummary, RegistryError, StreamOwner, StreamSize};
use presence::store::redis::{KeySample, KindSize, ServerInfo};
use serde::Serialize;

use super::table::{count, duration, mebibytes, size, table};
use super::{CommandAccess, CtlAnswer, CtlError};

/// Maximum number of streams that are shown.
const STREAMS_MAX: usize = 10;
/// Maximum number of kinds of keys in the table, those with the most memory. The JSON document has all.
const KINDS_MAX: usize = 8;

#[derive(Serialize)]
struct ClusterStatus {
    redis: RedisStatus,
    largest: LargestStreams,
    /// `null` if the Redis user may not read them.
    keys: Option<KeySample>,
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
    let largest = cluster.store.largest_streams(STREAMS_MAX).await?;
    let keys = match cluster.redis.sample_keys().await {
        // The rights for it are optional, and everything before was answered.
        Err(RegistryError::Unavailable(_)) => None,
        sample => Some(sample?),
    };
    let redis = RedisStatus { address: cluster.address.clone(), server };
    let (generation, recovering) = (generation.number, !generation.is_open());
    let status = ClusterStatus { redis, largest, keys, gateways, sessions, rooms, generation, recovering };
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
    let largest: Vec<[String; 4]> = status.largest.streams.iter().map(stream).collect();
    let kinds: Vec<[String; 3]> =
        status.keys.iter().flat_map(|sample| &sample.kinds).take(KINDS_MAX).map(kind).collect();
    let recovering = if status.recovering { ", the store is recovering" } else { "" };
    let sections = [
        table(["REDIS", "ROLE", "REPLICAS", "VERSION", "UP", "MEMORY", "APPEND-ONLY FILE"], &[redis]),
        table(["GATEWAY", "STATE", "SESSIONS", "LAST BEAT", "UP", "VERSION", "WEBSOCKET", "LINES"], &rows),
        match &largest[..] {
            [] => String::new(),
            rows => table(["LARGEST LOG", "SIZE", "MESSAGES", "EXPIRES"], rows),
        },
        table([&kinds_head(status.keys.as_ref()), "NUMBER", "MEMORY"], &kinds),
        format!(
            "{} on {}, {}{recovering}\n",
            count(*sessions, "session"),
            count(serving, "gateway"),
            count(*rooms, "room"),
        ),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

fn stream(StreamSize { owner, bytes, messages, expires_in_seconds }: &StreamSize) -> [String; 4] {
    let name = match owner {
        StreamOwner::Room { room } => room.clone(),
        StreamOwner::Inbox { session, nick } => format!("inbox of {}", nick.as_ref().unwrap_or(session)),
    };
    let expires = expires_in_seconds.map_or_else(|| "never".to_owned(), |seconds| duration(seconds * 1000));
    [name, size(*bytes), messages.to_string(), expires]
}

fn kinds_head(keys: Option<&KeySample>) -> String {
    match keys {
        None => "KEYS (no right to read them)".to_owned(),
        Some(KeySample { is_estimate: false, .. }) => "KEYS".to_owned(),
        Some(KeySample { sampled, total, .. }) => format!("KEYS (estimate from {sampled} of {total})"),
    }
}

fn kind(KindSize { kind, keys, bytes }: &KindSize) -> [String; 3] {
    [kind.clone(), keys.to_string(), size(*bytes)]
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
