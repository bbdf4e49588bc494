//! Nicknames in Redis: the calls of the scripts beside this file.

use std::time::Duration;

use ::redis::Script;
use serde::Serialize;

use crate::model::keys::{NickKeys, NickUnit, NodeUnit, RoomUnit, ScriptKeys, SessionUnit, SkeletonUnit, UserUnit};
use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, LookalikePolicy, MemberInfo, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, UserId,
};
use crate::registry::redis::{self, RedisRegistry, ScriptCall, did_change, json, refused};
use crate::registry::reply::{ScriptReply, malformed};
use crate::registry::{RegistryError, script};

use super::{ClaimError, ClaimRequest, Names, ReleaseCause};

/// The common arguments of the scripts that assign nicks.
pub(in crate::registry) struct NickAssignment<'a> {
    pub(in crate::registry) incarnation: &'a Incarnation,
    pub(in crate::registry) session: &'a SessionId,
    pub(in crate::registry) nick: &'a Nick,
    /// The two arguments before the user.
    pub(in crate::registry) tokens: [&'a str; 2],
    pub(in crate::registry) user: Option<&'a UserId>,
}

/// The fields of an order to enter a room that its sender knows, named as in `model::RoomEntryOrder`.
#[derive(Serialize)]
struct EntryFields<'a> {
    room: &'a str,
    number: &'a str,
}

impl Names for RedisRegistry {
    async fn claim(&self, request: ClaimRequest<'_>) -> Result<(Fence, StreamEnd), ClaimError> {
        let ClaimRequest { incarnation, session, nick, token, user } = request;
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let tokens = [token.as_str(), &epoch];
        let assignment = NickAssignment { incarnation, session, nick, tokens, user };
        let mut reply = self.assign_nick(&script::CLAIM, assignment).await?;
        match reply.text()?.as_str() {
            "OK" => Ok((
                Fence(reply.number()?),
                StreamEnd { epoch: reply.text()?, seq: reply.number()?, forks: Vec::new() },
            )),
            refusal => Err(refused_claim(refusal, &mut reply)?),
        }
    }

    async fn release(&self, nick: &Nick, owner: &Owner, cause: ReleaseCause<'_>) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick.key()))
            .own([NickKeys::record])
            .crossing_in_script::<SkeletonUnit>()
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<NodeUnit>();
        let [reason, new_key, new_display] = match cause {
            ReleaseCause::Offline(reason) => [reason.as_str(), "", ""],
            ReleaseCause::RenamedTo(new) => ["", new.key().as_str(), new.as_str()],
        };
        let args = [&owner.token(), nick.key().as_str(), nick.as_str(), reason, new_key, new_display];
        did_change(&mut self.write(owner.session.as_str(), &script::RELEASE, keys, &args).await?)
    }

    async fn set_status(
        &self,
        nick: &NickKey,
        owner: &Owner,
        member: &MemberInfo,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        let keys =
            ScriptKeys::of(self.redis.keys().nick(nick)).own([NickKeys::record]).crossing_in_script::<RoomUnit>();
        let (token, status, info) = (owner.token(), json(&member.status), json(member));
        let mut args = vec![token.as_str(), nick.as_str(), &status, &info];
        args.extend(rooms.iter().map(RoomKey::as_str));
        did_change(&mut self.write(owner.session.as_str(), &script::STATUS, keys, &args).await?)
    }

    async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick))
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        did_change(&mut self.write(nick.as_str(), &script::KICK, keys, &[nick.as_str()]).await?)
    }

    async fn order_entry(&self, nick: &NickKey, room: &RoomName) -> Result<bool, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick))
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>()
            .crossing_in_script::<NodeUnit>();
        let number = uuid::Uuid::now_v7().to_string();
        let fields = json(&EntryFields { room: room.as_str(), number: &number });
        // Without its braces, as the script joins it with the session.
        let args = [nick.as_str(), &fields[1..fields.len() - 1]];
        did_change(&mut self.write(nick.as_str(), &script::ORDER_ENTRY, keys, &args).await?)
    }

    async fn renamed(&self, nick: &NickKey) -> Result<Option<Nick>, RegistryError> {
        let keys = ScriptKeys::of(self.redis.keys().nick(nick))
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<SessionUnit>();
        let mut reply =
            redis::read(&self.redis, ScriptCall { script: &script::RENAMED, keys, args: &[nick.as_str()] }).await?;
        let present = Some(reply.text()?).filter(|present| !present.is_empty());
        present.map(|present| Nick::parse(&present).map_err(|_| malformed("a nickname"))).transpose()
    }
}

impl RedisRegistry {
    /// Calls one of the two scripts that assign nicks.
    pub(in crate::registry) async fn assign_nick(
        &self,
        script: &Script,
        NickAssignment { incarnation, session, nick, tokens, user }: NickAssignment<'_>,
    ) -> Result<ScriptReply, RegistryError> {
        let keys = self.redis.keys();
        let (nicks, sessions, nodes) = (keys.nick(nick.key()), keys.session(session), keys.node(incarnation));
        let script_keys = ScriptKeys::of(nicks)
            .partition([keys.fence()])
            .own([NickKeys::record])
            .crossing([
                keys.skeleton(nick.skeletons().mapped()).nicks(),
                keys.skeleton(nick.skeletons().shown()).nicks(),
            ])
            .crossing([sessions.record(), sessions.inbox(), sessions.rooms()])
            .partition([keys.online()])
            .crossing([nodes.owned_nicks()])
            .crossing_in_script::<SkeletonUnit>()
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<UserUnit>()
            .crossing_in_script::<NodeUnit>()
            .crossing_in_script::<RoomUnit>();
        let ascii = if nick.is_ascii() { "1" } else { "0" };
        let compared = if nick.is_ascii() && self.lookalikes == LookalikePolicy::ExceptAscii { "0" } else { "1" };
        let names = [nick.key().as_str(), nick.as_str(), nick.skeletons().as_str(), ascii, compared];
        let args = [&[incarnation.as_str(), session.as_str()], &names[..]].concat();
        self.write(
            session.as_str(),
            script,
            script_keys,
            &[&args[..], &tokens, &[user.map_or("", UserId::as_str)]].concat(),
        )
        .await
    }
}

/// Reads the refusal of a claim.
pub(in crate::registry) fn refused_claim(word: &str, reply: &mut ScriptReply) -> Result<ClaimError, RegistryError> {
    Ok(match word {
        // -1: its session is connected.
        "IN_USE" => ClaimError::InUse { retry_after: reply.text()?.parse().ok().map(Duration::from_millis) },
        "CONFUSABLE" => ClaimError::Confusable,
        refusal => refused(refusal).into(),
    })
}
