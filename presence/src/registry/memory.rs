//! The registry of one process: the calls of the contract, on the shared [`Store`].
//!
//! No call waits, but for the event log; they are `async` because the other arm's are.

use std::time::Duration;

use super::{
    Beat, ClaimError, Differences, Entry, Event, EventLogEnds, Gateway, GatewayInfo, Joined, LeaseTable,
    LeaseTransition, Leaving, LocalClaim, Page, Reaped, RegistryError, ResumeError, Resumed, Room, Stats, Ticket, User,
};
use crate::model::stream::StreamEnd;
use crate::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, Owner, RoomKey, RoomName, SessionId, Status, TokenHash,
};
use crate::store::memory::Store;

/// How long a read of the event log waits for something to happen.
const WAIT: Duration = Duration::from_secs(5);

/// The registry in memory. Cheap to clone: clones share the store.
#[derive(Debug, Clone)]
pub struct MemoryRegistry {
    store: Store,
}

impl MemoryRegistry {
    /// The registry of whoever shares this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub(super) async fn events(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Event>, Option<String>), RegistryError> {
        let deadline = tokio::time::Instant::now() + WAIT;
        let (changed, end) = {
            let state = self.store.lock();
            (state.events().changed(), state.events().end())
        };
        let mut position = after.map_or_else(|| end.clone(), str::to_owned);
        loop {
            let mut notified = std::pin::pin!(changed.notified());
            notified.as_mut().enable();
            // What is no position means "from now on".
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
}

#[expect(clippy::unused_async, reason = "both arms have one shape")]
impl MemoryRegistry {
    pub(super) async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError> {
        self.store.lock().open_lease(incarnation, info)
    }

    pub(super) async fn open_first_lease(
        &self,
        incarnation: &Incarnation,
        info: &GatewayInfo,
        over: &[Incarnation],
    ) -> Result<Option<Incarnation>, RegistryError> {
        let mut state = self.store.lock();
        match state.twin(incarnation, &info.node, over) {
            Some(twin) => Ok(Some(twin)),
            None => state.open_lease(incarnation, info).map(|()| None),
        }
    }

    pub(super) async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        self.store.lock().beat(incarnation, active)
    }

    pub(super) async fn reassert(
        &self,
        incarnation: &Incarnation,
        _: &GatewayInfo,
        _: u64,
        _: &[LocalClaim],
        _: bool,
    ) -> Result<Vec<Owner>, RegistryError> {
        // Memory forgets nothing while its process lives.
        self.store.lock().reassert(incarnation)
    }

    pub(super) async fn audit(&self, _: &Incarnation, _: &[LocalClaim]) -> Result<Differences, RegistryError> {
        Ok(Differences::default())
    }

    pub(super) async fn leases(&self) -> Result<LeaseTable, RegistryError> {
        Ok(self.store.lock().lease_table())
    }

    pub(super) async fn set_lease(
        &self,
        incarnation: &Incarnation,
        farewell: LeaseTransition,
    ) -> Result<(), RegistryError> {
        self.store.lock().set_lease(incarnation, farewell)
    }

    pub(super) async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError> {
        Ok(self.store.lock().fence(incarnation, counter))
    }

    pub(super) async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<Reaped, RegistryError> {
        Ok(self.store.lock().reap(incarnation, limit))
    }

    pub(super) async fn begin(
        &self,
        incarnation: &Incarnation,
        session: &SessionId,
        nick: &Nick,
        token: &TokenHash,
    ) -> Result<(Fence, StreamEnd), ClaimError> {
        self.store.lock().begin(incarnation, session, nick, token)
    }

    pub(super) async fn resume(
        &self,
        incarnation: &Incarnation,
        ticket: &Ticket,
        nick: &Nick,
        next: &TokenHash,
    ) -> Result<Resumed, ResumeError> {
        self.store.lock().resume(incarnation, ticket, nick, next)
    }

    pub(super) async fn confirm(&self, session: &SessionId, token: &TokenHash) -> Result<bool, RegistryError> {
        Ok(self.store.lock().confirm(session, token))
    }

    pub(super) async fn detach(&self, nick: &Nick, owner: &Owner, hold: Duration) -> Result<bool, RegistryError> {
        Ok(self.store.lock().detach(nick, owner, hold))
    }

    pub(super) async fn depart(&self, nick: &Nick, owner: &Owner, reason: LeftReason) -> Result<bool, RegistryError> {
        Ok(self.store.lock().depart(nick, owner, reason))
    }

    pub(super) async fn read(&self, session: &SessionId, seq: u64) -> Result<bool, RegistryError> {
        Ok(self.store.lock().read(session, seq))
    }

    pub(super) async fn release(
        &self,
        nick: &Nick,
        owner: &Owner,
        renamed_to: Option<&Nick>,
    ) -> Result<bool, RegistryError> {
        Ok(self.store.lock().release(nick, owner, renamed_to))
    }

    pub(super) async fn join(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        entry: Entry<'_>,
    ) -> Result<Joined, RegistryError> {
        self.store.lock().join(room, nick, owner, status, entry)
    }

    pub(super) async fn leave(
        &self,
        room: &RoomName,
        nick: &Nick,
        owner: &Owner,
        reason: LeftReason,
        leaving: Leaving,
    ) -> Result<bool, RegistryError> {
        Ok(self.store.lock().leave(room, nick, owner, reason, leaving))
    }

    pub(super) async fn set_status(
        &self,
        nick: &Nick,
        owner: &Owner,
        status: &Status,
        rooms: &[RoomKey],
    ) -> Result<bool, RegistryError> {
        self.store.lock().set_status(nick, owner, status, rooms)
    }

    pub(super) async fn kick(&self, nick: &NickKey) -> Result<bool, RegistryError> {
        Ok(self.store.lock().kick(nick))
    }

    pub(super) async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError> {
        Ok(self.store.lock().drain(incarnation))
    }

    pub(super) async fn user(&self, nick: &NickKey) -> Result<Option<User>, RegistryError> {
        Ok(self.store.lock().user(nick))
    }

    pub(super) async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<User>>, RegistryError> {
        let state = self.store.lock();
        Ok(nicks.iter().map(|nick| state.user(nick)).collect())
    }

    pub(super) async fn users(&self, cursor: Option<&str>, limit: usize) -> Result<Page<User>, RegistryError> {
        Ok(self.store.lock().users(cursor, limit))
    }

    pub(super) async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<Page<Room>, RegistryError> {
        Ok(self.store.lock().rooms(cursor, limit))
    }

    pub(super) async fn room(&self, room: &RoomKey) -> Result<Option<Room>, RegistryError> {
        Ok(self.store.lock().room(room))
    }

    pub(super) async fn members(
        &self,
        room: &RoomKey,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<MemberInfo>, RegistryError> {
        Ok(self.store.lock().members(room, cursor, limit))
    }

    pub(super) async fn gateways(&self) -> Result<Vec<Gateway>, RegistryError> {
        Ok(self.store.lock().gateways())
    }

    pub(super) async fn stats(&self) -> Result<Stats, RegistryError> {
        Ok(self.store.lock().stats())
    }

    pub(super) async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError> {
        Ok(self.store.lock().events().ends())
    }
}
