//! Who is on this node: sessions and their outboxes, logs (of rooms and inboxes) with their positions and who hears them.
//!
//! The backplane's task calls [`Hub::deliver`] with everything that arrives; drivers enter and leave rooms; the server
//! calls [`Hub::show_presence`] a few times a second; the reading task reads what logs ask for and hands it to
//! [`Hub::read`]; and tasks of the node give out what came of it, in rounds ([`Hub::fan_out`]). None of it waits for
//! anybody: an outbox takes what it is given or closes its connection. Knows no store and no socket.
//!
//! A member enters a room in steps, so that nothing is lost or doubled in between: [`Hub::prepare`] before the member
//! record is written (from there on the log's messages are kept for it), [`Hub::begin`] with the head that the record was
//! written at, [`Hub::admit`] with the position the client has; while it is behind what is kept, it reads on and asks
//! again. A session enters its inbox in the same way: [`Hub::expect`] prepares before its claim, whose answer has the head,
//! or [`Hub::attach`] does, and the head is read after that.
//! Invariant: a log's messages reach every member's outbox in one order, without a hole that it is not told of.

pub mod coalesce;
pub mod position;
pub mod refill;
mod scheduler;
mod streams;
mod subscribers;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::model::codes::CloseCode;
use presence::model::stream::StreamEnd;
use presence::model::{Fence, Incarnation, Nick, Owner, PresenceDelta, RoomKey, RoomName, SessionId};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use self::position::{Ask, Step, StreamPage, StreamTracker};
use self::scheduler::{FanOutJob, Given, PORTION};
use self::streams::StreamFeed;
use crate::backplane::{Delivery, StreamId};
use crate::message::ChatMessage;
use crate::metrics::Counts;
use crate::outbound::outbox::Outbox;

/// The sessions and logs of one node.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    /// A log asks for a reading.
    asked: Notify,
    /// A log has something to give out.
    given: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    /// Rooms with members here, and the inboxes of the sessions.
    /// Boxed: a table of large entries is mostly room for entries to come.
    logs: HashMap<StreamId, Box<StreamFeed>>,
    /// Rooms with something to show at the next round of presence.
    changed: Vec<RoomKey>,
    /// Logs that are to be read.
    asking: HashSet<StreamId>,
    /// Logs whose turn it is, one after the other.
    turns: VecDeque<(Name, Option<FanOutJob>)>,
    /// Logs that rest, and until when.
    resting: Vec<(Instant, Name)>,
    /// Audiences so far.
    audiences: u64,
}

/// A log and which of its audiences.
type Name = (StreamId, u64);

impl State {
    fn next_serial(&mut self) -> u64 {
        self.audiences += 1;
        self.audiences
    }

    fn audience(&mut self, (log, serial): &Name) -> Option<&mut StreamFeed> {
        self.logs.get_mut(log).map(Box::as_mut).filter(|audience| audience.serial == *serial)
    }

    /// Takes the round whose turn it is; nobody else goes on with it until it is put back.
    fn next_turn(&mut self, now: Instant) -> Option<(Name, FanOutJob)> {
        for (_, name) in self.resting.extract_if(.., |(until, _)| *until <= now).collect::<Vec<_>>() {
            self.go_on(name);
        }
        while let Some((name, turn)) = self.turns.pop_front() {
            let turn = turn.or_else(|| self.audience(&name)?.begin_turn(now));
            if let Some(turn) = turn {
                return Some((name, turn));
            }
        }
        None
    }

    /// The next round of the log has its turn, if one has gathered.
    fn go_on(&mut self, name: Name) {
        if self.audience(&name).is_some_and(|audience| audience.waiting.end_turn()) {
            self.turns.push_back((name, None));
        }
    }

