//! The publisher: messages wait while calls run, and go together in the next call, whatever their rooms.
//!
//! [`Publisher`] runs at most [`PublisherLimits::calls`] calls at a time. What arrives meanwhile forms the next one, so
//! calls grow with the load; there is no timer. A room is in one call at a time, so its messages keep their order.
//! Bounded in messages, bytes and time: excess messages are refused before anything is done. A room or a receiver takes
//! at most an eighth of the bytes, and a session waits for one message at a time. The pure [`queues`] choose the
//! messages of a call. It does not know Redis: [`AppendBatch`] appends a call's messages.

mod queues;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::{NickKey, RoomKey};
use presence::registry::RegistryError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub(super) use self::queues::QueueLoad;
use self::queues::{PublishQueues, QueuedMessage, RoomTurn};
use super::message::{MessageOutcome, RoomBatch, RoomOutcome, StoredMessage, WriteOutcome};
use crate::backplane::PublishError;

/// The destination of calls.
pub(super) trait AppendBatch: Send + Sync + 'static {
    /// Appends messages to the streams of rooms, each room's in one step. `slot` differs between calls at the same
    /// time. Returns one outcome per room, in their order.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    fn append(
        &self,
        slot: usize,
        rooms: &[RoomBatch],
    ) -> impl Future<Output = Result<Vec<RoomOutcome>, RegistryError>> + Send;
}

/// The limits of the publisher.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublisherLimits {
    /// Maximum number of calls at a time.
    pub(super) calls: usize,
    /// Maximum size of one call, which blocks Redis; what one room has of it reaches a subscriber as one push. A single
    /// message always fits.
    pub(super) call: QueueLoad,
    /// Maximum size of one room's queue.
    pub(super) room: QueueLoad,
    /// Maximum number of queued and running messages on this gateway, for all rooms and nicknames.
    pub(super) gateway: QueueLoad,
    /// Maximum time in a queue; longer than a healthy store needs for a full queue.
    pub(super) wait: Duration,
}

