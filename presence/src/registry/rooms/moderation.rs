//! Moderation of rooms: the contract, and the call of `moderate.lua`. The memory twin is `moderation_memory.rs`.
//!
//! The store decides at the moment of the change: a moderator that lost its role before changes nothing. Two orders
//! about one person take effect one after the other, and every member receives them in that order.

use crate::model::keys::{NickUnit, NodeUnit, RoomKeys, ScriptKeys, SessionUnit, UserUnit};
use crate::model::moderation::{Moderation, ModerationAction, ModerationOrder, ModerationTarget, RoomRole};
use crate::model::{Nick, Owner, RoomName};
use crate::registry::redis::{RedisRegistry, refused};
use crate::registry::reply::malformed;
use crate::registry::{Registry, RegistryError, script};

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
        /// may set the topic of a room without roles. Only an owner acts on an owner or makes one, and the last owner
        /// stays. A ban or mute ends a role. A kick or ban ends the memberships at once, of a user those of all its
        /// nicknames, and orders the gateways to end the delivery ([`MailboxOrder::Remove`](super::MailboxOrder)).
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

impl RoomModeration for RedisRegistry {
    async fn moderate(&self, request: ModerationRequest<'_>) -> Result<Moderation, ModerationError> {
        let ModerationRequest { room, caller, order } = request;
        let keys = ScriptKeys::of(self.redis.keys().room(room.key()))
            .own([RoomKeys::meta, RoomKeys::members, RoomKeys::roles, RoomKeys::bans, RoomKeys::invites])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let (token, by, may_moderate) = match caller {
            ModerationCaller::Member { nick, owner, may_moderate } => {
                (owner.token(), nick.key().as_str(), may_moderate)
            }
            ModerationCaller::Api(name) => (String::new(), name, true),
        };
        let (nick, shown, user) = match &order.target {
            None => ("", "", ""),
            Some(ModerationTarget::Nick(nick)) => (nick.key().as_str(), nick.as_str(), ""),
            Some(ModerationTarget::User(user)) => ("", "", user.as_str()),
        };
        let args: [&str; 11] = [
            room.key().as_str(),
            order.action.as_str(),
            &token,
            by,
            if may_moderate { "1" } else { "0" },
            nick,
            shown,
            user,
            &order.seconds.unwrap_or_default().to_string(),
            &order.text,
            order.role.as_str(),
        ];
        let mut reply = self.write(room.key().as_str(), &script::MODERATE, keys, &args).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(serde_json::from_str(&reply.text()?).map_err(|_| malformed("an action"))?),
            "NOT_IN_ROOM" => Err(ModerationError::NotInRoom),
            "NOT_MODERATOR" => Err(ModerationError::NotModerator),
            "OWNERS_ONLY" => Err(ModerationError::OwnersOnly),
            "LAST_OWNER" => Err(ModerationError::LastOwner),
            "NO_SUCH_USER" => Err(ModerationError::NoSuchUser),
            "NOTHING_TO_LIFT" => Err(ModerationError::NothingToLift),
            "FULL" => Err(ModerationError::Full),
            refusal => Err(refused(refusal).into()),
        }
    }
}
