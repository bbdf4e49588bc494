//! Who is on this node: sessions and their outboxes, rooms and their local members.
//!
//! The backplane's task calls [`Hub::deliver`] with everything that arrives; drivers enter and leave rooms; the server
//! calls [`Hub::show_presence`] a few times a second. Delivering never waits for anybody: an outbox takes the event or
//! closes its connection. Knows no store and no socket.
//!
//! A member enters in two steps, so that nothing is lost or doubled in between: [`Hub::prepare`] before the member record
//! is written (from there on the room's messages are kept for it), [`Hub::admit`] with the position the record took
//! effect at (what is kept and newer goes out, then everything that follows).
//! Invariant: a room's messages reach every member's outbox in one order, the order of delivery.

pub mod coalesce;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use presence::codes::CloseCode;
use presence::model::{Incarnation, Nick, PresenceDelta, RoomKey, RoomName, SessionId};
use prometheus::IntCounter;

use crate::backplane::Delivery;
use crate::message::ChatMessage;
use crate::session::outbox::{Broadcast, Outbox, Pushed};
use crate::wire::Event;

/// Messages that are kept for one member between [`Hub::prepare`] and [`Hub::admit`]; more of them close it as slow.
const MAX_KEPT: usize = 10_000;

/// Changes of a room's members that are shown one by one. When more come in one round, as when a gateway is lost or a
/// crowd comes back, members are told to ask again: the list of them all would fill the outbox of everybody in the room.
const MAX_SHOWN: usize = 256;

/// The sessions and rooms of one node.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    delivered: IntCounter,
    left_out: IntCounter,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    rooms: HashMap<RoomKey, Room>,
    /// Rooms with something to show at the next round of presence.
    changed: Vec<RoomKey>,
}

#[derive(Debug)]
struct Session {
    nick: Nick,
    incarnation: Incarnation,
    outbox: Outbox,
}

#[derive(Debug)]
struct Room {
    display: String,
    members: HashMap<SessionId, Member>,
    /// The members version of the last change seen, once there was one.
    version: Option<u64>,
    delta: PresenceDelta,
    resync: bool,
}

#[derive(Debug)]
struct Member {
    outbox: Outbox,
    entry: EntryState,
}

#[derive(Debug)]
enum EntryState {
    /// The member record is being written; what comes meanwhile is kept.
    Waiting(Vec<(u64, Arc<Broadcast>)>),
    /// Everything after this position goes out.
    Live(u64),
}

/// How much is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Registered sessions.
    pub sessions: usize,
    /// Rooms with local members.
    pub rooms: usize,
}

impl Hub {
    /// A hub without anybody. Messages that it puts into outboxes are counted on `delivered`, events that an outbox left
    /// out on `left_out`.
    #[must_use]
    pub fn new(delivered: IntCounter, left_out: IntCounter) -> Self {
        Self { state: Mutex::default(), delivered, left_out }
    }

    /// A session has begun: direct messages for it go to `outbox`.
    pub fn attach(&self, session: &SessionId, nick: &Nick, incarnation: &Incarnation, outbox: &Outbox) {
        let session_state = Session { nick: nick.clone(), incarnation: incarnation.clone(), outbox: outbox.clone() };
        self.lock().sessions.insert(session.clone(), session_state);
    }

    /// The session goes by another name.
    pub fn rename(&self, session: &SessionId, nick: &Nick) {
        if let Some(known) = self.lock().sessions.get_mut(session) {
            known.nick = nick.clone();
        }
    }

    /// The session is over. Its rooms are left one by one with [`Hub::remove`].
    pub fn detach(&self, session: &SessionId) {
        self.lock().sessions.remove(session);
    }

    /// Keeps the room's messages for a member that is about to enter.
    pub fn prepare(&self, room: &RoomName, session: &SessionId, outbox: &Outbox) {
        let member = Member { outbox: outbox.clone(), entry: EntryState::Waiting(Vec::new()) };
        let mut state = self.lock();
        let room = state.rooms.entry(room.key().clone()).or_insert_with(|| Room::new(room.as_str()));
        room.members.insert(session.clone(), member);
    }

    /// The member has entered at `seq` the room that the store knows by this name: sends what was kept and is newer, then
    /// everything that follows. Nothing is sent to a member that has entered before.
    pub fn admit(&self, name: &RoomName, session: &SessionId, seq: u64) {
        let mut state = self.lock();
        let Some(room) = state.rooms.get_mut(name.key()) else { return };
        let Some(member) = room.members.get_mut(session) else { return };
        // The first one here may have typed it otherwise.
        name.as_str().clone_into(&mut room.display);
        if let EntryState::Waiting(kept) = &member.entry {
            let newer = kept.iter().filter(|(position, _)| *position > seq);
            for (_, message) in newer {
                member.outbox.event(message);
            }
            member.entry = EntryState::Live(seq);
        }
    }

