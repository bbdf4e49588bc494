//! The publisher: messages wait while calls run, and go together in the next call, whatever their targets.
//!
//! [`Publisher`] runs at most [`PublisherLimits::calls`] calls at a time. What arrives meanwhile forms the next one, so
//! calls grow with the load; there is no timer. A target is in one call at a time, so its messages keep their order,
//! also when an answer is lost: they are repeated before anything else goes to that target. Bounded in messages, bytes
//! and time: excess messages are refused before anything is done. A target takes at most an eighth of the bytes. The
//! pure [`queues`] choose the messages of a call. It does not know Redis: [`AppendBatch`] appends a call's messages.

mod queues;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::registry::RegistryError;
use presence::registry::retry::{PATIENCE, pause};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub(super) use self::queues::QueueLoad;
use self::queues::{PublishQueues, QueuedMessage, TargetTurn};
use super::message::{MessageOutcome, PublishTarget, StoredMessage, TargetBatch, TargetOutcome, WriteOutcome};
use crate::backplane::{PriorPosition, PublishAttempt, PublishError};

/// The destination of calls.
pub(super) trait AppendBatch: Send + Sync + 'static {
    /// Appends messages to the streams of their targets, each target's in one step. `slot` differs between calls at the
    /// same time. Returns one outcome per target, in their order.
    fn append(&self, slot: usize, batches: &[TargetBatch]) -> impl Future<Output = Vec<TargetOutcome>> + Send;
}

/// The limits of the publisher.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublisherLimits {
    /// Maximum number of calls at a time.
    pub(super) calls: usize,
    /// Maximum size of one call, which blocks Redis; what one room has of it reaches a subscriber as one push. A single
    /// message always fits.
    pub(super) call: QueueLoad,
    /// Maximum size of one target's queue.
    pub(super) target: QueueLoad,
    /// Maximum number of queued and running messages on this gateway, for all targets.
    pub(super) gateway: QueueLoad,
    /// Maximum time in a queue before the first call; longer than a healthy store needs for a full queue, and than a
    /// call without an answer takes.
    pub(super) wait: Duration,
    /// Time for repeating a message before its outcome counts as unknown.
    pub(super) patience: Duration,
}

impl Default for PublisherLimits {
    fn default() -> Self {
        Self {
            calls: 2,
            call: QueueLoad { messages: 64, bytes: 256 * 1024 },
            target: QueueLoad { messages: 1024, bytes: 8 * 1024 * 1024 },
            gateway: QueueLoad { messages: 16 * 1024, bytes: 64 * 1024 * 1024 },
            wait: Duration::from_secs(3),
            patience: PATIENCE,
        }
    }
}

/// Queues of messages before an [`AppendBatch`]. Running calls complete even if the publisher is dropped.
#[derive(Debug)]
pub(super) struct Publisher<A> {
    state: Arc<PublisherState<A>>,
}

/// The shared state of the publisher and the tasks that run its calls.
#[derive(Debug)]
struct PublisherState<A> {
    appender: A,
    limits: PublisherLimits,
    /// The unused messages and bytes of the gateway's limits.
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    work: Mutex<PublisherWork>,
}

#[derive(Debug)]
struct PublisherWork {
    queues: PublishQueues<Waiter>,
    /// The slots without a [`CallRunner`].
    free_slots: Vec<usize>,
    /// True if the newest finished call was answered.
    is_answered: bool,
}

/// The caller that waits for the outcome.
#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<WriteOutcome>,
    /// A position from before the first attempt.
    prior: PriorPosition,
    repeats: MessageRepeats,
    _permit: QueuePermit,
}

/// The attempts to publish a message.
#[derive(Debug, Default)]
struct MessageRepeats {
    /// The beginning of the first one.
    began: Option<Instant>,
    /// The number of attempts with an unknown outcome.
    unknown: u32,
}

