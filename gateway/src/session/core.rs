//! The session as a pure state machine: requests and outcomes go in, effects come out.
//!
//! Decides everything a session may do; performs nothing. The driver feeds it one request at a time, performs the one
//! [`Op`] it asks for and feeds the outcome back, so requests of a connection are answered in order by construction.
//! Never reads a clock (an `Instant` is passed in), never touches a store, a socket or a format.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use presence::codes::{CloseCode, ErrorCode};
use presence::log::{Head, Log};
use presence::model::{MemberInfo, Nick, Owner, RoomKey, RoomName, SessionId, Status};

use crate::message::{Body, ChatMessage, Target};
use crate::wire::{Answer, Command, CorrelationId, Event, Placed, Range, Refusal, Reply, Request, RoomItem, Since};

use super::liveness::Liveness;

/// Most rooms a session may be in.
pub const MAX_ROOMS: usize = 128;

/// What the driver shall do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Answer a request.
    Reply(Reply),
    /// Do this and feed its outcome to [`Core::outcome`]. At most one is out at a time, and it comes last.
    Perform(Op),
    /// Tell the client.
    Tell(Event),
    /// Everything after a position of the room goes to the client, and what is said from here on.
    Admit(Entrance),
    /// End the connection.
    Close(CloseCode),
}

/// How a client enters a log: of a room that its session has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// The log.
    pub log: Log,
    /// What the client knows it by.
    pub shown: String,
    /// Where it ended when the session entered it.
    pub head: Head,
    /// The epoch that the client knows.
    pub epoch: String,
    /// What the client gets comes after this, in that epoch.
    pub after: u64,
}

/// Work for stores and backplane. Idempotent by session, so the driver may repeat it after a lost answer.
#[derive(Debug, Clone)]
pub enum Op {
    /// Take a nickname: for a new session, or as another name of this one.
    Claim(Nick, Option<SessionId>),
    /// Give a nickname back after a change to another.
    Release(Nick, Owner, Nick),
    /// Enter a room; `was` is the session's former name there, when it has changed.
    Join {
        /// The room.
        room: RoomName,
        /// As whom.
        me: Identity,
        /// The former name.
        was: Option<Identity>,
        /// Whether the session hears the room already.
        again: bool,
    },
    /// Leave a room.
    Leave(RoomName, Identity),
    /// Say something in a room.
    Publish(RoomName, Identity, Body, Option<String>),
    /// Say something to somebody.
    Direct(Nick, Identity, Body, Option<String>),
    /// Record and announce a status.
    SetStatus(Identity, Status, Vec<RoomKey>),
    /// List the members of a room.
    Members(RoomName, usize, Option<String>),
    /// List rooms.
    Rooms(usize, Option<String>),
    /// Read a room's log.
    History(RoomName, Range, usize),
}

/// A session's name, its claim to it, and what it says about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The nickname.
    pub nick: Nick,
    /// The claim.
    pub owner: Owner,
    /// The status.
    pub status: Status,
}

/// What came of an [`Op`] that was done.
#[derive(Debug)]
pub enum Done {
    /// The nickname is owned; the server's clock said so many Unix milliseconds.
    Claimed(Owner, u64),
    /// The nickname was given back, the room left, or the status recorded.
    Settled,
    /// The room was entered.
    Joined {
        /// Everybody's name for it.
        room: RoomName,
        /// Where its log ends.
        head: Head,
        /// Its members.
        member_count: u64,
    },
    /// The message is in the store.
    Published {
        /// Its id.
        msg_id: String,
        /// Its position.
        seq: u64,
        /// When.
        time: u64,
        /// Whether it was there before.
        duplicate: bool,
        /// Whether somebody hears it now.
        online: bool,
    },
    /// A page of members.
    Members(Vec<MemberInfo>, Option<String>),
    /// A page of rooms.
    Rooms(Vec<RoomItem>, Option<String>),
    /// A stretch of a log.
    History(Vec<ChatMessage>, bool),
}

