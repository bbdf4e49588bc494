//! What goes between nodes: publishing into rooms and inboxes, and hearing what others published.
//!
//! Two arms behind one enum, like the registry; one contract suite (`tests/it/contracts/backplane.rs`) runs on both.
//! Deliveries come back through one plain callback given at the start. Knows no wire format and no session.
//!
//! # Contract
//! - A publish is acked only after the store has it: lease live, member record equal to the sender's owner, key not seen
//!   before; then it has a seq (dense from 1 per room), a place in the log, and went to the room's channel, in one step.
//! - A direct message goes into the inbox of the session that has the nickname or had it last, there or not, and in the
//!   same way to the session's gateway if it is there.
//! - Deliveries of one log (of a room or an inbox) arrive in the order of their seqs, local members by the same path as
//!   remote ones. While the subscription is down nothing arrives; [`Delivery::Resumed`] says that something may be missing.
//! - What a store that came back with less has lost of what was acked here in its last seconds is put back before anything
//!   new is published, once each, under its id and in its old order.
//! - After [`Backplane::subscribe`] has returned, everything published later arrives. Unsubscribing lingers.
//! - The callback must not block: it runs on the task that reads from the store.

pub mod envelope;
mod malformed;
mod memory;
mod redis;

use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::stream::StreamEnd;
use presence::model::{Fence, Incarnation, Nick, NickKey, Owner, PresenceDelta, RoomKey, RoomName, SessionId};
use presence::registry::RegistryError;

use crate::message::{Accepted, Body, ChatMessage, Target};

pub use presence::model::stream::StreamId;

pub use self::memory::MemoryBackplane;
pub use self::redis::RedisBackplane;

/// A message on its way into a room or to a nickname.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Unique. Stands in for the key when the client gave none: remembered for 30 s, for our own repetitions.
    pub msg_id: String,
    /// The client's idempotency key, remembered for 5 minutes. Scope: target, session.
    pub key: Option<String>,
    /// Who says it.
    pub from: Nick,
    /// The sender's claim: checked by the store against the member record or nick record.
    pub owner: Owner,
    /// What is said.
    pub body: Body,
    /// When its gateway took it on.
    pub accepted: Accepted,
}

/// A message that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id: that of the first attempt, when this was a duplicate.
    pub msg_id: String,
    /// Its position in the room or inbox.
    pub seq: u64,
    /// Unix milliseconds by the store's clock.
    pub time: u64,
    /// Whether the key had been seen before: nothing was added then.
    pub duplicate: bool,
    /// Whether somebody hears it now. A direct message to somebody who is away waits for them; a room is always there.
    pub online: bool,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The sender's member record is not there or not this owner's.
    #[error("the sender is not in the room")]
    NotInRoom,
    /// Nobody was ever seen under the nickname.
    #[error("no such user")]
    NoSuchUser,
    /// A bounded structure of the store is full; nothing was done.
    #[error("too much to do")]
    Overloaded,
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A stretch of a room's log.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// Oldest first.
    pub messages: Vec<ChatMessage>,
    /// Whether there is more in the direction asked for.
    pub more: bool,
}

/// What a log still keeps after a position, as far as one page goes. Read in one step: everything in it is of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPage {
    /// Where the log ends.
    pub head: StreamEnd,
    /// Oldest first. Numbers that are left out are not kept any more, or cannot be read.
    pub messages: Vec<ChatMessage>,
    /// Up to here the page is complete; never past the top.
    pub through: u64,
}

/// Which stretch.
pub use crate::wire::command::Range;

/// What arrives from other nodes, and from ourselves by the same path.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A message in a room.
    Room {
        /// The room.
        room: RoomKey,
        /// The epoch of its seq.
        epoch: String,
        /// The message.
        message: ChatMessage,
    },
    /// People came, went or changed in a room.
    Presence {
        /// The room.
        room: RoomKey,
        /// The members version after the change; dense, so a jump means a change was missed.
        version: u64,
        /// The change.
        delta: PresenceDelta,
    },
    /// A direct message for a session of this gateway. `to` is the nick's key; the hub writes how the receiver is shown.
    Direct {
        /// Whose.
        session: SessionId,
        /// The epoch of its seq.
        epoch: String,
        /// The message.
        message: ChatMessage,
    },
    /// Somebody is writing something. Nothing of it is kept anywhere.
    Typing {
        /// Where: in a room, or to the session of this gateway whose inbox it is.
        log: StreamId,
        /// The session that is writing, when it may be among those who hear it.
        by: Option<SessionId>,
        /// Who that is, as they are shown.
        from: String,
    },
    /// An order to end a session of this gateway.
    Kick {
        /// Whose.
        session: SessionId,
    },
    /// A session of this gateway was resumed: the connection that has this claim is over, a newer one is not.
    Taken {
        /// Whose.
        session: SessionId,
        /// The claim.
        fence: Fence,
    },
    /// Our own beat came back.
    Echo {
        /// Its counter.
        counter: u64,
        /// The lease it belongs to.
        incarnation: Incarnation,
    },
    /// The subscription was lost and is whole again; anything may be missing.
    Resumed,
}

/// Where deliveries go. Must neither block nor call the backplane: it runs inside it.
pub type Sink = Arc<dyn Fn(Delivery) + Send + Sync>;

/// How the connection that deliveries come over is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// It is being made, or what we want to hear is being asked for again.
    Connecting,
    /// Everything wanted is heard.
    Subscribed,
    /// As far as we know everything is heard, but our own beat did not come back for 3 s.
    Stale,
    /// It is gone and will be made again after a pause.
    Backoff,
}