/// A part of the gateway's limits, released on drop.
#[derive(Debug)]
struct QueuePermit {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl<A: AppendBatch> Publisher<A> {
    pub(super) fn new(appender: A, limits: PublisherLimits) -> Self {
        let [messages, bytes] =
            [limits.gateway.messages, limits.gateway.bytes].map(|limit| Arc::new(Semaphore::new(limit)));
        let free_slots = (0..limits.calls).rev().collect();
        let work = PublisherWork { queues: PublishQueues::default(), free_slots, is_answered: true };
        Self { state: Arc::new(PublisherState { appender, limits, messages, bytes, work: Mutex::new(work) }) }
    }

    /// Publishes one message and waits for its outcome. It is queued in the first poll, so the order of first polls is
    /// the order of messages. A lost answer is repeated. Dropping the future cancels a message that is still queued; a
    /// running call may or may not append it. Other messages are unaffected.
    ///
    /// # Errors
    /// `Overloaded` when a limit is reached, `Unavailable` if it waited too long for a store that does not answer:
    /// nothing was done. Otherwise the error of the appender; any error after an unknown outcome is `Unknown`.
    pub(super) async fn publish(
        &self,
        target: PublishTarget,
        message: StoredMessage,
        attempt: PublishAttempt<'_>,
    ) -> WriteOutcome {
        let outcome = self.enqueue(&target, message, attempt)?.await;
        outcome.unwrap_or_else(|_| Err(RegistryError::Unknown("publish call was aborted".to_owned()).into()))
    }

    /// Returns true once half of the queue space for a target, or for all targets, is used.
    pub(super) fn is_crowded(&self, target: &PublishTarget) -> bool {
        let PublisherState { limits, messages, bytes, .. } = &*self.state;
        let waiting = self.state.work().queues.load(target);
        messages.available_permits() <= limits.gateway.messages / 2
            || bytes.available_permits() <= limits.gateway.bytes / 2
            || waiting.messages >= limits.target.messages / 2
            || waiting.bytes >= limits.target.bytes / 2
    }

    /// Reserves a part of the gateway's limits.
    fn permit(&self, bytes: usize) -> Result<QueuePermit, PublishError> {
        let bytes = u32::try_from(bytes).map_err(|_| PublishError::Overloaded)?;
        let message = Arc::clone(&self.state.messages).try_acquire_owned();
        let bytes = Arc::clone(&self.state.bytes).try_acquire_many_owned(bytes);
        let (Ok(message), Ok(bytes)) = (message, bytes) else { return Err(PublishError::Overloaded) };
        Ok(QueuePermit { _message: message, _bytes: bytes })
    }

    /// Queues a message and starts a call if a slot is free.
    fn enqueue(
        &self,
        target: &PublishTarget,
        message: StoredMessage,
        attempt: PublishAttempt<'_>,
    ) -> Result<oneshot::Receiver<WriteOutcome>, PublishError> {
        let permit = self.permit(message.bytes())?;
        let (reply, outcome) = oneshot::channel();
        let (PublishAttempt::First(prior) | PublishAttempt::Repeat(prior)) = attempt;
        let message = match attempt {
            PublishAttempt::First(_) => Arc::new(message),
            PublishAttempt::Repeat(prior) => Arc::new(message).searched_after(prior),
        };
        let waiter = Waiter { reply, prior: prior.clone(), repeats: MessageRepeats::default(), _permit: permit };
        let queued = QueuedMessage { message, queued_at: Instant::now(), waiter };
        let mut work = self.state.work();
        work.queues.push(target, queued, self.state.limits.target).map_err(|_| PublishError::Overloaded)?;
        let slot = work.free_slots.pop();
        drop(work);
        PublisherState::start_calls(&self.state, slot);
        Ok(outcome)
    }
}

impl<A: AppendBatch> PublisherState<A> {
    /// Starts a task for this slot, if there is one.
    fn start_calls(state: &Arc<Self>, slot: Option<usize>) {
        if let Some(slot) = slot {
            tokio::spawn(CallRunner::new(state, slot).run());
        }
    }

