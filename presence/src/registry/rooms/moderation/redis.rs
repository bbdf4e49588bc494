//! Moderation of rooms in Redis: the call of `moderate.lua`.

use crate::model::keys::{NickUnit, NodeUnit, RoomKeys, ScriptKeys, SessionUnit, UserUnit};
use crate::model::moderation::{Moderation, ModerationTarget};
use crate::registry::redis::{RedisRegistry, refused};
use crate::registry::reply::malformed;
use crate::registry::script;

use super::{ModerationCaller, ModerationError, ModerationRequest, RoomModeration};

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
        let policies = self.rooms.get();
        let args: [&str; 12] = [
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
            policies.json_of(room.key()),
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