    /// Asks for a turn for what waits in a log, and for a reading of it if it is behind. Returns whether to wake those
    /// who give out, and who reads.
    fn follow_up(&mut self, log: &StreamId) -> (bool, bool) {
        let Some(audience) = self.logs.get_mut(log) else { return (false, false) };
        let is_turn = audience.waiting.asks_for_turn();
        let is_asking = audience.position.is_asking() && !audience.waiting.is_full();
        if is_turn {
            let name = (log.clone(), audience.serial);
            self.turns.push_back((name, None));
        }
        (is_turn, is_asking && self.asking.insert(log.clone()))
    }
}

#[derive(Debug)]
struct Session {
    owner: Owner,
    outbox: Outbox,
}

/// Whether a member is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinProgress {
    /// Everything that follows goes out to it. Also for one that has entered before, or has left.
    Entered,
    /// The log is further than what is kept for it: read on in the log, and ask again.
    Behind,
}

/// What came of reading a log that asked for it.
#[derive(Debug)]
pub enum Reading {
    /// It ends there.
    Top(StreamEnd),
    /// It keeps this.
    Page(StreamPage<ChatMessage>),
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
        Self { state: Mutex::default(), asked: Notify::new(), given: Notify::new(), counts }
    }

    /// A session is about to begin here: whatever comes into its inbox from the moment of its claim is noticed.
    pub fn expect(&self, session: &SessionId, nick: &Nick, outbox: &Outbox) {
        let mut state = self.lock();
        let serial = state.next_serial();
        let inbox = state.logs.entry(StreamId::Inbox(session.clone()));
        inbox.or_insert_with(|| Box::new(StreamFeed::new(nick.as_str(), serial))).prepare(session, outbox);
    }

    /// It did not begin.
    pub fn forget(&self, session: &SessionId) {
        self.lock().logs.remove(&StreamId::Inbox(session.clone()));
    }

    /// A session has begun or was resumed here. What comes into its inbox is kept for `outbox` until it is let in with
    /// [`Hub::admit`]. An older connection of it ends.
    pub fn attach(&self, owner: &Owner, nick: &Nick, outbox: &Outbox) {
        let begun = Session { owner: owner.clone(), outbox: outbox.clone() };
        if let Some(older) = self.lock().sessions.insert(owner.session.clone(), begun) {
            older.outbox.close(CloseCode::TakenOver);
        }
        self.expect(&owner.session, nick, outbox);
    }

    /// The session goes by another name, under the claim to it.
    pub fn rename(&self, owner: &Owner, nick: &Nick) {
        let mut state = self.lock();
        let State { sessions, logs, .. } = &mut *state;
        if let Some(known) = sessions.get_mut(&owner.session) {
            known.owner = owner.clone();
        }
        if let Some(inbox) = logs.get_mut(&StreamId::Inbox(owner.session.clone())) {
            inbox.rename(nick.as_str());
        }
    }

    /// The session is over, unless it goes on here over a newer connection. Its rooms are left one by one with
    /// [`Hub::remove`].
    pub fn detach(&self, owner: &Owner) {
        let mut state = self.lock();
        let State { sessions, logs, .. } = &mut *state;
        if let Entry::Occupied(known) = sessions.entry(owner.session.clone())
            && owner.succeeds(&known.get().owner)
        {
            let Session { outbox, .. } = known.remove();
            if let Some(mut inbox) = logs.remove(&StreamId::Inbox(owner.session.clone())) {
                inbox.remove(&owner.session, &outbox);
            }
        }
    }

    /// Keeps the room's messages for a member that is about to enter.
    pub fn prepare(&self, room: &RoomName, session: &SessionId, outbox: &Outbox) {
        let mut state = self.lock();
        let (log, serial) = (StreamId::Room(room.key().clone()), state.next_serial());
        state
            .logs
            .entry(log)
            .or_insert_with(|| Box::new(StreamFeed::new(room.as_str(), serial)))
            .prepare(session, outbox);
    }

    /// A head of the log that was read after its subscription was confirmed: a log that has not begun begins here.
    pub fn begin(&self, log: &StreamId, head: &StreamEnd) {
        self.advance(log, |position, steps| position.begin(head, steps));
    }

    /// The client has everything of this epoch up to `after`: sends what is kept and newer, then everything that follows.
    /// `shown` is what the client knows the log by: the name of the room, or its own nickname. Nothing comes of it when the
    /// session is in, or about to be, over another connection than `outbox`.
    pub fn admit(
        &self,
        log: &StreamId,
        shown: &str,
        newcomer: (&SessionId, &Outbox),
        epoch: &str,
        after: u64,
    ) -> JoinProgress {
        let mut state = self.lock();
        let audience = state.logs.get_mut(log);
        audience.map_or(JoinProgress::Entered, |audience| audience.admit(shown, newcomer, epoch, after))
    }

    /// The member has left, or did not enter after all. One that is in over another connection by now stays.
    pub fn remove(&self, room: &RoomKey, session: &SessionId, outbox: &Outbox) {
        let mut state = self.lock();
        let Entry::Occupied(mut entry) = state.logs.entry(StreamId::Room(room.clone())) else { return };
        entry.get_mut().remove(session, outbox);
        if entry.get().is_empty() {
            entry.remove();
        }
    }

    /// Something may be missing that nothing later will show: the tops of all logs are to be compared.
    pub fn doubt(&self) {
        let mut state = self.lock();
        let State { logs, asking, .. } = &mut *state;
        for (log, audience) in logs {
            audience.position.doubt();
            asking.insert(log.clone());
        }
        self.asked.notify_one();
    }

    /// Waits until logs ask for readings, and takes these. Each is to be answered with [`Hub::read`]. Dropping the
    /// future loses nothing. One waiter: the reading task.
    pub async fn asks(&self) -> Vec<(StreamId, Ask)> {
        loop {
            let asked = self.asked.notified();
            let asks = self.take_asks();
            if !asks.is_empty() {
                return asks;
            }
            asked.await;
        }
    }

    /// What was read of a log that asked for it.
    pub fn read(&self, log: &StreamId, ask: &Ask, reading: Reading) {
        let (Ask::Top(asked) | Ask::Page(asked)) = ask;
        self.advance(log, |position, steps| match reading {
            Reading::Top(head) => position.top(asked, &head, steps),
            Reading::Page(page) => {
                position.page(asked, page, steps);
                self.counts.gap(steps);
            }
            Reading::Failed => position.doubt(),
        });
    }

    /// Takes what arrived from the backplane. Never blocks. Echoes and orders are not the hub's and are ignored.
    pub fn deliver(&self, delivery: Delivery) {
        match delivery {
            Delivery::Room { room, epoch, message } => self.arrived(&StreamId::Room(room), &epoch, message),
            Delivery::Presence { room, version, delta } => self.presence(&room, version, delta),
            Delivery::Direct { session, epoch, message } => self.arrived(&StreamId::Inbox(session), &epoch, message),
            Delivery::Typing { log, by, from } => self.typing(&log, by.as_ref(), &from),
            Delivery::Resumed => self.resumed(),
            Delivery::Echo { .. } | Delivery::Kick { .. } | Delivery::Taken { .. } => {}
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
        let changed = std::mem::take(&mut self.lock().changed);
        for key in changed {
            self.change(&StreamId::Room(key), StreamFeed::show_presence);
        }
    }

    /// Gives out what logs have given, for as long as it is polled. Several at once share the work. Dropping the future
    /// loses nothing.
    pub async fn fan_out(&self) {
        loop {
            let given = self.given.notified();
            while self.give_out(Instant::now) {
                // What has arrived meanwhile joins the rounds to come.
                yield_now().await;
            }
            match self.rests_until() {
                None => given.await,
                Some(until) => _ = timeout_at(until.into(), given).await,
            }
        }
    }

    /// Gives out one portion, to a fixed number of connections at most. Returns whether there is more to do now.
    pub fn give_out(&self, clock: impl Fn() -> Instant) -> bool {
        let mut left = PORTION;
        while left > 0 {
            let Some((name, mut turn)) = self.lock().next_turn(clock()) else { return false };
            let Given { hearers, written, left_out } = turn.go_on(left);
            self.counts.deliveries.written(turn.accepted(), written);
            self.counts.left_out.inc_by(left_out);
            // A log that nobody hears is no reason to go on for ever.
            left -= hearers.clamp(1, left);
            self.put_back(name, turn, clock());
        }
        !self.lock().turns.is_empty()
    }

    /// When the first log has rested.
    fn rests_until(&self) -> Option<Instant> {
        self.lock().resting.iter().map(|(until, _)| *until).min()
    }

    /// The round goes on behind all others, or the next one of its log does, after a rest if it took long.
    fn put_back(&self, name: Name, turn: FanOutJob, now: Instant) {
        let mut state = self.lock();
        if !turn.is_over() {
            return state.turns.push_back((name, Some(turn)));
        }
        self.counts.round(turn.deliveries());
        // A log that was too full to be read may be read now.
        if state.follow_up(&name.0).1 {
            self.asked.notify_one();
        }
        match turn.rest(now) {
            None => state.go_on(name),
            Some(rest) => state.resting.push((now + rest, name)),
        }
    }

    /// Counts sessions and rooms.
    #[must_use]
    pub fn census(&self) -> Census {
        let state = self.lock();
        let rooms = state.logs.keys().filter(|log| matches!(log, StreamId::Room(_))).count();
        Census { sessions: state.sessions.len(), rooms }
    }

    /// How many logs somebody here hears, or is about to.
    #[cfg(test)]
    pub(crate) fn logs(&self) -> usize {
        self.lock().logs.len()
    }

    /// Changes the position in a log, gives those who hear it what comes of it, and notes what it asks for.
    fn advance(
        &self,
        log: &StreamId,
        change: impl FnOnce(&mut StreamTracker<ChatMessage>, &mut Vec<Step<ChatMessage>>),
    ) {
        self.change(log, |audience| {
            let mut steps = Vec::new();
            change(&mut audience.position, &mut steps);
            audience.take(steps);
        });
    }

    fn change(&self, log: &StreamId, change: impl FnOnce(&mut StreamFeed)) {
        let mut state = self.lock();
        let Some(audience) = state.logs.get_mut(log) else { return };
        change(audience);
        let (is_turn, is_asking) = state.follow_up(log);
        drop(state);
        if is_turn {
            self.given.notify_one();
        }
        if is_asking {
            self.asked.notify_one();
        }
    }

    fn take_asks(&self) -> Vec<(StreamId, Ask)> {
        let mut state = self.lock();
        let State { logs, asking, .. } = &mut *state;
        let asks = asking.drain().filter_map(|log| {
            let ask = logs.get_mut(&log)?.position.asks()?;
            Some((log, ask))
        });
        asks.collect()
    }

    fn arrived(&self, log: &StreamId, epoch: &str, message: ChatMessage) {
        self.change(log, |audience| audience.arrived(epoch, message));
    }

    fn presence(&self, key: &RoomKey, version: u64, delta: PresenceDelta) {
        let mut state = self.lock();
        let State { logs, changed, .. } = &mut *state;
        let Some(room) = logs.get_mut(&StreamId::Room(key.clone())) else { return };
        room.change(version, delta);
        changed.push(key.clone());
    }

    fn typing(&self, log: &StreamId, by: Option<&SessionId>, from: &str) {
        self.change(log, |audience| audience.show_typing(by, from));
    }

    /// The subscription was away: nobody knows what was missed.
    fn resumed(&self) {
        self.doubt();
        let mut state = self.lock();
        let State { logs, changed, .. } = &mut *state;
        for (log, audience) in logs {
            if let StreamId::Room(room) = log {
                audience.missed_changes();
                changed.push(room.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole between its steps, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
