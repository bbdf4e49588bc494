//! Waiting reads of the event log, over connections of their own: a blocked connection answers nothing else.
//!
//! Used by the event API only. A call takes an idle connection or opens one, and returns it after the answer. A failed
//! or dropped call drops its connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;

use crate::registry::RegistryError;
use crate::store::redis::{RESPONSE_TIMEOUT, RedisStore, connection_config};

use super::{EventLogEnds, RegistryEvent, event_position};

/// Maximum wait for an event.
const WAIT: Duration = Duration::from_secs(5);
/// Maximum number of idle connections.
const IDLE_MAX: usize = 4;
/// The position before the first event.
const START: &str = "0-0";

/// Reads the event log. Cheap to clone: clones share the idle connections.
#[derive(Clone)]
pub(in crate::registry) struct EventReader {
    redis: RedisStore,
    idle: Arc<Mutex<Vec<MultiplexedConnection>>>,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader").finish_non_exhaustive()
    }
}

impl EventReader {
    pub(in crate::registry) fn new(redis: RedisStore) -> Self {
        Self { redis, idle: Arc::default() }
    }

    /// Waits for events after `after`; returns them with the position to continue from.
    pub(super) async fn read(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<RegistryEvent>, Option<String>), RegistryError> {
        let mut connection = self.connection().await?;
        let log = self.redis.keys().events();
        let answer = self.redis.awaited(&log, WAIT, self.read_over(&mut connection, after, limit)).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }

    /// Reads the ends of the log without waiting.
    pub(super) async fn ends(&self) -> Result<EventLogEnds, RegistryError> {
        let mut connection = self.redis.query().await?;
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(self.redis.keys().events().as_str());
        let info = async {
            match info.query_async::<HashMap<String, Value>>(&mut connection).await {
                // The log does not exist before the first event and after a flush.
                Err(error) if error.detail() == Some("no such key") => Ok(HashMap::new()),
                answer => answer,
            }
        };
        let info = self.redis.asked(&self.redis.keys().events(), info).await?;
        let newest = position(info.get("last-generated-id")).unwrap_or(START);
        let is_whole = info.get("entries-added").is_none_or(|added| info.get("length") == Some(added));
        // Also of a whole log: a position before its first event is from a log that Redis has lost.
        let complete_from = match info.get("first-entry") {
            Some(Value::Array(entry)) => position(entry.first()).unwrap_or(newest),
            _ => newest,
        };
        Ok(EventLogEnds { complete_from: complete_from.to_owned(), is_whole, newest: newest.to_owned() })
    }

    async fn read_over(
        &self,
        connection: &mut MultiplexedConnection,
        after: Option<&str>,
        limit: usize,
    ) -> redis::RedisResult<(Vec<RegistryEvent>, Option<String>)> {
        // The end is read instead of using `$`, which would skip events between this call and the next.
        let after = match after.filter(|id| event_position(id).is_some()) {
            Some(id) => id.to_owned(),
            None => self.end(connection).await?,
        };
        let reply: Option<StreamReadReply> = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(limit.max(1))
            .arg("BLOCK")
            .arg(WAIT.as_millis() as u64)
            .arg("STREAMS")
            .arg(self.redis.keys().events().as_str())
            .arg(&after)
            .query_async(connection)
            .await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
        let events: Vec<RegistryEvent> = entries
            .map(|entry| RegistryEvent {
                kind: entry.get("kind").unwrap_or_default(),
                data: entry.get("data").unwrap_or_default(),
                id: entry.id,
            })
            .collect();
        let position = events.last().map_or(after, |event| event.id.clone());
        Ok((events, Some(position)))
    }

    async fn end(&self, connection: &mut MultiplexedConnection) -> redis::RedisResult<String> {
        let newest: redis::streams::StreamRangeReply = redis::cmd("XREVRANGE")
            .arg(self.redis.keys().events().as_str())
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(connection)
            .await?;
        Ok(newest.ids.into_iter().next().map_or_else(|| START.to_owned(), |entry| entry.id))
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RegistryError> {
        if let Some(connection) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let config = connection_config().set_response_timeout(Some(WAIT + RESPONSE_TIMEOUT));
        self.redis.connect(&config).await
    }
}

/// Reads a position from a server reply.
fn position(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::BulkString(id)) => std::str::from_utf8(id).ok().filter(|id| event_position(id).is_some()),
        _ => None,
    }
}
