//! The publish queues: messages for a room wait while a call for it runs, and go together in the next call.
//!
//! [`Publisher`] runs at most one call per room and gateway at a time, so a room's messages keep their order. Rooms do
//! not wait for each other. A room's queue and task exist from its first message until the queue is empty; there is no
//! timer. Bounded in messages, bytes and time ([`PublisherLimits`]): excess messages are refused before anything is
//! done. A room or a receiver takes at most an eighth of the bytes, and a session waits for one message at a time. It
//! does not know Redis: [`AppendBatch`] appends a batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::{NickKey, RoomKey};
use presence::registry::RegistryError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::message::{StoredMessage, WriteOutcome};
use crate::backplane::PublishError;

/// The destination of batches.
pub(super) trait AppendBatch: Send + Sync + 'static {
    /// Appends messages to a room's stream in one step. Returns one outcome per message, in their order.
    ///
    /// # Errors
    /// `Unavailable` if nothing was done, `Unknown` if it may have been done.
    fn append(
        &self,
        room: &RoomKey,
        batch: &[StoredMessage],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, RegistryError>> + Send;
}

/// An amount of messages and their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct QueueLoad {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The limits of the publish queues.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublisherLimits {
    /// Maximum size of one call, which blocks Redis and reaches a subscriber as one push. A single message always fits.
    pub(super) batch: QueueLoad,
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
            batch: QueueLoad { messages: 64, bytes: 256 * 1024 },
            room: QueueLoad { messages: 1024, bytes: 8 * 1024 * 1024 },
            gateway: QueueLoad { messages: 16 * 1024, bytes: 64 * 1024 * 1024 },
            wait: Duration::from_secs(2),
        }
    }
}

/// Queues of messages before an [`AppendBatch`]. A room's task completes its running call even if the publisher is
/// dropped.
#[derive(Debug)]
pub(super) struct Publisher<A> {
    state: Arc<PublisherState<A>>,
}

/// The shared state of the publisher and the tasks of busy rooms.
#[derive(Debug)]
struct PublisherState<A> {
    appender: A,
    limits: PublisherLimits,
    /// The unused messages and bytes of the gateway's limits.
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// The queues of rooms with a running [`RoomPublisher`].
    busy: Mutex<HashMap<RoomKey, RoomQueue>>,
    /// The direct messages under way, by receiver.
    direct: Mutex<HashMap<NickKey, QueueLoad>>,
}

#[derive(Debug, Default)]
struct RoomQueue {
    queued: VecDeque<QueuedMessage>,
    bytes: usize,
}

#[derive(Debug)]
struct QueuedMessage {
    message: StoredMessage,
    queued_at: Instant,
    waiter: Waiter,
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
        Self {
            state: Arc::new(PublisherState {
                appender,
                limits,
                messages,
                bytes,
                busy: Mutex::default(),
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

    /// Queues a message and starts the room's task if none runs.
    fn enqueue(&self, room: &RoomKey, message: StoredMessage) -> Result<oneshot::Receiver<WriteOutcome>, PublishError> {
        let permit = self.permit(message.bytes())?;
        let (reply, outcome) = oneshot::channel();
        let queued = QueuedMessage { message, queued_at: Instant::now(), waiter: Waiter { reply, _permit: permit } };
        let mut busy = self.state.busy();
        if let Some(queue) = busy.get_mut(room) {
            queue.push(queued, self.state.limits.room)?;
            return Ok(outcome);
        }
        let mut queue = RoomQueue::default();
        queue.push(queued, self.state.limits.room)?;
        busy.insert(room.clone(), queue);
        drop(busy);
        let (state, late) = (Arc::clone(&self.state), PublishError::Overloaded);
        tokio::spawn(RoomPublisher { state, room: room.clone(), late, is_finished: false }.run());
        Ok(outcome)
    }
}

impl<A> PublisherState<A> {
    fn busy(&self) -> MutexGuard<'_, HashMap<RoomKey, RoomQueue>> {
        // No code panics while it holds the lock.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn direct(&self) -> MutexGuard<'_, HashMap<NickKey, QueueLoad>> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomQueue {
    fn push(&mut self, queued: QueuedMessage, limit: QueueLoad) -> Result<(), PublishError> {
        let bytes = self.bytes + queued.message.bytes();
        if self.queued.len() >= limit.messages || bytes > limit.bytes {
            return Err(PublishError::Overloaded);
        }
        self.bytes = bytes;
        self.queued.push_back(queued);
        Ok(())
    }

    /// Removes the messages of the next call. Also removes messages without a waiter and those that have waited too
    /// long, which get the error `late`.
    fn next_batch(&mut self, limits: &PublisherLimits, late: &PublishError) -> (Vec<StoredMessage>, Vec<Waiter>) {
        let (mut batch, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0);
        let fits = |messages: usize, bytes: usize| messages <= limits.batch.messages && bytes <= limits.batch.bytes;
        while let Some(QueuedMessage { message, queued_at, waiter }) =
            self.queued.pop_front_if(|next| batch.is_empty() || fits(batch.len() + 1, bytes + next.message.bytes()))
        {
            let size = message.bytes();
            self.bytes -= size;
            if waiter.reply.is_closed() {
                continue;
            }
            if queued_at.elapsed() > limits.wait {
                waiter.send(Err(late.clone()));
                continue;
            }
            bytes += size;
            batch.push(message);
            waiters.push(waiter);
        }
        (batch, waiters)
    }
}

impl Waiter {
    /// Sends the outcome. A caller that has stopped waiting is ignored.
    fn send(self, outcome: WriteOutcome) {
        let _ = self.reply.send(outcome);
    }
}

/// The task of one room, from its first message until its queue is empty.
struct RoomPublisher<A> {
    state: Arc<PublisherState<A>>,
    room: RoomKey,
    /// The error for messages that have waited too long.
    late: PublishError,
    is_finished: bool,
}

impl<A: AppendBatch> RoomPublisher<A> {
    async fn run(mut self) {
        while let Some((batch, waiters)) = self.next_batch() {
            let appended = self.state.appender.append(&self.room, &batch).await;
            self.late = match &appended {
                Ok(_) => PublishError::Overloaded,
                Err(_) => RegistryError::Unavailable("message waited for a store without an answer".to_owned()).into(),
            };
            match appended {
                Ok(outcomes) if outcomes.len() == waiters.len() => {
                    waiters.into_iter().zip(outcomes).for_each(|(waiter, outcome)| waiter.send(outcome));
                }
                Ok(_) => fail_all(
                    waiters,
                    &RegistryError::Unknown("appender returned a wrong number of outcomes".to_owned()),
                ),
                Err(error) => fail_all(waiters, &error),
            }
        }
    }

    /// Returns the next batch. Without one it removes the queue in the same step, so the next message starts a new
    /// task.
    fn next_batch(&mut self) -> Option<(Vec<StoredMessage>, Vec<Waiter>)> {
        let mut busy = self.state.busy();
        let next = busy.get_mut(&self.room).map(|queue| queue.next_batch(&self.state.limits, &self.late));
        let next = next.filter(|(batch, _)| !batch.is_empty());
        if next.is_none() {
            busy.remove(&self.room);
            self.is_finished = true;
        }
        next
    }
}

fn fail_all(waiters: Vec<Waiter>, error: &RegistryError) {
    waiters.into_iter().for_each(|waiter| waiter.send(Err(error.clone().into())));
}

/// A task that ends early (a panic, the end of the runtime) must not leave its room busy forever.
impl<A> Drop for RoomPublisher<A> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.state.busy().remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests;
