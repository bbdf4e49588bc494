//! Messages on their way into the store: as they are stored, with their target, origin and acknowledged position.
//!
//! Publisher, script calls and republish ring share these values. Pure.

use std::sync::Arc;

use presence::model::stream::StreamId;
use presence::model::{Incarnation, NickKey, RoomKey, SessionId};
use presence::registry::RegistryError;

use crate::backplane::key_shares::KeyAdmission;
use crate::backplane::{PriorPosition, PublishError, PublishRequest, Published, envelope};

/// A message as the store takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredMessage {
    /// The sender's claim.
    pub(super) token: String,
    /// The sender's nick key.
    pub(super) nick: String,
    /// True if the sender's token lets it moderate the room.
    pub(super) moderates: bool,
    /// The client's idempotency key, or nothing. Behind a `=`, or behind a `?` if the session may add no key now: then
    /// the store only answers a known one.
    pub(super) key: String,
    /// The id of the message, also that of later attempts.
    pub(super) msg_id: String,
    /// The text that is stored and published.
    pub(super) payload: String,
    /// Nothing, or `<epoch> <seq>` of a repeat without a client's key: a position from before its first attempt.
    pub(super) prior: String,
}

impl StoredMessage {
    pub(super) fn new(request: &PublishRequest, payload: String, keys: KeyAdmission) -> Self {
        let mark = if keys.adds_keys() { '=' } else { '?' };
        Self {
            token: request.owner.token(),
            nick: request.from.key().as_str().to_owned(),
            moderates: request.moderates,
            key: request.key.as_ref().map(|key| format!("{mark}{key}")).unwrap_or_default(),
            msg_id: request.msg_id.clone(),
            payload,
            prior: String::new(),
        }
    }

    /// Returns the message as a repeat that is searched after this position. A client's key makes a repeat the same as
    /// the first attempt.
    pub(super) fn searched_after(self: Arc<Self>, PriorPosition { epoch, seq }: &PriorPosition) -> Arc<Self> {
        if !self.key.is_empty() {
            return self;
        }
        Arc::new(Self { prior: format!("{epoch} {seq}"), ..Self::clone(&self) })
    }

    /// Returns the id of the sender's session.
    pub(super) fn session(&self) -> &str {
        self.token.split('/').nth(1).unwrap_or_default()
    }

    /// Returns the bytes that count for limits: the other parts are short and bounded.
    pub(super) fn bytes(&self) -> usize {
        self.payload.len() + self.key.len() + self.nick.len()
    }

    /// Returns the same message under the id of the first attempt.
    pub(super) fn known_as(self: &Arc<Self>, msg_id: &str) -> Arc<Self> {
        if self.msg_id == msg_id {
            return Arc::clone(self);
        }
        let payload = envelope::with_id(&self.payload, &self.msg_id, msg_id);
        Arc::new(Self { msg_id: msg_id.to_owned(), payload, ..Self::clone(self) })
    }
}

/// The result for one message of a call.
pub(super) type WriteOutcome = Result<Published, PublishError>;

/// The target of messages before they are stored. Messages to one target keep their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PublishTarget {
    /// The stream of a room.
    Room(RoomKey),
    /// The inbox of the session that has the nickname, or had it last.
    Nick(NickKey),
}

/// Messages to one target that a call appends together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetBatch {
    pub(super) target: PublishTarget,
    pub(super) messages: Vec<Arc<StoredMessage>>,
}

/// The result of a call for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MessageOutcome {
    /// The result for the sender.
    Done(WriteOutcome),
    /// The search for an earlier attempt has come to this position. The message must be sent again.
    Searched(PriorPosition),
}

/// The result of a call for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetOutcome {
    /// One result for each message, in their order.
    Answered(Vec<MessageOutcome>),
    /// The step of this target failed, and nothing of it was done. A call without others returns the reason.
    Apart,
    /// Nothing of it was done, or the outcome is unknown.
    Failed(RegistryError),
}

/// The writer and its generation of the store: a write is refused in any other generation.
#[derive(Debug, Clone, Copy)]
pub(super) enum WriteOrigin<'a> {
    /// A client sends something new. 0: any generation, before the first beat.
    Client(u64),
    /// This gateway republishes a lost message.
    Republish(u64, &'a Incarnation),
}

impl WriteOrigin<'_> {
    /// Returns the generation that the write belongs to.
    pub(super) fn generation(self) -> u64 {
        match self {
            Self::Client(generation) | Self::Republish(generation, _) => generation,
        }
    }
}

/// The stream that has a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteTarget {
    /// The stream of a room.
    Room(RoomKey),
    /// The inbox of the session that was reached under a nickname.
    Inbox {
        /// The session that owned the nickname when the target was looked up.
        session: SessionId,
        /// The nickname: clients' idempotency keys are scoped by it, not by the session.
        to: NickKey,
    },
}

impl WriteTarget {
    /// Returns the stream that the message is in.
    pub(super) fn stream(&self) -> StreamId {
        match self {
            Self::Room(room) => StreamId::Room(room.clone()),
            Self::Inbox { session, .. } => StreamId::Inbox(session.clone()),
        }
    }
}

/// The position of an acknowledged message in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AckedPosition {
    pub(super) epoch: Arc<str>,
    pub(super) seq: u64,
}

/// The answer of a script to one message. A stored one has a stream and that stream's epoch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MessageAnswer {
    pub(super) outcome: MessageOutcome,
    pub(super) stored_in: Option<(WriteTarget, Arc<str>)>,
}

/// The answer of a script to the messages of one target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TargetReply {
    /// One answer for each message.
    Answered(Vec<MessageAnswer>),
    /// Its step failed before its first write.
    Apart,
    /// Its step failed after a write, or the reply is malformed.
    Unknown(&'static str),
}

/// The messages to one target that are sent in a call.
#[derive(Debug)]
pub(super) struct SentBatch<'a, K> {
    pub(super) to: &'a K,
    pub(super) messages: Vec<&'a StoredMessage>,
}

/// An acknowledged message.
#[derive(Debug)]
pub(super) struct AckedMessage {
    pub(super) target: WriteTarget,
    /// The message under the id of its ack.
    pub(super) message: Arc<StoredMessage>,
    pub(super) position: AckedPosition,
    /// The generation that it was written in.
    pub(super) generation: u64,
}
