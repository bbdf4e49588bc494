//! Reading a room's log to learn what did not arrive: where it ends, and what it keeps after a position.
//!
//! The reading task and joining sessions ask. Every read is one transaction over the query pool: epoch, top and messages
//! are of one moment, and nothing stands in front of what arrives.

use presence::keys::Keys;
use presence::model::RoomKey;
use presence::redis::{Call, classify};
use presence::registry::RegistryError;
use redis::streams::{StreamId, StreamRangeReply};
use redis::{Pipeline, Value};

use super::RedisBackplane;
use crate::backplane::{Missed, Top, envelope};
use crate::message::ChatMessage;

/// Rooms whose tops are read in one transaction: few enough not to stand in front of messages for long.
const CHUNK: usize = 100;

/// A room's meta, and the newest entry of its log.
type Shown = ((Option<String>, Option<u64>), StreamRangeReply);

impl RedisBackplane {
    /// See [`crate::backplane::Backplane::missed`].
    ///
    /// # Errors
    /// See there.
    pub async fn missed(&self, room: &RoomKey, after: u64, limit: usize) -> Result<Option<Missed>, RegistryError> {
        let keys = self.node.redis.keys();
        let mut read = redis::pipe();
        ask_top(read.atomic(), keys, room);
        read.xrange_count(keys.room_log(room), after.saturating_add(1), "+", limit);
        let mut connection = self.node.redis.query().await?;
        let (meta, newest, page): (_, _, StreamRangeReply) =
            self.node.redis.timed(Call::Log, read.query_async(&mut connection)).await?;
        let Some((epoch, top)) = top((meta, newest)) else { return Ok(None) };

        let last = page.ids.last().map_or(after, |entry| seq(entry).unwrap_or(after));
        let through = if page.ids.len() < limit { top.max(after) } else { last };
        let messages: Vec<ChatMessage> = page.ids.iter().filter_map(message).collect();
        self.node.malformed.note(&keys.room_log(room), (page.ids.len() - messages.len()) as u64);
        Ok(Some(Missed { epoch, top, messages, through }))
    }

    /// See [`crate::backplane::Backplane::tops`].
    ///
    /// # Errors
    /// See there.
    pub async fn tops(&self, rooms: &[RoomKey]) -> Result<Vec<Top>, RegistryError> {
        let mut tops = Vec::with_capacity(rooms.len());
        for chunk in rooms.chunks(CHUNK) {
            let mut read = redis::pipe();
            read.atomic();
            chunk.iter().for_each(|room| ask_top(&mut read, self.node.redis.keys(), room));
            let mut connection = self.node.redis.query().await?;
            let shown: Vec<Value> = self.node.redis.timed(Call::Log, read.query_async(&mut connection)).await?;
            for (room, shown) in chunk.iter().zip(shown.chunks_exact(2)) {
                let shown = Value::Array(shown.to_vec());
                let shown = redis::from_redis_value(shown).map_err(|error| classify(&error.into()))?;
                tops.extend(top(shown).map(|(epoch, seq)| (room.clone(), epoch, seq)));
            }
        }
        Ok(tops)
    }
}

fn ask_top(read: &mut Pipeline, keys: &Keys, room: &RoomKey) {
    read.hmget(keys.room(room), &["epoch", "seq"]);
    read.xrevrange_count(keys.room_log(room), "+", "-", 1);
}

/// Meta and log are written together; the one that is further wins when one of them was lost or restored alone.
fn top(((epoch, noted), newest): Shown) -> Option<(String, u64)> {
    let kept = newest.ids.first().and_then(seq).unwrap_or(0);
    Some((epoch?, noted.unwrap_or(0).max(kept)))
}

fn seq(entry: &StreamId) -> Option<u64> {
    entry.id.split('-').next()?.parse().ok()
}

/// An entry of a room's log; `None` when it is not ours.
pub(super) fn message(entry: &StreamId) -> Option<ChatMessage> {
    let payload: Vec<u8> = entry.get("payload")?;
    envelope::message(&payload, seq(entry)?, entry.get("time")?)
}
