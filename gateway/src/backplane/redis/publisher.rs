//! Batches by themselves: what is said in a room while a publish call is under way goes with the next one.
//!
//! The Redis arm publishes through it. One call per room and gateway is under way at a time, so the order in which
//! messages came holds; rooms do not wait for each other. A room that nobody speaks in costs nothing: its queue and the
//! task that works through it begin with a message and end when nothing waits. There is no timer and no delay.
//! Bounded in messages, bytes and time ([`PublisherLimits`]): what does not fit is refused before anything is done.
//! Knows no Redis: how a batch reaches the store is behind [`AppendBatch`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::RoomKey;
use presence::registry::RegistryError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::message::{StoredMessage, WriteOutcome};
use crate::backplane::PublishError;

/// Where batches go.
pub(super) trait AppendBatch: Send + Sync + 'static {
    /// Appends messages to a room's appender in one step, and says of each what became of it, in their order.
    ///
    /// # Errors
    /// `Unavailable` when nothing was done, `Unknown` when that is not known.
    fn append(
        &self,
        room: &RoomKey,
        batch: &[StoredMessage],
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, RegistryError>> + Send;
}

/// So many messages, and so many bytes of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLoad {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What is taken on at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublisherLimits {
    /// One call. Redis does nothing else meanwhile, and a subscriber gets it as one frame. One message always fits.
    pub(super) batch: QueueLoad,
    /// What waits in one room.
    pub(super) room: QueueLoad,
    /// What waits or is under way on this gateway, in all rooms and to nicknames.
    pub(super) gateway: QueueLoad,
    /// How long a message waits for its turn. Longer than a healthy store ever takes for a full queue.
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

/// Queues of messages in front of a [`AppendBatch`]. A message that was sent is waited for by its room's task, also when the
/// publisher is dropped.
#[derive(Debug)]
pub(super) struct Publisher<A> {
    state: Arc<PublisherState<A>>,
}

/// What the publisher and the tasks of busy rooms share.
#[derive(Debug)]
struct PublisherState<A> {
    appender: A,
    limits: PublisherLimits,
    /// What is left of the gateway's limits.
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// The rooms that a [`RoomPublisher`] works for.
    busy: Mutex<HashMap<RoomKey, RoomQueue>>,
}

#[derive(Debug, Default)]
struct RoomQueue {
    waiting: VecDeque<QueuedMessage>,
    bytes: usize,
}

#[derive(Debug)]
struct QueuedMessage {
    message: StoredMessage,
    since: Instant,
    waiter: Waiter,
}

/// Whom to tell.
#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<WriteOutcome>,
    _permit: QueuePermit,
}

