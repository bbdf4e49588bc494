//! The repair ring: what this gateway has acked in the last seconds, for a Redis that comes back without them.
//!
//! Everything that is written goes through it: [`Republish::space`] before the call, [`Republish::keep`] before anybody hears of
//! the ack. Beats tell it how long the store has lived ([`ring`] decides what is forgotten), and when it has become another
//! one. Then what it may have lost is looked for and put back ([`put_back`]), and until that is done nothing new is written:
//! [`Republish::settled`] is the generation that new messages are written in, and the scripts refuse them in any other.
//! Bounded: what finds no space is refused before it is sent; nothing that was acked is dropped.

mod put_back;
mod ring;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use presence::host::failpoints::{self, Mechanism};
use presence::model::Incarnation;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use self::ring::{Beat, Owed, Ring};
use crate::backplane::redis::calls::Message;

pub(super) use self::ring::{Acked, AckedPosition, Target};

/// Bytes that are kept at most.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// What a kept message is counted as beside its payload and its key.
const KEPT_EACH: usize = 512;

/// A part of what may be kept, free again when it is dropped.
pub(super) type Space = OwnedSemaphorePermit;

/// The ring, and who waits for it.
#[derive(Debug)]
pub(super) struct Republish {
    state: Mutex<State>,
    space: Arc<Semaphore>,
    most: usize,
    /// Something is owed.
    owing: Notify,
    /// A beat was answered.
    beaten: Notify,
}

#[derive(Debug, Default)]
struct State {
    ring: Ring<Space>,
    /// Whose lease answered the newest beat.
    incarnation: Option<Incarnation>,
}

/// What one generation owes.
#[derive(Debug)]
struct Debt {
    generation: u64,
    /// Who puts it back.
    incarnation: Incarnation,
    /// Of each log, in the old order.
    logs: Vec<Vec<Owed>>,
}

impl Default for Republish {
    fn default() -> Self {
        Self::bounded(MOST_BYTES)
    }
}

impl Republish {
    /// One that keeps so many bytes at most.
    pub(super) fn bounded(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            space: Arc::new(Semaphore::new(most)),
            most,
            owing: Notify::new(),
            beaten: Notify::new(),
        }
    }

    /// The space that a message takes once it is acked. `None` when there is none: it must not be sent.
    pub(super) fn space(&self, message: &Message) -> Option<Space> {
        let bytes = u32::try_from(message.bytes() + KEPT_EACH).ok()?;
        Arc::clone(&self.space).try_acquire_many_owned(bytes).ok()
    }

    /// How many bytes are taken.
    pub(super) fn bytes(&self) -> usize {
        self.most - self.space.available_permits()
    }

    /// Keeps a message that the store has taken, before its sender hears of it.
    pub(super) fn keep(&self, acked: Acked, space: Space) {
        if failpoints::takes(Mechanism::Republish) {
            return;
        }
        let mut state = self.lock();
        if state.ring.keep(acked, space, Instant::now()) {
            self.owing.notify_one();
        }
    }

    /// A beat of this lease was answered.
    pub(super) fn beat(&self, incarnation: &Incarnation, generation: u64, sent: Instant, received: Instant) {
        let mut state = self.lock();
        state.ring.beat(Beat { generation, sent, received });
        state.incarnation = Some(incarnation.clone());
        if state.ring.owes() {
            self.owing.notify_one();
        }
        self.beaten.notify_waiters();
    }

    /// The generation that new messages are written in: the newest one that owes nothing. 0 before the first beat.
    pub(super) fn settled(&self) -> u64 {
        self.lock().ring.settled()
    }

    /// Waits until nothing is kept. Dropping the future changes nothing.
    pub(super) async fn emptied(&self) {
        loop {
            let beaten = self.beaten.notified();
            if self.lock().ring.is_empty() {
                return;
            }
            beaten.await;
        }
    }

    /// Waits until something is owed. Dropping the future changes nothing. One waiter.
    async fn debt(&self) -> Debt {
        loop {
            let owing = self.owing.notified();
            if let Some(debt) = self.lock().debt() {
                return debt;
            }
            owing.await;
        }
    }

    /// The message is in the store, there, in this generation.
    fn found(&self, owed: &Owed, place: AckedPosition, generation: u64) {
        self.lock().ring.found(owed.number, place, generation, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn debt(&self) -> Option<Debt> {
        let incarnation = self.incarnation.clone().filter(|_| self.ring.owes())?;
        Some(Debt { generation: self.ring.generation(), incarnation, logs: self.ring.owed() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use presence::model::RoomKey;

    use super::*;

    fn message(bytes: usize) -> Message {
        let [token, nick, key, msg_id] = [const { String::new() }; 4];
        Message { token, nick, key, msg_id, payload: "x".repeat(bytes) }
    }

    fn keep(repair: &Republish, message: Message) {
        let space = repair.space(&message).unwrap();
        let target = Target::Room(RoomKey::from_store("lobby"));
        let place = AckedPosition { epoch: "e".into(), seq: 1 };
        repair.keep(Acked { target, message: Arc::new(message), place, generation: 1 }, space);
    }

    #[tokio::test]
    async fn what_finds_no_space_is_refused_until_something_is_forgotten() {
        let repair = Republish::bounded(10_000);
        let (lease, start) = (Incarnation::random(), Instant::now());
        repair.beat(&lease, 1, start, start);
        for _ in 0..4 {
            keep(&repair, message(2000 - KEPT_EACH));
        }
        assert_eq!(repair.bytes(), 8000);
        let under_way = repair.space(&message(1500 - KEPT_EACH)).unwrap();
        assert!(repair.space(&message(1)).is_none(), "what is under way counts");
        drop(under_way);
        assert!(repair.space(&message(2001 - KEPT_EACH)).is_none());
        assert!(repair.space(&message(2000 - KEPT_EACH)).is_some());
        let emptied = repair.emptied();
        let beats = async {
            for second in 1..=6 {
                assert_eq!(repair.bytes(), 8000);
                let at = start + Duration::from_secs(second);
                repair.beat(&lease, 1, at, at);
            }
        };
        tokio::join!(emptied, beats);
        assert_eq!(repair.bytes(), 0);
    }
}