/// The receiving side at one moment, for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// How the connection is doing.
    pub link: Link,
    /// How often everything was heard again after something had been lost.
    pub reconnects: u64,
    /// When our own beat came back last.
    pub last_echo: Option<Instant>,
    /// Frames that were skipped because they were not ours.
    pub malformed: u64,
    past_gaps: Duration,
    broken_since: Option<Instant>,
}

impl Subscription {
    /// Whether everything wanted is heard, as far as anybody can know.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.link == Link::Subscribed
    }

    /// For how long in all, up to `now`, not everything was heard that had been heard before.
    #[must_use]
    pub fn gap(&self, now: Instant) -> Duration {
        let present = self.broken_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.past_gaps + present
    }
}

/// The backplane: one of two stores behind one set of calls. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// Between the processes of a cluster.
    Redis(RedisBackplane),
    /// Between the nodes of one process.
    Memory(MemoryBackplane),
}

/// Forwards a call to the arm in use.
macro_rules! each {
    ($self:ident, $arm:ident => $call:expr) => {
        match $self {
            Backplane::Redis($arm) => $call,
            Backplane::Memory($arm) => $call,
        }
    };
}

impl Backplane {
    /// How the receiving side is doing. Cheap.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        each!(self, arm => arm.subscription())
    }

    /// Listens on the channel of this incarnation instead of the one before. Returns when the subscription is confirmed.
    /// Waits as long as the store is away; dropping the future leaves the wish in place.
    pub async fn listen_as(&self, incarnation: &Incarnation) {
        each!(self, arm => arm.listen_as(incarnation).await);
    }

    /// Makes sure that this node hears the room. Returns once the subscription is confirmed: what is published later
    /// arrives. Each call needs one [`Backplane::unsubscribe`].
    ///
    /// # Errors
    /// `Unavailable` when it could not be confirmed within 2 s; the wish is withdrawn.
    pub async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError> {
        each!(self, arm => arm.subscribe(room).await)
    }

    /// One local interest in the room less. The last one ends the subscription after it lingered 30 s.
    pub fn unsubscribe(&self, room: &RoomKey) {
        each!(self, arm => arm.unsubscribe(room));
    }

    /// Publishes into a room. The messages name it as `room` is shown, so give the name that the join answered with.
    ///
    /// # Errors
    /// [`PublishError`]. After `Unknown` the same draft may be published again: its key keeps it single.
    pub async fn publish(&self, room: &RoomName, draft: &PublishRequest) -> Result<Published, PublishError> {
        each!(self, arm => arm.publish(room, draft).await)
    }

    /// Sends to the session that has the nickname, or had it last: into its inbox, and to its gateway if it is there.
    ///
    /// # Errors
    /// As [`Backplane::publish`].
    pub async fn direct(&self, to: &NickKey, draft: &PublishRequest) -> Result<Published, PublishError> {
        each!(self, arm => arm.direct(to, draft).await)
    }

    /// Tells the members of a room, or whoever has a nickname, that `from` is writing something. Nobody hears of it who is
    /// not there: a nickname that nobody has is no error.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`. It is not worth a second try.
    pub async fn typing(&self, to: &Target, from: &Nick, session: &SessionId) -> Result<(), RegistryError> {
        each!(self, arm => arm.typing(to, from, session).await)
    }

    /// A beat of this lease went out at `sent` and was answered by this generation at `received`: what was acked long enough
    /// before cannot be lost any more. In another generation than before, nothing is published until that is whole.
    pub fn beaten(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        match self {
            Self::Redis(arm) => arm.beaten(incarnation, generation, sent, received),
            Self::Memory(_) => {}
        }
    }

    /// Puts back whatever was acked here and is lost, for as long as it is polled; `count` hears of how many messages.
    /// Dropping the future puts off what is not done.
    pub async fn put_back(&self, count: impl FnMut(u64)) {
        match self {
            Self::Redis(arm) => arm.put_back(count).await,
            Self::Memory(_) => std::future::pending().await,
        }
    }

    /// Whether everything that was acked here is in this generation of the store.
    #[must_use]
    pub fn is_whole(&self, generation: u64) -> bool {
        match self {
            Self::Redis(arm) => arm.is_whole(generation),
            Self::Memory(_) => true,
        }
    }

    /// Bytes of acked messages that are kept because the store may still lose them.
    #[must_use]
    pub fn kept(&self) -> usize {
        match self {
            Self::Redis(arm) => arm.kept(),
            Self::Memory(_) => 0,
        }
    }

    /// Waits until the store cannot lose anything that was acked here. Needs beats. Dropping the future changes nothing.
    pub async fn safe(&self) {
        match self {
            Self::Redis(arm) => arm.safe().await,
            Self::Memory(_) => {}
        }
    }

    /// Reads a stretch of a room's log.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn history(&self, room: &RoomKey, range: Range, limit: usize) -> Result<HistoryPage, RegistryError> {
        each!(self, arm => arm.history(room, range, limit).await)
    }

    /// Reads what a log keeps after a position, `limit` messages at most. A log that the store has lost begins anew.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn missed(&self, log: &StreamId, after: u64, limit: usize) -> Result<ReplayPage, RegistryError> {
        each!(self, arm => arm.missed(log, after, limit).await)
    }

    /// Reads where logs end, in few round trips. A log that the store has lost begins anew.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn tops(&self, logs: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError> {
        each!(self, arm => arm.tops(logs).await)
    }
}
