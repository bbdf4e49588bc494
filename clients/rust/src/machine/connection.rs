//! The connection and the registration: attempts, waiting times, heartbeats, and the end of the session.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::stream::StreamCursor;
use super::{CallId, Machine, Purpose, SessionEffect};
use crate::error::{ParleyError, close_code};
use crate::events::State;
use crate::wire::{ClientRequest, IncomingFrame, RegisteredFrame, ResumeFields, WirePosition, parse};

/// Time from the start of a connection to `registered`.
const OPEN: Duration = Duration::from_secs(10);
/// Time until the server must answer a ping.
const PONG: Duration = Duration::from_secs(10);
/// The same after `wake`.
const WAKE_PONG: Duration = Duration::from_secs(2);
/// Silence after a call that leads to a ping.
const REPLY: Duration = Duration::from_secs(5);
/// Time for the server to close the connection after `bye`.
const BYE: Duration = Duration::from_secs(4);
/// A connection that lasted this long resets the waiting time between attempts.
const STABLE: Duration = Duration::from_secs(2);
/// The maximum waiting time after the first failure, and after all others.
const WAIT_MS: (u64, u64) = (500, 30_000);
/// Number of attempts with a nickname that a lost `register` of this client may hold.
const OWN_NICK_ATTEMPTS: u32 = 10;
const LOST: &str = "connection_lost";
/// Name of the close code, and code of the refusal, of a token whose time has passed.
pub(super) const TOKEN_EXPIRED: &str = "token_expired";

/// Returns the time before an attempt after so many failures: from 0 to a maximum that doubles.
pub(super) fn retry_wait(failures: u32, random: f64) -> Duration {
    let (first, max) = WAIT_MS;
    Duration::from_millis(first.saturating_mul(1 << failures.min(16)).min(max)).mul_f64(random.clamp(0.0, 1.0))
}

/// Progress of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MachinePhase {
    Idle,
    Waiting,
    Opening,
    Registering,
    Online,
    Leaving,
    Final,
}

/// Times of the connection at which something is due.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The next attempt.
    pub(super) retry: Option<Duration>,
    /// The connection is open and registered, or closed after `bye`.
    pub(super) open: Option<Duration>,
    /// The next ping.
    pub(super) beat: Option<Duration>,
    /// The answer to a ping.
    pub(super) pong: Option<Duration>,
    /// The renewal of the token of the user.
    pub(super) renew: Option<Duration>,
    /// The answer of the application to a question for a token.
    pub(super) asked: Option<Duration>,
}

impl Deadlines {
    pub(super) fn earliest(&self) -> Option<Duration> {
        [self.retry, self.open, self.beat, self.pong, self.renew, self.asked].into_iter().flatten().min()
    }
}

/// Returns the earlier time.
fn earlier(due: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(due.map_or(other, |due| due.min(other)))
}

/// Returns the state of a session that tries again after `retry_in`, or that is over.
fn offline(error: &ParleyError, retry_in: Option<Duration>) -> State {
    let (reason, message) = (error.code().to_owned(), error.message().to_owned());
    State::Offline { reason, message, will_retry: retry_in.is_some(), retry_in }
}

impl Machine {
    pub(super) fn connect(&mut self) {
        let state = if self.online_at.is_some() { State::Resuming } else { State::Connecting };
        self.due = Deadlines::default();
        self.enter(MachinePhase::Opening, state);
        if self.user_token.needs_new { self.ask() } else { self.dial() }
    }

    /// Opens a connection to the next address.
    pub(super) fn dial(&mut self) {
        self.due.open = Some(self.now + OPEN);
        self.emit(SessionEffect::Connect(self.connects % self.addresses));
        self.connects += 1;
    }

    fn enter(&mut self, phase: MachinePhase, state: State) {
        self.phase = phase;
        let is_resuming = state == State::Resuming;
        if !(is_resuming && self.is_resuming) {
            self.emit(SessionEffect::ChangeState(state));
        }
        self.is_resuming = is_resuming;
    }

    pub(super) fn opened(&mut self) {
        self.refusing_addresses = 0;
        self.register();
    }

    fn register(&mut self) {
        self.phase = MachinePhase::Registering;
        let resume = self.token.clone().map(|resume| ResumeFields { resume, since: self.rooms.since() });
        let nick = self.is_named.then(|| self.nick.clone());
        let request = ClientRequest::Register { nick, token: self.user_token.value.clone(), resume };
        self.transmit(&request, Purpose::Register);
    }

