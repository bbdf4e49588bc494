//! Reads for operators beyond the HTTP API: the state of each lease, and the gateway of a user.
//!
//! Reads only, over the query pool, in steps of bounded cost. Called by `gateway ctl`; the Memory arm has no
//! counterpart.

use std::collections::HashSet;

use crate::model::keys::{NickKeys, NodeKeys};
use crate::model::{Incarnation, NickKey};
use crate::registry::leases::{LeaseRow, lease_rows};
use crate::registry::redis::RedisRegistry;
use crate::registry::reply::malformed;
use crate::registry::{Generation, LeaseState, RegistryError};

/// Maximum number of rows in one pipeline.
const BATCH_ROWS_MAX: usize = 100;

/// The state of a gateway in the lease table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeaseSummary {
    /// The configured node id.
    pub node: String,
    /// Its incarnation.
    pub incarnation: String,
    /// The state of its lease.
    pub state: LeaseState,
    /// Its beat counter.
    pub beat: u64,
    /// The age of its newest beat in milliseconds, by the clock of the store: for display only. `None` before the first
    /// beat.
    pub beat_age_ms: Option<u64>,
    /// The age of its lease, likewise.
    pub age_ms: u64,
    /// The number of sessions that own a nickname.
    pub sessions: u64,
    /// The program's version.
    pub version: String,
    /// The address of its WebSocket port.
    pub ws: String,
    /// The address of its TCP port.
    pub tcp: String,
    /// The address of its admin port: empty for an older version.
    pub admin: String,
}

impl RedisRegistry {
    /// Reads the serving gateways, and for a node without one the newest fenced incarnation, sorted by node. A gateway
    /// whose process died serves until it is fenced, so a node may have two rows. Also returns the generation.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn lease_summaries(&self) -> Result<(Generation, Vec<LeaseSummary>), RegistryError> {
        let (generation, rows) = lease_rows(&self.redis).await?;
        let rows = present_rows(rows);
        let keys = self.redis.keys();
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for LeaseRow { lease, .. } in &rows {
            pipeline
                .hget(keys.beaten().as_str(), lease.incarnation.as_str())
                .cmd("SCARD")
                .arg(keys.node(&lease.incarnation).owned_nicks());
        }
        let mut connection = self.redis.query().await?;
        let about = format!("{}, {}", keys.beaten().as_str(), keys.pattern(NodeKeys::owned_nicks));
        let replies: Vec<redis::Value> = self.redis.asked(&about, pipeline.query_async(&mut connection)).await?;
        let mut replies = replies.into_iter();
        let (seconds, micros): (u64, u64) = next_value(replies.next())?;
        let now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
        let summary = |row: LeaseRow| {
            let beaten: Option<u64> = next_value(replies.next())?;
            Ok(LeaseSummary {
                node: row.info.node,
                incarnation: row.lease.incarnation.to_string(),
                state: row.lease.state,
                beat: row.lease.counter,
                beat_age_ms: beaten.map(|beaten| now.saturating_sub(beaten)),
                age_ms: now.saturating_sub(row.opened),
                sessions: next_value(replies.next())?,
                version: row.info.version,
                ws: row.info.ws,
                tcp: row.info.tcp,
                admin: row.info.admin,
            })
        };
        let summaries = rows.into_iter().map(summary).collect::<Result<_, RegistryError>>()?;
        Ok((generation, summaries))
    }

    /// Reads the owning gateway of each nickname, in the order of `nicks`: `None` without an owner.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn owners(&self, nicks: &[NickKey]) -> Result<Vec<Option<Incarnation>>, RegistryError> {
        let mut owners = Vec::with_capacity(nicks.len());
        for batch in nicks.chunks(BATCH_ROWS_MAX) {
            let mut pipeline = redis::pipe();
            for nick in batch {
                pipeline.hget(self.redis.keys().nick(nick).record().as_str(), "owner");
            }
            let mut connection = self.redis.query().await?;
            let tokens: Vec<Option<String>> = self
                .redis
                .asked(&self.redis.keys().pattern(NickKeys::record), pipeline.query_async(&mut connection))
                .await?;
            let incarnation = |token: String| Incarnation::from_store(token.split('/').next().unwrap_or_default());
            owners.extend(tokens.into_iter().map(|token| token.map(incarnation)));
        }
        Ok(owners)
    }
}

/// Keeps the rows that describe the present.
fn present_rows(mut rows: Vec<LeaseRow>) -> Vec<LeaseRow> {
    rows.sort_by(|a, b| (&a.info.node, b.opened).cmp(&(&b.info.node, a.opened)));
    let mut seen = HashSet::new();
    rows.retain(|row| {
        let is_newest = seen.insert(row.info.node.clone());
        row.lease.state.serves() || is_newest && row.lease.state == LeaseState::Fenced
    });
    rows
}

fn next_value<T: redis::FromRedisValue>(answer: Option<redis::Value>) -> Result<T, RegistryError> {
    let answer = answer.ok_or_else(|| malformed("an answer to each question"))?;
    redis::from_redis_value(answer).map_err(|_| malformed("a row of a gateway"))
}
