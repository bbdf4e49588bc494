//! The session as a pure state machine: requests and outcomes go in, effects come out.
//!
//! [`Core`] decides, with the verbs, everything that a session may do, and performs nothing. The driver passes in one
//! request at a time, performs the one [`Operation`] of its effects and passes the outcome back. Messages change no
//! state, so a [`Effect::Publish`] has no outcome here. Reads no clock (an `Instant` is passed in), no store and no
//! socket.

use std::sync::Arc;
use std::time::Instant;

use presence::host::client_address::ClientAddress;
use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::{RoomKey, RoomName, UserId};

use crate::quota::Quota;
use crate::wire::{Answer, CorrelationId, Refusal, Reply, Request};

use super::liveness::{HeartbeatPolicy, Liveness};
use super::session_limits::{RateRefusal, RefusalReport, RequestCost, SessionLimits};
use super::state::{SessionIdentity, SessionState};
use super::stream_entry::StreamEntry;
use super::token_expiry::ExpiryAction;
use super::verbs::join::RoomJoined;
use super::verbs::send::SendMessage;
use super::verbs::{self, Decision, Flow, Operation, OperationOutcome};

/// Number of unknown tokens of one connection after which it is closed: the client guesses.
const FAILED_RESUMES_MAX: u8 = 5;

/// A step for the driver; steps are carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// Answers a request.
    Reply(Reply),
    /// Publishes a message and answers the request with the outcome, in its turn. Nothing is left to decide, so further
    /// requests may follow at once. Always the last effect.
    Publish(CorrelationId, SendMessage),
    /// Asks for an operation, whose outcome is passed to [`Core::outcome`]. One operation at a time; always the last
    /// effect.
    Perform(Operation),
    /// Starts delivery of a stream after a position.
    Enter(StreamEntry),
    /// Revokes the previous token: the client has received the new one.
    RevokePreviousToken,
    /// Ends the connection.
    Close(CloseCode),
}

/// The request whose operation is being performed.
#[derive(Debug)]
struct PendingRequest {
    id: CorrelationId,
    flow: Flow,
}

/// The state machine of one session.
#[derive(Debug)]
pub struct Core {
    state: SessionState,
    /// Boxed: large, and usually `None`.
    pending: Option<Box<PendingRequest>>,
}

impl Core {
    /// A connection to `node` that has not registered.
    #[must_use]
    pub fn new(node: Arc<str>, now: Instant, heartbeat: HeartbeatPolicy) -> Self {
        Self { state: SessionState::new(node, now, heartbeat), pending: None }
    }

    /// Returns the session's identity, once it has registered.
    #[must_use]
    pub fn identity(&self) -> Option<&SessionIdentity> {
        self.state.identity.as_ref()
    }

