//! The health of this gateway's own lease.
//!
//! [`LeaseHealth`] records answered beats and their echoes; sessions, readiness and metrics read it. A beat is a write
//! whose counter returns over the gateway's own subscription, so a recent echo proves that the gateway can publish
//! **and** receive. Counters of one incarnation and one history of the store are never mixed with those of another. It
//! sends nothing.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::{Incarnation, NickKey};
use crate::registry::Generation;

/// Maximum age of an echo, or of an answered beat, that still counts as proof.
pub const ECHO_LIMIT: Duration = Duration::from_secs(3);
/// Maximum number of active nicknames that one beat reports; the rest waits for the next beat.
const ACTIVE_NICKS_PER_BEAT: usize = 1000;
/// Answered beats whose sending times are kept.
const BEATS_KEPT: usize = 32;

/// State of this process's own lease.
#[derive(Debug, Default)]
pub struct LeaseHealth {
    state: Mutex<BeatHistory>,
    generation: watch::Sender<Generation>,
}

#[derive(Debug, Default)]
struct BeatHistory {
    incarnation: Option<Incarnation>,
    /// Counters and sending times of the newest answered beats, oldest first.
    answered: VecDeque<(u64, Instant)>,
    /// The highest counter that was echoed.
    echoed: u64,
    /// Sending time of the beat in flight.
    in_flight: Option<Instant>,
    /// Nicknames that were active since the last beat.
    active: HashSet<NickKey>,
}

/// Reason why a gateway is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No lease was acquired, or the last one was lost.
    #[error("no lease is held")]
    NoLease,
    /// Beats are not answered, or are refused.
    #[error("beats do not succeed")]
    NoBeat,
    /// Beats are answered, but their echoes do not arrive, so messages would not arrive either.
    #[error("own beats are not echoed by the subscription")]
    NoEcho,
    /// The store may have lost data and accepts no writes until the gateways have reasserted their claims.
    #[error("the store is recovering")]
    Recovering,
    /// The list of sanctions was not read since the start, so a banned client could not be refused.
    #[error("the list of bans is not read yet")]
    SanctionsUnread,
}

/// Source of the store's own reasons against readiness; a store in memory has none.
#[derive(Default)]
pub struct StoreReasons(Option<ReasonSource>);

type ReasonSource = Box<dyn Fn() -> Vec<String> + Send + Sync>;

impl StoreReasons {
    /// A store that reports its present reasons by `source`, which must not block.
    #[must_use]
    pub fn new(source: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(source)))
    }

    /// Returns the present reasons why the store cannot be used.
    #[must_use]
    pub fn get(&self) -> Vec<String> {
        self.0.as_ref().map(|source| source()).unwrap_or_default()
    }
}

impl std::fmt::Debug for StoreReasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreReasons")
    }
}

