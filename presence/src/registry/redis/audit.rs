//! Where the store and a gateway differ about what the gateway holds. Reads only, over the query pool, in steps of bounded
//! cost; what is read at different moments may differ for no reason, so nobody acts on one answer.

use std::collections::HashSet;

use super::reassert::{Said, claims};
use super::reply::from_json;
use super::{RedisRegistry, json, reads, scripts};
use crate::model::{Fence, Incarnation, MemberInfo, Nick, Owner, RoomName, SessionId};
use crate::registry::{Differences, LocalClaim, RegistryError, Surplus};
use crate::store::redis::classify;

/// Holdings or entries of an index that one call looks at.
const STEP: usize = 200;

impl RedisRegistry {
    pub(in crate::registry) async fn audit(
        &self,
        incarnation: &Incarnation,
        holdings: &[LocalClaim],
    ) -> Result<Differences, RegistryError> {
        let keys = self.redis.keys();
        let named = [keys.online(), keys.owned_nicks(incarnation), keys.owned_members(incarnation)];
        let mut differences = Differences::default();
        for step in holdings.chunks(STEP) {
            let args: Vec<String> = step.iter().map(|holding| json(&Said::from(holding))).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut reply = reads::read(&self.redis, &scripts::AUDIT, &named, &args).await?;
            differences.missing.extend(claims(&mut reply, step)?);
        }
        let nicks: HashSet<&str> = holdings.iter().map(|holding| holding.nick.key().as_str()).collect();
        let members: HashSet<String> = holdings.iter().flat_map(entries).collect();
        let beside = self.beside(&keys.owned_nicks(incarnation), |nick| nicks.contains(nick)).await?;
        differences.surplus = self.nicks(incarnation, &beside).await?;
        let beside = self.beside(&keys.owned_members(incarnation), |entry| members.contains(entry)).await?;
        differences.surplus.extend(self.members_of(incarnation, &beside).await?);
        Ok(differences)
    }

    /// The entries of an index that are not known.
    async fn beside(&self, index: &str, known: impl Fn(&str) -> bool) -> Result<Vec<String>, RegistryError> {
        let (mut beside, mut cursor) = (Vec::new(), 0_u64);
        let mut connection = self.redis.query().await?;
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(index).arg(cursor).arg("COUNT").arg(STEP);
            let found: Vec<String>;
            (cursor, found) = scan.query_async(&mut connection).await.map_err(|error| classify(&error))?;
            beside.extend(found.into_iter().filter(|entry| !known(entry)));
            if cursor == 0 {
                return Ok(beside);
            }
        }
    }

    /// The nicks among these that the gateway owns. What a record says counts, not the index.
    async fn nicks(&self, incarnation: &Incarnation, nicks: &[String]) -> Result<Vec<Surplus>, RegistryError> {
        let mut owned = Vec::new();
        for step in nicks.chunks(STEP) {
            let mut pipe = redis::pipe();
            for nick in step {
                pipe.cmd("HMGET").arg(format!("{}nick:{nick}", self.redis.keys().base())).arg("owner").arg("display");
            }
            let mut connection = self.redis.query().await?;
            let records: Vec<(Option<String>, Option<String>)> =
                pipe.query_async(&mut connection).await.map_err(|error| classify(&error))?;
            owned.extend(records.into_iter().filter_map(|(token, display)| {
                let owner = owner(&token?).filter(|owner| owner.incarnation == *incarnation)?;
                Some(Surplus::Nick(Nick::parse(&display?).ok()?, owner))
            }));
        }
        Ok(owned)
    }

    /// The memberships among these that the gateway owns.
    async fn members_of(&self, incarnation: &Incarnation, entries: &[String]) -> Result<Vec<Surplus>, RegistryError> {
        let (mut owned, base) = (Vec::new(), self.redis.keys().base());
        for step in entries.chunks(STEP) {
            let mut pipe = redis::pipe();
            for (room, nick) in step.iter().filter_map(|entry| entry.split_once(' ')) {
                pipe.cmd("HGET").arg(format!("{base}members:{room}")).arg(nick);
                pipe.cmd("HGET").arg(format!("{base}room:{room}")).arg("display");
            }
            let mut connection = self.redis.query().await?;
            let records: Vec<Option<String>> =
                pipe.query_async(&mut connection).await.map_err(|error| classify(&error))?;
            owned.extend(records.chunks_exact(2).filter_map(|record| {
                let (token, info) = record[0].as_deref()?.split_once(' ')?;
                let owner = owner(token).filter(|owner| owner.incarnation == *incarnation)?;
                let info: MemberInfo = from_json(info).ok()?;
                let room = RoomName::parse(record[1].as_deref()?).ok()?;
                Some(Surplus::Member(room, Nick::parse(&info.nick).ok()?, owner))
            }));
        }
        Ok(owned)
    }
}

/// What the index of memberships says of a holding.
fn entries(holding: &LocalClaim) -> impl Iterator<Item = String> {
    holding.rooms.iter().map(|room| format!("{} {}", room.key(), holding.nick.key()))
}

fn owner(token: &str) -> Option<Owner> {
    let mut parts = token.splitn(3, '/');
    let incarnation = Incarnation::from_store(parts.next()?);
    let session = SessionId::from_store(parts.next()?);
    Some(Owner { incarnation, session, fence: Fence(parts.next()?.parse().ok()?) })
}
