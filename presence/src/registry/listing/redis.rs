//! Listings in Redis: several short reads for each page, over the query pool, each in its turn.

use std::collections::HashMap;

use crate::model::keys::{NickUnit, NodeKeys, RoomUnit, ScriptKeys};
use crate::model::{ListCursor, MemberInfo, NickKey, RoomKey, UserId};
use crate::registry::leases::{LeaseRow, lease_rows};
use crate::registry::redis::{RedisRegistry, ScriptCall, read};
use crate::registry::reply::{ScriptReply, malformed};
use crate::registry::{LeaseState, RegistryError, script};
use crate::store::{STEP_ROWS_MAX, TurnReader};

use super::sessions::{OnlineUsers, RoomMembers};
use super::types::{bound_rows, online_rows};
use super::user_rows::{FoundUser, user_row};
use super::{ClusterStats, EventLogEnds, GatewayRow, ListPage, Listing, PAGE_LIMIT, RegistryEvent, RoomRow, UserRow};

impl Listing for RedisRegistry {
    async fn user(&self, nick: &NickKey) -> Result<Option<UserRow>, RegistryError> {
        Ok(self.user_rows(std::slice::from_ref(nick)).await?.pop().flatten().map(|found| found.user))
    }

    async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<UserRow>>, RegistryError> {
        let mut turns = self.redis.read_turns().reader().await?;
        let found = self.users_in_turns(&mut turns, nicks).await?;
        Ok(found.into_iter().map(|found| found.map(|found| found.user)).collect())
    }

    async fn of_user(&self, user: &UserId) -> Result<Option<Vec<UserRow>>, RegistryError> {
        self.bound_to(user).await.map(online_rows)
    }

    async fn bound_to(&self, user: &UserId) -> Result<Vec<UserRow>, RegistryError> {
        let mut turns = self.redis.read_turns().reader().await?;
        let nicks = turns.step(self.nicks_of_user(user)).await?;
        let found = self.users_in_turns(&mut turns, &nicks).await?;
        Ok(bound_rows(found.into_iter().flatten().map(|found| found.user), user))
    }

    async fn users(&self, cursor: Option<ListCursor>, limit: usize) -> Result<ListPage<UserRow>, RegistryError> {
        self.session_page(&OnlineUsers, cursor, limit).await
    }

    async fn room(&self, room: &RoomKey) -> Result<Option<RoomRow>, RegistryError> {
        Ok(self.room_rows(&[room.as_str()]).await?.pop().flatten())
    }

    async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<ListPage<RoomRow>, RegistryError> {
        let (mut turns, mut page) = (self.redis.read_turns().reader().await?, PageProgress::new(cursor, limit));
        let mut items = Vec::new();
        while let Some(step) = page.next_step() {
            let (keys, next) = turns.step(self.page(&self.redis.keys().rooms(), page.cursor.as_deref(), step)).await?;
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            let rows = turns.step(self.room_rows(&names)).await?;
            items.extend(rows.into_iter().flatten().filter(|room| room.member_count > 0));
            page.advance(keys.len(), next);
        }
        Ok(ListPage { items, next_cursor: page.cursor })
    }

