//! The state of one session that its decisions read and change: identity, rooms, liveness and limits.
//!
//! [`SessionState`] belongs to the core; the deciding halves of the verbs work on it. Pure values: no clock, no store,
//! no socket and no dialect.

use std::sync::Arc;
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::codes::ErrorCode;
use presence::model::{MemberInfo, Nick, Owner, RoomKey, RoomName, Status, UserId};

use crate::identity::{Grant, RoomRight, UserToken};
use crate::message::Target;
use crate::quota::SessionQuotas;
use crate::wire::Since;

use super::liveness::{HeartbeatPolicy, Liveness};
use super::session_limits::SessionAllowance;
use super::small_map::SmallMap;
use super::token_expiry::TokenExpiry;
use super::typing_limiter::TypingLimiter;

/// Maximum number of rooms of a session.
pub const ROOMS_MAX: usize = 128;

/// The nickname of a session, its claim to it, its user, and its status.
#[derive(Debug, Clone)]
pub struct SessionIdentity {
    /// The nickname.
    pub nick: Nick,
    /// The claim.
    pub owner: Owner,
    /// The rights of the user's token; `None` for a guest, whose rooms are not limited.
    pub grant: Option<Arc<Grant>>,
    /// The status.
    pub status: Status,
}

impl SessionIdentity {
    /// Returns the user; `None` for a guest.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.grant.as_ref().map(|grant| &grant.user)
    }

    /// Returns true for a room that a rule of the user's token lets the session moderate.
    pub(super) fn moderates(&self, room: &RoomName) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.names(room, RoomRight::Moderate))
    }

    /// Returns the session with another status, as others see it.
    pub(super) fn member(&self, status: &Status) -> MemberInfo {
        MemberInfo { nick: self.nick.as_str().to_owned(), user: self.user().cloned(), status: status.clone() }
    }
}

/// A room that the session is in.
#[derive(Debug)]
pub(super) struct JoinedRoom {
    /// The room by the name that all its members see.
    pub(super) room: RoomName,
    /// True if the connection receives the room's messages. A resumed session may be in rooms that it does not receive.
    pub(super) receives: bool,
}

/// The delivery of the newest `registered` reply, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RegisteredReply {
    /// The client may not have received it. A resumed session keeps its previous token for that case.
    Unconfirmed { resumed: bool },
    /// The client has sent a request since.
    Received,
}

/// The state of one session.
#[derive(Debug)]
pub struct SessionState {
    pub(super) node: Arc<str>,
    pub(super) identity: Option<SessionIdentity>,
    /// Boxed: guests have none.
    pub(super) token_expiry: Option<Box<TokenExpiry>>,
    pub(super) rooms: SmallMap<RoomKey, JoinedRoom>,
    pub(super) liveness: Liveness,
    pub(super) typing: TypingLimiter,
    pub(super) allowance: SessionAllowance,
    pub(super) quotas: SessionQuotas,
    /// Resumes with an unknown token.
    pub(super) failed_resumes: u8,
    registered_reply: RegisteredReply,
}

impl SessionState {
    /// The state before `register`.
    pub(super) fn new(node: Arc<str>, now: Instant, heartbeat: HeartbeatPolicy) -> Self {
        Self {
            node,
            identity: None,
            token_expiry: None,
            rooms: SmallMap::default(),
            liveness: Liveness::new(now, heartbeat),
            typing: TypingLimiter::default(),
            allowance: SessionAllowance::default(),
            quotas: SessionQuotas::default(),
            failed_resumes: 0,
            registered_reply: RegisteredReply::Unconfirmed { resumed: false },
        }
    }

    /// Returns the address of the client, for a line of the log about its refusals.
    pub(super) fn address(&self) -> Option<ClientAddress> {
        self.quotas.address.as_ref().and_then(|quota| quota.address())
    }

    /// Begins or resumes a session.
    pub(super) fn begin(&mut self, now: Instant, me: SessionIdentity, resumed: bool) {
        self.liveness.registered(now);
        self.identity = Some(me);
        self.registered_reply = RegisteredReply::Unconfirmed { resumed };
    }

    /// Notes the token of the session's user, in place of an earlier one; `None` for a guest.
    pub(super) fn sign_in(&mut self, now: Instant, token: Option<UserToken>) {
        let expiry = token.as_ref().and_then(|token| TokenExpiry::new(now, token.lifetime));
        self.token_expiry = expiry.map(Box::new);
        if let Some(me) = &mut self.identity {
            me.grant = token.map(|token| token.grant);
        }
    }

    /// Notes that the client has received the `registered` reply. Returns true if its previous token is to be revoked.
    pub(super) fn confirm_registered(&mut self) -> bool {
        self.identity.is_some()
            && std::mem::replace(&mut self.registered_reply, RegisteredReply::Received)
                == RegisteredReply::Unconfirmed { resumed: true }
    }

    /// Returns true if the client holds a token of this session: it was resumed, or its client has sent a request since
    /// `registered`.
    pub(super) fn is_resumable(&self) -> bool {
        self.registered_reply != RegisteredReply::Unconfirmed { resumed: false }
    }

    /// Returns what the user's token grants; `None` for a guest.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.identity.as_ref()?.grant.as_deref()
    }

    /// Returns true if the session has a right in a room, whether it is in it or not.
    pub(super) fn may(&self, room: &RoomName, right: RoomRight) -> bool {
        self.grant().is_none_or(|grant| grant.may(room, right))
    }

    /// Returns the client's position, if the session may have what was said before.
    pub(super) fn allowed_since(&self, room: &RoomName, since: Option<Since>) -> Option<Since> {
        since.filter(|_| self.may(room, RoomRight::History))
    }

    /// Returns the room by the name that all its members see.
    ///
    /// # Errors
    /// `not_in_room` unless the session is in it.
    pub(super) fn joined(&self, requested: &RoomName) -> Result<RoomName, ErrorCode> {
        self.rooms.get(requested.key()).map(|joined| joined.room.clone()).ok_or(ErrorCode::NotInRoom)
    }

    /// Returns the target of a message: nicknames as they are, rooms as [`SessionState::joined`].
    ///
    /// # Errors
    /// `not_in_room` for a room that the session is not in, `forbidden` for one in which it may not send.
    pub(super) fn destination(&self, requested: &Target) -> Result<Target, ErrorCode> {
        match requested {
            Target::Nick(nick) => Ok(Target::Nick(nick.clone())),
            Target::Room(room) => {
                let room = self.joined(room)?;
                if self.may(&room, RoomRight::Send) { Ok(Target::Room(room)) } else { Err(ErrorCode::Forbidden) }
            }
        }
    }
}