    /// Returns the rooms of the session.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.state.rooms.values().map(|joined| &joined.room)
    }

    /// Forgets a room from which a moderator has removed the session. Returns it, if the session was in it.
    pub fn forget_room(&mut self, room: &RoomKey) -> Option<RoomName> {
        self.state.rooms.remove(room).map(|joined| joined.room)
    }

    /// Begins to enter a room by order of an application. Returns `None` if there is nothing to do. The outcome of a
    /// join that succeeds is passed to [`Core::entered_by_order`]; of another one the client is told nothing, because
    /// it has not asked.
    #[must_use]
    pub fn enter_by_order(&self, room: RoomName) -> Option<Operation> {
        verbs::join::decide_ordered(&self.state, room).map(Operation::Join)
    }

    /// Handles a join by order of an application. The client receives `joined` without an id.
    pub fn entered_by_order(&mut self, joined: RoomJoined) -> Vec<Effect> {
        let (decision, mut effects) = (verbs::join::conclude_ordered(&mut self.state, joined), Vec::with_capacity(2));
        self.carry_out(None, decision, &mut effects);
        effects
    }

    /// Returns true if the client can resume this session: it holds one of its tokens.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.state.is_resumable()
    }

    /// Returns the liveness timers.
    #[must_use]
    pub fn liveness(&self) -> &Liveness {
        &self.state.liveness
    }

    /// Returns the liveness timers, to record input and to query the action that is due.
    pub fn liveness_mut(&mut self) -> &mut Liveness {
        &mut self.state.liveness
    }

    /// Frees the memory of limits of which nothing is spent any more.
    pub fn forget_spent(&mut self, now: Instant) {
        self.state.allowance.forget_spent(self.state.liveness.age(now));
    }

    /// Returns true if the next refusal by a limit closes the connection.
    #[must_use]
    pub fn is_exhausted(&self, now: Instant) -> bool {
        self.state.allowance.is_exhausted(self.state.liveness.age(now))
    }

    /// Returns the refusals by limits that are to be logged now: one line a minute for all sessions of an address, so
    /// that a client which connects again and again fills no log.
    pub fn take_refusal_report(&mut self, now: Instant) -> Option<RefusalReport> {
        let SessionState { allowance, liveness, quotas, .. } = &mut self.state;
        allowance
            .take_report(liveness.age(now), || quotas.address.as_ref().is_none_or(|quota| quota.takes_log_line(now)))
    }

    /// Counts the session for its address from now on.
    pub fn count_for_address(&mut self, quota: Arc<Quota>) {
        self.state.quotas.address = Some(quota);
    }

    /// Returns the user of the session, if the session does not count for it yet.
    #[must_use]
    pub fn uncounted_user(&self) -> Option<&UserId> {
        self.identity().filter(|_| self.state.quotas.user.is_none()).and_then(SessionIdentity::user)
    }

    /// Counts the session for its user from now on.
    pub fn count_for_user(&mut self, quota: Arc<Quota>) {
        self.state.quotas.user = Some(quota);
    }

    /// Returns the address of the client, for a line of the log about its refusals.
    #[must_use]
    pub fn address(&self) -> Option<ClientAddress> {
        self.state.address()
    }

    /// Handles a frame that could not be decoded.
    pub fn undecoded(
        &mut self,
        now: Instant,
        limits: &SessionLimits,
        (id, refusal): (CorrelationId, Refusal),
    ) -> Vec<Effect> {
        let mut effects = Vec::with_capacity(2);
        match self.admit(now, limits, RequestCost::UNDECODED) {
            Ok(()) => effects.push(refuse(id, refusal)),
            Err(refused) => refuse_rate(id, refused, &mut effects),
        }
        effects
    }

    /// Notes an input that is not a request, and charges it. Returns false, and charges nothing, beyond the limits. The
    /// answer to a ping is free, so the limits of an idle session need no memory.
    pub fn admits_input(&mut self, now: Instant, limits: &SessionLimits) -> bool {
        let SessionState { allowance, quotas, liveness, .. } = &mut self.state;
        let (answers_ping, cost) = (liveness.is_pinged(), RequestCost::UNDECODED);
        liveness.received(now);
        answers_ping || allowance.admits(liveness.age(now), limits, cost, || quotas.admit(now, &cost.charges()))
    }

    /// Returns the time at which [`Core::token_due`] is to be asked next; `None` for a guest.
    #[must_use]
    pub fn token_deadline(&self) -> Option<Instant> {
        self.state.token_expiry.as_ref().map(|expiry| expiry.deadline())
    }

    /// Returns the action that is due for the token of the user.
    pub fn token_due(&mut self, now: Instant) -> ExpiryAction {
        self.state.token_expiry.as_mut().map_or(ExpiryAction::Nothing, |expiry| expiry.due(now))
    }

    /// Handles one request. Must not be called while an [`Operation`] is being performed.
    pub fn request(&mut self, now: Instant, limits: &SessionLimits, Request { id, command }: Request) -> Vec<Effect> {
        debug_assert!(self.pending.is_none(), "one request at a time");
        let mut effects = Vec::with_capacity(2);
        // Any request shows that the client has received the reply to its `register`.
        if self.state.confirm_registered() {
            effects.push(Effect::RevokePreviousToken);
        }
        if let Some(cost) = RequestCost::of(&command)
            && let Err(refused) = self.admit(now, limits, cost)
        {
            refuse_rate(id, refused, &mut effects);
            return effects;
        }
        match verbs::decide(&mut self.state, now, command) {
            Ok(decision) => self.carry_out(id, decision, &mut effects),
            Err(code) => effects.push(refuse(id, code.into())),
        }
        effects
    }

    /// Handles the outcome of the [`Operation`] that was performed.
    pub fn outcome(&mut self, now: Instant, outcome: Result<OperationOutcome, Refusal>) -> Vec<Effect> {
        let Some(pending) = self.pending.take() else {
            debug_assert!(false, "an outcome without an operation");
            return Vec::new();
        };
        let PendingRequest { id, flow } = *pending;
        let mut effects = Vec::with_capacity(2);
        match outcome {
            Ok(outcome) => match flow.conclude(&mut self.state, now, outcome) {
                Some(decision) => self.carry_out(id, decision, &mut effects),
                None => {
                    debug_assert!(false, "the outcome does not belong to the operation");
                    effects.push(refuse(id, ErrorCode::Internal.into()));
                    effects.push(Effect::Close(CloseCode::Internal));
                }
            },
            Err(refusal) => {
                let is_half_done = flow.is_half_done(&refusal);
                let is_guess = refusal.code == ErrorCode::ResumeFailed;
                let is_banned = refusal.code == ErrorCode::Banned && self.state.identity.is_none();
                effects.push(refuse(id, refusal));
                if is_guess {
                    self.state.failed_resumes += 1;
                    if self.state.failed_resumes >= FAILED_RESUMES_MAX {
                        effects.push(Effect::Close(CloseCode::RateLimited));
                    }
                }
                if is_banned {
                    effects.push(Effect::Close(CloseCode::Banned));
                }
                if is_half_done {
                    effects.push(Effect::Close(CloseCode::Restart));
                }
            }
        }
        effects
    }

    fn carry_out(&mut self, id: CorrelationId, decision: Decision, effects: &mut Vec<Effect>) {
        match decision {
            Decision::Answer(answer) => effects.push(Effect::Reply(Reply { id, answer })),
            Decision::AnswerAndEnter(answer, entries) => {
                effects.push(Effect::Reply(Reply { id, answer }));
                effects.extend(entries.into_iter().map(Effect::Enter));
            }
            Decision::Publish(message) => effects.push(Effect::Publish(id, message)),
            Decision::Perform(operation) => self.perform(id, Flow::Single, operation, effects),
            Decision::PerformStep(flow, operation) => self.perform(id, flow, operation, effects),
            Decision::Close(code) => effects.push(Effect::Close(code)),
        }
    }

    /// Charges a request to the session, its address and its user.
    fn admit(&mut self, now: Instant, limits: &SessionLimits, cost: RequestCost) -> Result<(), RateRefusal> {
        let SessionState { allowance, quotas, liveness, identity, .. } = &mut self.state;
        let cost = if identity.is_some() { cost.of_registered() } else { cost };
        allowance.admit(liveness.age(now), limits, cost, || quotas.admit(now, &cost.charges()))
    }

    fn perform(&mut self, id: CorrelationId, flow: Flow, operation: Operation, effects: &mut Vec<Effect>) {
        self.pending = Some(Box::new(PendingRequest { id, flow }));
        effects.push(Effect::Perform(operation));
    }
}

fn refuse(id: CorrelationId, refusal: Refusal) -> Effect {
    Effect::Reply(Reply { id, answer: Answer::Refused(refusal) })
}

/// Refuses a request over a limit, and closes the connection of a client that does not wait.
fn refuse_rate(id: CorrelationId, refused: RateRefusal, effects: &mut Vec<Effect>) {
    effects.push(refuse(id, refused.into()));
    if refused.closes {
        effects.push(Effect::Close(CloseCode::RateLimited));
    }
}

#[cfg(test)]
mod tests;
