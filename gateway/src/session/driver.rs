//! Performs what the session core decides, and fills the outbox with answers in the order of the requests.
//!
//! One [`Driver`] per connection, owned by the connection's task: requests come in decoded, output leaves through the
//! outbox. Messages are published together; any other request waits until they are answered. Invariant: writes about
//! one session reach the store in order. Knows no frame and no socket. The dialect only decides whether the client can
//! ping, resume, and send a message before the one before it is answered.
//!
//! Lost answers: claims, joins and leaves are idempotent, so they are repeated for a few seconds before the client
//! receives `outcome_unknown`; the backplane repeats messages. At the end of a session (`ending`), each release is
//! retried until the store answers.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use presence::model::codes::CloseCode;

use crate::hooks::HookKind;
use crate::outbound::Outbox;
use crate::outbound::outbox::Broadcast;
use crate::quota::{LimitOwner, Quota};
use crate::wire::{Answer, Command, CorrelationId, Dialect, Event, Refusal, Reply, Request, Token};

use super::core::{Core, Effect};
use super::liveness::{HeartbeatPolicy, LivenessAction};
use super::performer::Performer;
use super::refusal::{rate_limited, unavailable};
use super::replay::replay;
use super::sends_in_flight::{SendAnswer, SendsInFlight};
use super::services::Services;
use super::session_limits::RefusalReport;
use super::stream_entry::StreamEntry;
use super::token_expiry::{ExpiryAction, lifetime_ms};
use super::verbs::send::SendMessage;
use super::verbs::{Operation, OperationOutcome};

/// A request, or the refusal of a frame that could not be decoded.
pub type DecodedRequest = Result<Request, (CorrelationId, Refusal)>;

/// The driver of one session.
#[derive(Debug)]
pub struct Driver {
    pub(super) core: Core,
    pub(super) performer: Performer,
    sends: SendsInFlight,
}

impl Driver {
    /// A connection that has not registered. `sign_within` is the interval of its dialect in [`HeartbeatPolicy`].
    #[must_use]
    pub fn new(services: &Arc<Services>, dialect: Dialect, sign_within: Option<Duration>) -> Self {
        let policy = HeartbeatPolicy { pings: !dialect.is_line(), sign_within };
        Self {
            core: Core::new(Arc::clone(&services.node), Instant::now(), policy),
            performer: Performer::new(Arc::clone(services), dialect),
            sends: SendsInFlight::default(),
        }
    }

    /// Counts the connection for the address of its client.
    #[must_use]
    pub fn of_address(mut self, quota: Arc<Quota>) -> Self {
        self.core.count_for_address(quota);
        self
    }

    /// Changes the dialect of a connection whose first bytes have shown it. `sign_within` is as for [`Driver::new`].
    pub fn set_dialect(&mut self, dialect: Dialect, sign_within: Option<Duration>) {
        self.performer.outbox.set_dialect(dialect);
        self.core.liveness_mut().set_policy(HeartbeatPolicy { pings: !dialect.is_line(), sign_within });
    }

    fn is_line(&self) -> bool {
        self.performer.outbox.dialect().is_line()
    }