    /// Puts messages with unknown outcomes first in their queues, after a pause. Until then nothing else goes to their
    /// targets, and what waits behind them is not late.
    async fn repeat(state: Arc<Self>, attempt: u32, targets: Vec<(PublishTarget, Vec<QueuedMessage<Waiter>>)>) {
        pause(attempt).await;
        let (now, mut work) = (Instant::now(), state.work());
        for (target, messages) in targets {
            work.queues.restart_waits(&target, now);
            work.queues.end_turn(&target, messages, false, now);
        }
        let slot = work.free_slots.pop();
        drop(work);
        Self::start_calls(&state, slot);
    }
}

impl<A> PublisherState<A> {
    fn work(&self) -> MutexGuard<'_, PublisherWork> {
        // No code panics while it holds the lock.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Sends the outcome. A caller that has stopped waiting is ignored. A refusal after an attempt with an unknown
    /// outcome proves nothing about that attempt.
    fn send(self, outcome: WriteOutcome) {
        let is_doubtful = self.repeats.unknown > 0;
        let _ = self.reply.send(outcome.map_err(|error| if is_doubtful { still_unknown(error) } else { error }));
    }
}

/// Returns the error of a message that an earlier attempt may have stored.
fn still_unknown(error: PublishError) -> PublishError {
    match error {
        PublishError::Registry(RegistryError::Unknown(_)) => error,
        error => RegistryError::Unknown(format!("a repeat was refused: {error}")).into(),
    }
}

/// A task that runs one call after the other while messages wait.
struct CallRunner<A: AppendBatch> {
    state: Arc<PublisherState<A>>,
    slot: usize,
    /// The targets of the present call.
    targets: Vec<PublishTarget>,
    is_finished: bool,
}

/// The senders of a call's messages to one target, with the times since which they wait.
type TargetWaiters = Vec<(Instant, Waiter)>;

/// The messages of one target that a call has not done.
#[derive(Debug, Default)]
struct UndoneMessages {
    /// To be sent again at once.
    again: Vec<QueuedMessage<Waiter>>,
    /// To be repeated after a pause, because their outcome is unknown.
    unknown: Vec<QueuedMessage<Waiter>>,
}

impl<A: AppendBatch> CallRunner<A> {
    fn new(state: &Arc<PublisherState<A>>, slot: usize) -> Self {
        Self { state: Arc::clone(state), slot, targets: Vec::new(), is_finished: false }
    }

    async fn run(mut self) {
        while let Some(turns) = self.next_call() {
            let (batches, waiters): (Vec<TargetBatch>, Vec<TargetWaiters>) = turns.into_iter().map(split).unzip();
            let outcomes = self.state.appender.append(self.slot, &batches).await;
            self.conclude(batches, waiters, outcomes);
        }
    }

    /// Returns the messages of the next call. Without any it frees the slot in the same step, so the next message
    /// starts a new task.
    fn next_call(&mut self) -> Option<Vec<TargetTurn<Waiter>>> {
        let (limits, now, mut late) = (&self.state.limits, Instant::now(), Vec::new());
        let mut work = self.state.work();
        let admit = |mut queued: QueuedMessage<Waiter>| {
            let is_late = now.saturating_duration_since(queued.queued_at) > limits.wait;
            if queued.waiter.reply.is_closed() {
                return None;
            }
            if is_late && queued.waiter.repeats.began.is_none() {
                late.push(queued);
                return None;
            }
            queued.waiter.repeats.began.get_or_insert(now);
            Some(queued)
        };
        let turns = work.queues.next_call(limits.call, now, admit);
        let is_answered = work.is_answered;
        self.targets = turns.iter().map(|turn| turn.target.clone()).collect();
        if turns.is_empty() {
            work.free_slots.push(self.slot);
            self.is_finished = true;
        }
        drop(work);
        late.into_iter().for_each(|queued| queued.waiter.send(Err(late_error(is_answered))));
        (!turns.is_empty()).then_some(turns)
    }

