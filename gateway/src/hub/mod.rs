//! Who is on this node: sessions and their outboxes, rooms with their positions and local members.
//!
//! The backplane's task calls [`Hub::deliver`] with everything that arrives; drivers enter and leave rooms; the server
//! calls [`Hub::show_presence`] a few times a second; the reading task reads what rooms ask for and hands it to
//! [`Hub::read`]. Delivering never waits for anybody: an outbox takes the event or closes its connection. Knows no store
//! and no socket.
//!
//! A member enters in steps, so that nothing is lost or doubled in between: [`Hub::prepare`] before the member record is
//! written (from there on the room's messages are kept for it), [`Hub::begin`] with the top that the record was written
//! at, [`Hub::admit`] with the position the client has; while it is behind what is kept, it reads on and asks again.
//! Invariant: a room's messages reach every member's outbox in one order, without a hole that it is not told of.

pub mod coalesce;
pub mod position;
mod room;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use presence::codes::CloseCode;
use presence::model::{Fence, Incarnation, Nick, Owner, PresenceDelta, RoomKey, RoomName, SessionId};
use tokio::sync::Notify;

use self::position::{Ask, Page, Position, Step};
use self::room::Room;
use crate::backplane::Delivery;
use crate::message::ChatMessage;
use crate::metrics::Counts;
use crate::session::outbox::{Broadcast, Outbox};
use crate::wire::Event;

/// The sessions and rooms of one node.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    /// A room asks for a reading.
    asked: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    rooms: HashMap<RoomKey, Room>,
    /// Rooms with something to show at the next round of presence.
    changed: Vec<RoomKey>,
    /// Rooms whose logs are to be read.
    asking: HashSet<RoomKey>,
}

#[derive(Debug)]
struct Session {
    nick: Nick,
    owner: Owner,
    outbox: Outbox,
}

/// Whether a member is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everything that follows goes out to it. Also for one that has entered before, or has left.
    Entered,
    /// The room is further than what is kept for it: read on in the log, and ask again.
    Behind,
}

/// What came of reading a room's log for it.
#[derive(Debug)]
pub enum Reading {
    /// It ends there: epoch and seq.
    Top(String, u64),
    /// It keeps this.
    Page(Page<ChatMessage>),
    /// There is no such room.
    Vanished,
    /// It could not be read; it is to be tried again.
    Failed,
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
    /// A hub without anybody, whose work is counted on `counts`.
    #[must_use]
    pub fn new(counts: Counts) -> Self {
        Self { state: Mutex::default(), asked: Notify::new(), counts }
    }

    /// A session has begun or was resumed here: direct messages for it go to `outbox`. An older connection of it ends.
    pub fn attach(&self, owner: &Owner, nick: &Nick, outbox: &Outbox) {
        let begun = Session { nick: nick.clone(), owner: owner.clone(), outbox: outbox.clone() };
        if let Some(older) = self.lock().sessions.insert(owner.session.clone(), begun) {
            older.outbox.close(CloseCode::TakenOver);
        }
    }

    /// The session goes by another name, under the claim to it.
    pub fn rename(&self, owner: &Owner, nick: &Nick) {
        if let Some(known) = self.lock().sessions.get_mut(&owner.session) {
            known.nick = nick.clone();
            known.owner = owner.clone();
        }
    }

    /// The session is over, unless it goes on here over a newer connection. Its rooms are left one by one with
    /// [`Hub::remove`].
    pub fn detach(&self, owner: &Owner) {
        if let Entry::Occupied(known) = self.lock().sessions.entry(owner.session.clone())
            && owner.succeeds(&known.get().owner)
        {
            known.remove();
        }
    }

    /// Keeps the room's messages for a member that is about to enter.
    pub fn prepare(&self, room: &RoomName, session: &SessionId, outbox: &Outbox) {
        let mut state = self.lock();
        state.rooms.entry(room.key().clone()).or_insert_with(|| Room::new(room.as_str())).prepare(session, outbox);
    }

    /// A top of the room's log that was read after its subscription was confirmed: a room that has not begun begins here.
    pub fn begin(&self, room: &RoomKey, epoch: &str, top: u64) {
        self.advance(room, |position, steps| position.begin(epoch, top, steps));
    }

    /// The client has everything of this epoch up to `after`: sends what is kept and newer, then everything that follows.
    /// `name` is what the store knows the room by.
    pub fn admit(&self, name: &RoomName, session: &SessionId, epoch: &str, after: u64) -> Admission {
        let mut state = self.lock();
        let room = state.rooms.get_mut(name.key());
        room.map_or(Admission::Entered, |room| room.admit(name.as_str(), session, epoch, after))
    }

    /// The member has left, or did not enter after all. One that is in over another connection by now stays.
    pub fn remove(&self, room: &RoomKey, session: &SessionId, outbox: &Outbox) {
        let mut state = self.lock();
        let Entry::Occupied(mut entry) = state.rooms.entry(room.clone()) else { return };
        entry.get_mut().remove(session, outbox);
        if entry.get().is_empty() {
            entry.remove();
        }
    }