    pub(super) fn received(&mut self, frame: Value) {
        let is_connected = matches!(self.phase, MachinePhase::Registering | MachinePhase::Online);
        let Some(frame) = parse(frame).filter(|_| is_connected) else { return };
        self.due.pong = None;
        if self.phase == MachinePhase::Online {
            self.due.beat = Some(self.now + self.heartbeat);
        }
        match frame {
            IncomingFrame::GoingAway => self.is_going_away = true,
            IncomingFrame::Expiring { expires_in_ms } => self.expiring(expires_in_ms),
            IncomingFrame::Event(event) => self.event(event),
            IncomingFrame::Announcement(announcement) => {
                // It comes twice if the session changes its gateway at that moment.
                if self.announced.insert(&announcement.id) {
                    self.emit(SessionEffect::Announce(announcement));
                }
            }
            IncomingFrame::Reply { id, outcome } => {
                let purpose = self.reply(id, &outcome);
                match purpose {
                    Some(Purpose::Register) => match outcome.map(RegisteredFrame::deserialize) {
                        Ok(Ok(frame)) if frame.heartbeat_ms > 0 => self.registered(frame),
                        Ok(_) => {}
                        Err(error) => self.register_refused(&error),
                    },
                    Some(Purpose::Refresh) => self.refreshed(outcome),
                    _ => {}
                }
            }
        }
    }

    fn registered(&mut self, frame: RegisteredFrame) {
        let resumed = self.token.is_some();
        self.token = Some(frame.resume);
        // A resumed inbox without a stored position delivers what was not read before.
        let start = if resumed { WirePosition { seq: 0, ..frame.inbox } } else { frame.inbox };
        self.rooms.inbox.get_or_insert_with(|| StreamCursor::at(start));
        // Before anything else is sent: from then on the previous token is void.
        self.emit(SessionEffect::Save { at_once: true });
        self.heartbeat = Duration::from_millis(frame.heartbeat_ms);
        self.due = Deadlines::default();
        self.online_at = Some(self.now);
        self.own_nick_attempts = 0;
        self.user_token.accepted(self.now);
        self.user.clone_from(&frame.user);
        self.take_nick(frame.nick);
        let rooms: Vec<String> = frame.rooms.into_iter().map(|listed| listed.room).collect();
        let took = self.now.saturating_sub(self.lost_at);
        let state = State::Online { node: frame.node, resumed, took, rooms: rooms.clone(), user: frame.user };
        self.enter(MachinePhase::Online, state);
        // The server keeps a session for its return after its first request.
        self.ping(PONG);
        self.continue_rooms(&rooms);
        self.run_all();
    }

    fn register_refused(&mut self, error: &ParleyError) {
        if error.code() == "resume_failed" && self.token.is_some() {
            self.token = None;
            self.rooms.inbox = None;
            self.fail_uncertain_sends();
            return self.register();
        }
        if self.retries_with_new_token(error) {
            return;
        }
        if error.code() == "outcome_unknown" && self.token.is_none() {
            self.own_nick_attempts = OWN_NICK_ATTEMPTS;
        }
        let may_be_own = error.code() == "nick_in_use" && self.own_nick_attempts > 0;
        if may_be_own {
            self.own_nick_attempts -= 1;
        }
        if may_be_own || error.is_temporary() {
            self.retry(error);
        } else {
            self.end(error, true);
        }
    }

    pub(super) fn take_nick(&mut self, nick: String) {
        if nick != self.nick {
            self.nick.clone_from(&nick);
            self.emit(SessionEffect::ChangeNick(nick));
        }
    }

    pub(super) fn failed(&mut self, refusal: Option<ParleyError>) {
        let is_permanent = refusal.as_ref().is_some_and(|refusal| !refusal.is_temporary());
        self.refusing_addresses = if is_permanent { self.refusing_addresses + 1 } else { 0 };
        match refusal {
            Some(refusal) if self.refusing_addresses >= self.addresses => self.end(&refusal, false),
            // A refusal says nothing about the other addresses.
            Some(refusal) if self.addresses == 1 => self.retry(&refusal),
            _ => self.retry(&ParleyError::new(LOST, "")),
        }
    }

    pub(super) fn closed(&mut self, number: Option<u16>) {
        let (name, mut is_final) = number.and_then(close_code).unwrap_or((LOST, false));
        if name == TOKEN_EXPIRED {
            is_final = !self.user_token.expired();
        }
        match self.phase {
            MachinePhase::Leaving => self.end(&ParleyError::closed(), false),
            MachinePhase::Idle | MachinePhase::Waiting | MachinePhase::Final => {}
            _ if is_final => self.end(&ParleyError::new(name, "the server ended the session"), false),
            phase => {
                if phase == MachinePhase::Registering && self.token.is_none() {
                    self.own_nick_attempts = OWN_NICK_ATTEMPTS;
                }
                self.retry(&ParleyError::new(name, ""));
            }
        }
    }

