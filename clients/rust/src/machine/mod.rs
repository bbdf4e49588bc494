//! The session as a pure state machine: [`Machine::step`] takes an input, and returns the effects to carry out in their
//! order. It has no sockets, timers, clocks or random numbers of its own.
//!
//! Invariant: every call is answered exactly once, unless it is aborted. `connection` has the connection and the
//! registration, `traffic` the requests, `rooms` the events and positions.

mod calls;
mod connection;
mod members;
mod rooms;
mod stream;
#[cfg(test)]
mod tests;
mod traffic;
mod user_token;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use self::calls::Calls;
use self::connection::{Deadlines, MachinePhase};
pub(crate) use self::members::{MemberMap, apply_change};
use self::rooms::ClientRooms;
use self::stream::RecentIds;
pub(crate) use self::stream::message_of;
use self::user_token::UserTokenState;
use crate::error::ParleyError;
use crate::events::{Announcement, RoomEvent, State};
use crate::sign_in::{TokenAnswer, TokenText};
use crate::storage::SavedSession;
use crate::wire::{ClientRequest, MessageFrame, WirePosition};

/// Number under which a call is answered.
pub(crate) type CallId = u64;

/// An input of the machine.
#[derive(Debug)]
pub(crate) enum Input {
    Start,
    /// The connection is open.
    Open,
    Frame(Value),
    /// The connection could not be opened, with the refusal of the server if there was one.
    Failed(Option<ParleyError>),
    /// The connection has ended, with the number of a close frame if there was one.
    Closed(Option<u16>),
    /// The time of [`Machine::next_at`] has come.
    Tick,
    /// The application has answered [`SessionEffect::AskToken`]; `None` if its function failed.
    Token(Option<TokenAnswer>),
    /// The application expects that a connection is possible again.
    Wake,
    /// The call `bye` ends the session.
    Call(CallId, ClientRequest),
    /// The caller does not wait any longer. A call that was not sent yet has no effect.
    Abort(CallId),
    /// A request without an outcome. It is not sent while the connection is lost.
    Notify(ClientRequest),
    /// Stops the deliveries of a stream. Its position does not move.
    Pause(String),
    /// Delivers everything after the position of a stream. For this a live stream needs another connection.
    Unpause(String),
}

/// An effect to carry out. Streams have the key of their room, or `@`.
#[derive(Debug, PartialEq)]
pub(crate) enum SessionEffect {
    /// Open a connection to the address with this index.
    Connect(usize),
    /// Abandon the connection without a close frame. Nothing that it still receives is an input. A question for a token
    /// ends with it.
    Drop,
    /// Ask the application for a token of the user. Its answer to an earlier question is no input any more.
    AskToken,
    Transmit(Value),
    /// Store the session: at once if the token changed, else soon.
    Save {
        at_once: bool,
    },
    Answer(CallId, Result<Value, ParleyError>),
    ChangeState(State),
    ChangeNick(String),
    Announce(Announcement),
    /// A room was joined: its events follow. `seq`: the position before the first.
    OpenRoom {
        key: String,
        name: String,
        seq: u64,
    },
    /// No events of the room follow.
    CloseRoom(String),
    Deliver(String, RoomEvent),
    /// Replaces the members of a room.
    Members(String, MemberMap),
}

/// A request on the wire.
#[derive(Debug)]
struct InFlight {
    id: u64,
    purpose: Purpose,
}

/// The part of the machine that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Register,
    Refresh,
    Call(CallId),
    /// A request without an outcome.
    Notice,
}

/// The session: its connection, calls and rooms.
#[derive(Debug)]
pub(crate) struct Machine {
    nick: String,
    /// False while only the token of the user names the nickname.
    is_named: bool,
    /// Id of the user that its token names.
    user: Option<String>,
    user_token: UserTokenState,
    token: Option<String>,
    phase: MachinePhase,
    /// Number of addresses, and of connects so far.
    addresses: usize,
    connects: usize,
    /// Number of failures since the last stable connection.
    failures: u32,
    /// Number of addresses that refused the connection for good, one after another.
    refusing_addresses: usize,
    /// Number of attempts in which a lost `register` of this client may hold its nickname.
    own_nick_attempts: u32,
    due: Deadlines,
    heartbeat: Duration,
    lost_at: Duration,
    online_at: Option<Duration>,
    is_going_away: bool,
    is_resuming: bool,
    /// The reason of the end of the session.
    ended: Option<ParleyError>,
    /// True if the server refused the nickname: a call of `nick` begins again with another one.
    is_refused: bool,
    closers: Vec<CallId>,

