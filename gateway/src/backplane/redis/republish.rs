//! The repair ring: what this gateway has acked in the last seconds, for a Redis that comes back without them.
//!
//! Everything that is written goes through it: [`RepublishBuffer::space`] before the call, [`RepublishBuffer::keep`] before anybody hears of
//! the ack. Beats tell it how long the store has lived ([`ring`] decides what is forgotten), and when it has become another
//! one. Then what it may have lost is looked for and put back ([`task`]), and until that is done nothing new is written:
//! [`RepublishBuffer::settled`] is the generation that new messages are written in, and the scripts refuse them in any other.
//! Bounded: what finds no space is refused before it is sent; nothing that was acked is dropped.

mod ring;
mod task;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::host::failpoints::{self, Failpoint};
use presence::model::Incarnation;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use self::ring::{AnsweredBeat, RepublishRing, UnsettledMessage};
pub(super) use self::task::run;
use super::message::{AckedMessage, AckedPosition, StoredMessage};

/// Bytes that are kept at most.
const BUFFER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a kept message is counted as beside its payload and its key.
const OVERHEAD_BYTES: usize = 512;

/// A part of what may be kept, free again when it is dropped.
pub(super) type RingReservation = OwnedSemaphorePermit;

/// The ring, and who waits for it.
#[derive(Debug)]
pub(super) struct RepublishBuffer {
    state: Mutex<BufferState>,
    space: Arc<Semaphore>,
    most: usize,
    /// Something is owed.
    unsettled: Notify,
    /// A beat was answered.
    beaten: Notify,
}

#[derive(Debug, Default)]
struct BufferState {
    ring: RepublishRing<RingReservation>,
    /// Whose lease answered the newest beat.
    incarnation: Option<Incarnation>,
}

/// What one generation owes.
#[derive(Debug)]
struct UnsettledBatch {
    generation: u64,
    /// Who puts it back.
    incarnation: Incarnation,
    /// Of each log, in the old order.
    streams: Vec<Vec<UnsettledMessage>>,
}

impl Default for RepublishBuffer {
    fn default() -> Self {
        Self::bounded(BUFFER_BYTES_MAX)
    }
}

impl RepublishBuffer {
    /// One that keeps so many bytes at most.
    pub(super) fn bounded(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            space: Arc::new(Semaphore::new(most)),
            most,
            unsettled: Notify::new(),
            beaten: Notify::new(),
        }
    }

    /// The space that a message takes once it is acked. `None` when there is none: it must not be sent.
    pub(super) fn reserve(&self, message: &StoredMessage) -> Option<RingReservation> {
        let bytes = u32::try_from(message.bytes() + OVERHEAD_BYTES).ok()?;
        Arc::clone(&self.space).try_acquire_many_owned(bytes).ok()
    }

    /// How many bytes are taken.
    pub(super) fn bytes(&self) -> usize {
        self.most - self.space.available_permits()
    }

    /// Keeps a message that the store has taken, before its sender hears of it.
    pub(super) fn keep(&self, acked: AckedMessage, space: RingReservation) {
        if failpoints::takes(Failpoint::Republish) {
            return;
        }
        let mut state = self.lock();
        if state.ring.keep(acked, space, Instant::now()) {
            self.unsettled.notify_one();
        }
    }

    /// A beat of this lease was answered.
    pub(super) fn note_beat(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        let mut state = self.lock();
        state.ring.beat(AnsweredBeat { generation, sent, received });
        state.incarnation = Some(incarnation.clone());
        if state.ring.is_unsettled() {
            self.unsettled.notify_one();
        }
        self.beaten.notify_waiters();
    }

    /// The generation that new messages are written in: the newest one that owes nothing. 0 before the first beat.
    pub(super) fn settled(&self) -> u64 {
        self.lock().ring.settled()
    }

    /// Waits until nothing is kept. Dropping the future changes nothing.
    pub(super) async fn wait_empty(&self) {
        loop {
            let beaten = self.beaten.notified();
            if self.lock().ring.is_empty() {
                return;
            }
            beaten.await;
        }
    }

    /// Waits until something is owed. Dropping the future changes nothing. One waiter.
    async fn wait_unsettled(&self) -> UnsettledBatch {
        loop {
            let notified = self.unsettled.notified();
            if let Some(batch) = self.lock().unsettled() {
                return batch;
            }
            notified.await;
        }
    }

    /// The message is in the store, there, in this generation.
    fn mark_present(&self, unsettled: &UnsettledMessage, position: AckedPosition, generation: u64) {
        self.lock().ring.mark_present(unsettled.number, position, generation, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, BufferState> {
        // Every method leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufferState {
    fn unsettled(&self) -> Option<UnsettledBatch> {
        let incarnation = self.incarnation.clone().filter(|_| self.ring.is_unsettled())?;
        Some(UnsettledBatch { generation: self.ring.generation(), incarnation, streams: self.ring.unsettled() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use presence::model::RoomKey;

    use crate::backplane::redis::message::WriteTarget;

    use super::*;

    fn message(bytes: usize) -> StoredMessage {
        let [token, nick, key, msg_id] = [const { String::new() }; 4];
        StoredMessage { token, nick, key, msg_id, payload: "x".repeat(bytes) }
    }

    fn keep(buffer: &RepublishBuffer, message: StoredMessage) {
        let reservation = buffer.reserve(&message).unwrap();
        let target = WriteTarget::Room(RoomKey::from_store("lobby"));
        let position = AckedPosition { epoch: "e".into(), seq: 1 };
        buffer.keep(AckedMessage { target, message: Arc::new(message), position, generation: 1 }, reservation);
    }

    #[tokio::test]
    async fn what_finds_no_space_is_refused_until_something_is_forgotten() {
        let buffer = RepublishBuffer::bounded(10_000);
        let (lease, start) = (Incarnation::random(), Instant::now());
        buffer.note_beat(&lease, 1, start, start);
        for _ in 0..4 {
            keep(&buffer, message(2000 - OVERHEAD_BYTES));
        }
        assert_eq!(buffer.bytes(), 8000);
        let under_way = buffer.reserve(&message(1500 - OVERHEAD_BYTES)).unwrap();
        assert!(buffer.reserve(&message(1)).is_none(), "what is under way counts");
        drop(under_way);
        assert!(buffer.reserve(&message(2001 - OVERHEAD_BYTES)).is_none());
        assert!(buffer.reserve(&message(2000 - OVERHEAD_BYTES)).is_some());
        let empty = buffer.wait_empty();
        let beats = async {
            for second in 1..=6 {
                assert_eq!(buffer.bytes(), 8000);
                let at = start + Duration::from_secs(second);
                buffer.note_beat(&lease, 1, at, at);
            }
        };
        tokio::join!(empty, beats);
        assert_eq!(buffer.bytes(), 0);
    }
}
