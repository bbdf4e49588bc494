//! Sessions: resume, detach, expiry, and the read position of the inbox.
//!
//! A session outlives its connections. Its resume token's hash decides who may move it (`resume.lua`, `memory.rs`), and a
//! resume raises the fence, so every write of the former connection is void.

mod memory;
mod redis;

use std::time::Duration;

use crate::model::{Fence, Incarnation, LeftReason, Nick, Owner, RoomName, SessionId, Status, TokenHash};

use super::{ClaimError, RegistryError};

/// A session that was not resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// There is no such session, or this is not its token.
    #[error("the token belongs to no session")]
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
}

/// A resumed session, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumedSession {
    /// The fencing number of the new claim.
    pub fence: Fence,
    /// The nickname and claim before, if it was still owned: member records may carry them.
    pub was: Option<(Nick, Owner)>,
    /// The user's status; plain online if the session had gone offline.
    pub status: Status,
    /// The rooms that it is in, or was in when it ended against its will. Each has to be joined again.
    pub rooms: Vec<RestoredMembership>,
    /// Its inbox.
    pub inbox: InboxState,
}

/// A room that a resumed session returns to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredMembership {
    /// The room's name as shown.
    pub room: RoomName,
    /// Its epoch.
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

contract! {
    /// Resuming, detaching and expiring sessions.
    Sessions {
        /// Moves a session to this gateway, under the requested nickname, and makes `next` its token; the presented token
        /// stays valid until [`Registry::confirm`](super::Registry::confirm). The gateway that served it is ordered to
        /// close that connection ([`MailboxOrder::Taken`](super::MailboxOrder::Taken)). The session gets its own nickname
        /// at once, another one by the rules of a claim, and its former one is then freed. It announces only a return
        /// from an announced absence; the rooms have to be joined again. The same call again returns the same answer.
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

        /// Ends the validity of the token before `token`, which the client is now known to have. Returns whether `token`
        /// is the session's.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError>;

        /// Records that the session lost its connection, if `owner` owns the nickname: it is held for `hold` from now on
        /// and other users see no change. Returns whether `owner` owns it.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn detach(&self, nick: &Nick, owner: &Owner, hold: Duration) -> Result<bool, RegistryError>;

        /// Ends a detached session that did not come back: it goes offline (logged with the reason), and its nickname is
        /// held for it until the hold ends. Only after `true` does the gateway leave its rooms,
        /// [`LeaveIntent::ForNow`](super::LeaveIntent::ForNow).
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn expire_detached(&self, nick: &Nick, owner: &Owner, reason: LeftReason) -> Result<bool, RegistryError>;

        /// Records the client's read position in its inbox, which never goes back and never past the end. Returns whether
        /// the session exists.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn read(&self, session: &SessionId, seq: u64) -> Result<bool, RegistryError>;
    }
}