/// The state of one session.
#[derive(Debug)]
pub struct Core {
    node: Arc<str>,
    identity: Option<Identity>,
    rooms: BTreeMap<RoomKey, RoomName>,
    liveness: Liveness,
    pending: Option<(CorrelationId, Pending)>,
}

/// What the outcome that is awaited will be used for.
#[derive(Debug)]
enum Pending {
    Register(Nick),
    /// The new name is claimed, gets the status, and is carried into the rooms one by one; then the old one is given back.
    Rename {
        now: Nick,
        was: Identity,
        rooms: VecDeque<RoomName>,
        claimed: Option<Owner>,
    },
    /// Where the client was, if it said so and is not in the room.
    Join(Option<Since>),
    Leave(RoomName),
    Send(Target),
    Status(Status),
    Members(RoomName),
    Rooms,
    History(RoomName),
}

impl Core {
    /// A connection to `node` that has not registered. `pings` is whether its door can ask for signs of life.
    #[must_use]
    pub fn new(node: Arc<str>, now: Instant, pings: bool) -> Self {
        Self { node, identity: None, rooms: BTreeMap::new(), liveness: Liveness::new(now, pings), pending: None }
    }

    /// Who the session is, once it has registered.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The rooms it is in.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.values()
    }

    /// Silence and its limits.
    #[must_use]
    pub fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Silence and its limits, to tell it what was heard and to ask it what is due.
    pub fn liveness_mut(&mut self) -> &mut Liveness {
        &mut self.liveness
    }

    /// Takes one request. While an [`Op`] is out the driver must not call this.
    pub fn request(&mut self, now: Instant, request: Request) -> Vec<Effect> {
        debug_assert!(self.pending.is_none(), "one request at a time");
        let Request { id, command } = request;
        match command {
            Command::Ping => return vec![answer(id, Answer::Pong)],
            Command::Bye => return vec![Effect::Close(CloseCode::Normal)],
            _ => self.liveness.acted(now),
        }
        match (&self.identity, command) {
            (None, Command::Register { nick }) => {
                let op = Op::Claim(nick.clone(), None);
                self.perform(id, Pending::Register(nick), op)
            }
            (Some(_), Command::Register { .. }) => vec![refuse(id, ErrorCode::AlreadyRegistered)],
            (None, _) => vec![refuse(id, ErrorCode::NotRegistered)],
            (Some(me), command) => {
                let me = me.clone();
                self.registered(id, me, command)
            }
        }
    }

    /// Takes the outcome of the [`Op`] that is out.
    pub fn outcome(&mut self, now: Instant, outcome: Result<Done, Refusal>) -> Vec<Effect> {
        let Some((id, pending)) = self.pending.take() else {
            debug_assert!(false, "an outcome without an op");
            return Vec::new();
        };
        match outcome {
            Ok(done) => self.done(now, id, pending, done),
            Err(refusal) => failed(id, &pending, refusal),
        }
    }

    fn registered(&mut self, id: CorrelationId, me: Identity, command: Command) -> Vec<Effect> {
        match command {
            Command::Join { room, since } => {
                let again = self.rooms.contains_key(room.key());
                if !again && self.rooms.len() >= MAX_ROOMS {
                    return vec![refuse(id, ErrorCode::TooManyRooms)];
                }
                let since = since.filter(|_| !again);
                self.perform(id, Pending::Join(since), Op::Join { room, me, was: None, again })
            }
            Command::Leave { room } => {
                let Some(room) = self.rooms.get(room.key()).cloned() else {
                    return vec![refuse(id, ErrorCode::NotInRoom)];
                };
                self.perform(id, Pending::Leave(room.clone()), Op::Leave(room, me))
            }
            Command::Send { to: Target::Room(asked), body, key } => {
                let Some(room) = self.rooms.get(asked.key()).cloned() else {
                    return vec![refuse(id, ErrorCode::NotInRoom)];
                };
                self.perform(id, Pending::Send(Target::Room(asked)), Op::Publish(room, me, body, key))
            }
            Command::Send { to: Target::Nick(nick), body, key } => {
                self.perform(id, Pending::Send(Target::Nick(nick.clone())), Op::Direct(nick, me, body, key))
            }
            Command::Nick { nick } if nick == me.nick => {
                vec![answer(id, Answer::Nick { nick: nick.as_str().to_owned() })]
            }
            Command::Nick { nick } => {
                let op = Op::Claim(nick.clone(), Some(me.owner.session.clone()));
                let rooms = self.rooms.values().cloned().collect();
                self.perform(id, Pending::Rename { now: nick, was: me, rooms, claimed: None }, op)
            }
            Command::Status(status) => {
                let rooms = self.rooms.keys().cloned().collect();
                self.perform(id, Pending::Status(status.clone()), Op::SetStatus(me, status, rooms))
            }
            Command::Members { room, limit, cursor } => {
                self.perform(id, Pending::Members(room.clone()), Op::Members(room, limit, cursor))
            }
            Command::Rooms { limit, cursor } => self.perform(id, Pending::Rooms, Op::Rooms(limit, cursor)),
            Command::History { room, range, limit } => {
                let Some(room) = self.rooms.get(room.key()).cloned() else {
                    return vec![refuse(id, ErrorCode::NotInRoom)];
                };
                self.perform(id, Pending::History(room.clone()), Op::History(room, range, limit))
            }
            Command::Register { .. } | Command::Ping | Command::Bye => Vec::new(),
        }
    }

    fn done(&mut self, now: Instant, id: CorrelationId, pending: Pending, done: Done) -> Vec<Effect> {
        match (pending, done) {
            (Pending::Register(nick), Done::Claimed(owner, time)) => {
                let reply = Answer::Registered {
                    nick: nick.as_str().to_owned(),
                    session: owner.session.to_string(),
                    heartbeat_ms: self.liveness.heartbeat_ms(),
                    node: self.node.to_string(),
                    time,
                };
                self.liveness.registered(now);
                self.identity = Some(Identity { nick, owner, status: Status::default() });
                vec![answer(id, reply)]
            }
            (Pending::Rename { now: nick, was, rooms, claimed }, done) => {
                self.renaming(id, nick, was, rooms, claimed, done)
            }
            (Pending::Join(since), Done::Joined { room, head, member_count }) => {
                self.rooms.insert(room.key().clone(), room.clone());
                entered(id, &room, head, member_count, since)
            }
            (Pending::Leave(room), Done::Settled) => {
                self.rooms.remove(room.key());
                vec![answer(id, Answer::Left { room: room.as_str().to_owned() })]
            }
            (Pending::Send(to), Done::Published { msg_id, seq, time, duplicate, online }) => {
                let placed = match to {
                    Target::Room(_) => Placed::Room { seq },
                    Target::Nick(_) if online => Placed::Online,
                    Target::Nick(_) => Placed::Offline,
                };
                vec![answer(id, Answer::Ack { to: to.as_str().to_owned(), msg_id, placed, time, duplicate })]
            }
            (Pending::Status(status), Done::Settled) => {
                if let Some(me) = &mut self.identity {
                    me.status = status.clone();
                }
                vec![answer(id, Answer::Status(status))]
            }
            (Pending::Members(room), Done::Members(items, next_cursor)) => {
                vec![answer(id, Answer::Members { room: room.as_str().to_owned(), items, next_cursor })]
            }
            (Pending::Rooms, Done::Rooms(items, next_cursor)) => {
                vec![answer(id, Answer::Rooms { items, next_cursor })]
            }
            (Pending::History(room), Done::History(items, more)) => {
                vec![answer(id, Answer::History { to: room.as_str().to_owned(), items, more })]
            }
            (_, _) => {
                debug_assert!(false, "the outcome is of another kind than its op");
                vec![refuse(id, ErrorCode::Internal)]
            }
        }
    }

    /// One step of a change of name: claimed, then what the session says about itself, then carried into each room, then
    /// the old name goes back. Every step is a script on one partition; nobody can say anything in between, since the
    /// session waits.
    fn renaming(
        &mut self,
        id: CorrelationId,
        now: Nick,
        was: Identity,
        mut rooms: VecDeque<RoomName>,
        claimed: Option<Owner>,
        done: Done,
    ) -> Vec<Effect> {
        let (owner, is_new) = match (done, claimed) {
            (Done::Claimed(owner, _), None) => (owner, true),
            (Done::Joined { .. } | Done::Settled, Some(owner)) => (owner, false),
            _ => {
                debug_assert!(false, "the outcome is of another kind than its op");
                return vec![refuse(id, ErrorCode::Internal), Effect::Close(CloseCode::Internal)];
            }
        };
        let me = Identity { nick: now.clone(), owner: owner.clone(), status: was.status.clone() };
        // From the claim on the session owns both names; whatever happens now, its end gives the new one back.
        self.identity = Some(me.clone());
        // A name that was just claimed is plain online; the rooms are told with their new member records.
        if is_new && was.owner != owner && me.status != Status::default() {
            let op = Op::SetStatus(me.clone(), me.status, Vec::new());
            return self.perform(id, Pending::Rename { now, was, rooms, claimed: Some(owner) }, op);
        }
        if let Some(room) = rooms.pop_front() {
            let op = Op::Join { room, me, was: Some(was.clone()), again: true };
            return self.perform(id, Pending::Rename { now, was, rooms, claimed: Some(owner) }, op);
        }
        if was.nick.key() != now.key() && was.owner != owner {
            let op = Op::Release(was.nick.clone(), was.owner.clone(), now.clone());
            // The same owner marks the old name as given back: the next step answers.
            let was = Identity { owner: owner.clone(), ..was };
            return self.perform(id, Pending::Rename { now, was, rooms, claimed: Some(owner) }, op);
        }
        vec![answer(id, Answer::Nick { nick: now.as_str().to_owned() })]
    }

    fn perform(&mut self, id: CorrelationId, pending: Pending, op: Op) -> Vec<Effect> {
        self.pending = Some((id, pending));
        vec![Effect::Perform(op)]
    }
}