    /// Returns the connection's outbox. The transport empties it, also while a request is performed.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.performer.outbox.clone()
    }

    /// Returns true once the client has registered.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.core.identity().is_some()
    }

    /// Notes the token of the connection, for a `register` without one.
    pub fn present(&mut self, token: Token) {
        self.performer.present(token);
    }

    /// Records input from the client.
    pub fn note_input(&mut self) {
        self.core.liveness_mut().received(Instant::now());
    }

    /// Notes and charges an input that is not a request, such as a ping. Returns one beyond the limits, which
    /// [`Driver::request`] then refuses as any other, with its time and in its turn.
    pub fn charge(&mut self) -> Option<DecodedRequest> {
        let limits = self.performer.services.session_limits.get();
        let is_admitted = self.core.admits_input(Instant::now(), &limits);
        (!is_admitted).then(|| Err((None, rate_limited())))
    }

    /// Returns the time at which [`Driver::tick`] is due; `None` for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.core.liveness().deadline(), self.core.token_deadline()].into_iter().flatten().min()
    }

    /// Reads the clock: may queue a ping or the notice of an expiry, or close a connection that is silent, did not
    /// register or has an expired token.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.core.forget_spent(now);
        match self.core.token_due(now) {
            ExpiryAction::Nothing => {}
            ExpiryAction::Announce(left) => {
                let event = Event::Expiring { expires_in_ms: lifetime_ms(left) };
                self.performer.outbox.push_event(&Broadcast::new(event));
            }
            ExpiryAction::Close => return self.performer.outbox.close(CloseCode::TokenExpired),
        }
        match self.core.liveness_mut().due(now) {
            LivenessAction::Nothing => {}
            LivenessAction::Ping => self.performer.outbox.push_ping(),
            LivenessAction::Close(code) => self.performer.outbox.close(code),
        }
    }

    /// Begins to publish a message, without a wait. [`Driver::poll_progress`] adds its answer. Returns any other
    /// request, and a message that has to wait: [`Driver::request`] handles it.
    pub fn begin(&mut self, decoded: DecodedRequest) -> Option<DecodedRequest> {
        // A line is decoded with what the replies before it have changed.
        if self.is_line() { Some(decoded) } else { self.begin_send(decoded) }
    }

    /// Handles one request, or the refusal of a frame that could not be decoded. Its whole output is in the outbox when
    /// this returns, except the answer to a message of a client that need not wait for it. Must run to its end: the
    /// connection polls it beside the outbox and never drops it.
    pub async fn request(&mut self, mut decoded: DecodedRequest) {
        // The close of a client that does not wait comes after the answers to its messages.
        if is_message(&decoded) && !self.core.is_exhausted(Instant::now()) {
            while let Some(waiting) = self.begin_send(decoded) {
                poll_fn(|context| self.poll_progress(context)).await;
                decoded = waiting;
            }
            if self.is_line() {
                self.conclude().await;
            }
            return;
        }
        self.conclude().await;
        let (start, limits) = (Instant::now(), self.performer.services.session_limits.get());
        let mut is_resume = false;
        let mut effects = match decoded {
            Ok(request) => {
                self.note_activity(&request.command);
                self.core.request(start, &limits, request)
            }
            Err(refused) => self.core.undecoded(start, &limits, refused),
        };
        self.report_refusals(start);
        loop {
            let mut next = None;
            for effect in effects {
                match effect {
                    Effect::Reply(reply) => self.reply(reply),
                    Effect::Enter(entry) => self.enter(entry).await,
                    Effect::RevokePreviousToken => self.revoke_previous_token(),
                    Effect::Close(code) => {
                        if code == CloseCode::Normal {
                            self.settle().await;
                        }
                        self.performer.outbox.close(code);
                    }
                    Effect::Publish(id, message) => self.publish(id, message),
                    Effect::Perform(operation) => next = Some(operation),
                }
            }
            let Some(operation) = next else { break };
            let outcome = self.perform(operation).await;
            is_resume |= matches!(outcome, Ok(OperationOutcome::Resumed(_)));
            effects = self.core.outcome(Instant::now(), outcome);
        }
        if let Some(user) = self.core.uncounted_user() {
            let quota = self.performer.services.quotas.of_user(user);
            self.core.count_for_user(quota);
        }
        if self.is_line() {
            self.conclude().await;
        }
        if is_resume {
            self.performer.services.metrics.resume_seconds.record(start.elapsed());
        }
    }

    /// Answers the messages under way that have an outcome. Pending if the oldest one has none, or without a message.
    /// Once an order has ended the session, drops those about which the application is asked.
    pub fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut progress = Poll::Pending;
        if self.sends.is_asking() && self.performer.outbox.is_ended_by_order() {
            self.sends.abandon_asked();
            progress = Poll::Ready(());
        }
        while let Poll::Ready(answered) = self.sends.poll_next(context) {
            self.answer_send(answered);
            progress = Poll::Ready(());
        }
        progress
    }

    /// Waits until every message under way is answered. Must run to its end.
    pub async fn conclude(&mut self) {
        while !self.sends.is_empty() {
            poll_fn(|context| self.poll_progress(context)).await;
        }
    }

    /// Begins to publish a message if there is space for it; otherwise returns it, as any other request. A connection
    /// has one message under way at a time while others need the space.
    fn begin_send(&mut self, decoded: DecodedRequest) -> Option<DecodedRequest> {
        let Ok(Request { command: Command::Send { to, body, .. }, .. }) = &decoded else { return Some(decoded) };
        let now = Instant::now();
        if self.core.is_exhausted(now) {
            return Some(decoded);
        }
        let has_space = || self.sends.has_space(body.json().len()) && !self.performer.services.backplane.is_crowded(to);
        if !self.sends.is_empty() && !has_space() {
            return Some(decoded);
        }
        let Ok(request) = decoded else { return Some(decoded) };
        self.note_activity(&request.command);
        let limits = self.performer.services.session_limits.get();
        for effect in self.core.request(now, &limits, request) {
            match effect {
                Effect::Publish(id, message) => self.publish(id, message),
                // It was refused, which is answered in its turn.
                Effect::Reply(Reply { id, answer: Answer::Refused(refusal) }) => self.sends.push_refused(id, refusal),
                Effect::RevokePreviousToken => self.revoke_previous_token(),
                effect => debug_assert!(false, "{effect:?} is no effect of a message"),
            }
        }
        self.report_refusals(now);
        None
    }

    fn publish(&mut self, id: CorrelationId, message: SendMessage) {
        let services = Arc::clone(&self.performer.services);
        if !services.health.is_store_answering(Instant::now()) {
            self.sends.push_refused(id, unavailable());
        } else if services.hooks.asks(HookKind::Send) {
            let question = services.ask_send(&message, self.core.address());
            self.sends.push_asked((id, message.bytes()), question, Box::pin(message.publish(services)));
        } else {
            self.sends.push(id, message.bytes(), Box::pin(message.publish(services)));
        }
    }

    fn answer_send(&mut self, (id, outcome): (CorrelationId, SendAnswer)) {
        let answer = match outcome {
            Ok(sent) => self.performer.note_sent(sent),
            Err(refusal) => {
                self.performer.services.metrics.messages_refused[refusal.code].inc();
                Answer::Refused(refusal)
            }
        };
        self.reply(Reply { id, answer });
    }

    /// Waits until every message under way is answered, and at most 2 s until the outbox has the client's own messages:
    /// nothing follows. Must run to its end.
    pub async fn settle(&mut self) {
        self.conclude().await;
        self.performer.receive_own_messages().await;
    }

    pub(super) async fn perform(&mut self, operation: Operation) -> Result<OperationOutcome, Refusal> {
        // While the store is away, refusing at once is better than an unknown outcome after seconds: nothing was sent.
        if !self.performer.services.health.is_store_answering(Instant::now()) {
            return Err(unavailable());
        }
        operation.perform(&mut self.performer).await
    }

    /// Boxed: its state while it reads would otherwise be part of every connection.
    pub(super) async fn enter(&mut self, entry: StreamEntry) {
        if let Some(me) = self.core.identity() {
            let Performer { services, outbox, .. } = &self.performer;
            Box::pin(replay(services, outbox, &me.owner.session, entry)).await;
        }
    }

    /// Revokes the previous token, in the background and without a retry. Until then the session has two tokens; its
    /// next resume revokes the previous one too.
    fn revoke_previous_token(&self) {
        if let (Some(me), Some(token)) = (self.core.identity(), self.performer.token.clone()) {
            let (services, session) = (Arc::clone(&self.performer.services), me.owner.session.clone());
            tokio::spawn(async move { services.registry.confirm(&session, &token).await });
        }
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        let mut reservation = self.performer.reservation.take();
        if let Answer::Refused(refusal) = &reply.answer {
            self.performer.services.metrics.refusals[refusal.code].inc();
            reservation = None;
        }
        if let Some(reservation) = &mut reservation {
            reservation.shrink_to(reply.answer.estimated_bytes(self.performer.outbox.dialect()));
        }
        self.performer.outbox.push_reserved_reply(reply, reservation);
    }

    /// Logs refusals by a limit, at most once a minute. The line names the limit and the nickname, and the address if
    /// it has met a limit of its own.
    fn report_refusals(&mut self, now: Instant) {
        let Some(RefusalReport { limit, owner, refused }) = self.core.take_refusal_report(now) else { return };
        let nick = self.core.identity().map(|me| me.nick.as_str());
        let is_shown = owner == LimitOwner::Address && self.performer.services.log_addresses;
        let address = self.core.address().filter(|_| is_shown).map(tracing::field::display);
        let (limit, scope) = (limit.slug(), owner.slug());
        tracing::info!(event = "rate_limited", nick, limit, scope, address, refused, "requests refused by a limit");
    }

    /// Reports a user as active when its client sends a request; receiving does not count.
    fn note_activity(&self, command: &Command) {
        if let (Some(me), false) = (self.core.identity(), matches!(command, Command::Ping)) {
            self.performer.services.health.mark_active(me.nick.key());
        }
    }
}

fn is_message(decoded: &DecodedRequest) -> bool {
    matches!(decoded, Ok(Request { command: Command::Send { .. }, .. }))
}
