//! Compares the store with a gateway's claims. Reads only, over the query pool, in steps of bounded cost.
//!
//! The reads happen at different moments, so a single answer may show differences that do not exist.

use std::collections::HashSet;

use crate::model::keys::{NickKeys, NickUnit, NodeKeys, RoomKeys, RoomUnit, ScriptKeys, UserUnit};
use crate::model::{Incarnation, MemberInfo, Nick, RoomName};
use crate::registry::redis::{RedisRegistry, ScriptCall, json, read};
use crate::registry::reply::{from_json, owner_of};
use crate::registry::{RegistryError, script};

use super::reassert::{ScriptClaim, named_claims};
use super::{Differences, LocalClaim, Surplus};

/// Maximum number of claims or index entries in one call.
const BATCH_ENTRIES_MAX: usize = 200;

impl RedisRegistry {
    pub(super) async fn differences(
        &self,
        incarnation: &Incarnation,
        claims: &[LocalClaim],
    ) -> Result<Differences, RegistryError> {
        let keys = self.redis.keys();
        let node = keys.node(incarnation);
        let script_keys = || {
            ScriptKeys::of(node)
                .partition([keys.online()])
                .own([NodeKeys::owned_nicks, NodeKeys::owned_members])
                .crossing_in_script::<NickUnit>()
                .crossing_in_script::<UserUnit>()
                .crossing_in_script::<RoomUnit>()
        };
        let mut differences = Differences::default();
        for batch in claims.chunks(BATCH_ENTRIES_MAX) {
            let args: Vec<String> = batch.iter().map(|claim| json(&ScriptClaim::from(claim))).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let call = ScriptCall { script: &script::AUDIT, keys: script_keys(), args: &args };
            let mut reply = read(&self.redis, call).await?;
            differences.missing.extend(named_claims(&mut reply, batch)?);
        }
        let nicks: HashSet<&str> = claims.iter().map(|claim| claim.nick.key().as_str()).collect();
        let members: HashSet<String> = claims.iter().flat_map(entries).collect();
        let unknown = self.unknown_entries(&node.owned_nicks(), |nick| nicks.contains(nick)).await?;
        differences.surplus = self.surplus_nicks(incarnation, &unknown).await?;
        let unknown = self.unknown_entries(&node.owned_members(), |entry| members.contains(entry)).await?;
        differences.surplus.extend(self.surplus_members(incarnation, &unknown).await?);
        Ok(differences)
    }

    /// Returns the entries of an index that are not known.
    async fn unknown_entries(&self, index: &str, known: impl Fn(&str) -> bool) -> Result<Vec<String>, RegistryError> {
        let (mut unknown, mut cursor) = (Vec::new(), 0_u64);
        let mut connection = self.redis.query().await?;
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(index).arg(cursor).arg("COUNT").arg(BATCH_ENTRIES_MAX);
            let found: Vec<String>;
            (cursor, found) = self.redis.asked(index, scan.query_async(&mut connection)).await?;
            unknown.extend(found.into_iter().filter(|entry| !known(entry)));
            if cursor == 0 {
                return Ok(unknown);
            }
        }
    }

    /// Returns the nicks among these that the gateway owns. The record decides, not the index.
    async fn surplus_nicks(&self, incarnation: &Incarnation, nicks: &[String]) -> Result<Vec<Surplus>, RegistryError> {
        let mut owned = Vec::new();
        for batch in nicks.chunks(BATCH_ENTRIES_MAX) {
            let mut pipe = redis::pipe();
            for nick in batch {
                pipe.cmd("HMGET").arg(format!("{}nick:{nick}", self.redis.keys().base())).arg("owner").arg("display");
            }
            let mut connection = self.redis.query().await?;
            let about = self.redis.keys().pattern(NickKeys::record);
            let records: Vec<(Option<String>, Option<String>)> =
                self.redis.asked(&about, pipe.query_async(&mut connection)).await?;
            owned.extend(records.into_iter().filter_map(|(token, display)| {
                let owner = owner_of(&token?).filter(|owner| owner.incarnation == *incarnation)?;
                Some(Surplus::Nick(Nick::parse(&display?).ok()?, owner))
            }));
        }
        Ok(owned)
    }

    /// Returns the memberships among these that the gateway owns.
    async fn surplus_members(
        &self,
        incarnation: &Incarnation,
        entries: &[String],
    ) -> Result<Vec<Surplus>, RegistryError> {
        let (mut owned, base) = (Vec::new(), self.redis.keys().base());
        for batch in entries.chunks(BATCH_ENTRIES_MAX) {
            let mut pipe = redis::pipe();
            for (room, nick) in batch.iter().filter_map(|entry| entry.split_once(' ')) {
                pipe.cmd("HGET").arg(format!("{base}members:{room}")).arg(nick);
                pipe.cmd("HGET").arg(format!("{base}room:{room}")).arg("display");
            }
            let mut connection = self.redis.query().await?;
            let about = [RoomKeys::members, RoomKeys::meta].map(|key| self.redis.keys().pattern(key)).join(", ");
            let records: Vec<Option<String>> = self.redis.asked(&about, pipe.query_async(&mut connection)).await?;
            owned.extend(records.chunks_exact(2).filter_map(|record| {
                let (token, info) = record[0].as_deref()?.split_once(' ')?;
                let owner = owner_of(token).filter(|owner| owner.incarnation == *incarnation)?;
                let info: MemberInfo = from_json(info).ok()?;
                let room = RoomName::parse(record[1].as_deref()?).ok()?;
                Some(Surplus::Member(room, Nick::parse(&info.nick).ok()?, owner))
            }));
        }
        Ok(owned)
    }
}

/// Returns a claim's entries in the index of memberships.
fn entries(claim: &LocalClaim) -> impl Iterator<Item = String> {
    claim.rooms.iter().map(|room| format!("{} {}", room.key(), claim.nick.key()))
}
