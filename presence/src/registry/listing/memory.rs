//! Listings in memory, and waiting for the event log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use crate::model::{Incarnation, ListCursor, MemberInfo, NickKey, Owner, RoomKey, UserId, keep_newest};
use crate::registry::{LeaseState, MemoryRegistry, RegistryError};
use crate::store::memory::{LeaseRecord, StoreState};

use super::types::{bound_rows, online_rows};
use super::{ClusterStats, EventLogEnds, GatewayRow, ListPage, Listing, PAGE_LIMIT, RegistryEvent, RoomRow, UserRow};

/// The maximum wait of a read of the event log.
const EVENTS_WAIT: Duration = Duration::from_secs(5);

impl Listing for MemoryRegistry {
    async fn user(&self, nick: &NickKey) -> Result<Option<UserRow>, RegistryError> {
        Ok(self.store.lock().user(nick))
    }

    async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<UserRow>>, RegistryError> {
        self.in_turn(|state| nicks.iter().map(|nick| state.user(nick)).collect()).await
    }

    async fn of_user(&self, user: &UserId) -> Result<Option<Vec<UserRow>>, RegistryError> {
        self.bound_to(user).await.map(online_rows)
    }

    async fn bound_to(&self, user: &UserId) -> Result<Vec<UserRow>, RegistryError> {
        let rows = |state: &StoreState| {
            let nicks = state.nicks.of_user(user).unwrap_or_default();
            bound_rows(nicks.iter().filter_map(|nick| state.user(nick)), user)
        };
        self.in_turn(rows).await
    }

    async fn users(&self, cursor: Option<ListCursor>, limit: usize) -> Result<ListPage<UserRow>, RegistryError> {
        self.in_turn(|state| state.users(cursor, limit)).await
    }

    async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<ListPage<RoomRow>, RegistryError> {
        self.in_turn(|state| state.rooms(cursor, limit)).await
    }

    async fn room(&self, room: &RoomKey) -> Result<Option<RoomRow>, RegistryError> {
        Ok(self.store.lock().room(room))
    }

    async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<ListCursor>,
        limit: usize,
    ) -> Result<ListPage<MemberInfo>, RegistryError> {
        self.in_turn(|state| state.members(room, cursor, limit)).await
    }

    async fn gateways(&self) -> Result<Vec<GatewayRow>, RegistryError> {
        Ok(self.store.lock().gateways())
    }

    async fn stats(&self) -> Result<ClusterStats, RegistryError> {
        Ok(self.store.lock().stats())
    }

    async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<RegistryEvent>, Option<String>), RegistryError> {
        let deadline = tokio::time::Instant::now() + EVENTS_WAIT;
        let (changed, end) = {
            let state = self.store.lock();
            (state.events().changed(), state.events().end())
        };
        let mut position = after.map_or_else(|| end.clone(), str::to_owned);
        loop {
            let mut notified = std::pin::pin!(changed.notified());
            notified.as_mut().enable();
            // A malformed position means "from now on".
            let events = self.store.lock().events().after(&position, limit);
            match events {
                None => position.clone_from(&end),
                Some(events) if events.is_empty() => {
                    if tokio::time::timeout_at(deadline, notified).await.is_err() {
                        return Ok((events, Some(position)));
                    }
                }
                Some(events) => {
                    let position = events.last().map(|event| event.id.clone());
                    return Ok((events, position));
                }
            }
        }
    }

    async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError> {
        Ok(self.store.lock().events().ends())
    }
}

impl MemoryRegistry {
    /// Reads a list in its turn.
    async fn in_turn<T>(&self, read: impl FnOnce(&StoreState) -> T) -> Result<T, RegistryError> {
        let mut turns = self.store.read_turns().reader().await?;
        turns.step(async { Ok(read(&self.store.lock())) }).await
    }
}

impl StoreState {
    pub(crate) fn user(&self, nick: &NickKey) -> Option<UserRow> {
        let record = self.nicks.records.get(nick)?;
        let online = self.nicks.owner(nick).filter(|owner| self.leases.shows(&owner.incarnation));
        Some(UserRow {
            nick: record.display.to_string(),
            user: record.user.clone(),
            online: online.is_some(),
            status: online.map(|_| record.status.clone()).unwrap_or_default(),
            online_since: online.map(|_| record.since),
            last_active: record.last_active,
            rooms: online.map(|owner| self.rooms.of(nick, owner)).unwrap_or_default(),
            incarnation: online.map(|owner| owner.incarnation.as_str().to_owned()),
            session: online.map(|owner| owner.session.clone()),
        })
    }

