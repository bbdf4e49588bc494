//! Listings in Redis: several short reads for each page, over the query pool.

use std::collections::HashMap;

use crate::model::keys::{NickUnit, RoomUnit, ScriptKeys};
use crate::model::{MemberInfo, NickKey, RoomKey, Status};
use crate::registry::leases::{LeaseRow, lease_rows, lease_state};
use crate::registry::redis::{RedisRegistry, ScriptCall, read};
use crate::registry::reply::{ScriptReply, from_json, malformed};
use crate::registry::{LeaseState, RegistryError, script};
use crate::store::redis::classify;

use super::{ClusterStats, EventLogEnds, GatewayRow, ListPage, Listing, PAGE_LIMIT, RegistryEvent, RoomRow, UserRow};

/// Maximum number of rows in one script call, which keeps it under a millisecond.
const BATCH_ROWS_MAX: usize = 100;

impl Listing for RedisRegistry {
    async fn user(&self, nick: &NickKey) -> Result<Option<UserRow>, RegistryError> {
        Ok(self.lookup(std::slice::from_ref(nick)).await?.pop().flatten())
    }

    async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<UserRow>>, RegistryError> {
        let mut users = Vec::with_capacity(nicks.len());
        // Each row is read from the nick's record, its memberships and their rooms.
        let keys =
            || ScriptKeys::of(self.redis.keys()).crossing_in_script::<NickUnit>().crossing_in_script::<RoomUnit>();
        for batch in nicks.chunks(BATCH_ROWS_MAX) {
            let args: Vec<&str> = batch.iter().map(NickKey::as_str).collect();
            for row in
                read(&self.redis, ScriptCall { script: &script::USERS, keys: keys(), args: &args }).await?.arrays()
            {
                users.push(user(row?)?);
            }
        }
        if users.len() != nicks.len() { Err(malformed("a row for each nick")) } else { Ok(users) }
    }

    async fn users(&self, cursor: Option<&str>, limit: usize) -> Result<ListPage<UserRow>, RegistryError> {
        let (keys, next_cursor) = self.page(&self.redis.keys().online(), cursor, limit).await?;
        let nicks: Vec<NickKey> = keys.iter().map(|key| NickKey::from_store(key)).collect();
        let items = self.lookup(&nicks).await?.into_iter().flatten().filter(|user| user.online).collect();
        Ok(ListPage { items, next_cursor })
    }

    async fn room(&self, room: &RoomKey) -> Result<Option<RoomRow>, RegistryError> {
        Ok(self.describe(&[room.as_str()]).await?.pop().flatten())
    }

    async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<ListPage<RoomRow>, RegistryError> {
        let (keys, next_cursor) = self.page(&self.redis.keys().rooms(), cursor, limit).await?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let items = self.describe(&keys).await?.into_iter().flatten().filter(|room| room.member_count > 0).collect();
        Ok(ListPage { items, next_cursor })
    }

