//! The republish ring: the messages that this gateway acknowledged in the last seconds, in case Redis restarts without
//! them.
//!
//! Every write reserves space in [`SharedRepublishRing`] before the call and enters it before its ack. Beats report the
//! store's age and generation; the pure [`ring`] decides which messages are safe. After a change of generation [`task`]
//! republishes the lost ones. Until then nothing new is written: scripts refuse any generation but
//! [`SharedRepublishRing::settled`]. Bounded: a message without space is refused before it is sent. No acknowledged
//! message is dropped.

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

/// Maximum size of the messages in the ring.
const RING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The counted size of a message in addition to its payload and its key.
const OVERHEAD_BYTES: usize = 512;

/// A part of the ring's space, released on drop.
pub(super) type RingReservation = OwnedSemaphorePermit;

/// The ring with its bound and its waiters.
#[derive(Debug)]
pub(super) struct SharedRepublishRing {
    state: Mutex<RepublishState>,
    space: Arc<Semaphore>,
    limit_bytes: usize,
    /// Notified when messages are unsettled.
    unsettled: Notify,
    /// Notified at every answered beat.
    beat_answered: Notify,
}

#[derive(Debug, Default)]
struct RepublishState {
    ring: RepublishRing<RingReservation>,
    /// The incarnation of the newest answered beat.
    incarnation: Option<Incarnation>,
}

/// The unsettled messages of one generation.
#[derive(Debug)]
struct UnsettledBatch {
    generation: u64,
    /// The incarnation that republishes them.
    incarnation: Incarnation,
    /// The messages of each stream, in their old order.
    streams: Vec<Vec<UnsettledMessage>>,
}

impl Default for SharedRepublishRing {
    fn default() -> Self {
        Self::bounded(RING_BYTES_MAX)
    }
}

impl SharedRepublishRing {
    /// Creates a ring of at most `limit_bytes`.
    pub(super) fn bounded(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            space: Arc::new(Semaphore::new(limit_bytes)),
            limit_bytes,
            unsettled: Notify::new(),
            beat_answered: Notify::new(),
        }
    }

    /// Reserves the space of a message. `None` without space: then the message must not be sent.
    pub(super) fn reserve(&self, message: &StoredMessage) -> Option<RingReservation> {
        let bytes = u32::try_from(message.bytes() + OVERHEAD_BYTES).ok()?;
        Arc::clone(&self.space).try_acquire_many_owned(bytes).ok()
    }

    /// Returns the number of reserved bytes.
    pub(super) fn bytes(&self) -> usize {
        self.limit_bytes - self.space.available_permits()
    }

    /// Adds a message that the store has appended, before its sender gets the ack.
    pub(super) fn add(&self, acked: AckedMessage, space: RingReservation) {
        if failpoints::is_disabled(Failpoint::Republish) {
            return;
        }
        let mut state = self.lock();
        if state.ring.add(acked, space, Instant::now()) {
            self.unsettled.notify_one();
        }
    }

    /// Applies an answered beat of this lease.
    pub(super) fn note_beat(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        let mut state = self.lock();
        state.ring.beat(AnsweredBeat { generation, sent, received });
        state.incarnation = Some(incarnation.clone());
        if state.ring.is_unsettled() {
            self.unsettled.notify_one();
        }
        self.beat_answered.notify_waiters();
    }

    /// Returns the generation of new messages: the newest one without unsettled messages. 0 before the first beat.
    pub(super) fn settled(&self) -> u64 {
        self.lock().ring.settled()
    }

    /// Waits until the ring is empty. Dropping the future changes nothing.
    pub(super) async fn wait_empty(&self) {
        loop {
            let beat_answered = self.beat_answered.notified();
            if self.lock().ring.is_empty() {
                return;
            }
            beat_answered.await;
        }
    }

    /// Waits until messages are unsettled. Dropping the future changes nothing. Supports one waiter.
    async fn wait_unsettled(&self) -> UnsettledBatch {
        loop {
            let notified = self.unsettled.notified();
            if let Some(batch) = self.lock().unsettled() {
                return batch;
            }
            notified.await;
        }
    }

    /// Records that the message is in the store at this position, in this generation.
    fn mark_present(&self, unsettled: &UnsettledMessage, position: AckedPosition, generation: u64) {
        self.lock().ring.mark_present(unsettled.number, position, generation, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, RepublishState> {
        // Every method leaves the state consistent, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RepublishState {
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

    fn add(ring: &SharedRepublishRing, message: StoredMessage) {
        let reservation = ring.reserve(&message).unwrap();
        let target = WriteTarget::Room(RoomKey::from_store("lobby"));
        let position = AckedPosition { epoch: "e".into(), seq: 1 };
        ring.add(AckedMessage { target, message: Arc::new(message), position, generation: 1 }, reservation);
    }

    #[tokio::test]
    async fn full_ring_refuses_messages_until_others_are_safe() {
        let ring = SharedRepublishRing::bounded(10_000);
        let (lease, start) = (Incarnation::random(), Instant::now());
        ring.note_beat(&lease, 1, start, start);
        for _ in 0..4 {
            add(&ring, message(2000 - OVERHEAD_BYTES));
        }
        assert_eq!(ring.bytes(), 8000);
        let under_way = ring.reserve(&message(1500 - OVERHEAD_BYTES)).unwrap();
        assert!(ring.reserve(&message(1)).is_none(), "a reservation of a running call was not counted");
        drop(under_way);
        assert!(ring.reserve(&message(2001 - OVERHEAD_BYTES)).is_none());
        assert!(ring.reserve(&message(2000 - OVERHEAD_BYTES)).is_some());
        let empty = ring.wait_empty();
        let beats = async {
            for second in 1..=6 {
                assert_eq!(ring.bytes(), 8000);
                let at = start + Duration::from_secs(second);
                ring.note_beat(&lease, 1, at, at);
            }
        };
        tokio::join!(empty, beats);
        assert_eq!(ring.bytes(), 0);
    }
}
