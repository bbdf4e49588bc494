//! The reads of the registry, for the HTTP API and for observers: over the query pool, in steps of bounded cost.
//!
//! A page is made of several short reads rather than one long script, so that a listing never holds up a message. Who
//! changes state in between is shown as of one of the moments, never as something that was not true at any.
//! What a dead gateway owned is not shown as online, also before the reaper has been there.

use std::collections::HashMap;

use super::reply::{Reply, from_json, malformed};
use super::{RedisRegistry, call, done, scripts};
use crate::model::{Incarnation, MemberInfo, NickKey, RoomKey, Status};
use crate::registry::{
    Event, EventLogEnds, Gateway, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, PAGE_LIMIT, Page, Phase,
    RegistryError, Room, Stats, User,
};
use crate::store::redis::{Call, Redis, classify};

/// Rows that one script looks up, so that none takes longer than a fraction of a millisecond or so.
const STEP: usize = 100;

/// A row of the lease table with everything that listings want to know.
pub(super) struct LeaseRow {
    pub(super) lease: Lease,
    pub(super) opened: u64,
    pub(super) info: GatewayInfo,
}

impl RedisRegistry {
    pub(in crate::registry) async fn user(&self, nick: &NickKey) -> Result<Option<User>, RegistryError> {
        Ok(self.lookup(std::slice::from_ref(nick)).await?.pop().flatten())
    }

    pub(in crate::registry) async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<User>>, RegistryError> {
        let mut users = Vec::with_capacity(nicks.len());
        for step in nicks.chunks(STEP) {
            let args: Vec<&str> = step.iter().map(NickKey::as_str).collect();
            for row in read(&self.redis, &scripts::USERS, &[], &args).await?.arrays() {
                users.push(user(row?)?);
            }
        }
        if users.len() != nicks.len() { Err(malformed("a row for each nick")) } else { Ok(users) }
    }