    /// Something may be missing that nothing later will show: the tops of all rooms are to be compared.
    pub fn doubt(&self) {
        let mut state = self.lock();
        let State { rooms, asking, .. } = &mut *state;
        for (key, room) in rooms {
            room.position.doubt();
            asking.insert(key.clone());
        }
        self.asked.notify_one();
    }

    /// Waits until rooms ask for readings, and takes these. Each is to be answered with [`Hub::read`]. Dropping the
    /// future loses nothing. One waiter: the reading task.
    pub async fn asks(&self) -> Vec<(RoomKey, Ask)> {
        loop {
            let asked = self.asked.notified();
            let asks = self.take_asks();
            if !asks.is_empty() {
                return asks;
            }
            asked.await;
        }
    }

    /// What was read for a room that asked for it.
    pub fn read(&self, room: &RoomKey, ask: &Ask, reading: Reading) {
        let (Ask::Top(asked) | Ask::Page(asked)) = ask;
        self.advance(room, |position, steps| match reading {
            Reading::Top(epoch, top) => position.top(asked, &epoch, top, steps),
            Reading::Page(page) => {
                position.page(asked, page, steps);
                self.counts.gap(steps);
            }
            Reading::Vanished => position.vanished(),
            Reading::Failed => position.doubt(),
        });
    }

    /// Takes what arrived from the backplane. Never blocks. Beats are not the hub's: an echo is ignored.
    pub fn deliver(&self, delivery: Delivery) {
        match delivery {
            Delivery::Room { room, epoch, message } => {
                self.advance(&room, |position, steps| position.arrived(&epoch, message.seq, message, steps));
            }
            Delivery::Presence { room, version, delta } => self.presence(&room, version, delta),
            Delivery::Direct { session, message } => self.direct(&session, message),
            Delivery::Kick { session } => self.close(&session, CloseCode::Kicked),
            Delivery::Taken { session, fence } => self.taken_over(&session, fence),
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

    /// Ends the connection that has this claim to the session; one that resumed it has a newer claim and stays.
    pub fn taken_over(&self, session: &SessionId, fence: Fence) {
        self.end_claim(session, fence, CloseCode::TakenOver);
    }

    /// Ends the connection that has this claim to the session, if one has it.
    pub fn end_claim(&self, session: &SessionId, fence: Fence, code: CloseCode) {
        if let Some(known) = self.lock().sessions.get(session).filter(|known| known.owner.fence == fence) {
            known.outbox.close(code);
        }
    }

    /// Ends every session that a lost lease had claimed.
    pub fn close_incarnation(&self, incarnation: &Incarnation, code: CloseCode) {
        let state = self.lock();
        let lost = state.sessions.values().filter(|session| session.owner.incarnation == *incarnation);
        lost.for_each(|session| session.outbox.close(code));
    }

    /// Shows each room's members what changed since the last call, as one event.
    pub fn show_presence(&self) {
        let mut state = self.lock();
        for key in std::mem::take(&mut state.changed) {
            if let Some(room) = state.rooms.get_mut(&key) {
                self.counts.left_out.inc_by(room.show_presence());
            }
        }
    }

    /// Counts sessions and rooms.
    #[must_use]
    pub fn census(&self) -> Census {
        let state = self.lock();
        Census { sessions: state.sessions.len(), rooms: state.rooms.len() }
    }

    /// Changes a room's position, gives its members what comes of it, and notes what it asks for.
    fn advance(&self, key: &RoomKey, change: impl FnOnce(&mut Position<ChatMessage>, &mut Vec<Step<ChatMessage>>)) {
        let mut state = self.lock();
        let State { rooms, asking, .. } = &mut *state;
        let Some(room) = rooms.get_mut(key) else { return };
        let mut steps = Vec::new();
        change(&mut room.position, &mut steps);
        self.counts.round(room.take(steps));
        if room.position.is_asking() && asking.insert(key.clone()) {
            self.asked.notify_one();
        }
    }

    fn take_asks(&self) -> Vec<(RoomKey, Ask)> {
        let mut state = self.lock();
        let State { rooms, asking, .. } = &mut *state;
        let asks = asking.drain().filter_map(|key| {
            let ask = rooms.get_mut(&key)?.position.asks()?;
            Some((key, ask))
        });
        asks.collect()
    }

    fn direct(&self, session: &SessionId, mut message: ChatMessage) {
        let state = self.lock();
        let Some(session) = state.sessions.get(session) else { return };
        session.nick.as_str().clone_into(&mut message.to);
        session.outbox.event(&Broadcast::new(Event::Message(message)));
        self.counts.round(1);
    }

    fn presence(&self, key: &RoomKey, version: u64, delta: PresenceDelta) {
        let mut state = self.lock();
        let State { rooms, changed, .. } = &mut *state;
        let Some(room) = rooms.get_mut(key) else { return };
        room.change(version, delta);
        changed.push(key.clone());
    }

    /// The subscription was away: nobody knows what was missed.
    fn resumed(&self) {
        self.doubt();
        let mut state = self.lock();
        let State { rooms, changed, .. } = &mut *state;
        for (key, room) in rooms {
            room.missed_changes();
            changed.push(key.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole between its steps, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
