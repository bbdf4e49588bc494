//! The contract of the backplane: its requests, its answers, and its methods, declared once for both arms.
//!
//! Each method documents its own part. One suite (`tests/it/contracts/backplane.rs`) runs on both arms.
//!
//! # Rules of all methods
//! - A publish is acknowledged only once the store has it. In one step the store checks the sender's lease, its claim
//!   and the key. In the same step it assigns the stream's next seq, appends the message and sends it to subscribers.
//! - Seqs are assigned without holes. A new epoch continues them from its fork.
//! - Deliveries of one stream (a room or an inbox) arrive in the order of their seqs. Local and remote members receive
//!   them by the same path.
//! - While the subscription is down nothing arrives. [`super::Delivery::SubscriptionRestored`] reports that messages
//!   may be missing.
//! - A store that restarts may lack messages acknowledged here in the last seconds. They are republished before
//!   anything new, once each, under their id and in their old order.

use std::time::{Duration, Instant};

use presence::model::stream::{PageLimit, StreamEnd, StreamId};
use presence::model::{Incarnation, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, UserId};
use presence::registry::RegistryError;

use crate::message::{Accepted, Body, ChatMessage, Target};
use crate::wire::command::Range;

use super::{Backplane, SubscriptionStatus};

/// The time for which an unwanted room stays subscribed, so that a quick return costs nothing.
pub(super) const LINGER: Duration = Duration::from_secs(30);

/// A message to be published into a room or sent to a nickname.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// A unique id. It stands in for a missing idempotency key, for this gateway's own repeats.
    pub msg_id: String,
    /// The client's idempotency key, remembered for 5 minutes. Scope: target, session.
    pub key: Option<String>,
    /// The sender's shown nick.
    pub from: Nick,
    /// The sender's user, as a verified token names it; `None` for a guest.
    pub from_user: Option<UserId>,
    /// The sender's claim, which the store compares with the member record or nick record.
    pub owner: Owner,
    /// True if the sender's token lets it moderate the room: then the rules exempt it as a moderator.
    pub moderates: bool,
    /// The JSON text of the body.
    pub body: Body,
    /// The time at which this gateway accepted it.
    pub accepted: Accepted,
}

/// A position in a room's stream that was reached before the first attempt of a publish. The default, an unknown epoch,
/// precedes every message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriorPosition {
    /// Its epoch.
    pub epoch: String,
    /// Its seq.
    pub seq: u64,
}

/// An attempt to publish into a room. A lost answer is repeated by the backplane itself, which then searches the room's
/// stream after the position for the message, unless it has a client's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishAttempt<'a> {
    /// The first one under this message id. The store does not remember it.
    First(&'a PriorPosition),
    /// Another one, after an attempt whose outcome is unknown.
    Repeat(&'a PriorPosition),
}

/// A message in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id: that of the first attempt, if this was a duplicate.
    pub msg_id: String,
    /// Its position in the room or inbox.
    pub seq: u64,
    /// Unix milliseconds by the store's clock.
    pub time: u64,
    /// True if the key was known: then nothing was appended.
    pub duplicate: bool,
    /// True if the receiver is online. A direct message to an offline user waits in the inbox; a room is always online.
    pub online: bool,
}

/// A message that was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The sender's member record is missing or belongs to another claim.
    #[error("the sender is not in the room")]
    NotInRoom,
    /// The sender is muted in the room.
    #[error("the sender is muted in the room")]
    Muted {
        /// The time until the mute ends; `None` if it does not.
        retry_after: Option<Duration>,
    },
    /// The rules of the room do not let the sender send.
    #[error("the rules of the room do not allow it")]
    NotAllowed,
    /// The slow mode of the room makes the sender wait.
    #[error("the slow mode asks for {} ms", retry_after.as_millis())]
    SlowMode {
        /// The time until the next message of the sender.
        retry_after: Duration,
    },
    /// No session can receive it: the nickname was never claimed, or its last session is over for good.
    #[error("no such user")]
    NoSuchUser,
    /// A queue is full; nothing was done.
    #[error("a limit of the store or the gateway is reached")]
    Overloaded,
    /// A bounded structure, or the sender's or target's share of one, is full until about then; nothing was done.
    #[error("a share is used up for {} ms", retry_after.as_millis())]
    Exhausted {
        /// The time until there is space.
        retry_after: Duration,
    },
    /// No key may be added until about then; nothing was done.
    #[error("the idempotency keys are used up for {} ms", retry_after.as_millis())]
    KeysExhausted {
        /// The time until keys may be added.
        retry_after: Duration,
    },
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A page of a room's history.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The messages, oldest first.
    pub messages: Vec<ChatMessage>,
    /// True if there are more in the requested direction.
    pub more: bool,
}

/// The messages that a stream keeps after a position, up to one page. Read in one step, so all are of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPage {
    /// The end of the stream.
    pub end: StreamEnd,
    /// The messages, oldest first. Missing numbers are trimmed or unreadable.
    pub messages: Vec<ChatMessage>,
    /// The page is complete up to here; never past the end.
    pub through: u64,
}