impl Default for PublisherLimits {
    fn default() -> Self {
        Self {
            calls: 2,
            call: QueueLoad { messages: 64, bytes: 256 * 1024 },
            room: QueueLoad { messages: 1024, bytes: 8 * 1024 * 1024 },
            gateway: QueueLoad { messages: 16 * 1024, bytes: 64 * 1024 * 1024 },
            wait: Duration::from_secs(2),
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
    /// The direct messages under way, by receiver.
    direct: Mutex<HashMap<NickKey, QueueLoad>>,
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
    _permit: QueuePermit,
}

/// A part of the limits of the gateway and of a receiver, released on drop.
#[derive(Debug)]
pub(super) struct DirectPermit<A> {
    state: Arc<PublisherState<A>>,
    to: NickKey,
    bytes: usize,
    _permit: QueuePermit,
}

impl<A> Drop for DirectPermit<A> {
    fn drop(&mut self) {
        let mut direct = self.state.direct();
        let Some(load) = direct.get_mut(&self.to) else { return };
        *load = QueueLoad { messages: load.messages - 1, bytes: load.bytes - self.bytes };
        if load.messages == 0 {
            direct.remove(&self.to);
        }
    }
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
        Self {
            state: Arc::new(PublisherState {
                appender,
                limits,
                messages,
                bytes,
                work: Mutex::new(work),
                direct: Mutex::default(),
            }),
        }
    }

    /// Publishes one message and waits for its outcome. Dropping the future cancels a message that is still queued; a
    /// running call may or may not append it. Other messages are unaffected.
    ///
    /// # Errors
    /// `Overloaded` when a limit is reached, `Unavailable` if it waited too long for a store that does not answer:
    /// nothing was done. Otherwise the error of the appender.
    pub(super) async fn publish(&self, room: &RoomKey, message: StoredMessage) -> WriteOutcome {
        let outcome = self.enqueue(room, message)?.await;
        outcome.unwrap_or_else(|_| Err(RegistryError::Unknown("publish call was aborted".to_owned()).into()))
    }

    /// Reserves a part of the gateway's limits for a direct message, which bypasses the queues. The messages to one
    /// nickname have the limit of a room.
    ///
    /// # Errors
    /// `Overloaded` when a limit is reached.
    pub(super) fn permit_direct(&self, to: &NickKey, bytes: usize) -> Result<DirectPermit<A>, PublishError> {
        let limit = self.state.limits.room;
        let permit = self.permit(bytes)?;
        let mut direct = self.state.direct();
        let load = direct.entry(to.clone()).or_default();
        // A nickname without messages always accepts one.
        if load.messages >= limit.messages || load.bytes + bytes > limit.bytes {
            return Err(PublishError::Overloaded);
        }
        *load = QueueLoad { messages: load.messages + 1, bytes: load.bytes + bytes };
        Ok(DirectPermit { state: Arc::clone(&self.state), to: to.clone(), bytes, _permit: permit })
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
    fn enqueue(&self, room: &RoomKey, message: StoredMessage) -> Result<oneshot::Receiver<WriteOutcome>, PublishError> {
        let permit = self.permit(message.bytes())?;
        let (reply, outcome) = oneshot::channel();
        let (message, waiter) = (Arc::new(message), Waiter { reply, _permit: permit });
        let queued = QueuedMessage { message, queued_at: Instant::now(), waiter };
        let mut work = self.state.work();
        work.queues.push(room, queued, self.state.limits.room).map_err(|_| PublishError::Overloaded)?;
        let slot = work.free_slots.pop();
        drop(work);
        if let Some(slot) = slot {
            tokio::spawn(CallRunner::new(&self.state, slot).run());
        }
        Ok(outcome)
    }
}

impl<A> PublisherState<A> {
    fn work(&self) -> MutexGuard<'_, PublisherWork> {
        // No code panics while it holds the lock.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn direct(&self) -> MutexGuard<'_, HashMap<NickKey, QueueLoad>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Sends the outcome. A caller that has stopped waiting is ignored.
    fn send(self, outcome: WriteOutcome) {
        let _ = self.reply.send(outcome);
    }
}

/// A task that runs one call after the other while messages wait.
struct CallRunner<A: AppendBatch> {
    state: Arc<PublisherState<A>>,
    slot: usize,
    /// The rooms of the present call.
    rooms: Vec<RoomKey>,
    is_finished: bool,
}

/// The senders of a call's messages of one room, with the times since which they wait.
type RoomWaiters = Vec<(Instant, Waiter)>;

impl<A: AppendBatch> CallRunner<A> {
    fn new(state: &Arc<PublisherState<A>>, slot: usize) -> Self {
        Self { state: Arc::clone(state), slot, rooms: Vec::new(), is_finished: false }
    }

    async fn run(mut self) {
        while let Some(turns) = self.next_call() {
            let (batches, waiters): (Vec<RoomBatch>, Vec<RoomWaiters>) = turns.into_iter().map(split).unzip();
            let appended = self.state.appender.append(self.slot, &batches).await;
            self.conclude(batches, waiters, appended);
        }
    }

    /// Returns the messages of the next call. Without any it frees the slot in the same step, so the next message
    /// starts a new task.
    fn next_call(&mut self) -> Option<Vec<RoomTurn<Waiter>>> {
        let (limits, now, mut late) = (&self.state.limits, Instant::now(), Vec::new());
        let mut work = self.state.work();
        let admit = |queued: QueuedMessage<Waiter>| {
            let is_late = now.saturating_duration_since(queued.queued_at) > limits.wait;
            if queued.waiter.reply.is_closed() {
                return None;
            }
            if is_late {
                late.push(queued);
                return None;
            }
            Some(queued)
        };
        let turns = work.queues.next_call(limits.call, now, admit);
        let is_answered = work.is_answered;
        self.rooms = turns.iter().map(|turn| turn.room.clone()).collect();
        if turns.is_empty() {
            work.free_slots.push(self.slot);
            self.is_finished = true;
        }
        drop(work);
        late.into_iter().for_each(|queued| queued.waiter.send(Err(late_error(&queued.message, is_answered))));
        (!turns.is_empty()).then_some(turns)
    }

    /// Passes the outcomes to their callers, and ends the turns of the call's rooms.
    fn conclude(
        &mut self,
        batches: Vec<RoomBatch>,
        waiters: Vec<RoomWaiters>,
        appended: Result<Vec<RoomOutcome>, RegistryError>,
    ) {
        let is_answered = appended.is_ok();
        let failure = appended.as_ref().err().cloned();
        let failure = failure.unwrap_or_else(|| RegistryError::Unknown("appender left out a message".to_owned()));
        let mut outcomes = appended.unwrap_or_default().into_iter();
        let mut ended = Vec::with_capacity(batches.len());
        for (RoomBatch { room, messages }, waiters) in batches.into_iter().zip(waiters) {
            let waiting = |(message, (queued_at, waiter))| QueuedMessage { message, queued_at, waiter };
            let messages = messages.into_iter().zip(waiters).map(waiting);
            match outcomes.next() {
                Some(RoomOutcome::Apart) => ended.push((room, messages.collect(), true)),
                Some(RoomOutcome::Answered(answers)) => ended.push((room, answer(messages, answers, &failure), false)),
                None => ended.push((room, answer(messages, Vec::new(), &failure), false)),
            }
        }
        let (now, mut work) = (Instant::now(), self.state.work());
        work.is_answered = is_answered;
        for (room, again, is_apart) in ended {
            work.queues.end_turn(&room, again, is_apart, now);
        }
        self.rooms.clear();
    }
}

/// Splits the messages from their senders.
fn split(RoomTurn { room, messages }: RoomTurn<Waiter>) -> (RoomBatch, RoomWaiters) {
    let (messages, waiters) =
        messages.into_iter().map(|queued| (queued.message, (queued.queued_at, queued.waiter))).unzip();
    (RoomBatch { room, messages }, waiters)
}

/// Passes the outcomes of one room to their callers; a message without one gets the failure. Returns the messages that
/// must be sent again.
fn answer(
    messages: impl Iterator<Item = QueuedMessage<Waiter>>,
    answers: Vec<MessageOutcome>,
    failure: &RegistryError,
) -> Vec<QueuedMessage<Waiter>> {
    let (mut answers, mut again) = (answers.into_iter(), Vec::new());
    for QueuedMessage { message, queued_at, waiter } in messages {
        match answers.next() {
            Some(MessageOutcome::Done(outcome)) => waiter.send(outcome),
            Some(MessageOutcome::Searched(prior)) => {
                let message = Arc::new(message.searched_to(&prior));
                again.push(QueuedMessage { message, queued_at, waiter });
            }
            None => waiter.send(Err(failure.clone().into())),
        }
    }
    again
}

/// Returns the error of a message that has waited too long.
fn late_error(message: &StoredMessage, is_answered: bool) -> PublishError {
    if !message.prior.is_empty() {
        // An earlier attempt may be stored.
        return RegistryError::Unknown("repeat waited too long".to_owned()).into();
    }
    if is_answered {
        return PublishError::Overloaded;
    }
    RegistryError::Unavailable("message waited for a store without an answer".to_owned()).into()
}

/// A task that ends early (a panic, the end of the runtime) must not keep its slot and its rooms. If no other task is
/// left, the messages that wait end with it.
impl<A: AppendBatch> Drop for CallRunner<A> {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let (now, mut work) = (Instant::now(), self.state.work());
        for room in &self.rooms {
            work.queues.end_turn(room, Vec::new(), false, now);
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