impl LeaseHealth {
    /// Returns the incarnation of the lease that this process holds.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.lock().incarnation.clone()
    }

    /// Marks a user as active; the next beat reports it to the registry.
    pub fn mark_active(&self, nick: &NickKey) {
        let mut state = self.lock();
        if !state.active.contains(nick) {
            state.active.insert(nick.clone());
        }
    }

    /// Records the echo of an own beat; the echo of another incarnation is ignored.
    pub fn echoed(&self, incarnation: &Incarnation, counter: u64) {
        let mut state = self.lock();
        if state.incarnation.as_ref() == Some(incarnation) {
            state.echoed = state.echoed.max(counter);
        }
    }

    /// Returns the time from sending the beat with this counter to its echo at `now`. The echo may arrive before the
    /// answer. `None` for an unknown beat.
    #[must_use]
    pub fn round_trip(&self, counter: u64, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let answered = state.answered.iter().find(|(known, _)| *known == counter).map(|(_, sent)| *sent);
        let is_in_flight = state.answered.back().is_none_or(|(newest, _)| counter == newest + 1);
        let sent = answered.or(state.in_flight.filter(|_| is_in_flight))?;
        Some(now.saturating_duration_since(sent))
    }

    /// Returns the time since the newest echoed beat was sent; `None` without an echo.
    #[must_use]
    pub fn echo_age(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let newest = state.answered.iter().rev().find(|(counter, _)| *counter <= state.echoed);
        newest.map(|(_, sent)| now.saturating_duration_since(*sent))
    }

    /// Returns true if the newest answered beat was not echoed.
    #[must_use]
    pub fn is_echo_missing(&self) -> bool {
        let state = self.lock();
        state.answered.back().is_some_and(|(newest, _)| state.echoed < *newest)
    }

    /// Returns true if the store has answered a recent beat, so that a call to it is worth a try.
    #[must_use]
    pub fn is_store_answering(&self, now: Instant) -> bool {
        let state = self.lock();
        state.answered.back().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) < ECHO_LIMIT)
    }

    /// Checks that this gateway can publish and receive.
    ///
    /// # Errors
    /// The first condition that is not met.
    pub fn ready(&self, now: Instant) -> Result<(), NotReady> {
        let is_open = self.generation.borrow().is_open();
        let is_echoed = self.echo_age(now).is_some_and(|age| age < ECHO_LIMIT);
        match (self.incarnation(), self.is_store_answering(now)) {
            (None, _) => Err(NotReady::NoLease),
            (Some(_), false) => Err(NotReady::NoBeat),
            (Some(_), true) if !is_open => Err(NotReady::Recovering),
            (Some(_), true) if !is_echoed => Err(NotReady::NoEcho),
            (Some(_), true) => Ok(()),
        }
    }

    /// Returns the number of the store's generation as of the last answered beat; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.borrow().number
    }

    /// Subscribes to the store's generation: its present value, and each later change.
    #[must_use]
    pub fn generations(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }

    pub(super) fn record_opened(&self, incarnation: &Incarnation) {
        self.lock().restart(Some(incarnation.clone()));
    }

    pub(super) fn record_lost(&self) {
        self.lock().restart(None);
    }

    pub(super) fn record_sent(&self, now: Instant) {
        self.lock().in_flight = Some(now);
    }

    pub(super) fn record_answer(&self, generation: Generation, counter: u64, sent: Instant) {
        self.generation.send_if_modified(|known| std::mem::replace(known, generation) != generation);
        let mut state = self.lock();
        state.in_flight = None;
        // A store that lost data repeats earlier counters; their old echoes would prove a subscription that may be
        // broken.
        if state.answered.back().is_some_and(|(last, _)| counter <= *last) {
            state.answered.clear();
            state.echoed = 0;
        }
        state.answered.push_back((counter, sent));
        if state.answered.len() > BEATS_KEPT {
            state.answered.pop_front();
        }
    }

    pub(super) fn take_active(&self) -> Vec<NickKey> {
        let mut state = self.lock();
        let mut waiting = std::mem::take(&mut state.active).into_iter();
        let taken = waiting.by_ref().take(ACTIVE_NICKS_PER_BEAT).collect();
        state.active = waiting.collect();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, BeatHistory> {
        // Every method leaves the state consistent, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BeatHistory {
    fn restart(&mut self, incarnation: Option<Incarnation>) {
        self.incarnation = incarnation;
        self.answered.clear();
        self.echoed = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::registry::Phase;

    const SECOND: Duration = Duration::from_secs(1);
    const OPEN: Generation = Generation { number: 1, phase: Phase::Open };

    #[test]
    fn readiness_needs_a_recent_echo() {
        let (health, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        assert_eq!(health.ready(start), Err(NotReady::NoLease));
        health.record_opened(&incarnation);
        assert_eq!(health.ready(start), Err(NotReady::NoBeat));
        health.record_answer(OPEN, 1, start);
        assert_eq!(health.ready(start), Err(NotReady::NoEcho));
        health.echoed(&Incarnation::random(), 1);
        assert_eq!(health.ready(start), Err(NotReady::NoEcho), "the echo of another incarnation proves nothing");
        health.echoed(&incarnation, 1);
        assert_eq!(health.ready(start + SECOND * 2), Ok(()));
        assert_eq!(health.ready(start + SECOND * 3), Err(NotReady::NoBeat));
    }

    #[test]
    fn early_echo_counts_unlike_an_old_one() {
        let (health, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        health.record_opened(&incarnation);
        health.echoed(&incarnation, 1);
        health.record_answer(OPEN, 1, start);
        assert_eq!(health.ready(start), Ok(()));
        health.record_answer(OPEN, 2, start + SECOND);
        health.record_answer(OPEN, 3, start + SECOND * 2);
        health.record_answer(OPEN, 4, start + SECOND * 3);
        assert_eq!(health.ready(start + SECOND * 3), Err(NotReady::NoEcho), "answers alone prove no subscription");
        health.echoed(&incarnation, 2);
        assert_eq!(health.ready(start + SECOND * 3), Ok(()), "the beat of two seconds ago was echoed");
        assert_eq!(health.ready(start + SECOND * 4), Err(NotReady::NoEcho), "that beat is three seconds old");
    }

    #[test]
    fn round_trip_is_known_before_the_answer() {
        let (health, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        health.record_opened(&incarnation);
        assert_eq!(health.round_trip(1, start), None, "nothing was sent");
        health.record_sent(start);
        assert_eq!(health.round_trip(1, start + SECOND / 4), Some(SECOND / 4), "the echo arrived before the answer");
        health.record_answer(OPEN, 1, start);
        assert_eq!(health.round_trip(1, start + SECOND / 2), Some(SECOND / 2));
        health.record_sent(start + SECOND);
        assert_eq!(health.round_trip(2, start + SECOND * 2), Some(SECOND), "measured from its own sending time");
        assert_eq!(health.round_trip(1, start + SECOND * 2), Some(SECOND * 2), "a late echo of the first beat");
        assert_eq!(health.round_trip(7, start + SECOND * 2), None);
    }

    #[test]
    fn recovering_store_makes_the_gateway_unready() {
        let (health, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        let mut generations = health.generations();
        health.record_opened(&incarnation);
        health.echoed(&incarnation, 7);
        health.record_answer(OPEN, 7, start);
        assert_eq!(health.ready(start), Ok(()));
        assert!(generations.has_changed().unwrap());
        assert_eq!((*generations.borrow_and_update(), health.generation()), (OPEN, 1));

        let recovering = Generation { number: 2, phase: Phase::Recovering };
        health.record_answer(recovering, 3, start + SECOND);
        assert_eq!(health.ready(start + SECOND), Err(NotReady::Recovering));
        assert_eq!(*generations.borrow_and_update(), recovering);
        health.record_answer(recovering, 4, start + SECOND);
        assert!(!generations.has_changed().unwrap(), "a generation is reported once");
        health.record_answer(Generation { phase: Phase::Open, ..recovering }, 5, start + SECOND * 2);
        assert_eq!(health.ready(start + SECOND * 2), Err(NotReady::NoEcho), "counter 7 was echoed before the loss");
        health.echoed(&incarnation, 5);
        assert_eq!(health.ready(start + SECOND * 2), Ok(()));
        assert!(generations.has_changed().unwrap());
    }

    #[test]
    fn active_nicks_are_reported_once_in_batches() {
        let health = LeaseHealth::default();
        for n in 0..ACTIVE_NICKS_PER_BEAT + 5 {
            health.mark_active(&NickKey::from_store(&format!("n{n}")));
            health.mark_active(&NickKey::from_store(&format!("n{n}")));
        }
        assert_eq!(health.take_active().len(), ACTIVE_NICKS_PER_BEAT);
        assert_eq!(health.take_active().len(), 5);
        assert!(health.take_active().is_empty());
    }
}