/// Declares the trait that both arms implement, and the same methods on [`Backplane`], which forward to the arm in use.
macro_rules! contract {
    ($(#[$trait_doc:meta])* trait $contract:ident {
        $( $(#[$doc:meta])* fn $name:ident(&self $(, $arg:ident: $type:ty)* $(,)?) $(-> $output:ty)?; )*
        async { $(
            $(#[$async_doc:meta])*
            async fn $async_name:ident(&self $(, $async_arg:ident: $async_type:ty)* $(,)?) $(-> $async_output:ty)?;
        )* }
    }) => {
        $(#[$trait_doc])*
        pub(super) trait $contract {
            $( fn $name(&self $(, $arg: $type)*) $(-> $output)?; )*
            $( async fn $async_name(&self $(, $async_arg: $async_type)*) $(-> $async_output)?; )*
        }

        impl Backplane {
            $(
                $(#[$doc])*
                pub fn $name(&self $(, $arg: $type)*) $(-> $output)? {
                    match self {
                        Self::Redis(redis) => $contract::$name(redis $(, $arg)*),
                        Self::Memory(memory) => $contract::$name(memory $(, $arg)*),
                    }
                }
            )*
            $(
                $(#[$async_doc])*
                pub async fn $async_name(&self $(, $async_arg: $async_type)*) $(-> $async_output)? {
                    match self {
                        Self::Redis(redis) => $contract::$async_name(redis $(, $async_arg)*).await,
                        Self::Memory(memory) => $contract::$async_name(memory $(, $async_arg)*).await,
                    }
                }
            )*
        }
    };
}

contract! {
    /// The methods of both arms.
    trait BackplaneContract {
        /// Returns the state of the receiving side. Cheap.
        #[must_use]
        fn subscription(&self) -> SubscriptionStatus;

        /// Releases one local interest in the room. The subscription ends 30 s after the last one.
        fn unsubscribe(&self, room: &RoomKey);

        /// Reports an answered beat of this lease, sent at `sent` and answered by this generation at `received`.
        /// Releases messages that are now safe. In a new generation nothing is published until the messages that it
        /// lacks are republished.
        fn note_beat(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant);

        /// Returns true if this generation of the store has every message that was acknowledged here.
        #[must_use]
        fn has_all_acknowledged(&self, generation: u64) -> bool;

        /// Returns the bytes in the republish ring: of acknowledged messages that the store may still lose.
        #[must_use]
        fn unsafe_bytes(&self) -> usize;

        /// Returns true once half of the queue space for this target, or for all targets, is used. A sender should then
        /// have at most one message under way.
        #[must_use]
        fn is_crowded(&self, to: &Target) -> bool;

        async {
            /// Subscribes to the channel of this incarnation instead of the former one. Returns when the subscription
            /// is confirmed, and waits as long as the store is away. A dropped future keeps the request active.
            async fn subscribe_own_channel(&self, incarnation: &Incarnation);

            /// Subscribes this node to the room. Returns once the subscription is confirmed: anything published later
            /// arrives. Each call needs one [`Backplane::unsubscribe`].
            ///
            /// # Errors
            /// `Unavailable` without a confirmation within 2 s; the request is then withdrawn.
            async fn subscribe(&self, room: &RoomKey) -> Result<(), RegistryError>;

            /// Publishes into a room. `room` is the name that the join returned, because messages carry it. Messages to
            /// one room are stored in the order of the first polls of their futures, also if answers are lost: a lost
            /// answer is repeated for 4 s. Dropping the future cancels a message that no call has begun to store.
            ///
            /// # Errors
            /// [`PublishError`]. After `Unknown` the request may be repeated for 30 s: no second copy is stored.
            async fn publish(
                &self,
                room: &RoomName,
                request: &PublishRequest,
                attempt: PublishAttempt<'_>,
            ) -> Result<Published, PublishError>;

            /// Sends to the session that has the nickname, or had it last. In one step the message goes into its inbox,
            /// and to its gateway if the session is online. A session that is offline must have a resume token.
            ///
            /// Order, repeats and cancellation are as for [`Backplane::publish`].
            ///
            /// # Errors
            /// As for [`Backplane::publish`]. A repeat is recognized by key or id.
            async fn direct(&self, to: &NickKey, request: &PublishRequest) -> Result<Published, PublishError>;

            /// Sends a typing notice to the members of a room or to the owner of a nickname. A nickname without an
            /// owner is no error. The notice of a member that may not send is dropped, apart from the pause of the slow
            /// mode. `moderates` is as in [`PublishRequest`].
            ///
            /// # Errors
            /// `Unavailable` or `Unknown`. Do not retry.
            async fn typing(
                &self,
                to: &Target,
                from: &Nick,
                session: &SessionId,
                moderates: bool,
            ) -> Result<(), RegistryError>;

            /// Republishes acknowledged messages that the store has lost, for as long as it is polled. `count` receives
            /// the number of messages. A dropped future leaves the rest for the next call.
            async fn republish(&self, count: impl FnMut(u64));

            /// Waits until the store can lose no message that was acknowledged here. Needs beats. A dropped future
            /// changes nothing.
            async fn wait_safe(&self);

            /// Reads a page of a room's history. The store reads at most the page and a little more, so a page of large
            /// messages costs no more than one of small ones.
            ///
            /// # Errors
            /// `Unavailable` or `Unknown`.
            async fn history(
                &self,
                room: &RoomKey,
                range: Range,
                limit: PageLimit,
            ) -> Result<HistoryPage, RegistryError>;

            /// Reads a page of the messages that a stream keeps after a position. A stream that the store has lost
            /// begins a new epoch.
            ///
            /// # Errors
            /// `Unavailable` or `Unknown`.
            async fn read_after(
                &self,
                stream: &StreamId,
                after: u64,
                limit: PageLimit,
            ) -> Result<ReplayPage, RegistryError>;

            /// Reads the ends of streams, in few round trips. A stream that the store has lost begins a new epoch.
            ///
            /// # Errors
            /// `Unavailable` or `Unknown`.
            async fn read_ends(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, StreamEnd)>, RegistryError>;
        }
    }
}
