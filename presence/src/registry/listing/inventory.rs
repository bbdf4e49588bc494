//! The store's records of ownership and their indexes, for the audit of `gateway ctl`, which compares them with each
//! other and with the gateways' claims.
//!
//! Reads only, over the query pool, page by page. The reads happen at different moments, so one audit may show
//! differences that do not exist. A record that no index and no gateway names is not found, because the store is never
//! scanned.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Incarnation, ListCursor, NickKey, RoomKey};
use crate::registry::leases::lease_rows;
use crate::registry::redis::RedisRegistry;
use crate::registry::reply::malformed;
use crate::registry::{Generation, LeaseState, RegistryError};

use super::PAGE_LIMIT;

/// Maximum number of keys in one call.
const BATCH_KEYS_MAX: usize = 200;

/// A nick's membership in a room.
pub type Membership = (RoomKey, NickKey);

/// A session as its gateway reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSession {
    /// The nickname.
    pub nick: NickKey,
    /// The claim's token.
    pub owner: String,
    /// The session's rooms.
    pub rooms: Vec<RoomKey>,
}

/// The store's records and indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// The generation in which it was read.
    pub generation: Generation,
    /// The lease table.
    pub leases: BTreeMap<Incarnation, LeaseState>,
    /// Owned nick records with their claims.
    pub nicks: BTreeMap<NickKey, String>,
    /// The listing of online nicks.
    pub online: BTreeSet<NickKey>,
    /// The index of each lease's nicks.
    pub owned_nicks: BTreeSet<(Incarnation, NickKey)>,
    /// Member records with their claims.
    pub members: BTreeMap<Membership, String>,
    /// The listings of members.
    pub member_lists: BTreeSet<Membership>,
    /// The index of each lease's memberships.
    pub owned_members: BTreeSet<(Incarnation, Membership)>,
}

