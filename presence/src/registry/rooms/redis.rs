//! Rooms in Redis: the calls of the scripts beside this file.

use crate::model::keys::{NickUnit, NodeUnit, RoomKeys, ScriptKeys, SessionUnit};
use crate::model::moderation::RoomRole;
use crate::model::stream::read_forks;
use crate::model::{RoomName, RoomRules};
use crate::registry::redis::{RedisRegistry, did_change, done, member_info};
use crate::registry::reply::malformed;
use crate::registry::{RegistryError, script};

use super::{JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, Rooms, RuledRoom};

impl Rooms for RedisRegistry {
    async fn join(&self, request: JoinRequest<'_>) -> Result<JoinedAt, RegistryError> {
        let JoinRequest { room, nick, owner, user, status, entry, moderates } = request;
        let keys = self.redis.keys();
        let (rooms, nicks) = (keys.room(room.key()), keys.nick(nick.key()));
        let script_keys = ScriptKeys::of(rooms)
            .own([RoomKeys::meta, RoomKeys::stream, RoomKeys::members, RoomKeys::member_list])
            .partition([keys.rooms()])
            .crossing([nicks.rooms()])
            .crossing([keys.node(&owner.incarnation).owned_members()])
            .crossing([nicks.record()])
            .crossing([keys.session(&owner.session).rooms()])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<NodeUnit>();
        let (old_nick, old_owner) = match entry {
            JoinEntry::New | JoinEntry::Existing | JoinEntry::Ordered => ("", String::new()),
            JoinEntry::Renamed(nick, owner) => (nick.key().as_str(), owner.token()),
        };
        let may_create = match entry {
            JoinEntry::Existing => "0",
            JoinEntry::New | JoinEntry::Renamed(..) => "1",
            JoinEntry::Ordered => "2",
        };
        let policies = self.rooms.get();
        let args: [&str; 12] = [
            &owner.token(),
            room.key().as_str(),
            room.as_str(),
            nick.key().as_str(),
            nick.as_str(),
            &member_info(nick, user, status),
            &uuid::Uuid::new_v4().simple().to_string(),
            old_nick,
            &old_owner,
            may_create,
            policies.json_of(room.key()),
            if moderates { "1" } else { "0" },
        ];
        let mut reply = self.write(owner.session.as_str(), &script::JOIN, script_keys, &args).await?;
        done(&mut reply)?;
        let room = RoomName::parse(&reply.text()?).map_err(|_| malformed("a room's name"))?;
        let (epoch, seq, member_count) = (reply.text()?, reply.number()?, reply.number()?);
        let forks = read_forks(&reply.text()?);
        let topic = Some(reply.text()?).filter(|topic| !topic.is_empty());
        let topic = topic.map(|topic| serde_json::from_str(&topic).map_err(|_| malformed("a topic"))).transpose()?;
        let role = RoomRole::of_word(&reply.text()?);
        Ok(JoinedAt { room, epoch, seq, member_count, forks, topic, role })
    }

    async fn leave(&self, request: LeaveRequest<'_>) -> Result<bool, RegistryError> {
        let LeaveRequest { room, nick, owner, reason, intent } = request;
        let keys = self.redis.keys();
        let script_keys = ScriptKeys::of(keys.room(room.key()))
            .own([RoomKeys::members])
            .crossing([keys.nick(nick.key()).record()])
            .crossing([keys.session(&owner.session).rooms()])
            .crossing_in_script::<NodeUnit>();
        let for_good = match intent {
            LeaveIntent::ForGood => "1",
            LeaveIntent::ForNow => "0",
        };
        let args = [&owner.token(), room.key().as_str(), nick.key().as_str(), reason.as_str(), for_good];
        did_change(&mut self.write(owner.session.as_str(), &script::LEAVE, script_keys, &args).await?)
    }

    async fn set_room_rules(&self, room: &RoomName, rules: &RoomRules) -> Result<RuledRoom, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().room(room.key())).own([RoomKeys::meta, RoomKeys::stream]);
        let concern_messages = if rules.concern_messages() { "1" } else { "0" };
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let args: [&str; 4] = [room.as_str(), &rules.to_json(), &epoch, concern_messages];
        let mut reply = self.write(room.key().as_str(), &script::SET_RULES, keys, &args).await?;
        done(&mut reply)?;
        let room = RoomName::parse(&reply.text()?).map_err(|_| malformed("a room's name"))?;
        Ok(RuledRoom { room, is_new: reply.flag()? })
    }

    async fn end_room(&self, room: &RoomName) -> Result<bool, RegistryError> {
        let mut existed = false;
        loop {
            let own = [RoomKeys::meta, RoomKeys::stream, RoomKeys::members, RoomKeys::member_list];
            let keys = ScriptKeys::of(self.redis.keys().room(room.key()))
                .own(own)
                .crossing_in_script::<NickUnit>()
                .crossing_in_script::<SessionUnit>()
                .crossing_in_script::<NodeUnit>();
            let args = [room.key().as_str()];
            let mut reply = self.write(room.key().as_str(), &script::DELETE_ROOM, keys, &args).await?;
            if !did_change(&mut reply)? {
                return Ok(existed);
            }
            existed = true;
            if !reply.flag()? {
                return Ok(true);
            }
        }
    }
}
