//! The registry of a cluster: each call is one script, so each is atomic and is done or not done as a whole.
//!
//! Writes go over the hot connections, all of one session over the same one; reads (see `reads`) go over the query pool,
//! the event log over connections of its own. What the scripts keep where is written in [`crate::model::keys`], what they do in
//! `registry/lua`. Nothing here decides anything: the scripts do.

mod audit;
mod events;
mod inspect;
mod inventory;
mod reads;
mod reassert;
mod reply;
mod scripts;

use std::time::Duration;

use redis::Script;

pub use self::inspect::LeaseSummary;
pub use self::inventory::{Held, Inventory, Membership};

use self::events::EventReader;
use self::reply::{Reply, malformed};
use super::{
    Beat, ClaimError, Entry, GatewayInfo, Joined, LeaseTable, LeaseTransition, Leaving, Reaped, RegistryError,
    ResumeError, Resumed, Ticket,
};
use crate::model::stream::{StreamEnd, read_forks};
use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, Status, TokenHash,
};
use crate::store::redis::{Call, Redis};

/// The registry in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisRegistry {
    redis: Redis,
    events: EventReader,
}

impl RedisRegistry {
    /// The registry of the deployment that `redis` leads to.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let events = EventReader::new(redis.clone());
        Self { redis, events }
    }

    pub(super) async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        done(&mut self.enter(&[incarnation.as_str(), &json(info), ""]).await?)
    }

    pub(super) async fn open_first_lease(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        over: &[Incarnation],
    ) -> Result<Option<Incarnation>, RegistryError> {
        let json = json(info);
        let mut args = vec![incarnation.as_str(), &json, &info.node];
        args.extend(over.iter().map(Incarnation::as_str));
        let mut reply = self.enter(&args).await?;
        match reply.text()?.as_str() {
            "OK" => Ok(None),
            "TWIN" => Ok(Some(Incarnation::from_store(&reply.text()?))),
            refusal => Err(refused(refusal)),
        }
    }

    async fn enter(&self, args: &[&str]) -> Result<Reply, RegistryError> {
        let keys = self.redis.keys();
        let named = [keys.beats(), keys.gateways(), keys.fence(), keys.asserted()];
        self.write(&scripts::OPEN_LEASE, args[0], &named, args).await
    }

    pub(super) async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        let keys = self.redis.keys();
        let named = [
            keys.beats(),
            keys.gateways(),
            keys.ended(),
            keys.gateway_nicks(incarnation),
            keys.owned_nicks(incarnation),
            keys.mailbox(incarnation),
        ];
        let args: Vec<&str> = [incarnation.as_str()].into_iter().chain(active.iter().map(NickKey::as_str)).collect();
        let lane = &mut self.redis.lane(incarnation.as_str());
        let mut reply = call(&self.redis, Call::Beat, &scripts::BEAT, lane, &named, &args).await?;
        done(&mut reply)?;
        let generation = reads::generation(&mut reply)?;
        let asserted = reply.flag()?;
        let counter = reply.number()?;
        let leases = reads::leases(reply.array()?)?;
        let mut mailbox = Vec::new();
        for command in reply.array()?.texts()? {
            match serde_json::from_str(&command) {
                Ok(command) => mailbox.push(command),
                // Written by a newer version: no reason to stop beating.
                Err(_) => tracing::warn!(%incarnation, "unknown command in the mailbox"),
            }
        }
        Ok(Beat { generation, asserted, counter, leases, mailbox })
    }

    pub(super) async fn set_lease(
        &self,
        incarnation: &Incarnation,
        farewell: LeaseTransition,
    ) -> Result<(), RegistryError> {
        let hold = match farewell {
            LeaseTransition::Draining => Duration::ZERO,
            LeaseTransition::Drained { hold } => hold,
        };
        let named = [self.redis.keys().ended()];
        let args = [incarnation.as_str(), farewell.state().as_str(), &millis(hold)];
        done(&mut self.write(&scripts::SET_LEASE, incarnation.as_str(), &named, &args).await?)
    }

    pub(super) async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        let keys = self.redis.keys();
        let named = [keys.beats(), keys.ended()];
        let args = [incarnation.as_str(), &counter.to_string()];
        whether(&mut self.write(&scripts::FENCE, incarnation.as_str(), &named, &args).await?)
    }

    pub(super) async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<Reaped, RegistryError> {
        let keys = self.redis.keys();
        let named = [
            keys.beats(),
            keys.gateways(),
            keys.ended(),
            keys.owned_members(incarnation),
            keys.owned_nicks(incarnation),
            keys.gateway_nicks(incarnation),
            keys.mailbox(incarnation),
        ];
        let args = [incarnation.as_str(), &limit.to_string()];
        let mut reply = self.write(&scripts::REAP, incarnation.as_str(), &named, &args).await?;
        done(&mut reply)?;
        Ok(Reaped { nicks: reply.number()?, members: reply.number()?, more: reply.flag()? })
    }

    pub(super) async fn begin(
        &self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        token: &TokenHash,
    ) -> Result<(Fence, StreamEnd), ClaimError> {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        let tokens = [token.as_str(), &epoch];
        let mut reply = self.claims(&scripts::CLAIM, incarnation, session, nick, tokens).await?;
        match reply.text()?.as_str() {
            "OK" => Ok((
                Fence(reply.number()?),
                StreamEnd { epoch: reply.text()?, top: reply.number()?, forks: Vec::new() },
            )),
            refusal => Err(unclaimed(refusal, &mut reply)?),
        }
    }

    pub(super) async fn resume(
        &self,
        incarnation: &Incarnation,
        ticket: &Ticket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<Resumed, ResumeError> {
        let Ticket { session, presented } = ticket;
        let tokens = [presented.as_str(), next.as_str()];
        let called = self.claims(&scripts::RESUME, incarnation, session, nick, tokens).await;
        let mut reply = called.map_err(ClaimError::from)?;
        let word = reply.text().map_err(ClaimError::from)?;
        match word.as_str() {
            "OK" => Ok(reply.resumed().map_err(ClaimError::from)?),
            "UNKNOWN" => Err(ResumeError::UnknownToken),
            refusal => Err(unclaimed(refusal, &mut reply).map_err(ClaimError::from)?.into()),
        }
    }

    /// Calls one of the two scripts that give out nicks.
    async fn claims(
        &self,
        script: &Script,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        tokens: [&str; 2],
    ) -> Result<Reply, RegistryError> {
        let keys = self.redis.keys();
        let named = [
            keys.fence(),
            keys.nick(nick.key()),
            keys.skeleton(nick.skeleton()),
            keys.session(session),
            keys.inbox(session),
            keys.session_rooms(session),
            keys.online(),
            keys.gateway_nicks(incarnation),
            keys.owned_nicks(incarnation),
        ];
        let ascii = if nick.is_ascii() { "1" } else { "0" };
        let args = [incarnation.as_str(), session.as_str(), nick.key().as_str(), nick.as_str(), nick.skeleton(), ascii];
        self.write(script, session.as_str(), &named, &[&args[..], &tokens].concat()).await
    }

    pub(super) async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().session(session)];
        whether(&mut self.write(&scripts::CONFIRM, session.as_str(), &named, &[token.as_str()]).await?)
    }

    pub(super) async fn detach(&self, nick: &Nick, owner: &Owner, hold: Duration) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().nick(nick.key())];
        let args = [&*owner.token(), &millis(hold)];
        whether(&mut self.write(&scripts::DETACH, owner.session.as_str(), &named, &args).await?)
    }

    pub(super) async fn depart(&self, nick: &Nick, owner: &Owner, reason: LeftReason) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().nick(nick.key())];
        let args = [&*owner.token(), nick.key().as_str(), reason.as_str()];
        whether(&mut self.write(&scripts::DEPART, owner.session.as_str(), &named, &args).await?)
    }

    pub(super) async fn read(&self, session: &SessionId, seq: u64) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().session(session), self.redis.keys().inbox(session)];
        whether(&mut self.write(&scripts::READ, session.as_str(), &named, &[&seq.to_string()]).await?)
    }

    pub(super) async fn release(
        &self,
        nick: &Nick,
        owner: &Owner,
        renamed_to: Option<&Nick>,
    ) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().nick(nick.key())];
        let (new_key, new_display) = renamed_to.map_or(("", ""), |new| (new.key().as_str(), new.as_str()));
        let args = [&owner.token(), nick.key().as_str(), nick.as_str(), new_key, new_display];
        whether(&mut self.write(&scripts::RELEASE, owner.session.as_str(), &named, &args).await?)
    }

    pub(super) async fn join(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        entry: Entry<'_>,
    ) -> Result<Joined, RegistryError> {
        let keys = self.redis.keys();
        let named = [
            keys.room(room.key()),
            keys.room_log(room.key()),
            keys.members(room.key()),
            keys.member_list(room.key()),
            keys.rooms(),
            keys.nick_rooms(nick.key()),
            keys.owned_members(&owner.incarnation),
            keys.nick(nick.key()),
            keys.session_rooms(&owner.session),
        ];
        let (old_nick, old_owner) = match entry {
            Entry::New => ("", String::new()),
            Entry::Renamed(nick, owner) => (nick.key().as_str(), owner.token()),
        };
        let args = [
            &owner.token(),
            room.key().as_str(),
            room.as_str(),
            nick.key().as_str(),
            &member_info(nick, status),
            &uuid::Uuid::new_v4().simple().to_string(),
            old_nick,
            &old_owner,
        ];
        let mut reply = self.write(&scripts::JOIN, owner.session.as_str(), &named, &args).await?;
        done(&mut reply)?;
        let room = RoomName::parse(&reply.text()?).map_err(|_| malformed("a room's name"))?;
        let (epoch, seq, member_count) = (reply.text()?, reply.number()?, reply.number()?);
        Ok(Joined { room, epoch, seq, member_count, forks: read_forks(&reply.text()?) })
    }

    pub(super) async fn leave(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        reason: LeftReason,
        leaving: Leaving,
    ) -> Result<bool, RegistryError> {
        let keys = self.redis.keys();
        let named = [keys.members(room.key()), keys.nick(nick.key()), keys.session_rooms(&owner.session)];
        let for_good = match leaving {
            Leaving::ForGood => "1",
            Leaving::ForNow => "0",
        };
        let args = [&owner.token(), room.key().as_str(), nick.key().as_str(), reason.as_str(), for_good];
        whether(&mut self.write(&scripts::LEAVE, owner.session.as_str(), &named, &args).await?)
    }

    pub(super) async fn set_status(
        &self,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().nick(nick.key())];
        let (token, status_json, info) = (owner.token(), json(status), member_info(nick, status));
        let mut args = vec![token.as_str(), nick.key().as_str(), &status_json, &info];
        args.extend(rooms.iter().map(RoomKey::as_str));
        whether(&mut self.write(&scripts::STATUS, owner.session.as_str(), &named, &args).await?)
    }

    pub(super) async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().nick(nick)];
        whether(&mut self.write(&scripts::KICK, nick.as_str(), &named, &[]).await?)
    }

    pub(super) async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError> {
        let named = [self.redis.keys().mailbox(incarnation)];
        whether(&mut self.write(&scripts::DRAIN, incarnation.as_str(), &named, &[incarnation.as_str()]).await?)
    }

    pub(super) async fn leases(&self) -> Result<LeaseTable, RegistryError> {
        reads::lease_table(&self.redis).await
    }

    /// Calls a script that writes, in order with all others of the same `name`.
    async fn write(&self, script: &Script, name: &str, keys: &[String], args: &[&str]) -> Result<Reply, RegistryError> {
        call(&self.redis, Call::Write, script, &mut self.redis.lane(name), keys, args).await
    }
}

