//! The republish ring: the messages that this gateway acknowledged in the last seconds, in case Redis restarts without
//! them.
//!
//! Every write reserves space in [`SharedRepublishRing`] before the call and enters it before its ack. Beats report the
//! store's age and generation; the pure [`ring`] decides which messages are safe. After a change of generation [`task`]
//! republishes the lost ones. Until then nothing new is written: scripts refuse any generation but
//! [`SharedRepublishRing::settled`]. Bounded, with [`shares`] for sessions and targets: a message without space is
//! refused before it is sent. No acknowledged message is dropped.

mod ring;
mod shares;
mod task;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::host::failpoints::{self, Failpoint};
use presence::model::Incarnation;
use tokio::sync::Notify;

use self::ring::{AnsweredBeat, RepublishRing, UnsettledMessage};
pub(super) use self::shares::ShareHolder;
use self::shares::{HeldSpace, NoSpace, RingShares};
pub(super) use self::task::run;
use super::message::{AckedMessage, AckedPosition, StoredMessage};

/// The counted size of a message in addition to its payload, its key and its sender.
const OVERHEAD_BYTES: usize = 512;

/// Minimum time between two log lines about refusals.
const REFUSAL_LOG_PAUSE: Duration = Duration::from_secs(10);

/// A part of the ring's space, released on drop.
#[derive(Debug)]
pub(super) struct RingReservation {
    space: HeldSpace,
    shares: Arc<Mutex<RingShares>>,
}

/// The ring with its bound and its waiters.
#[derive(Debug)]
pub(super) struct SharedRepublishRing {
    state: Mutex<RepublishState>,
    shares: Arc<Mutex<RingShares>>,
    /// The time of the newest log line about a refusal.
    refusal_logged: Mutex<Option<Instant>>,
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

impl SharedRepublishRing {
    /// Creates a ring of at most `limit_bytes`.
    pub(super) fn bounded(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            shares: Arc::new(Mutex::new(RingShares::new(limit_bytes, Instant::now()))),
            refusal_logged: Mutex::default(),
            unsettled: Notify::new(),
            beat_answered: Notify::new(),
        }
    }

    /// Reserves the space of a message to this target.
    ///
    /// # Errors
    /// The time until the message fits: until then it must not be sent.
    pub(super) fn reserve(&self, message: &StoredMessage, target: ShareHolder) -> Result<RingReservation, Duration> {
        let holders = [ShareHolder::Session(message.session().to_owned()), target];
        let now = Instant::now();
        match lock(&self.shares).reserve(holders, message.bytes() + OVERHEAD_BYTES, now) {
            Ok(space) => Ok(RingReservation { space, shares: self.shares.clone() }),
            Err(NoSpace { holder, retry_after }) => {
                self.log_refusal(message, holder.as_ref(), now);
                Err(retry_after)
            }
        }
    }

    /// Returns the number of reserved bytes.
    pub(super) fn bytes(&self) -> usize {
        lock(&self.shares).bytes()
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

    /// Logs a refusal, unless another one was logged just before.
    fn log_refusal(&self, message: &StoredMessage, holder: Option<&ShareHolder>, now: Instant) {
        let mut logged = lock(&self.refusal_logged);
        if logged.is_some_and(|logged| now.saturating_duration_since(logged) < REFUSAL_LOG_PAUSE) {
            return;
        }
        *logged = Some(now);
        let from = &*message.nick;
        match holder {
            None => tracing::info!(from, "message refused, republish ring full"),
            Some(ShareHolder::Session(_)) => {
                tracing::info!(from, "message refused, sender's share of republish ring used")
            }
            Some(ShareHolder::Room(room)) => {
                tracing::info!(from, room = room.as_str(), "message refused, room's share of republish ring used");
            }
            Some(ShareHolder::Inbox(to)) => {
                tracing::info!(from, to = to.as_str(), "message refused, receiver's share of republish ring used");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, RepublishState> {
        lock(&self.state)
    }
}

impl Drop for RingReservation {
    fn drop(&mut self) {
        lock(&self.shares).release(&self.space);
    }
}

/// Every holder of these locks leaves the state consistent, so a panic elsewhere does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    use presence::model::{Fence, Nick, Owner, RoomKey, SessionId};

    use crate::backplane::redis::message::WriteTarget;

    use super::*;

    fn message(bytes: usize) -> StoredMessage {
        let [nick, key, msg_id, prior] = [const { String::new() }; 4];
        let payload = "x".repeat(bytes - OVERHEAD_BYTES);
        StoredMessage { token: "i/s/1".to_owned(), nick, moderates: false, key, msg_id, payload, prior }
    }

    fn room(name: &str) -> ShareHolder {
        ShareHolder::Room(RoomKey::from_store(name))
    }

    fn add(ring: &SharedRepublishRing, message: StoredMessage) {
        let reservation = ring.reserve(&message, room("lobby")).unwrap();
        let target = WriteTarget::Room(RoomKey::from_store("lobby"));
        let position = AckedPosition { epoch: "e".into(), seq: 1 };
        ring.add(AckedMessage { target, message: Arc::new(message), position, generation: 1 }, reservation);
    }

    /// The ring keeps texts beside the payload; the key of a nickname is the longest of them.
    #[test]
    fn counted_bytes_cover_the_longest_nickname() {
        let nick = Nick::parse(&"\u{23A}".repeat(48)).unwrap();
        let owner = Owner { incarnation: Incarnation::random(), session: SessionId::random(), fence: Fence(u64::MAX) };
        let [token, msg_id, epoch] = [owner.token(), SessionId::random().to_string(), SessionId::random().to_string()];
        let (key, prior) = (format!("={}", "k".repeat(64)), format!("{epoch} {}", u64::MAX));
        let message = StoredMessage { token, nick: nick.key().to_string(), key, msg_id, prior, ..message(600) };
        let StoredMessage { token, nick, key, msg_id, payload, prior, .. } = &message;
        let held: usize = [token, nick, key, msg_id, payload, prior].iter().map(|text| text.len()).sum();
        assert!(message.bytes() + OVERHEAD_BYTES >= held + size_of::<StoredMessage>(), "{held} bytes of text");
    }

    #[tokio::test]
    async fn full_share_refuses_messages_until_others_are_safe() {
        let ring = SharedRepublishRing::bounded(16_000);
        let (lease, start) = (Incarnation::random(), Instant::now());
        ring.note_beat(&lease, 1, start, start);
        for _ in 0..4 {
            add(&ring, message(2000));
        }
        assert_eq!(ring.bytes(), 8000);
        assert!(ring.reserve(&message(513), room("lobby")).is_err(), "half of the ring is used");
        assert!(ring.reserve(&message(513), room("hall")).is_err(), "the sender's share is used in any room");
        let neighbour = StoredMessage { token: "i/t/1".to_owned(), ..message(4000) };
        assert!(ring.reserve(&neighbour, room("hall")).is_ok(), "a neighbour was refused");
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
