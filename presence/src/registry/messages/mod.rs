//! Messages of the server API: the calls that publish, list and delete them. Gateways publish by their backplane.
//!
//! Both use the same scripts, which are in this folder, so one order, one history and one kind of idempotency holds for
//! all messages. A message of the API has no session: its owner is [`Owner::of_api`](crate::model::Owner::of_api), it
//! needs no membership, and Redis alone keeps it.

mod memory;
mod payload;
mod redis;

use std::num::NonZeroU64;
use std::time::Duration;

use super::RegistryError;
use crate::model::stream::StreamEnd;
use crate::model::{NickKey, RoomKey};

pub use self::payload::{PayloadFields, payload};

/// The target of a message of the API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PostTarget {
    /// The members of a room.
    Room(RoomKey),
    /// The session that has the nickname, or had it last.
    Nick(NickKey),
}

/// A message of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPost {
    /// Its target.
    pub to: PostTarget,
    /// The application, by the name of its key.
    pub application: String,
    /// The idempotency key: unique per application and target.
    pub key: String,
    /// The id of the message, unless the key is known.
    pub msg_id: String,
    /// The text that is stored and published, by [`payload`].
    pub payload: String,
}

/// A stored message of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostedMessage {
    /// The id of the first message with this key.
    pub msg_id: String,
    /// Its position in the stream, in `epoch`.
    pub seq: u64,
    /// The epoch of the stream now.
    pub epoch: String,
    /// Unix milliseconds.
    pub time: u64,
    /// True if the key was known, so nothing was stored.
    pub duplicate: bool,
    /// True if the receiver is online; a room always is.
    pub online: bool,
}

/// A message of a room as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomMessage {
    /// Its position.
    pub seq: u64,
    /// Unix milliseconds.
    pub time: u64,
    /// The text that was stored.
    pub payload: String,
}

/// The end of a room's stream, with messages from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomTail {
    /// The room as its members see it.
    pub room: String,
    /// The end, as of the read.
    pub end: StreamEnd,
    /// The oldest message that is kept.
    pub first: Option<u64>,
    /// The messages after a seq, oldest first.
    pub messages: Vec<RoomMessage>,
}

/// A refused message of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The store has no record of the room.
    #[error("the room is not known")]
    NoSuchRoom,
    /// No session can receive it.
    #[error("the nickname is not known, or its session cannot be resumed")]
    NoSuchUser,
    /// The bucket of idempotency keys is full until about then.
    #[error("the store has no space for another idempotency key")]
    Exhausted {
        /// The time until the bucket is empty.
        retry_after: Duration,
    },
    /// The call failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

contract! {
    /// Messages of the server API.
    Messages {
        /// Appends messages to rooms and inboxes and publishes them. Returns one result for each, in their order; one
        /// refused message affects no other. Messages to one target keep their order. While a lost answer leaves the
        /// outcome unknown, the call is repeated for a few seconds: the keys make that safe.
        async fn post(&self, posts: &[ApiPost]) -> Vec<Result<PostedMessage, PostError>>;

        /// Returns messages of a room, the newest first, from the last one before a seq on. At most `limit`; fewer if
        /// they are large. None of an unknown room.
        ///
        /// # Errors
        /// `Unavailable`, `Overloaded` or `Unknown`.
        async fn room_messages(
            &self,
            room: &RoomKey,
            before: Option<NonZeroU64>,
            limit: usize,
        ) -> Result<Vec<RoomMessage>, RegistryError>;

        /// Returns the end of a room's stream, and at most `limit` messages after a seq; `None` for an unknown room.
        ///
        /// # Errors
        /// `Unavailable`, `Overloaded` or `Unknown`.
        async fn messages_after(
            &self,
            room: &RoomKey,
            after: u64,
            limit: usize,
        ) -> Result<Option<RoomTail>, RegistryError>;

        /// Deletes all messages of a room, or the one with a seq. Returns their number. Seqs are not used again: a
        /// client that replays them gets a gap. Clients that have a message keep it.
        ///
        /// # Errors
        /// `NoSuchRoom`, `Unavailable` or `Unknown`.
        async fn delete_messages(&self, room: &RoomKey, seq: Option<NonZeroU64>) -> Result<u64, RegistryError>;
    }
}
