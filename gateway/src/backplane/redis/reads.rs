//! Reading a log to learn what did not arrive: where it ends, and what it keeps after a position.
//!
//! The reading task, joining sessions and the repair ask. One script reads one log, so that epoch, top and messages are of
//! one moment; many logs share a pipeline over the query pool, and nothing stands in front of what arrives.

use std::sync::LazyLock;

use presence::model::keys::Keys;
use presence::model::stream::{StreamEnd, StreamId, read_forks};
use presence::registry::RegistryError;
use presence::store::redis::Call;
use redis::streams::{self, StreamRangeReply};
use redis::{Cmd, ErrorKind, Script, ServerErrorKind};

use super::{RedisBackplane, epoch, script};
use crate::backplane::{ReplayPage, envelope};
use crate::message::ChatMessage;

static PAGE: LazyLock<Script> = LazyLock::new(|| script(&[], include_str!("../lua/page.lua")));

/// Logs that are read in one pipeline: few enough not to stand in front of messages for long.
const CHUNK: usize = 100;
/// Seconds that the meta of a log is kept whose room or session is not there: 73 hours, longer than any position.
const META_SECONDS: u64 = 73 * 60 * 60;

/// Epoch, top, forks, entries.
type Page = (String, u64, String, StreamRangeReply);

impl RedisBackplane {
    /// See [`crate::backplane::Backplane::missed`].
    ///
    /// # Errors
    /// See there.
    pub async fn missed(&self, log: &StreamId, after: u64, limit: usize) -> Result<ReplayPage, RegistryError> {
        let read = [(log, after, limit)];
        let Some((epoch, top, forks, page)) = self.pages(&read).await?.pop() else {
            return Err(RegistryError::Unknown("no answer to a reading".to_owned()));
        };
        let last = page.ids.last().map_or(after, |entry| seq(entry).unwrap_or(after));
        let through = if page.ids.len() < limit { top.max(after) } else { last };
        let messages: Vec<ChatMessage> = page.ids.iter().filter_map(message).collect();
        self.node.malformed.note(&names(self.node.redis.keys(), log).1, (page.ids.len() - messages.len()) as u64);
        Ok(ReplayPage { head: StreamEnd { epoch, top, forks: read_forks(&forks) }, messages, through })
    }

    /// See [`crate::backplane::Backplane::tops`].
    ///
    /// # Errors
    /// See there.
    pub async fn tops(&self, logs: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        let mut tops = Vec::with_capacity(logs.len());
        for chunk in logs.chunks(CHUNK) {
            let read: Vec<_> = chunk.iter().map(|log| (log, 0, 0)).collect();
            let heads = self.pages(&read).await?.into_iter();
            let heads = heads.map(|(epoch, top, forks, _)| StreamEnd { epoch, top, forks: read_forks(&forks) });
            tops.extend(chunk.iter().cloned().zip(heads));
        }
        Ok(tops)
    }

    /// Reads some logs, each after a seq and with so many messages at most.
    async fn pages(&self, read: &[(&StreamId, u64, usize)]) -> Result<Vec<Page>, RegistryError> {
        let keys = self.node.redis.keys();
        let mut pipeline = redis::pipe();
        for (log, after, limit) in read {
            let (meta, stream) = names(keys, log);
            let mut call = Cmd::new();
            call.arg("EVALSHA").arg(PAGE.get_hash()).arg(3).arg(keys.generation()).arg(meta).arg(stream);
            call.arg(epoch()).arg(after.saturating_add(1)).arg(limit).arg(META_SECONDS);
            pipeline.add_command(call);
        }
        let mut connection = self.node.redis.query().await?;
        let call = async {
            match pipeline.query_async(&mut connection).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    PAGE.load_async(&mut connection).await?;
                    pipeline.query_async(&mut connection).await
                }
                answer => answer,
            }
        };
        self.node.redis.timed(Call::Log, call).await
    }
}

/// Meta and stream of a log.
fn names(keys: &Keys, log: &StreamId) -> (String, String) {
    match log {
        StreamId::Room(room) => (keys.room(room).meta().into(), keys.room(room).stream().into()),
        StreamId::Inbox(session) => (keys.session(session).record().into(), keys.session(session).inbox().into()),
    }
}

fn seq(entry: &streams::StreamId) -> Option<u64> {
    entry.id.split('-').next()?.parse().ok()
}

/// An entry of a log; `None` when it is not ours.
fn message(entry: &streams::StreamId) -> Option<ChatMessage> {
    let payload: Vec<u8> = entry.get("payload")?;
    envelope::message(&payload, seq(entry)?, entry.get("time")?)
}
