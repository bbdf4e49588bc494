//! [`RedisLogTail`]: waits for new events of the log, over a connection of its own.

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamRangeReply, StreamReadReply};

use crate::registry::RegistryError;
use crate::store::redis::{RESPONSE_TIMEOUT, RedisStore, connection_config};

use super::TAIL_WAIT;

/// Waits for new events of the log in Redis.
pub struct RedisLogTail {
    redis: RedisStore,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for RedisLogTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLogTail").finish_non_exhaustive()
    }
}

impl RedisLogTail {
    pub(super) fn new(redis: RedisStore) -> Self {
        Self { redis, connection: None }
    }

    pub(super) async fn wait(&mut self, seen: &str) -> Result<String, RegistryError> {
        let log = self.redis.keys().webhook_events();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let config = connection_config().set_response_timeout(Some(TAIL_WAIT + RESPONSE_TIMEOUT));
                self.redis.connect(&config).await?
            }
        };
        let waiting = async {
            let mut end = end(&mut connection, &log).await?;
            if end == seen {
                let mut read = redis::cmd("XREAD");
                read.arg("COUNT")
                    .arg(1)
                    .arg("BLOCK")
                    .arg(TAIL_WAIT.as_millis() as u64)
                    .arg("STREAMS")
                    .arg(log.as_str());
                let added: Option<StreamReadReply> = read.arg(seen).query_async(&mut connection).await?;
                let added = added.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
                end = added.last().map_or(end, |entry| entry.id);
            }
            Ok(end)
        };
        let end = self.redis.awaited(&log, TAIL_WAIT, waiting).await?;
        self.connection = Some(connection);
        Ok(end)
    }
}

/// Reads the id of the newest entry; `0-0` of an empty log.
async fn end(connection: &mut MultiplexedConnection, log: &str) -> redis::RedisResult<String> {
    let mut newest = redis::cmd("XREVRANGE");
    let newest: StreamRangeReply =
        newest.arg(log).arg("+").arg("-").arg("COUNT").arg(1).query_async(connection).await?;
    Ok(newest.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id))
}