    pub(crate) fn users(&self, cursor: Option<ListCursor>, limit: usize) -> ListPage<UserRow> {
        let row = |nick: &NickKey| {
            let owner = self.nicks.owner(nick)?.clone();
            Some((owner, self.user(nick).filter(|user| user.online)?))
        };
        session_page(&self.nicks.online, cursor, limit, row)
    }

    pub(crate) fn room(&self, room: &RoomKey) -> Option<RoomRow> {
        let state = self.rooms.get(room)?;
        Some(RoomRow {
            room: state.name.as_str().to_owned(),
            member_count: state.members.len() as u64,
            seq: state.log.seq(),
        })
    }

    pub(crate) fn rooms(&self, cursor: Option<&str>, limit: usize) -> ListPage<RoomRow> {
        let (keys, next_cursor) = page(&self.rooms.listed, cursor.map(RoomKey::from_store), limit);
        let items = keys.into_iter().filter_map(|room| self.room(room)).collect();
        ListPage { items, next_cursor: next_cursor.map(|room| room.as_str().to_owned()) }
    }

    pub(crate) fn members(&self, room: &RoomKey, cursor: Option<ListCursor>, limit: usize) -> ListPage<MemberInfo> {
        let Some(state) = self.rooms.get(room) else { return ListPage { items: Vec::new(), next_cursor: None } };
        session_page(&state.listed, cursor, limit, |nick| {
            let member = state.members.get(nick).filter(|member| self.leases.shows(&member.owner.incarnation))?;
            Some((member.owner.clone(), member.info.clone()))
        })
    }

    pub(crate) fn gateways(&self) -> Vec<GatewayRow> {
        let mut newest: BTreeMap<&str, (&Incarnation, &LeaseRecord)> = BTreeMap::new();
        for (incarnation, row) in &self.leases.rows {
            match newest.get(row.info.node.as_str()) {
                Some((_, other)) if other.opened > row.opened => {}
                _ => drop(newest.insert(&row.info.node, (incarnation, row))),
            }
        }
        let gateway = |(incarnation, row): (&Incarnation, &LeaseRecord)| GatewayRow {
            node: row.info.node.clone(),
            incarnation: incarnation.as_str().to_owned(),
            version: row.info.version.clone(),
            state: row.state,
            beat: row.counter,
            users: if row.state.serves() { row.nicks.len() as u64 } else { 0 },
        };
        newest.into_values().filter(|(_, row)| row.state != LeaseState::Drained).map(gateway).collect()
    }

    pub(crate) fn stats(&self) -> ClusterStats {
        let rows = || self.leases.rows.values();
        ClusterStats {
            users_online: rows().filter(|row| row.state.shows()).map(|row| row.nicks.len() as u64).sum(),
            rooms: self.rooms.listed(),
            gateways: rows().filter(|row| row.state.serves()).count() as u64,
        }
    }
}

/// Returns a page of sessions, with the newest row of each. The order is described in [`ListCursor`].
fn session_page<T>(
    list: &BTreeSet<(u64, NickKey)>,
    cursor: Option<ListCursor>,
    limit: usize,
    row: impl Fn(&NickKey) -> Option<(Owner, T)>,
) -> ListPage<T> {
    let (limit, (score, skipped)) = (limit.clamp(1, PAGE_LIMIT), ListCursor::next_row(cursor));
    let rows = list.range((score, NickKey::from_store(""))..).skip(skipped).take(limit + ListCursor::EXTRA_ROWS);
    let mut nicks: Vec<(&NickKey, u64)> = rows.map(|(score, nick)| (nick, *score)).collect();
    let next = ListCursor::cut(cursor, &mut nicks, limit);
    nicks.sort_unstable();
    let mut found: Vec<(Owner, T)> = nicks.into_iter().filter_map(|(nick, _)| row(nick)).collect();
    keep_newest(&mut found);
    let items = found.into_iter().map(|(_, row)| row).collect();
    ListPage { items, next_cursor: next.map(|next| next.to_string()) }
}

/// Returns one page of a set, and its last key if more keys follow.
fn page<K: Ord>(set: &BTreeSet<K>, after: Option<K>, limit: usize) -> (Vec<&K>, Option<&K>) {
    let limit = limit.clamp(1, PAGE_LIMIT);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut keys = set.range((from, Bound::Unbounded));
    let page: Vec<&K> = keys.by_ref().take(limit).collect();
    let next = keys.next().and(page.last().copied());
    (page, next)
}