    async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<ListPage<MemberInfo>, RegistryError> {
        let keys = self.redis.keys();
        let (nicks, next_cursor) = self.page(&keys.room(room).member_list(), cursor, limit).await?;
        if nicks.is_empty() {
            return Ok(ListPage { items: Vec::new(), next_cursor });
        }
        let mut connection = self.redis.query().await?;
        let (records, leases): (Vec<Option<String>>, HashMap<String, String>) = redis::pipe()
            .cmd("HMGET")
            .arg(keys.room(room).members().as_str())
            .arg(nicks)
            .hgetall(keys.leases().as_str())
            .query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))?;
        let shown = |token: &str| {
            let incarnation = token.split('/').next().unwrap_or_default();
            leases.get(incarnation).and_then(|word| lease_state(word)).is_some_and(LeaseState::shows)
        };
        let mut items = Vec::with_capacity(records.len());
        for record in records.into_iter().flatten() {
            let (token, info) = record.split_once(' ').ok_or_else(|| malformed("a member record"))?;
            if shown(token) {
                items.push(from_json(info)?);
            }
        }
        Ok(ListPage { items, next_cursor })
    }

    async fn gateways(&self) -> Result<Vec<GatewayRow>, RegistryError> {
        let (_, rows) = lease_rows(&self.redis).await?;
        let mut newest: HashMap<String, LeaseRow> = HashMap::new();
        for row in rows {
            match newest.get(&row.info.node) {
                Some(other) if other.opened >= row.opened => {}
                _ => drop(newest.insert(row.info.node.clone(), row)),
            }
        }
        let mut rows: Vec<LeaseRow> =
            newest.into_values().filter(|row| row.lease.state != LeaseState::Drained).collect();
        rows.sort_by(|a, b| a.info.node.cmp(&b.info.node));
        let users = self.users_of(&rows).await?;
        let gateway = |(row, users): (LeaseRow, u64)| GatewayRow {
            node: row.info.node,
            incarnation: row.lease.incarnation.as_str().to_owned(),
            version: row.info.version,
            state: row.lease.state,
            beat: row.lease.counter,
            users,
        };
        Ok(rows.into_iter().zip(users).map(gateway).collect())
    }

    async fn stats(&self) -> Result<ClusterStats, RegistryError> {
        let (_, rows) = lease_rows(&self.redis).await?;
        let users_online = self.users_of(&rows).await?.into_iter().sum();
        let mut connection = self.redis.query().await?;
        let rooms = redis::cmd("ZCARD")
            .arg(self.redis.keys().rooms().as_str())
            .query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))?;
        let gateways = rows.iter().filter(|row| row.lease.state.serves()).count() as u64;
        Ok(ClusterStats { users_online, rooms, gateways })
    }

    async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<RegistryEvent>, Option<String>), RegistryError> {
        self.event_reader.read(after, limit).await
    }

    async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError> {
        self.event_reader.ends().await
    }
}

impl RedisRegistry {
    /// Reads one page of a set of keys, with the next cursor.
    pub(super) async fn page(
        &self,
        set: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<String>), RegistryError> {
        let limit = limit.clamp(1, PAGE_LIMIT);
        let from = cursor.map_or_else(|| "-".to_owned(), |key| format!("({key}"));
        let mut connection = self.redis.query().await?;
        let mut keys: Vec<String> = redis::cmd("ZRANGEBYLEX")
            .arg(set)
            .arg(from)
            .arg("+")
            .arg("LIMIT")
            .arg(0)
            .arg(limit + 1)
            .query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next_cursor = if more { keys.last().cloned() } else { None };
        Ok((keys, next_cursor))
    }

    async fn describe(&self, rooms: &[&str]) -> Result<Vec<Option<RoomRow>>, RegistryError> {
        let mut rows = Vec::with_capacity(rooms.len());
        for batch in rooms.chunks(BATCH_ROWS_MAX) {
            let keys = ScriptKeys::of(self.redis.keys()).crossing_in_script::<RoomUnit>();
            for row in read(&self.redis, ScriptCall { script: &script::ROOMS, keys, args: batch }).await?.arrays() {
                rows.push(room(row?)?);
            }
        }
        Ok(rows)
    }

    /// Counts the online nicks of each gateway: none where the lease is fenced.
    async fn users_of(&self, rows: &[LeaseRow]) -> Result<Vec<u64>, RegistryError> {
        let mut pipe = redis::pipe();
        for row in rows {
            pipe.scard(self.redis.keys().node(&row.lease.incarnation).nicks().as_str());
        }
        let mut connection = self.redis.query().await?;
        let counts: Vec<u64> = match rows {
            [] => Vec::new(),
            _ => pipe.query_async(&mut connection).await.map_err(|error| classify(&error))?,
        };
        Ok(rows.iter().zip(counts).map(|(row, users)| if row.lease.state.shows() { users } else { 0 }).collect())
    }
}

fn user(mut row: ScriptReply) -> Result<Option<UserRow>, RegistryError> {
    if row.is_empty() {
        return Ok(None);
    }
    let nick = row.text()?;
    let online = row.flag()?;
    let status = match row.text()?.as_str() {
        "" => Status::default(),
        json => from_json(json)?,
    };
    let since = row.number()?;
    let last_active = row.number()?;
    let rooms = row.array()?.texts()?;
    Ok(Some(UserRow { nick, online, status, online_since: online.then_some(since), last_active, rooms }))
}

fn room(mut row: ScriptReply) -> Result<Option<RoomRow>, RegistryError> {
    if row.is_empty() {
        return Ok(None);
    }
    Ok(Some(RoomRow { room: row.text()?, member_count: row.number()?, seq: row.number()? }))
}