    pub(in crate::registry) async fn users(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<User>, RegistryError> {
        let (keys, next_cursor) = self.page(&self.redis.keys().online(), cursor, limit).await?;
        let nicks: Vec<NickKey> = keys.iter().map(|key| NickKey::from_store(key)).collect();
        let items = self.lookup(&nicks).await?.into_iter().flatten().filter(|user| user.online).collect();
        Ok(Page { items, next_cursor })
    }

    pub(in crate::registry) async fn room(&self, room: &RoomKey) -> Result<Option<Room>, RegistryError> {
        Ok(self.describe(&[room.as_str()]).await?.pop().flatten())
    }

    pub(in crate::registry) async fn rooms(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Room>, RegistryError> {
        let (keys, next_cursor) = self.page(&self.redis.keys().rooms(), cursor, limit).await?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let items = self.describe(&keys).await?.into_iter().flatten().filter(|room| room.member_count > 0).collect();
        Ok(Page { items, next_cursor })
    }

    pub(in crate::registry) async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<MemberInfo>, RegistryError> {
        let keys = self.redis.keys();
        let (nicks, next_cursor) = self.page(&keys.member_list(room), cursor, limit).await?;
        if nicks.is_empty() {
            return Ok(Page { items: Vec::new(), next_cursor });
        }
        let mut connection = self.redis.query().await?;
        let (records, leases): (Vec<Option<String>>, HashMap<String, String>) = redis::pipe()
            .cmd("HMGET")
            .arg(keys.members(room))
            .arg(nicks)
            .hgetall(keys.leases())
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
        Ok(Page { items, next_cursor })
    }

    pub(in crate::registry) async fn gateways(&self) -> Result<Vec<Gateway>, RegistryError> {
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
        let gateway = |(row, users): (LeaseRow, u64)| Gateway {
            node: row.info.node,
            incarnation: row.lease.incarnation.as_str().to_owned(),
            version: row.info.version,
            state: row.lease.state,
            beat: row.lease.counter,
            users,
        };
        Ok(rows.into_iter().zip(users).map(gateway).collect())
    }

    pub(in crate::registry) async fn stats(&self) -> Result<Stats, RegistryError> {
        let (_, rows) = lease_rows(&self.redis).await?;
        let users_online = self.users_of(&rows).await?.into_iter().sum();
        let mut connection = self.redis.query().await?;
        let rooms = redis::cmd("ZCARD")
            .arg(self.redis.keys().rooms())
            .query_async(&mut connection)
            .await
            .map_err(|error| classify(&error))?;
        let gateways = rows.iter().filter(|row| row.lease.state.serves()).count() as u64;
        Ok(Stats { users_online, rooms, gateways })
    }

    pub(in crate::registry) async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Event>, Option<String>), RegistryError> {
        self.events.read(after, limit).await
    }

    pub(in crate::registry) async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError> {
        self.events.ends().await
    }

    /// One page of a set of keys, and where to go on.
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

    async fn describe(&self, rooms: &[&str]) -> Result<Vec<Option<Room>>, RegistryError> {
        let mut rows = Vec::with_capacity(rooms.len());
        for step in rooms.chunks(STEP) {
            for row in read(&self.redis, &scripts::ROOMS, &[], step).await?.arrays() {
                rows.push(room(row?)?);
            }
        }
        Ok(rows)
    }

    /// How many nicks are online on each of these gateways: none where the lease is fenced.
    async fn users_of(&self, rows: &[LeaseRow]) -> Result<Vec<u64>, RegistryError> {
        let mut pipe = redis::pipe();
        for row in rows {
            pipe.scard(self.redis.keys().gateway_nicks(&row.lease.incarnation));
        }
        let mut connection = self.redis.query().await?;
        let counts: Vec<u64> = match rows {
            [] => Vec::new(),
            _ => pipe.query_async(&mut connection).await.map_err(|error| classify(&error))?,
        };
        Ok(rows.iter().zip(counts).map(|(row, users)| if row.lease.state.shows() { users } else { 0 }).collect())
    }
}

/// The lease table, as observers sample it.
pub(super) async fn lease_table(redis: &Redis) -> Result<LeaseTable, RegistryError> {
    let (generation, rows) = lease_rows(redis).await?;
    Ok(LeaseTable { generation, leases: rows.into_iter().map(|row| row.lease).collect() })
}

/// Number and phase of the generation within a reply.
pub(super) fn generation(reply: &mut Reply) -> Result<Generation, RegistryError> {
    let number = reply.number()?;
    let phase = match reply.text()?.as_str() {
        "open" => Phase::Open,
        "recovering" => Phase::Recovering,
        _ => return Err(malformed("a phase")),
    };
    Ok(Generation { number, phase })
}

/// The rows of a lease table within a reply.
pub(super) fn leases(rows: Reply) -> Result<Vec<Lease>, RegistryError> {
    Ok(readable(rows)?.into_iter().map(|row| row.lease).collect())
}

/// The whole lease table, and the generation it is of.
pub(super) async fn lease_rows(redis: &Redis) -> Result<(Generation, Vec<LeaseRow>), RegistryError> {
    let named = [redis.keys().beats(), redis.keys().gateways()];
    let mut reply = read(redis, &scripts::LEASES, &named, &[]).await?;
    let generation = generation(&mut reply)?;
    Ok((generation, readable(reply.array()?)?))
}

/// The rows that are ours to read. Every beat brings the whole table, so one that another version wrote, or nobody of us,
/// must not stop all the others.
fn readable(rows: Reply) -> Result<Vec<LeaseRow>, RegistryError> {
    let mut read = Vec::new();
    for row in rows.arrays() {
        match lease_row(row?) {
            Ok(row) => read.push(row),
            Err(error) => tracing::debug!(%error, "skipped a row of the lease table"),
        }
    }
    Ok(read)
}

fn lease_row(mut row: Reply) -> Result<LeaseRow, RegistryError> {
    let incarnation = Incarnation::from_store(&row.text()?);
    let state = lease_state(&row.text()?).ok_or_else(|| malformed("a lease state"))?;
    let counter = row.number()?;
    let told = row.text()?;
    let (opened, info) = told.split_once(' ').ok_or_else(|| malformed("what a gateway told"))?;
    let opened = opened.parse().map_err(|_| malformed("a time"))?;
    let info: GatewayInfo = from_json(info)?;
    let lease = Lease { incarnation, node: info.node.clone(), counter, state, owns: row.flag()? };
    Ok(LeaseRow { lease, opened, info })
}

fn lease_state(word: &str) -> Option<LeaseState> {
    [LeaseState::Live, LeaseState::Draining, LeaseState::Drained, LeaseState::Fenced]
        .into_iter()
        .find(|state| state.as_str() == word)
}

fn user(mut row: Reply) -> Result<Option<User>, RegistryError> {
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
    Ok(Some(User { nick, online, status, online_since: online.then_some(since), last_active, rooms }))
}

fn room(mut row: Reply) -> Result<Option<Room>, RegistryError> {
    if row.is_empty() {
        return Ok(None);
    }
    Ok(Some(Room { room: row.text()?, member_count: row.number()?, seq: row.number()? }))
}

/// Calls a script that only reads.
pub(super) async fn read(
    redis: &Redis,
    script: &redis::Script,
    keys: &[String],
    args: &[&str],
) -> Result<Reply, RegistryError> {
    let mut connection = redis.query().await?;
    let mut reply = call(redis, Call::Read, script, &mut connection, keys, args).await?;
    done(&mut reply)?;
    Ok(reply)
}