/// A change of name that stopped half-way leaves a session with two names: only its end can tidy that up.
fn failed(id: CorrelationId, pending: &Pending, refusal: Refusal) -> Vec<Effect> {
    let half_way = match pending {
        Pending::Rename { claimed: None, .. } => refusal.code == ErrorCode::OutcomeUnknown,
        Pending::Rename { claimed: Some(_), .. } => true,
        _ => false,
    };
    let mut effects = vec![answer(id, Answer::Refused(refusal))];
    if half_way {
        effects.push(Effect::Close(CloseCode::Restart));
    }
    effects
}

/// A client that was in the room before goes on where it was, as far as that is in the room's history as it is now.
fn entered(id: CorrelationId, room: &RoomName, head: Head, member_count: u64, since: Option<Since>) -> Vec<Effect> {
    let (log, shown, seq) = (Log::Room(room.key().clone()), room.as_str().to_owned(), head.top);
    let recovered = since.as_ref().is_some_and(|since| since.seq <= head.shares(&since.epoch));
    let joined = Answer::Joined { room: shown.clone(), epoch: head.epoch.clone(), seq, member_count, recovered };
    let (epoch, after) = since.map_or_else(|| (head.epoch.clone(), seq), |since| (since.epoch, since.seq));
    vec![answer(id, joined), Effect::Admit(Entrance { log, shown, head, epoch, after })]
}

fn answer(id: CorrelationId, answer: Answer) -> Effect {
    Effect::Reply(Reply { id, answer })
}

fn refuse(id: CorrelationId, code: ErrorCode) -> Effect {
    answer(id, Answer::Refused(code.into()))
}

#[cfg(test)]
mod tests;
