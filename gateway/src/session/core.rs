//! The session as a pure state machine: requests and outcomes go in, effects come out.
//!
//! Decides everything a session may do; performs nothing. The driver feeds it one request at a time, performs the one
//! [`Op`] it asks for and feeds the outcome back, so requests of a connection are answered in order by construction.
//! Never reads a clock (an `Instant` is passed in), never touches a store, a socket or a format.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::stream::{StreamEnd, StreamId};
use presence::model::{Nick, Owner, RoomKey, RoomName, Status};

use crate::message::Target;
use crate::wire::{
    Answer, Command, CorrelationId, DeliveryStatus, Refusal, Reply, Request, RestoredRoom, Resume, Since,
};

use super::liveness::Liveness;
use super::small_map::SmallMap;

mod typing;
mod work;

use self::typing::Typing;
pub use self::work::{Beginning, Done, Effect, Entrance, Identity, Op, Resumption};

/// Most rooms a session may be in.
pub const MAX_ROOMS: usize = 128;

/// The state of one session.
#[derive(Debug)]
pub struct Core {
    node: Arc<str>,
    identity: Option<Identity>,
    rooms: SmallMap<RoomKey, JoinedRoom>,
    liveness: Liveness,
    /// Boxed: large, and most sessions ask for nothing most of the time.
    pending: Option<Box<(CorrelationId, Pending)>>,
    presumed: Presumed,
    typing: Typing,
}

/// A place in a room.
#[derive(Debug)]
struct JoinedRoom {
    room: RoomName,
    /// Whether what is said there is given to the client.
    hears: bool,
}

/// Whether the client has heard that it is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presumed {
    /// Nobody knows. For a resumed session the token before is kept for that reason.
    Deaf { resumed: bool },
    /// It has asked for something since.
    Informed,
}

/// What the outcome that is awaited will be used for.
#[derive(Debug)]
enum Pending {
    Register(Nick, Option<Resume>),
    Restore(Box<Restoring>),
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
    Read(u64),
    Typing(Target),
    History(RoomName),
}

/// A session that begins or goes on: its places are written anew, one by one, the end of its inbox is read, then the client
/// is told, then it is let in where it wants to.
#[derive(Debug)]
struct Restoring {
    beginning: Beginning,
    me: Identity,
    was: Option<Identity>,
    rooms: VecDeque<RoomName>,
    wanted: HashMap<RoomKey, Since>,
    restored: Vec<RestoredRoom>,
    entrances: Vec<Effect>,
    /// What the client has of its inbox; of that of a session that begins, everything that there is.
    has_read: Option<Since>,
}

impl Restoring {
    /// Of a session that begins.
    fn new(beginning: Beginning, me: Identity) -> Self {
        let (rooms, restored, entrances) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { beginning, me, was: None, rooms, wanted: HashMap::new(), restored, entrances, has_read: None }
    }
}

impl Core {
    /// A connection to `node` that has not registered. `pings` is whether its door can ask for signs of life.
    #[must_use]
    pub fn new(node: Arc<str>, now: Instant, pings: bool) -> Self {
        Self {
            node,
            identity: None,
            rooms: SmallMap::default(),
            liveness: Liveness::new(now, pings),
            pending: None,
            presumed: Presumed::Deaf { resumed: false },
            typing: Typing::default(),
        }
    }