impl RedisRegistry {
    /// Reads every record that an index or a gateway's report names.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn inventory(&self, held: &[HeldSession]) -> Result<Inventory, RegistryError> {
        let (generation, rows) = lease_rows(&self.redis).await?;
        let leases = rows.into_iter().map(|row| (row.lease.incarnation, row.lease.state)).collect();
        let mut found = Inventory { generation, leases, ..Inventory::default() };
        let keys = self.redis.keys();
        for incarnation in found.leases.keys() {
            for nick in self.scan(&keys.node(incarnation).owned_nicks()).await? {
                found.owned_nicks.insert((incarnation.clone(), NickKey::from_store(&nick)));
            }
            for entry in self.scan(&keys.node(incarnation).owned_members()).await? {
                let (room, nick) = entry.split_once(' ').ok_or_else(|| malformed("a room and a nick"))?;
                let membership = (RoomKey::from_store(room), NickKey::from_store(nick));
                found.owned_members.insert((incarnation.clone(), membership));
            }
        }
        found.online = self.listed_nicks(&keys.online()).await?.into_iter().collect();
        self.read_nicks(&mut found, held).await?;
        self.read_members(&mut found, held).await?;
        Ok(found)
    }

    async fn read_nicks(&self, found: &mut Inventory, held: &[HeldSession]) -> Result<(), RegistryError> {
        let named = found.online.iter().chain(found.owned_nicks.iter().map(|(_, nick)| nick));
        let named: BTreeSet<&NickKey> = named.chain(held.iter().map(|held| &held.nick)).collect();
        let named: Vec<NickKey> = named.into_iter().cloned().collect();
        for batch in named.chunks(BATCH_KEYS_MAX) {
            let mut questions = redis::pipe();
            for nick in batch {
                questions.hget(self.redis.keys().nick(nick).record().as_str(), "owner");
            }
            let owners: Vec<Option<String>> = self.ask(&questions).await?;
            found.nicks.extend(batch.iter().cloned().zip(owners).filter_map(|(nick, owner)| Some((nick, owner?))));
        }
        Ok(())
    }

    async fn read_members(&self, found: &mut Inventory, held: &[HeldSession]) -> Result<(), RegistryError> {
        let mut rooms: BTreeMap<RoomKey, BTreeSet<NickKey>> = BTreeMap::new();
        for room in self.listed(&self.redis.keys().rooms()).await? {
            rooms.entry(RoomKey::from_store(&room)).or_default();
        }
        for (_, (room, nick)) in &found.owned_members {
            rooms.entry(room.clone()).or_default().insert(nick.clone());
        }
        for (room, nick) in held.iter().flat_map(|held| held.rooms.iter().map(|room| (room, &held.nick))) {
            rooms.entry(room.clone()).or_default().insert(nick.clone());
        }
        for (room, mut nicks) in rooms {
            for nick in self.listed_nicks(&self.redis.keys().room(&room).member_list()).await? {
                found.member_lists.insert((room.clone(), nick.clone()));
                nicks.insert(nick);
            }
            self.read_room(found, &room, nicks).await?;
        }
        Ok(())
    }

    async fn read_room(
        &self,
        found: &mut Inventory,
        room: &RoomKey,
        named: BTreeSet<NickKey>,
    ) -> Result<(), RegistryError> {
        let key = self.redis.keys().room(room).members();
        let mut named: Vec<NickKey> = named.into_iter().collect();
        let mut records = self.records(&key, &named).await?;
        let (all,): (u64,) = self.ask(redis::pipe().hlen(key.as_str())).await?;
        // Some records have no index entry: only then the whole room is read.
        if all > records.iter().flatten().count() as u64 {
            let (nicks,): (Vec<String>,) = self.ask(redis::pipe().hkeys(key.as_str())).await?;
            named = nicks.iter().map(|nick| NickKey::from_store(nick)).collect();
            records = self.records(&key, &named).await?;
        }
        for (nick, record) in named.into_iter().zip(records) {
            let Some(record) = record else { continue };
            let (owner, _) = record.split_once(' ').ok_or_else(|| malformed("a member record"))?;
            found.members.insert((room.clone(), nick), owner.to_owned());
        }
        Ok(())
    }

    async fn records(&self, members: &str, nicks: &[NickKey]) -> Result<Vec<Option<String>>, RegistryError> {
        let mut records = Vec::with_capacity(nicks.len());
        for batch in nicks.chunks(BATCH_KEYS_MAX) {
            let mut question = redis::pipe();
            question.cmd("HMGET").arg(members).arg(batch.iter().map(NickKey::as_str).collect::<Vec<_>>());
            let (found,): (Vec<Option<String>>,) = self.ask(&question).await?;
            records.extend(found);
        }
        Ok(records)
    }

    /// Reads the nicknames of a whole list of users or members.
    async fn listed_nicks(&self, set: &str) -> Result<Vec<NickKey>, RegistryError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let (score, skipped) = ListCursor::next_row(cursor);
            let mut question = redis::pipe();
            question.cmd("ZRANGEBYSCORE").arg(set).arg(score).arg("+inf").arg("WITHSCORES");
            question.arg("LIMIT").arg(skipped).arg(BATCH_KEYS_MAX + ListCursor::EXTRA_ROWS);
            let (mut nicks,): (Vec<(String, u64)>,) = self.ask(&question).await?;
            cursor = ListCursor::cut(cursor, &mut nicks, BATCH_KEYS_MAX);
            all.extend(nicks.iter().map(|(nick, _)| NickKey::from_store(nick)));
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Reads a whole listing.
    async fn listed(&self, set: &str) -> Result<Vec<String>, RegistryError> {
        let (mut all, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let (page, next) = self.page(set, cursor.as_deref(), PAGE_LIMIT).await?;
            all.extend(page);
            cursor = next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Reads a whole index.
    async fn scan(&self, set: &str) -> Result<Vec<String>, RegistryError> {
        let (mut all, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut question = redis::pipe();
            question.cmd("SSCAN").arg(set).arg(cursor).arg("COUNT").arg(BATCH_KEYS_MAX);
            let ((next, found),): ((u64, Vec<String>),) = self.ask(&question).await?;
            all.extend(found);
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }

    async fn ask<T: redis::FromRedisValue>(&self, questions: &redis::Pipeline) -> Result<T, RegistryError> {
        let mut connection = self.redis.query().await?;
        self.redis.asked(self.redis.keys().base(), questions.query_async(&mut connection)).await
    }
}