    /// The member has left, or did not enter after all. Returns whether it was there.
    pub fn remove(&self, room: &RoomKey, session: &SessionId) -> bool {
        let mut state = self.lock();
        let Entry::Occupied(mut entry) = state.rooms.entry(room.clone()) else { return false };
        let was_there = entry.get_mut().members.remove(session).is_some();
        if entry.get().members.is_empty() {
            entry.remove();
        }
        was_there
    }

    /// Takes what arrived from the backplane. Never blocks. Beats are not the hub's: an echo is ignored.
    pub fn deliver(&self, delivery: Delivery) {
        match delivery {
            Delivery::Room { room, message, .. } => self.message(&room, message),
            Delivery::Presence { room, version, delta } => self.presence(&room, version, delta),
            Delivery::Direct { session, message } => self.direct(&session, message),
            Delivery::Kick { session } => self.close(&session, CloseCode::Kicked),
            Delivery::Resumed => self.resumed(),
            Delivery::Echo { .. } => {}
        }
    }

    /// Ends a session of this node.
    pub fn close(&self, session: &SessionId, code: CloseCode) {
        if let Some(known) = self.lock().sessions.get(session) {
            known.outbox.close(code);
        }
    }

    /// Ends every session that a lost lease had claimed.
    pub fn close_incarnation(&self, incarnation: &Incarnation, code: CloseCode) {
        let state = self.lock();
        let lost = state.sessions.values().filter(|session| session.incarnation == *incarnation);
        lost.for_each(|session| session.outbox.close(code));
    }

    /// Shows each room's members what changed since the last call, as one event.
    pub fn show_presence(&self) {
        let mut state = self.lock();
        for key in std::mem::take(&mut state.changed) {
            let Some(room) = state.rooms.get_mut(&key) else { continue };
            let delta = std::mem::take(&mut room.delta);
            let resync = std::mem::take(&mut room.resync);
            if coalesce::count(&delta) == 0 && !resync {
                continue;
            }
            let event = Broadcast::new(Event::Presence { room: room.display.clone(), delta, resync });
            for member in room.members.values().filter(|member| matches!(member.entry, EntryState::Live(_))) {
                if member.outbox.event(&event) == Pushed::LeftOut {
                    self.left_out.inc();
                }
            }
        }
    }

    /// Counts sessions and rooms.
    #[must_use]
    pub fn census(&self) -> Census {
        let state = self.lock();
        Census { sessions: state.sessions.len(), rooms: state.rooms.len() }
    }

    fn message(&self, room: &RoomKey, message: ChatMessage) {
        let mut state = self.lock();
        let Some(room) = state.rooms.get_mut(room) else { return };
        let seq = message.seq;
        let message = Broadcast::new(Event::Message(message));
        let mut delivered = 0;
        for member in room.members.values_mut() {
            match &mut member.entry {
                EntryState::Live(after) if seq > *after => {
                    member.outbox.event(&message);
                    delivered += 1;
                }
                EntryState::Live(_) => {}
                EntryState::Waiting(kept) if kept.len() < MAX_KEPT => kept.push((seq, Arc::clone(&message))),
                EntryState::Waiting(_) => member.outbox.close(CloseCode::Slow),
            }
        }
        self.delivered.inc_by(delivered);
    }

    fn direct(&self, session: &SessionId, mut message: ChatMessage) {
        let state = self.lock();
        let Some(session) = state.sessions.get(session) else { return };
        session.nick.as_str().clone_into(&mut message.to);
        session.outbox.event(&Broadcast::new(Event::Message(message)));
        self.delivered.inc();
    }

    fn presence(&self, key: &RoomKey, version: u64, delta: PresenceDelta) {
        let mut state = self.lock();
        let State { rooms, changed, .. } = &mut *state;
        let Some(room) = rooms.get_mut(key) else { return };
        // A jump means that a change was missed: the sum would be wrong, so members are told to ask again.
        room.resync |= room.version.is_some_and(|last| version != last + 1);
        room.version = Some(version);
        coalesce::add(&mut room.delta, delta);
        if coalesce::count(&room.delta) > MAX_SHOWN {
            room.delta = PresenceDelta::default();
            room.resync = true;
        }
        changed.push(key.clone());
    }

    /// The subscription was away: nobody knows which changes were missed.
    fn resumed(&self) {
        let mut state = self.lock();
        let State { rooms, changed, .. } = &mut *state;
        for (key, room) in rooms {
            room.version = None;
            room.resync = true;
            changed.push(key.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole between its steps, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn new(display: &str) -> Self {
        Self {
            display: display.to_owned(),
            members: HashMap::new(),
            version: None,
            delta: PresenceDelta::default(),
            resync: false,
        }
    }
}

#[cfg(test)]
mod tests;