    async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<ListCursor>,
        limit: usize,
    ) -> Result<ListPage<MemberInfo>, RegistryError> {
        self.session_page(&RoomMembers(room), cursor, limit).await
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
        let users_online = self.users_of(&rows).await?.into_iter().fold(0, u64::saturating_add);
        let mut connection = self.redis.query().await?;
        let (mut count, set) = (redis::cmd("ZCARD"), self.redis.keys().rooms());
        let rooms = self.redis.asked(&set, count.arg(set.as_str()).query_async(&mut connection)).await?;
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
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(set).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit + 1);
        let mut keys: Vec<String> = self.redis.asked(set, command.query_async(&mut connection)).await?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next_cursor = if more { keys.last().cloned() } else { None };
        Ok((keys, next_cursor))
    }

    /// Reads the index of a user's nicks. It may name nicks that are bound to the user no longer.
    async fn nicks_of_user(&self, user: &UserId) -> Result<Vec<NickKey>, RegistryError> {
        let user = user.key();
        let list = self.redis.keys().user(&user).nicks();
        let mut connection = self.redis.query().await?;
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(list.as_str()).arg(0).arg("+inf");
        let nicks: Vec<String> = self.redis.asked(&list, command.query_async(&mut connection)).await?;
        Ok(nicks.iter().map(|nick| NickKey::from_store(nick)).collect())
    }

    /// Reads the rows of users, as many calls as their rooms need, each in its turn.
    async fn users_in_turns(
        &self,
        turns: &mut TurnReader<'_>,
        nicks: &[NickKey],
    ) -> Result<Vec<Option<FoundUser>>, RegistryError> {
        let mut users = Vec::with_capacity(nicks.len());
        while users.len() < nicks.len() {
            let left = &nicks[users.len()..];
            let rows = turns.step(self.user_rows(&left[..left.len().min(STEP_ROWS_MAX)])).await?;
            if rows.is_empty() || rows.len() > left.len() {
                return Err(malformed("a row for each nick"));
            }
            users.extend(rows);
        }
        Ok(users)
    }

    /// Reads rows in one call: of all these users, or of the first ones if they are in many rooms.
    async fn user_rows(&self, nicks: &[NickKey]) -> Result<Vec<Option<FoundUser>>, RegistryError> {
        // Each row is read from the nick's record, its memberships and their rooms.
        let keys = ScriptKeys::of(self.redis.keys()).crossing_in_script::<NickUnit>().crossing_in_script::<RoomUnit>();
        let args: Vec<&str> = nicks.iter().map(NickKey::as_str).collect();
        let reply = read(&self.redis, ScriptCall { script: &script::USERS, keys, args: &args }).await?;
        reply.arrays().map(|row| user_row(row?)).collect()
    }

    async fn room_rows(&self, rooms: &[&str]) -> Result<Vec<Option<RoomRow>>, RegistryError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let keys = ScriptKeys::of(self.redis.keys()).crossing_in_script::<RoomUnit>();
        let reply = read(&self.redis, ScriptCall { script: &script::ROOMS, keys, args: rooms }).await?;
        reply.arrays().map(|row| room(row?)).collect()
    }

    /// Counts the online nicks of each gateway: none where the lease is fenced.
    async fn users_of(&self, rows: &[LeaseRow]) -> Result<Vec<u64>, RegistryError> {
        let mut pipe = redis::pipe();
        for row in rows {
            pipe.cmd("SCARD").arg(self.redis.keys().node(&row.lease.incarnation).owned_nicks());
        }
        let mut connection = self.redis.query().await?;
        let counts: Vec<u64> = match rows {
            [] => Vec::new(),
            _ => {
                self.redis
                    .asked(&self.redis.keys().pattern(NodeKeys::owned_nicks), pipe.query_async(&mut connection))
                    .await?
            }
        };
        Ok(rows.iter().zip(counts).map(|(row, users)| if row.lease.state.shows() { users } else { 0 }).collect())
    }
}

/// Progress of a page that is read in steps.
struct PageProgress {
    cursor: Option<String>,
    left: usize,
    is_started: bool,
}

impl PageProgress {
    fn new(cursor: Option<&str>, limit: usize) -> Self {
        Self { cursor: cursor.map(str::to_owned), left: limit.clamp(1, PAGE_LIMIT), is_started: false }
    }

    /// Returns the maximum number of rows of the next step; `None` if the page is complete.
    fn next_step(&self) -> Option<usize> {
        let is_complete = self.left == 0 || self.is_started && self.cursor.is_none();
        (!is_complete).then_some(self.left.min(STEP_ROWS_MAX))
    }

    fn advance(&mut self, rows: usize, next: Option<String>) {
        (self.cursor, self.left, self.is_started) = (next, self.left.saturating_sub(rows), true);
    }
}

fn room(mut row: ScriptReply) -> Result<Option<RoomRow>, RegistryError> {
    if row.is_empty() {
        return Ok(None);
    }
    Ok(Some(RoomRow { room: row.text()?, member_count: row.number()?, seq: row.number()? }))
}
