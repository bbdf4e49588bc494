//! Pages of users and members in Redis, in the order of their sessions.
//!
//! Each step is one script, which reads a part of the list and its rows at one moment. Invariant: a session that is in
//! the list all the time is on exactly one page. Order and cursors are in [`ListCursor`].

use crate::model::keys::{NickUnit, RoomKeys, RoomUnit, ScriptKeys};
use crate::model::{ListCursor, MemberInfo, NickKey, Owner, RoomKey, keep_newest};
use crate::registry::redis::{RedisRegistry, ScriptCall, read};
use crate::registry::reply::{ScriptReply, from_json, malformed, owner_of};
use crate::registry::{RegistryError, script};
use crate::store::STEP_ROWS_MAX;

use super::user_rows::user_row;
use super::{ListPage, PAGE_LIMIT, UserRow};

/// A list of sessions.
pub(super) trait SessionList {
    /// The row of a session.
    type Row;

    /// Calls the script of the list with a score, a number of rows to leave out, and a number of rows to read.
    async fn call(&self, registry: &RedisRegistry, range: &[&str; 3]) -> Result<ScriptReply, RegistryError>;

    /// Reads the rest of a reply's row: the claim and the row of a session, or `None` if it is not shown.
    fn row(reply: ScriptReply) -> Result<Option<(Owner, Self::Row)>, RegistryError>;
}

/// The list of ONLINE, in `online.lua`.
pub(super) struct OnlineUsers;

/// The list of MEMBERS of one room, in `members.lua`.
pub(super) struct RoomMembers<'a>(pub(super) &'a RoomKey);

/// The rows of one step.
struct SessionStep<T> {
    rows: Vec<(NickKey, T)>,
    /// The number of nicks read, which counts those that are not shown.
    nicks: usize,
    next: Option<ListCursor>,
}

impl RedisRegistry {
    /// Reads a page in steps, each in its turn. The rows of a page are in the order of their nick keys.
    pub(super) async fn session_page<L: SessionList>(
        &self,
        list: &L,
        start: Option<ListCursor>,
        limit: usize,
    ) -> Result<ListPage<L::Row>, RegistryError> {
        let mut turns = self.redis.read_turns().reader().await?;
        let (mut next, mut left) = (start, limit.clamp(1, PAGE_LIMIT));
        let mut found = Vec::new();
        loop {
            let step = turns.step(self.session_step(list, next, left.min(STEP_ROWS_MAX))).await?;
            (next, left) = (step.next, left.saturating_sub(step.nicks));
            found.extend(step.rows);
            if left == 0 || next.is_none() {
                break;
            }
        }
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let items = found.into_iter().map(|(_, row)| row).collect();
        Ok(ListPage { items, next_cursor: next.map(|next| next.to_string()) })
    }

    /// Reads the rows of at most `limit` nicks, without splitting a session.
    async fn session_step<L: SessionList>(
        &self,
        list: &L,
        start: Option<ListCursor>,
        limit: usize,
    ) -> Result<SessionStep<L::Row>, RegistryError> {
        let (score, skipped) = ListCursor::next_row(start);
        let range = [score.to_string(), skipped.to_string(), (limit + ListCursor::EXTRA_ROWS).to_string()];
        let reply = list.call(self, &range.each_ref().map(String::as_str)).await?;
        let mut nicks = Vec::new();
        for row in reply.arrays() {
            let mut row = row?;
            let (nick, score) = (row.text()?, row.number()?);
            nicks.push(((nick, row), score));
        }
        // A step may end before its limit.
        let read = nicks.iter().take_while(|((_, row), _)| !row.is_empty()).count();
        if read == 0 && !nicks.is_empty() {
            return Err(malformed("a row of a list"));
        }
        let next = ListCursor::cut(start, &mut nicks, limit.min(read.max(1)));
        let (mut rows, read) = (Vec::with_capacity(nicks.len()), nicks.len());
        for ((nick, row), _) in nicks {
            if let Some((owner, row)) = L::row(row)? {
                rows.push((owner, (NickKey::from_store(&nick), row)));
            }
        }
        keep_newest(&mut rows);
        Ok(SessionStep { rows: rows.into_iter().map(|(_, row)| row).collect(), nicks: read, next })
    }
}

impl SessionList for OnlineUsers {
    type Row = UserRow;

    async fn call(&self, registry: &RedisRegistry, range: &[&str; 3]) -> Result<ScriptReply, RegistryError> {
        let keys = ScriptKeys::of(registry.redis.keys())
            .partition([registry.redis.keys().online()])
            .crossing_in_script::<NickUnit>()
            .crossing_in_script::<RoomUnit>();
        read(&registry.redis, ScriptCall { script: &script::ONLINE, keys, args: range }).await
    }

    fn row(mut reply: ScriptReply) -> Result<Option<(Owner, UserRow)>, RegistryError> {
        Ok(user_row(reply.array()?)?.and_then(|found| Some((found.owner?, found.user))))
    }
}

impl SessionList for RoomMembers<'_> {
    type Row = MemberInfo;

    async fn call(&self, registry: &RedisRegistry, range: &[&str; 3]) -> Result<ScriptReply, RegistryError> {
        let keys = ScriptKeys::of(registry.redis.keys().room(self.0)).own([RoomKeys::members, RoomKeys::member_list]);
        read(&registry.redis, ScriptCall { script: &script::MEMBERS, keys, args: range }).await
    }

    fn row(mut reply: ScriptReply) -> Result<Option<(Owner, MemberInfo)>, RegistryError> {
        let record = reply.text()?;
        if record.is_empty() {
            return Ok(None);
        }
        let parts = record.split_once(' ').and_then(|(token, info)| Some((owner_of(token)?, info)));
        let (owner, info) = parts.ok_or_else(|| malformed("a member record"))?;
        Ok(Some((owner, from_json(info)?)))
    }
}