/// Calls a script, with the keys and the argument that every script begins with in front.
async fn call(
    redis: &Redis,
    kind: Call,
    script: &Script,
    connection: &mut impl redis::aio::ConnectionLike,
    keys: &[String],
    args: &[&str],
) -> Result<Reply, RegistryError> {
    let mut invocation = script.prepare_invoke();
    invocation.key(redis.keys().generation()).key(redis.keys().leases()).key(keys);
    invocation.arg(redis.keys().base()).arg(args);
    let value = redis.timed(kind, invocation.invoke_async(connection)).await?;
    Reply::new(value)
}

/// The answer of a script that does what it is asked or refuses.
fn done(reply: &mut Reply) -> Result<(), RegistryError> {
    match reply.text()?.as_str() {
        "OK" => Ok(()),
        refusal => Err(refused(refusal)),
    }
}

/// The answer of a script that compares first: whether it did it.
fn whether(reply: &mut Reply) -> Result<bool, RegistryError> {
    match reply.text()?.as_str() {
        "OK" => Ok(true),
        "NO" => Ok(false),
        refusal => Err(refused(refusal)),
    }
}

/// Why a nickname was not given out.
fn unclaimed(word: &str, reply: &mut Reply) -> Result<ClaimError, RegistryError> {
    Ok(match word {
        // -1: somebody is there.
        "IN_USE" => ClaimError::InUse { retry_after: reply.text()?.parse().ok().map(Duration::from_millis) },
        "CONFUSABLE" => ClaimError::Confusable,
        refusal => refused(refusal).into(),
    })
}

fn refused(word: &str) -> RegistryError {
    match word {
        "FENCED" => RegistryError::Fenced,
        "STALE" => RegistryError::Unavailable("the claim is not the newest one".to_owned()),
        "OTHER_GENERATION" => RegistryError::Unavailable("another generation has begun".to_owned()),
        _ => malformed("a word of the script"),
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn member_info(nick: &Nick, status: &Status) -> String {
    json(&MemberInfo { nick: nick.as_str().to_owned(), status: status.clone() })
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our records are always JSON")
}