    /// Who the session is, once it has registered.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The rooms it is in.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.rooms.values().map(|seat| &seat.room)
    }

    /// Whether anybody can know of this session, or of its newest token: the client has said something since it was told.
    /// A session of before is known in any case.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.presumed != Presumed::Deaf { resumed: false }
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
        let mut effects = Vec::from_iter(self.informed());
        effects.extend(self.asked(now, request));
        effects
    }

    /// Whoever asks for something has heard what came before.
    fn informed(&mut self) -> Option<Effect> {
        self.identity.as_ref()?;
        let before = std::mem::replace(&mut self.presumed, Presumed::Informed);
        (before == Presumed::Deaf { resumed: true }).then_some(Effect::Confirm)
    }

    fn asked(&mut self, now: Instant, Request { id, command }: Request) -> Vec<Effect> {
        match command {
            Command::Ping => return vec![answer(id, Answer::Pong)],
            Command::Bye => return vec![Effect::Close(CloseCode::Normal)],
            _ => self.liveness.acted(now),
        }
        match (&self.identity, command) {
            (None, Command::Register { nick, resume }) => {
                let op = match &resume {
                    None => Op::Claim(nick.clone(), None),
                    Some(resume) => Op::Resume(nick.clone(), resume.token.clone()),
                };
                self.perform(id, Pending::Register(nick, resume), op)
            }
            (Some(_), Command::Register { .. }) => vec![refuse(id, ErrorCode::AlreadyRegistered)],
            (None, _) => vec![refuse(id, ErrorCode::NotRegistered)],
            (Some(me), command) => {
                let me = me.clone();
                self.registered(now, id, me, command)
            }
        }
    }

    /// Takes the outcome of the [`Op`] that is out.
    pub fn outcome(&mut self, now: Instant, outcome: Result<Done, Refusal>) -> Vec<Effect> {
        let Some((id, pending)) = self.pending.take().map(|pending| *pending) else {
            debug_assert!(false, "an outcome without an op");
            return Vec::new();
        };
        match outcome {
            Ok(done) => self.done(now, id, pending, done),
            Err(refusal) => failed(id, &pending, refusal),
        }
    }

    fn registered(&mut self, now: Instant, id: CorrelationId, me: Identity, command: Command) -> Vec<Effect> {
        match command {
            Command::Join { room, since } => {
                let seat = self.rooms.get(room.key());
                if seat.is_none() && self.rooms.len() >= MAX_ROOMS {
                    return vec![refuse(id, ErrorCode::TooManyRooms)];
                }
                let enters = !seat.is_some_and(|seat| seat.hears);
                let since = since.filter(|_| enters);
                self.perform(id, Pending::Join(since), Op::Join { room, me, was: None, enters })
            }
            Command::Leave { room } => {
                let Some(room) = self.seat(&room) else { return vec![refuse(id, ErrorCode::NotInRoom)] };
                self.perform(id, Pending::Leave(room.clone()), Op::Leave(room, me))
            }
            Command::Send { to: Target::Room(asked), body, key } => {
                let Some(room) = self.seat(&asked) else { return vec![refuse(id, ErrorCode::NotInRoom)] };
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
                let rooms = self.rooms().cloned().collect();
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
                let Some(room) = self.seat(&room) else { return vec![refuse(id, ErrorCode::NotInRoom)] };
                self.perform(id, Pending::History(room.clone()), Op::History(room, range, limit))
            }
            Command::Read { seq } => self.perform(id, Pending::Read(seq), Op::Read(me.owner.session, seq)),
            Command::Typing { to } => {
                let passed_on = match &to {
                    Target::Nick(_) => to.clone(),
                    Target::Room(asked) => match self.seat(asked) {
                        Some(room) => Target::Room(room),
                        None => return vec![refuse(id, ErrorCode::NotInRoom)],
                    },
                };
                if self.typing.is_told(now, &passed_on) {
                    return vec![answer(id, Answer::Typing { to: to.as_str().to_owned() })];
                }
                self.perform(id, Pending::Typing(to), Op::Typing(passed_on, me))
            }
            Command::Register { .. } | Command::Ping | Command::Bye => Vec::new(),
        }
    }

    fn done(&mut self, now: Instant, id: CorrelationId, pending: Pending, done: Done) -> Vec<Effect> {
        match (pending, done) {
            (Pending::Register(nick, None), Done::Begun(beginning, inbox)) => {
                let me = Identity { nick, owner: beginning.owner.clone(), status: Status::default() };
                self.begin(now, me.clone(), false);
                self.restored(id, Restoring::new(beginning, me), inbox)
            }
            (
                Pending::Register(nick, Some(resume)),
                Done::Resumed(beginning, Resumption { was, status, rooms, read }),
            ) => {
                let was = was.filter(|(before, _)| *before != nick);
                let was = was.map(|(nick, owner)| Identity { nick, owner, status: status.clone() });
                let me = Identity { nick, owner: beginning.owner.clone(), status };
                self.begin(now, me.clone(), true);
                let wanted = resume.rooms.into_iter().map(|(room, since)| (room.key().clone(), since)).collect();
                let (rooms, has_read) = (rooms.into(), Some(resume.inbox.unwrap_or(read)));
                let before = Restoring::new(beginning, me);
                self.restore(id, Box::new(Restoring { was, rooms, wanted, has_read, ..before }))
            }
            (Pending::Restore(mut restoring), Done::Joined { room, head, .. }) => {
                let wanted = restoring.wanted.remove(room.key());
                self.rooms.insert(room.key().clone(), JoinedRoom { room: room.clone(), hears: wanted.is_some() });
                let (shown, epoch, seq) = (room.as_str().to_owned(), head.epoch.clone(), head.top);
                restoring.restored.push(RestoredRoom { room: shown, epoch, seq });
                if wanted.is_some() {
                    restoring.entrances.push(entered(StreamId::Room(room.key().clone()), room.as_str(), head, wanted));
                }
                self.restore(id, restoring)
            }
            (Pending::Restore(restoring), Done::Inbox(head)) => self.restored(id, *restoring, head),
            (Pending::Rename { now: nick, was, rooms, claimed }, done) => {
                self.renaming(id, nick, was, rooms, claimed, done)
            }
            (Pending::Join(since), Done::Joined { room, head, member_count }) => {
                self.rooms.insert(room.key().clone(), JoinedRoom { room: room.clone(), hears: true });
                let joined = Answer::Joined {
                    room: room.as_str().to_owned(),
                    epoch: head.epoch.clone(),
                    seq: head.top,
                    member_count,
                    recovered: since.as_ref().is_some_and(|since| since.seq <= head.shares(&since.epoch)),
                };
                vec![answer(id, joined), entered(StreamId::Room(room.key().clone()), room.as_str(), head, since)]
            }
            (Pending::Leave(room), Done::Settled) => {
                self.rooms.remove(room.key());
                vec![answer(id, Answer::Left { room: room.as_str().to_owned() })]
            }
            (Pending::Send(to), Done::Published { msg_id, seq, time, duplicate, online }) => {
                let placed = match to {
                    Target::Room(_) => DeliveryStatus::Room { seq },
                    Target::Nick(_) if online => DeliveryStatus::Online,
                    Target::Nick(_) => DeliveryStatus::Offline,
                };
                vec![answer(id, Answer::Ack { to: to.as_str().to_owned(), msg_id, placed, time, duplicate })]
            }
            (Pending::Read(seq), Done::Settled) => vec![answer(id, Answer::Read { seq })],
            (Pending::Typing(to), Done::Settled) => vec![answer(id, Answer::Typing { to: to.as_str().to_owned() })],
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

    fn begin(&mut self, now: Instant, me: Identity, resumed: bool) {
        self.liveness.registered(now);
        self.identity = Some(me);
        self.presumed = Presumed::Deaf { resumed };
    }

    /// One step of going on with a session: the next of its rooms, or all of them are restored.
    fn restore(&mut self, id: CorrelationId, mut restoring: Box<Restoring>) -> Vec<Effect> {
        if let Some(room) = restoring.rooms.pop_front() {
            let (me, was) = (restoring.me.clone(), restoring.was.clone());
            let enters = restoring.wanted.contains_key(room.key());
            return self.perform(id, Pending::Restore(restoring), Op::Join { room, me, was, enters });
        }
        let session = restoring.beginning.owner.session.clone();
        self.perform(id, Pending::Restore(restoring), Op::Inbox(session))
    }

    /// Everything is where it was, and the client hears of it.
    fn restored(&self, id: CorrelationId, restoring: Restoring, inbox: StreamEnd) -> Vec<Effect> {
        let Restoring { beginning: Beginning { owner, token, time }, me, restored, entrances, has_read, .. } =
            restoring;
        let reply = Answer::Registered {
            nick: me.nick.as_str().to_owned(),
            session: owner.session.to_string(),
            resume: token,
            rooms: restored,
            inbox: Since { epoch: inbox.epoch.clone(), seq: inbox.top },
            heartbeat_ms: self.liveness.heartbeat_ms(),
            node: self.node.to_string(),
            time,
        };
        let has_read = has_read.unwrap_or_else(|| Since { epoch: inbox.epoch.clone(), seq: 0 });
        let inbox = entered(StreamId::Inbox(owner.session), me.nick.as_str(), inbox, Some(has_read));
        [answer(id, reply), inbox].into_iter().chain(entrances).collect()
    }

    /// The room by the name that everybody knows it by, if the session is in it.
    fn seat(&self, asked: &RoomName) -> Option<RoomName> {
        self.rooms.get(asked.key()).map(|seat| seat.room.clone())
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
            (Done::Claimed(owner), None) => (owner, true),
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
            let op = Op::Join { room, me, was: Some(was.clone()), enters: false };
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
        self.pending = Some(Box::new((id, pending)));
        vec![Effect::Perform(op)]
    }
}

/// A change of name that stopped half-way leaves a session with two names, one that goes on somewhere half of its rooms:
/// only its end can tidy that up.
fn failed(id: CorrelationId, pending: &Pending, refusal: Refusal) -> Vec<Effect> {
    let half_way = match pending {
        Pending::Rename { claimed: None, .. } => refusal.code == ErrorCode::OutcomeUnknown,
        Pending::Rename { claimed: Some(_), .. } | Pending::Restore(_) => true,
        _ => false,
    };
    let mut effects = vec![answer(id, Answer::Refused(refusal))];
    if half_way {
        effects.push(Effect::Close(CloseCode::Restart));
    }
    effects
}

/// A client that was there before goes on where it was, as far as that is in the log's history as it is now.
fn entered(log: StreamId, shown: &str, head: StreamEnd, since: Option<Since>) -> Effect {
    let Since { epoch, seq: after } = since.unwrap_or_else(|| Since { epoch: head.epoch.clone(), seq: head.top });
    Effect::Admit(Entrance { log, shown: shown.to_owned(), head, epoch, after })
}

fn answer(id: CorrelationId, answer: Answer) -> Effect {
    Effect::Reply(Reply { id, answer })
}

fn refuse(id: CorrelationId, code: ErrorCode) -> Effect {
    answer(id, Answer::Refused(code.into()))
}

#[cfg(test)]
mod tests;