    /// Abandons the connection, and opens one to the next address after a random time, at least that of the error.
    pub(super) fn retry(&mut self, error: &ParleyError) {
        let was_online = self.phase == MachinePhase::Online;
        if was_online {
            self.lost_at = self.now;
            if self.online_at.is_some_and(|begin| self.now >= begin + STABLE) {
                self.failures = 0;
            }
        }
        let is_announced = self.is_going_away;
        self.abandon();
        if is_announced {
            return self.connect();
        }
        let wait = error.retry_after().unwrap_or_default() + retry_wait(self.failures, self.random);
        self.failures += 1;
        self.due.retry = Some(self.now + wait);
        let state = match was_online {
            true => State::Resuming,
            false => offline(error, Some(wait)),
        };
        self.enter(MachinePhase::Waiting, state);
    }

    /// Moves to another connection at once.
    pub(super) fn reconnect(&mut self) {
        self.lost_at = self.now;
        self.abandon();
        self.connect();
    }

    /// Ends the session for good, or with `is_refused` until a call of `nick`.
    fn end(&mut self, error: &ParleyError, is_refused: bool) {
        self.abandon();
        // No call of a lane is sent in place of a failed one.
        self.phase = MachinePhase::Final;
        self.ended = Some(error.clone());
        self.is_refused = is_refused;
        self.fail_all(error);
        self.close_all_rooms();
        for id in std::mem::take(&mut self.closers) {
            self.emit(SessionEffect::Answer(id, Ok(().into())));
        }
        self.emit(SessionEffect::Save { at_once: true });
        self.enter(MachinePhase::Final, offline(error, None));
    }

    pub(super) fn abandon(&mut self) {
        self.due = Deadlines::default();
        self.is_going_away = false;
        self.pause_calls();
        self.emit(SessionEffect::Drop);
    }

    pub(super) fn tick(&mut self) {
        let is_due = |due: Option<Duration>| due.is_some_and(|due| self.now >= due);
        if is_due(self.due.retry) {
            self.connect();
        } else if is_due(self.due.asked) {
            self.question_timed_out();
        } else if is_due(self.due.renew) {
            self.renew();
        } else if is_due(self.due.open) || is_due(self.due.pong) {
            self.closed(None);
        } else if is_due(self.due.beat) {
            self.ping(PONG);
        } else {
            self.run_all();
        }
    }

    /// Ends the wait for the next attempt. A connection is checked.
    pub(super) fn wake(&mut self) {
        match self.phase {
            MachinePhase::Waiting => self.connect(),
            MachinePhase::Online => self.ping(WAKE_PONG),
            _ => {}
        }
    }

    /// Sends a ping that must be answered in this time. An earlier deadline stays.
    fn ping(&mut self, limit: Duration) {
        self.due.pong = earlier(self.due.pong, self.now + limit);
        self.due.beat = None;
        self.transmit(&ClientRequest::Ping, Purpose::Notice);
    }

    /// Pings if the reply to a call does not come soon.
    pub(super) fn expect_reply(&mut self) {
        if self.due.pong.is_none() {
            self.due.beat = earlier(self.due.beat, self.now + REPLY);
        }
    }

    pub(super) fn is_online(&self) -> bool {
        self.phase == MachinePhase::Online
    }

    /// Starts a refused session again.
    pub(super) fn begin_again(&mut self) {
        self.ended = None;
        self.is_refused = false;
        self.failures = 0;
        self.user_token.forget_refusals();
        self.lost_at = self.now;
        self.connect();
    }

    /// Ends the session by a call of the application.
    pub(super) fn leave(&mut self, id: CallId) {
        self.is_refused = false;
        self.closers.push(id);
        match self.phase {
            MachinePhase::Leaving => {}
            MachinePhase::Online | MachinePhase::Registering => {
                self.phase = MachinePhase::Leaving;
                self.due = Deadlines { open: Some(self.now + BYE), ..Deadlines::default() };
                let error = ParleyError::closed();
                self.ended = Some(error.clone());
                self.fail_all(&error);
                self.transmit(&ClientRequest::Bye, Purpose::Notice);
            }
            MachinePhase::Final => {
                for id in std::mem::take(&mut self.closers) {
                    self.emit(SessionEffect::Answer(id, Ok(().into())));
                }
            }
            _ => self.end(&ParleyError::closed(), false),
        }
    }
}
