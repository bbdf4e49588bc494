//! Moderation of rooms: the contract of `moderate.lua` and `roles.lua`, which stand beside this folder.
//!
//! The store decides at the moment of the change: a moderator that lost its role before changes nothing. Two orders
//! about one person take effect one after the other, and every member receives them in that order.

mod memory;
mod redis;

use crate::model::moderation::{Moderation, ModerationAction, ModerationOrder, ModerationTarget, RoomRole};
use crate::model::{Nick, Owner, RoomName};
use crate::registry::{Registry, RegistryError};

/// The source of an order.
#[derive(Debug, Clone, Copy)]
pub enum ModerationCaller<'a> {
    /// A member of the room.
    Member {
        /// Its nickname.
        nick: &'a Nick,
        /// Its claim.
        owner: &'a Owner,
        /// True if its token lets it moderate the room.
        may_moderate: bool,
    },
    /// The application, under the name of its API key. It may act on everybody.
    Api(&'a str),
}

/// An order of a moderator for a room.
#[derive(Debug, Clone, Copy)]
pub struct ModerationRequest<'a> {
    /// The room.
    pub room: &'a RoomName,
    /// The source of the order.
    pub caller: ModerationCaller<'a>,
    /// The order.
    pub order: &'a ModerationOrder,
}

/// An order that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModerationError {
    /// The caller is not in the room.
    #[error("the caller is not in the room")]
    NotInRoom,
    /// The caller is neither owner nor moderator.
    #[error("the caller is no moderator of the room")]
    NotModerator,
    /// Only an owner may act on an owner or make one.
    #[error("only an owner may do this")]
    OwnersOnly,
    /// The room would have no owner.
    #[error("the room would have no owner")]
    LastOwner,
    /// The person is not known; for a kick, not in the room.
    #[error("the person is not known")]
    NoSuchUser,
    /// The person is not banned, is not muted, or has no role.
    #[error("there is nothing to lift")]
    NothingToLift,
    /// The list of roles, bans or invites has no space.
    #[error("the list has no space")]
    Full,
    /// The call itself failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

contract! {
    /// Orders of moderators.
    RoomModeration {
        /// Carries out an order and announces it to the room. Returns it as the room receives it.
        ///
        /// The caller must be a member that is owner or moderator, or whose token lets it moderate the room. Any member
        /// may set the topic of a room without roles, unless its rules let only moderators send. A session that was
        /// renamed is found by the nickname that it had before, until another session has that. Only an owner acts on
        /// an owner or makes one, and the last owner stays. A ban or mute ends a role. A kick or ban ends the
        /// memberships at once: a ban of a user those of all its nicknames. It orders the gateways to end the delivery,
        /// as [`MailboxOrder::Remove`](crate::registry::MailboxOrder::Remove).
        ///
        /// Not repeated by itself: a second kick finds nobody.
        ///
        /// # Errors
        /// [`ModerationError`].
        async fn moderate(&self, request: ModerationRequest<'_>) -> Result<Moderation, ModerationError>;
    }
}

impl Registry {
    /// Gives a person a role in a room, or takes it with `None`, in the name of the application.
    ///
    /// # Errors
    /// [`ModerationError`].
    pub async fn set_role(
        &self,
        room: &RoomName,
        (target, role): (ModerationTarget, Option<RoomRole>),
        by: &str,
    ) -> Result<Moderation, ModerationError> {
        let action = match role {
            Some(RoomRole::Owner | RoomRole::Moderator) => ModerationAction::Op,
            Some(RoomRole::Muted) => ModerationAction::Mute,
            None => ModerationAction::Deop,
        };
        let order = ModerationOrder::new(action, Some(target));
        let order = ModerationOrder { role: role.unwrap_or(RoomRole::Moderator), ..order };
        self.moderate(ModerationRequest { room, caller: ModerationCaller::Api(by), order: &order }).await
    }
}
