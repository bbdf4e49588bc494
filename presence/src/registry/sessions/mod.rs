//! Sessions: resume, detach, expiry, and the read position of the inbox.
//!
//! A session outlives its connections. Only a client with the resume token may move it; the store holds the token's
//! hash. A resume raises the fence (`resume.lua`, `memory.rs`), so every write of the former connection is void.

mod memory;
mod redis;

use std::time::Duration;

use crate::model::{Fence, Incarnation, Nick, OfflineReason, Owner, RoomName, SessionId, Status, TokenHash, UserId};

use super::{ClaimError, RegistryError};

/// A session that was not resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// There is no such session, or this is not its token.
    #[error("resume token is not valid")]
    UnknownToken,
    /// The nickname was not assigned.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// A decoded resume token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeTicket {
    /// The session.
    pub session: SessionId,
    /// The hash of the presented secret.
    pub presented: TokenHash,
    /// The user that a verified token names; `None` for a guest. The hash covers it.
    pub user: Option<UserId>,
}

/// A resumed session, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumedSession {
    /// The new claim's number.
    pub fence: Fence,
    /// The former nickname and claim, if the session still owned it: member records may name them.
    pub former: Option<(Nick, Owner)>,
    /// The user's status; plain online if the session had gone offline.
    pub status: Status,
    /// The rooms that it is in, or was in when it ended without `bye` or leave. Each must be joined again.
    pub rooms: Vec<RestoredMembership>,
    /// Its inbox.
    pub inbox: InboxState,
}

/// A room that a resumed session returns to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredMembership {
    /// The room's name as shown; case-folded if the room was forgotten meanwhile.
    pub room: RoomName,
    /// Its epoch; empty if it was forgotten.
    pub epoch: String,
    /// Its newest message.
    pub seq: u64,
}

/// The end of a session's inbox and the client's read position in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxState {
    /// The inbox's epoch.
    pub epoch: String,
    /// Its newest message.
    pub seq: u64,
    /// The last message that the client reported as read.
    pub read: u64,
}

/// The hold of a nickname whose session loses its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldTerms {
    /// The time for which it is held.
    pub hold: Duration,
    /// The time that the session must have owned it before.
    pub after: Duration,
}

/// The outcome of a detach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetachOutcome {
    /// The nickname is held.
    Held,
    /// The session has owned the nickname for less than [`HoldTerms::after`]. Nothing was changed.
    TooNew,
    /// Another claim owns the nickname.
    NotOwned,
}

contract! {
    /// Resuming, detaching and expiring sessions.
    Sessions {
        /// Moves a session to this gateway, under the requested nickname, and makes `next` its token. The presented
        /// token stays valid until [`Registry::confirm`](super::Registry::confirm). The gateway that served the session
        /// is ordered to close that connection ([`MailboxOrder::Taken`](super::MailboxOrder::Taken)).
        ///
        /// A nickname that the session still owns needs no check. Another one is claimed by the rule of
        /// [`Registry::claim`](super::Registry::claim), and the former one is freed. `online` is logged only if the
        /// session was offline. The rooms must be joined again. A repeated call returns the same answer.
        ///
        /// # Errors
        /// [`ResumeError`]; only `Unknown` may have changed something: call it again.
        async fn resume(
            &self,
            incarnation: &Incarnation,
            ticket: &ResumeTicket,
            nick: &Nick,
            next: &TokenHash,
        ) -> Result<ResumedSession, ResumeError>;

        /// Revokes the session's previous token: a request over the resumed connection proves that the client has
        /// `token`. Returns true if `token` is the session's.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError>;

        /// Records that the session lost its connection, if `owner` owns the nickname. The nickname is held from now
        /// on; other users see no change. A nickname that was claimed just before is not held: the caller releases it.
        /// The session can be resumed all the same, unless another one claims the nickname first.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn detach(&self, nick: &Nick, owner: &Owner, terms: HoldTerms) -> Result<DetachOutcome, RegistryError>;

        /// Ends a detached session that was not resumed in time. It goes offline, logged with the reason. Its nickname
        /// is held for it until the hold ends, unless the reason is [final](OfflineReason::is_final): then no token
        /// resumes it, as with [`Registry::release`](super::Registry::release). Returns true if this call ended it;
        /// only then does the gateway leave its rooms, [`LeaveIntent::ForNow`](super::LeaveIntent::ForNow).
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn expire_detached(&self, nick: &Nick, owner: &Owner, reason: OfflineReason) -> Result<bool, RegistryError>;

        /// Records the client's read position in its inbox. It never goes back and never past the end. Returns the
        /// position that is kept; `None` if the session does not exist.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn read(&self, session: &SessionId, seq: u64) -> Result<Option<u64>, RegistryError>;
    }
}