    /// Passes the outcomes to their callers, and ends the turns of the call's targets.
    fn conclude(&mut self, batches: Vec<TargetBatch>, waiters: Vec<TargetWaiters>, outcomes: Vec<TargetOutcome>) {
        let is_answered = outcomes.iter().any(|outcome| !matches!(outcome, TargetOutcome::Failed(_)));
        let mut outcomes = outcomes.into_iter();
        let (mut ended, mut repeated, mut attempt) = (Vec::with_capacity(batches.len()), Vec::new(), 0);
        for (TargetBatch { target, messages }, waiters) in batches.into_iter().zip(waiters) {
            let outcome = outcomes.next().unwrap_or_else(|| TargetOutcome::Failed(left_out()));
            let waiting = |(message, (queued_at, waiter))| QueuedMessage { message, queued_at, waiter };
            let messages = messages.into_iter().zip(waiters).map(waiting);
            let is_apart = outcome == TargetOutcome::Apart;
            let UndoneMessages { again, unknown } = self.pass_outcomes(messages, outcome);
            match unknown.iter().map(|queued| queued.waiter.repeats.unknown).max() {
                Some(most) => {
                    attempt = attempt.max(most);
                    repeated.push((target, unknown.into_iter().chain(again).collect()));
                }
                None => ended.push((target, again, is_apart)),
            }
        }
        let (now, mut work) = (Instant::now(), self.state.work());
        work.is_answered = is_answered;
        for (target, again, is_apart) in ended {
            work.queues.end_turn(&target, again, is_apart, now);
        }
        drop(work);
        self.targets.clear();
        if !repeated.is_empty() {
            tokio::spawn(PublisherState::repeat(Arc::clone(&self.state), attempt, repeated));
        }
    }

    /// Passes the outcomes of one target to their callers. Returns the messages that must be sent again.
    fn pass_outcomes(
        &self,
        messages: impl Iterator<Item = QueuedMessage<Waiter>>,
        outcome: TargetOutcome,
    ) -> UndoneMessages {
        let mut undone = UndoneMessages::default();
        let (answers, failure) = match outcome {
            TargetOutcome::Apart => {
                undone.again = messages.collect();
                return undone;
            }
            TargetOutcome::Answered(answers) => (answers, left_out()),
            TargetOutcome::Failed(failure) => (Vec::new(), failure),
        };
        let mut answers = answers.into_iter();
        for mut queued in messages {
            match answers.next() {
                Some(MessageOutcome::Done(outcome)) => queued.waiter.send(outcome),
                Some(MessageOutcome::Searched(prior)) => {
                    queued.message = queued.message.searched_after(&prior);
                    undone.again.push(queued);
                }
                None if matches!(failure, RegistryError::Unknown(_)) => {
                    let repeats = &mut queued.waiter.repeats;
                    repeats.unknown += 1;
                    if repeats.began.is_some_and(|began| began.elapsed() < self.state.limits.patience) {
                        queued.message = queued.message.searched_after(&queued.waiter.prior);
                        undone.unknown.push(queued);
                    } else {
                        queued.waiter.send(Err(failure.clone().into()));
                    }
                }
                None => queued.waiter.send(Err(failure.clone().into())),
            }
        }
        undone
    }
}

/// Splits the messages from their senders.
fn split(TargetTurn { target, messages }: TargetTurn<Waiter>) -> (TargetBatch, TargetWaiters) {
    let (messages, waiters) =
        messages.into_iter().map(|queued| (queued.message, (queued.queued_at, queued.waiter))).unzip();
    (TargetBatch { target, messages }, waiters)
}

/// Returns the error of a message that has waited too long.
fn late_error(is_answered: bool) -> PublishError {
    if is_answered {
        return PublishError::Overloaded;
    }
    RegistryError::Unavailable("message waited for a store without an answer".to_owned()).into()
}

/// Returns the failure of messages that the appender returned no outcome for.
fn left_out() -> RegistryError {
    RegistryError::Unknown("appender left out a message".to_owned())
}

/// A task that ends early (a panic, the end of the runtime) must not keep its slot and its targets. If no other task is
/// left, the messages that wait end with it.
impl<A: AppendBatch> Drop for CallRunner<A> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let (now, mut work) = (Instant::now(), self.state.work());
        for target in &self.targets {
            work.queues.end_turn(target, Vec::new(), false, now);
        }
        work.free_slots.push(self.slot);
        let is_last = work.free_slots.len() == self.state.limits.calls;
        let aborted = is_last.then(|| std::mem::take(&mut work.queues));
        drop(work);
        drop(aborted);
    }
}

#[cfg(test)]
mod tests;
