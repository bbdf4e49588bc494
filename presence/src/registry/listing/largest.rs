//! The largest streams of the store, for operators and metrics: [`LargestStreams`].
//!
//! Publishing keeps a bounded list of them, so nothing is scanned. A size is that at the stream's last mark: up to a
//! sixteenth of its bound may be missing, or removed since. Called by `gateway ctl` and by the metrics of the presence
//! process; the Memory arm has no counterpart.

use crate::model::keys::{RoomUnit, ScriptKeys, SessionUnit};
use crate::registry::redis::{RedisRegistry, ScriptCall, read};
use crate::registry::reply::{ScriptReply, malformed};
use crate::registry::{RegistryError, script};

/// A stream with its size.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StreamSize {
    /// The owner of the messages.
    #[serde(flatten)]
    pub owner: StreamOwner,
    /// The bytes of its payloads.
    pub bytes: u64,
    /// The number of its messages.
    pub messages: u64,
    /// The time until it expires; `None` while the room has members, or the session its nickname.
    pub expires_in_seconds: Option<u64>,
}

/// The room or session that a stream belongs to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StreamOwner {
    /// A room, as shown.
    Room {
        /// The name with its `#`.
        room: String,
    },
    /// A session, by its inbox.
    Inbox {
        /// The id of the session.
        session: String,
        /// The key of its nickname, if the session is still known.
        nick: Option<String>,
    },
}

/// The sizes of listed streams of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct ListedBytes {
    /// The bytes of the largest stream.
    pub largest: u64,
    /// The bytes of all listed streams.
    pub total: u64,
}

/// The largest streams, as far as they are listed: at most 100.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LargestStreams {
    /// The sizes of rooms.
    pub rooms: ListedBytes,
    /// The sizes of inboxes.
    pub inboxes: ListedBytes,
    /// The first ones, the largest first.
    pub streams: Vec<StreamSize>,
}

impl RedisRegistry {
    /// Reads the largest streams, with at most `rows` of them by name.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn largest_streams(&self, rows: usize) -> Result<LargestStreams, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys())
            .partition([self.redis.keys().largest()])
            .crossing_in_script::<RoomUnit>()
            .crossing_in_script::<SessionUnit>();
        let args = [rows.to_string()];
        let call = ScriptCall { script: &script::LARGEST, keys, args: &[&args[0]] };
        let mut reply = read(&self.redis, call).await?;
        let mut sums = reply.array()?;
        let mut listed = || Ok(ListedBytes { largest: sums.number()?, total: sums.number()? });
        let (rooms, inboxes) = (listed()?, listed()?);
        let streams = reply.arrays().map(|row| stream_size(row?)).collect::<Result<_, _>>()?;
        Ok(LargestStreams { rooms, inboxes, streams })
    }
}

fn stream_size(mut row: ScriptReply) -> Result<StreamSize, RegistryError> {
    let (kind, id, name) = (row.text()?, row.text()?, row.text()?);
    let owner = match kind.as_str() {
        "room" => StreamOwner::Room { room: if name.is_empty() { format!("#{id}") } else { name } },
        "inbox" => StreamOwner::Inbox { session: id, nick: Some(name).filter(|name| !name.is_empty()) },
        _ => return Err(malformed("a room or an inbox")),
    };
    // Redis answers with a negative number if nothing ends the stream.
    let (bytes, messages, expires) = (row.number()?, row.number()?, row.text()?);
    Ok(StreamSize { owner, bytes, messages, expires_in_seconds: expires.parse().ok() })
}