    calls: Calls,
    rooms: ClientRooms,
    /// Requests on the wire, in the order of their replies.
    wire: VecDeque<InFlight>,
    wire_ids: u64,
    /// Time at which a call is due, or expires.
    calls_due: Option<Duration>,
    /// Ids of the last messages of this session: after a rename the former nickname is not its own.
    own_ids: RecentIds,
    announced: RecentIds,

    now: Duration,
    random: f64,
    effects: Vec<SessionEffect>,
}

impl Machine {
    /// Returns a session that begins with the input `Start`. `nick` may be empty if a token names it. `addresses`:
    /// their number, at least 1.
    pub(crate) fn new(nick: String, addresses: usize, saved: SavedSession) -> Self {
        Self {
            is_named: !nick.is_empty(),
            nick,
            user: None,
            user_token: UserTokenState::default(),
            rooms: ClientRooms::restore(saved.positions, saved.token.is_some()),
            token: saved.token,
            phase: MachinePhase::Idle,
            addresses,
            connects: 0,
            failures: 0,
            refusing_addresses: 0,
            own_nick_attempts: 0,
            due: Deadlines::default(),
            heartbeat: Duration::ZERO,
            lost_at: Duration::ZERO,
            online_at: None,
            is_going_away: false,
            is_resuming: false,
            ended: None,
            is_refused: false,
            closers: Vec::new(),
            calls: Calls::default(),
            wire: VecDeque::new(),
            wire_ids: 0,
            calls_due: None,
            own_ids: RecentIds::default(),
            announced: RecentIds::default(),
            now: Duration::ZERO,
            random: 0.0,
            effects: Vec::new(),
        }
    }

    /// Registers with a token of the user. `can_ask`: the application gives further ones.
    pub(crate) fn with_user_token(self, token: Option<TokenText>, can_ask: bool) -> Self {
        Self { user_token: UserTokenState::new(token, can_ask), ..self }
    }

    /// Takes an input. `now`: a clock that never goes back. `random`: a number from 0 to 1.
    pub(crate) fn step(&mut self, input: Input, now: Duration, random: f64) -> Vec<SessionEffect> {
        self.now = now;
        self.random = random;
        match input {
            Input::Start => self.connect(),
            Input::Open => self.opened(),
            Input::Frame(frame) => self.received(frame),
            Input::Failed(refusal) => self.failed(refusal),
            Input::Closed(number) => self.closed(number),
            Input::Tick => self.tick(),
            Input::Token(answer) => self.token_answered(answer, "get_token failed"),
            Input::Wake => self.wake(),
            Input::Call(id, request) => self.call(id, request),
            Input::Abort(id) => self.abort(id),
            Input::Notify(request) => self.notify(&request),
            Input::Pause(stream) => self.pause(&stream),
            Input::Unpause(stream) => self.unpause(&stream),
        }
        std::mem::take(&mut self.effects)
    }

    /// Returns the time at which the input `Tick` is due.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.due.earliest().into_iter().chain(self.calls_due).min()
    }

    /// Returns the token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Returns the positions to store by name. `handled` lowers the seq of a stream to the last handled message.
    pub(crate) fn positions(&self, handled: impl Fn(&str, u64) -> u64) -> BTreeMap<String, WirePosition> {
        self.rooms.positions(handled)
    }

    /// Returns true for a message of this session.
    fn is_own(&self, message: &MessageFrame) -> bool {
        message.is_under(&self.nick) || self.own_ids.contains(&message.msg_id)
    }

    fn emit(&mut self, effect: SessionEffect) {
        self.effects.push(effect);
    }
}
