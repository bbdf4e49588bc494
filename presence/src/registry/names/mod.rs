//! Nicknames: claiming, releasing, the status shown with them, and the order to end their session.
//!
//! [`Registry::claim`](super::Registry::claim) documents the rule that assigns a nickname; `assign_nick.lua` and
//! `memory.rs` implement it for claims and resumes.

mod memory;
mod redis;

use std::time::Duration;

use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, MemberInfo, Nick, NickKey, OfflineReason, Owner, RoomKey, RoomName, SessionId, TokenHash,
    UserId,
};

use super::RegistryError;

pub(super) use self::redis::{NickAssignment, refused_claim};

/// A claim of a nickname for a session of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// The gateway's incarnation.
    pub incarnation: &'a Incarnation,
    /// The session.
    pub session: &'a SessionId,
    /// The nickname.
    pub nick: &'a Nick,
    /// The hash of the session's resume token.
    pub token: &'a TokenHash,
    /// The user that a verified token names; `None` for a guest.
    pub user: Option<&'a UserId>,
}

/// The consequence of a release for the user.
#[derive(Debug, Clone, Copy)]
pub enum ReleaseCause<'a> {
    /// The session ends.
    Offline(OfflineReason),
    /// The session continues under this nickname.
    RenamedTo(&'a Nick),
}

impl ReleaseCause<'_> {
    /// The session ends with its connection.
    pub const CLOSED: Self = Self::Offline(OfflineReason::Closed);
}

/// A nickname that was not assigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another session owns it, or may still resume with it.
    #[error("the nickname is owned or held")]
    InUse {
        /// The rest of its hold for a session without a connection; `None` while its session is connected.
        retry_after: Option<Duration>,
    },
    /// It looks like an owned nickname.
    #[error("the nickname looks like one that is owned")]
    Confusable,
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

contract! {
    /// Claims and releases of nicknames.
    Names {
        /// Claims a nickname for a session of this gateway. Returns the fence and the end of the session's inbox.
        ///
        /// A nickname is assigned unless another session keeps it, or another session keeps a look-alike. A session
        /// keeps its nickname while the lease of its owner is live or draining. After that lease has drained, or after
        /// the session has expired, it keeps the nickname until the hold ends. A fenced lease keeps nothing.
        /// Look-alikes share a skeleton; [`LookalikePolicy`](crate::model::LookalikePolicy) decides for two ASCII
        /// names.
        ///
        /// A claim with a user binds the nickname to it while its record is kept: at most eight nicknames, or those in
        /// use if they are more. Then it is assigned to sessions of this user only, and at once: a session that has it
        /// loses it and its memberships, and its gateway is ordered to close that connection
        /// ([`MailboxOrder::Taken`](super::MailboxOrder::Taken)). The binding ends when the user takes another nickname
        /// in its place.
        ///
        /// A repeated call returns the same fence. A call in another spelling changes the shown name, unless that looks
        /// like another one. Records and logs `online`. `token` is the hash of the session's resume token; a session
        /// that has one must present it. With [`TokenHash::none`] no client can resume the session.
        ///
        /// # Errors
        /// [`ClaimError`]. On `Unknown` release it or claim again.
        async fn claim(&self, request: ClaimRequest<'_>) -> Result<(Fence, StreamEnd), ClaimError>;

        /// Releases a nickname if `owner` owns it, with no hold; logs `offline` with its reason, or `rename`. Returns
        /// true if this call released it. Works in any state of the lease, since it only removes the caller's own
        /// claim.
        ///
        /// After a [final](OfflineReason::is_final) reason no token resumes the session. If it was resumed before this
        /// call, its new gateway is ordered to end it too.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn release(&self, nick: &Nick, owner: &Owner, cause: ReleaseCause<'_>) -> Result<bool, RegistryError>;

        /// Records a member's status and announces it to `rooms`. Returns true if `owner` still owned the nickname.
        ///
        /// # Errors
        /// [`RegistryError`].
        async fn set_status(
            &self,
            nick: &NickKey,
            owner: &Owner,
            member: &MemberInfo,
            rooms: &[RoomKey],
        ) -> Result<bool, RegistryError>;

        /// Orders the gateway of the nick's owner to end that session, at once over its channel and by its mailbox. No
        /// token resumes it any more, also if that gateway has failed. Returns true if the nick had an owner. A session
        /// that was renamed is found by its former nickname, until another session has that.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError>;

        /// Orders the gateway of the nick's owner to let that session enter a room, at once over its channel and by its
        /// mailbox. Returns true if the nick has an owner that is connected. The gateway joins the room for the
        /// session with the exemptions of a moderator, unless it is in the room already. A session that was renamed is
        /// found by its former nickname, until another session has that.
        ///
        /// # Errors
        /// `Unavailable`, also while a generation recovers, or `Unknown`.
        async fn order_entry(&self, nick: &NickKey, room: &RoomName) -> Result<bool, RegistryError>;

        /// Returns the present nickname of the session that had this one last, if it is online under another one.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn renamed(&self, nick: &NickKey) -> Result<Option<Nick>, RegistryError>;
    }
}