/// A place within the gateway's limits, free again when it is dropped.
#[derive(Debug)]
pub(super) struct QueuePermit {
    _message: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl<A: AppendBatch> Publisher<A> {
    pub(super) fn new(appender: A, limits: PublisherLimits) -> Self {
        let [messages, bytes] =
            [limits.gateway.messages, limits.gateway.bytes].map(|most| Arc::new(Semaphore::new(most)));
        Self { state: Arc::new(PublisherState { appender, limits, messages, bytes, busy: Mutex::default() }) }
    }

    /// Publishes one message and waits for what became of it. Dropping the future takes a message that still waits out of
    /// its queue; one that is under way may be done or not. Others are not touched by that.
    ///
    /// # Errors
    /// `Overloaded` when a limit is reached: nothing was done. Else what the appender says.
    pub(super) async fn publish(&self, room: &RoomKey, message: StoredMessage) -> WriteOutcome {
        let outcome = self.enqueue(room, message)?.await;
        outcome.unwrap_or_else(|_| Err(RegistryError::Unknown("the call was given up".to_owned()).into()))
    }

    /// A place for work that goes past the queues, under the same limits of the gateway.
    ///
    /// # Errors
    /// `Overloaded` when there is none.
    pub(super) fn permit(&self, bytes: usize) -> Result<QueuePermit, PublishError> {
        let bytes = u32::try_from(bytes).map_err(|_| PublishError::Overloaded)?;
        let message = Arc::clone(&self.state.messages).try_acquire_owned();
        let bytes = Arc::clone(&self.state.bytes).try_acquire_many_owned(bytes);
        let (Ok(message), Ok(bytes)) = (message, bytes) else { return Err(PublishError::Overloaded) };
        Ok(QueuePermit { _message: message, _bytes: bytes })
    }

    /// Queues a message; in a room where nothing is under way its turn is now.
    fn enqueue(&self, room: &RoomKey, message: StoredMessage) -> Result<oneshot::Receiver<WriteOutcome>, PublishError> {
        let permit = self.permit(message.bytes())?;
        let (reply, outcome) = oneshot::channel();
        let waiting = QueuedMessage { message, since: Instant::now(), waiter: Waiter { reply, _permit: permit } };
        let mut busy = self.state.busy();
        if let Some(queue) = busy.get_mut(room) {
            queue.push(waiting, self.state.limits.room)?;
            return Ok(outcome);
        }
        let mut queue = RoomQueue::default();
        queue.push(waiting, self.state.limits.room)?;
        busy.insert(room.clone(), queue);
        drop(busy);
        tokio::spawn(RoomPublisher { state: Arc::clone(&self.state), room: room.clone(), over: false }.run());
        Ok(outcome)
    }
}

impl<A> PublisherState<A> {
    fn busy(&self) -> MutexGuard<'_, HashMap<RoomKey, RoomQueue>> {
        // Nothing panics while it is held.
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomQueue {
    fn push(&mut self, waiting: QueuedMessage, most: QueueLoad) -> Result<(), PublishError> {
        let bytes = self.bytes + waiting.message.bytes();
        if self.waiting.len() >= most.messages || bytes > most.bytes {
            return Err(PublishError::Overloaded);
        }
        self.bytes = bytes;
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Takes out what goes with the next call, and on the way what nobody waits for and what has waited for too long.
    fn next(&mut self, limits: &PublisherLimits) -> (Vec<StoredMessage>, Vec<Waiter>) {
        let (mut batch, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0);
        let fits = |messages: usize, bytes: usize| messages <= limits.batch.messages && bytes <= limits.batch.bytes;
        while let Some(QueuedMessage { message, since, waiter }) =
            self.waiting.pop_front_if(|next| batch.is_empty() || fits(batch.len() + 1, bytes + next.message.bytes()))
        {
            let size = message.bytes();
            self.bytes -= size;
            if waiter.reply.is_closed() {
                continue;
            }
            if since.elapsed() > limits.wait {
                waiter.send(Err(PublishError::Overloaded));
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
    /// One that has gone away misses nothing.
    fn send(self, outcome: WriteOutcome) {
        let _ = self.reply.send(outcome);
    }
}

/// One room's work, from its first message until nothing waits.
struct RoomPublisher<A> {
    state: Arc<PublisherState<A>>,
    room: RoomKey,
    over: bool,
}

impl<A: AppendBatch> RoomPublisher<A> {
    async fn run(mut self) {
        while let Some((batch, waiters)) = self.next() {
            match self.state.appender.append(&self.room, &batch).await {
                Ok(outcomes) if outcomes.len() == waiters.len() => {
                    waiters.into_iter().zip(outcomes).for_each(|(waiter, outcome)| waiter.send(outcome));
                }
                Ok(_) => fail(waiters, &RegistryError::Unknown("not one outcome per message".to_owned())),
                Err(error) => fail(waiters, &error),
            }
        }
    }

    /// The next batch. When there is none the room is idle in the same step, and the next message begins a new turn.
    fn next(&mut self) -> Option<(Vec<StoredMessage>, Vec<Waiter>)> {
        let mut busy = self.state.busy();
        let next = busy.get_mut(&self.room).map(|queue| queue.next(&self.state.limits));
        let next = next.filter(|(batch, _)| !batch.is_empty());
        if next.is_none() {
            busy.remove(&self.room);
            self.over = true;
        }
        next
    }
}

fn fail(waiters: Vec<Waiter>, error: &RegistryError) {
    waiters.into_iter().for_each(|waiter| waiter.send(Err(error.clone().into())));
}

/// A turn that ends before its time (a panic, the end of the runtime) must not leave a room busy for ever.
impl<A> Drop for RoomPublisher<A> {
    fn drop(&mut self) {
        if !self.over {
            self.state.busy().remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests;
