//! Evidence at the end of a run: the streams, the recorded leaves, and leftover keys and descriptors.
//!
//! Read directly from Redis and from /proc. It judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::{Cluster, Node, Redis, within};
use redis::streams::{StreamId, StreamRangeReply};
use serde_json::Value;

use crate::check::{RecordedLeave, StoredWrite};
use crate::history::{HistoryEvent, HistoryOp, OpStatus, Recorder};

/// Prefix of every key, see `presence/src/keys.rs`.
const BASE: &str = "parley:{0}:";
/// Entries of a stream read in one call.
const PAGE_ENTRIES: usize = 1000;
/// Maximum number of pages read of one stream, enough for the longest stream of a run.
const PAGES_MAX: usize = 1000;
/// Time limit for the cleanup after all members have left.
const CLEANUP_MAX: Duration = Duration::from_secs(20);
/// Number of descriptors that may differ by chance: a scrape, a closing connection, and the eight of the query pool.
const DESCRIPTOR_MARGIN: usize = 12;

/// Returns the messages of a room (`#name`), oldest first.
pub async fn room_stream(redis: &Redis, room: &str) -> Vec<StoredWrite> {
    let entries = read_stream(redis, &format!("{BASE}log:{}", room.trim_start_matches('#'))).await;
    entries.iter().filter_map(entry).collect()
}

/// Returns the inboxes of members over WebSocket, by `@` and nick: the messages sent to their sessions, the oldest
/// session first.
pub async fn inboxes(redis: &Redis, events: &[HistoryEvent]) -> BTreeMap<String, Vec<StoredWrite>> {
    let mut inboxes: BTreeMap<String, Vec<StoredWrite>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in events.iter().filter(|event| event.kind == OpStatus::Ok) {
        let HistoryOp::Register { nick, session: Some(session), .. } = &event.op else { continue };
        if seen.insert(session) {
            let entries = read_stream(redis, &format!("{BASE}inbox:{session}")).await;
            inboxes.entry(format!("@{nick}")).or_default().extend(entries.iter().filter_map(entry));
        }
    }
    inboxes
}

/// Returns the recorded leaves in chronological order.
pub async fn departures(redis: &Redis, recorder: &Recorder) -> Vec<RecordedLeave> {
    let departure = |entry: &StreamId| {
        let (kind, data) = (entry.get::<String>("kind")?, entry.get::<String>("data")?);
        let data: Value = serde_json::from_str(&data).ok()?;
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let at = recorder.moment(data["time"].as_u64()?);
        (kind == "offline").then(|| RecordedLeave { at, nick: text("nick"), reason: text("reason") })
    };
    read_stream(redis, &format!("{BASE}events")).await.iter().filter_map(departure).collect()
}

/// Returns the number of open descriptors of each gateway.
pub fn descriptors(cluster: &mut Cluster) -> BTreeMap<String, usize> {
    let count = |node: &mut Node| {
        let pid = node.process().pid();
        (node.name().to_owned(), std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
    };
    cluster.gateways.iter_mut().map(count).collect()
}

/// Describes the keys and descriptors that remain after all members have left.
pub async fn leftovers(cluster: &mut Cluster, before: &BTreeMap<String, usize>) -> Vec<String> {
    let mut left = Vec::new();
    within(CLEANUP_MAX, async || {
        left = find_leftovers(cluster, before).await;
        left.is_empty().then_some(())
    })
    .await;
    left
}

async fn find_leftovers(cluster: &mut Cluster, before: &BTreeMap<String, usize>) -> Vec<String> {
    let mut left = Vec::new();
    for kind in ["owned-nicks:*", "owned-members:*", "members:*", "mailbox:*"] {
        left.extend(cluster.redis.call::<Vec<String>>(&format!("KEYS {BASE}{kind}")).await);
    }
    for (node, now) in descriptors(cluster) {
        let then = before.get(&node).copied().unwrap_or_default();
        if now > then + DESCRIPTOR_MARGIN {
            left.push(format!("{node} has {now} descriptors, {then} before the first connection"));
        }
    }
    left
}

fn entry(entry: &StreamId) -> Option<StoredWrite> {
    let seq = entry.id.split('-').next()?.parse().ok()?;
    let payload: Value = serde_json::from_str(&entry.get::<String>("payload")?).ok()?;
    let text = |field: &str| payload[field].as_str().map(str::to_owned);
    Some(StoredWrite {
        seq,
        msg_id: text("id")?,
        from: text("from")?,
        fence: payload["fence"].as_u64()?,
        key: text("body")?,
    })
}

async fn read_stream(redis: &Redis, key: &str) -> Vec<StreamId> {
    let (mut entries, mut from) = (Vec::new(), "-".to_owned());
    for _ in 0..PAGES_MAX {
        let page: StreamRangeReply = redis.call(&format!("XRANGE {key} {from} + COUNT {PAGE_ENTRIES}")).await;
        let Some(last) = page.ids.last() else { break };
        from = format!("({}", last.id);
        entries.extend(page.ids);
    }
    entries
}
