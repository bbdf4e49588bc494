//! The heartbeat of a gateway's lease, and what the process knows about its own lease.
//!
//! Runs inside gateways: one task opens a lease ([`open`]) and keeps it ([`keep`]) until it is lost; everybody else asks
//! the [`LeaseHealth`]. A beat is a write whose counter comes back over the gateway's own subscription, so one look at the
//! tenure tells whether this node can publish **and** receive. Decides nothing about other gateways (see
//! [`crate::lease::detector`]) and closes nothing itself.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::lease::reassert::Reassertion;
use crate::model::{Incarnation, NickKey, Owner};
use crate::registry::{Beat, GatewayInfo, Generation, LeaseTable, LocalClaim, Registry, RegistryError};

/// From one beat to the next.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);
/// The oldest echo that still proves that messages get through.
pub const ECHO_LIMIT: Duration = Duration::from_secs(3);
/// Nicks that one beat stamps as active, at most; the rest waits for the next.
const ACTIVE_PER_BEAT: usize = 1000;
/// Beats whose sending time is remembered.
const REMEMBERED: usize = 16;

/// What this process knows about its own lease. Shared by the beat, the sessions and the readiness check.
#[derive(Debug, Default)]
pub struct LeaseHealth {
    state: Mutex<State>,
    generation: watch::Sender<Generation>,
}

#[derive(Debug, Default)]
struct State {
    incarnation: Option<Incarnation>,
    /// Counter and sending time of the newest answered beats, oldest first.
    beats: VecDeque<(u64, Instant)>,
    /// The highest counter that came back.
    echoed: u64,
    /// When the beat that is under way was sent.
    under_way: Option<Instant>,
    /// Who did something since the last beat.
    active: HashSet<NickKey>,
}

/// Why a node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The store has not given out a lease, or took it away.
    #[error("no lease yet: the store has not answered")]
    NoLease,
    /// Beats are not answered.
    #[error("the store does not answer beats")]
    NoBeat,
    /// Beats are answered but do not come back: nothing else would either.
    #[error("own beats do not come back over the subscription")]
    NoEcho,
    /// The store has lost something, or may have, and gives nothing out.
    #[error("the store is recovering")]
    Recovering,
}

impl LeaseHealth {
    /// The incarnation whose lease is held, as far as this process knows.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.lock().incarnation.clone()
    }

    /// A user did something; told to the registry with the next beat.
    pub fn active(&self, nick: &NickKey) {
        let mut state = self.lock();
        if !state.active.contains(nick) {
            state.active.insert(nick.clone());
        }
    }

    /// Our own beat came back over the subscription.
    pub fn echoed(&self, incarnation: &Incarnation, counter: u64) {
        let mut state = self.lock();
        if state.incarnation.as_ref() == Some(incarnation) {
            state.echoed = state.echoed.max(counter);
        }
    }

    /// How long the beat with this counter, which came back at `now`, was on its way. Its echo may be here before its
    /// answer is. `None` for a beat that nobody remembers.
    #[must_use]
    pub fn round_trip(&self, counter: u64, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let answered = state.beats.iter().find(|(known, _)| *known == counter).map(|(_, sent)| *sent);
        let is_under_way = state.beats.back().is_none_or(|(newest, _)| counter == newest + 1);
        let sent = answered.or(state.under_way.filter(|_| is_under_way))?;
        Some(now.saturating_duration_since(sent))
    }

    /// How long ago the newest beat was sent that came back; `None` when none did.
    #[must_use]
    pub fn echo_age(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let newest = state.beats.iter().rev().find(|(counter, _)| *counter <= state.echoed);
        newest.map(|(_, sent)| now.saturating_duration_since(*sent))
    }

    /// Whether the store has answered lately, so that asking it for something is worth a try.
    #[must_use]
    pub fn is_answered(&self, now: Instant) -> bool {
        let state = self.lock();
        state.beats.back().is_some_and(|(_, sent)| now.saturating_duration_since(*sent) < ECHO_LIMIT)
    }

    /// Whether this node can publish and receive.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn ready(&self, now: Instant) -> Result<(), NotReady> {
        let is_open = self.generation.borrow().is_open();
        let is_heard = self.echo_age(now).is_some_and(|age| age < ECHO_LIMIT);
        match (self.incarnation(), self.is_answered(now)) {
            (None, _) => Err(NotReady::NoLease),
            (Some(_), false) => Err(NotReady::NoBeat),
            (Some(_), true) if !is_open => Err(NotReady::Recovering),
            (Some(_), true) if !is_heard => Err(NotReady::NoEcho),
            (Some(_), true) => Ok(()),
        }
    }

    /// The number of the store's generation as of the last answered beat; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.borrow().number
    }

    /// The store's generation as of the last answered beat, and each change of it from now on.
    #[must_use]
    pub fn generations(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }

    fn began(&self, incarnation: &Incarnation) {
        let mut state = self.lock();
        state.incarnation = Some(incarnation.clone());
        state.beats.clear();
        state.echoed = 0;
    }

    fn ended(&self) {
        let mut state = self.lock();
        state.incarnation = None;
        state.beats.clear();
        state.echoed = 0;
    }

    fn sends(&self, now: Instant) {
        self.lock().under_way = Some(now);
    }

    fn answered(&self, generation: Generation, counter: u64, sent: Instant) {
        self.generation.send_if_modified(|known| std::mem::replace(known, generation) != generation);
        let mut state = self.lock();
        state.under_way = None;
        // A store that lost something counts from before: echoes of then would prove what was never heard.
        if state.beats.back().is_some_and(|(last, _)| counter <= *last) {
            state.beats.clear();
            state.echoed = 0;
        }
        state.beats.push_back((counter, sent));
        if state.beats.len() > REMEMBERED {
            state.beats.pop_front();
        }
    }

    fn take_active(&self) -> Vec<NickKey> {
        let mut state = self.lock();
        let mut waiting = std::mem::take(&mut state.active).into_iter();
        let taken = waiting.by_ref().take(ACTIVE_PER_BEAT).collect();
        state.active = waiting.collect();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One answered look at the lease table: what the failure detector judges by.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When the question went out.
    pub sent: Instant,
    /// When the answer was in.
    pub received: Instant,
    /// The answer.
    pub table: LeaseTable,
}

/// Opens a lease for `incarnation`; waits as long as the store is away. Subscribe to its channel first, so that the
/// first beat is heard. Returns whether it is open: when the answer was lost for so long that the detectors fenced what
/// was never seen to beat, it never will be, and another incarnation has to try. Dropping the future may leave the row
/// behind: the detectors fence it after its time.
#[must_use]
pub async fn open(registry: &Registry, tenure: &LeaseHealth, incarnation: &Incarnation, info: &GatewayInfo) -> bool {
    let opened = patiently(incarnation, || registry.open_lease(incarnation, info)).await.is_some();
    if opened {
        tenure.began(incarnation);
        tracing::info!(%incarnation, "lease opened");
    }
    opened
}

/// Asks for a lease until the store answers. `None` when it is lost before it was used.
pub(crate) async fn patiently<T, F>(incarnation: &Incarnation, mut ask: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut tick = tokio::time::interval(BEAT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tick.tick().await;
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(RegistryError::Fenced) => {
                tracing::warn!(%incarnation, "lease lost before it was used");
                return None;
            }
            Err(error) if told => tracing::debug!(%error, "still no lease"),
            Err(error) => {
                tracing::warn!(%error, "no lease yet, trying on");
                told = true;
            }
        }
    }
}

/// What a gateway says and hears while it keeps its lease.
pub trait Keeper {
    /// Everything that its sessions hold now.
    fn holdings(&self) -> Vec<LocalClaim>;
    /// A beat was answered.
    fn answered(&mut self, sample: Sample, beat: Beat);
    /// Whether everything that the gateway has acked is in this generation of the store: it does not open before.
    fn is_whole(&self, generation: u64) -> bool;
    /// A later claim has overtaken this one: its session is to be closed.
    fn overtaken(&mut self, owner: &Owner);
}

/// Keeps the lease: a beat every second, each answer handed to the keeper. Says what the gateway holds to a generation
/// that has not heard it. Returns when the lease is lost; a store that is away loses nothing. Dropping the future just
/// stops the beat.
pub async fn keep(
    registry: &Registry,
    tenure: &LeaseHealth,
    incarnation: &Incarnation,
    info: &GatewayInfo,
    keeper: &mut impl Keeper,
) {
    let mut tick = tokio::time::interval(BEAT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = false;
    let mut speech = Reassertion::default();
    loop {
        tick.tick().await;
        let sent = Instant::now();
        tenure.sends(sent);
        match registry.beat(incarnation, &tenure.take_active()).await {
            Ok(beat) => {
                tenure.answered(beat.generation, beat.counter, sent);
                if std::mem::take(&mut silent) {
                    tracing::info!("beats are answered again");
                }
                let due = (!beat.asserted).then_some(beat.generation.number);
                let table = LeaseTable { generation: beat.generation, leases: beat.leases.clone() };
                let sample = Sample { sent, received: Instant::now(), table };
                keeper.answered(sample, beat);
                if let Some(generation) = due {
                    speech.go_on(registry, (incarnation, info), generation, keeper).await;
                }
            }
            Err(RegistryError::Fenced) => {
                tenure.ended();
                tracing::warn!(%incarnation, "lease lost");
                return;
            }
            Err(error) if silent => tracing::debug!(%error, "beat not answered"),
            Err(error) => {
                tracing::warn!(%error, "beats are not answered");
                silent = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::registry::{MemoryRegistry, Phase};
    use crate::store::memory::Store;

    const SECOND: Duration = Duration::from_secs(1);
    const OPEN: Generation = Generation { number: 1, phase: Phase::Open };

    #[tokio::test]
    async fn a_lease_that_was_fenced_before_its_first_beat_is_not_waited_for() {
        let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
        let (tenure, incarnation) = (LeaseHealth::default(), Incarnation::random());
        let info = GatewayInfo {
            node: "g1".into(),
            version: "1".into(),
            ws: String::new(),
            tcp: String::new(),
            admin: String::new(),
        };
        // The row was written, its answer was lost, and nothing was heard of us for the time of a fence.
        registry.open_lease(&incarnation, &info).await.unwrap();
        assert!(registry.fence(&incarnation, 0).await.unwrap());
        let opened = tokio::time::timeout(SECOND * 10, open(&registry, &tenure, &incarnation, &info)).await;
        assert_eq!(opened, Ok(false), "another incarnation has to try");
        assert_eq!(tenure.incarnation(), None);
        assert!(open(&registry, &tenure, &Incarnation::random(), &info).await);
    }

    #[test]
    fn ready_needs_a_fresh_beat_that_came_back() {
        let (tenure, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        assert_eq!(tenure.ready(start), Err(NotReady::NoLease));
        tenure.began(&incarnation);
        assert_eq!(tenure.ready(start), Err(NotReady::NoBeat));
        tenure.answered(OPEN, 1, start);
        assert_eq!(tenure.ready(start), Err(NotReady::NoEcho));
        tenure.echoed(&Incarnation::random(), 1);
        assert_eq!(tenure.ready(start), Err(NotReady::NoEcho), "somebody else's echo proves nothing");
        tenure.echoed(&incarnation, 1);
        assert_eq!(tenure.ready(start + SECOND * 2), Ok(()));
        assert_eq!(tenure.ready(start + SECOND * 3), Err(NotReady::NoBeat));
    }

    #[test]
    fn an_echo_that_overtakes_its_answer_counts_and_an_old_one_does_not() {
        let (tenure, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        tenure.began(&incarnation);
        tenure.echoed(&incarnation, 1);
        tenure.answered(OPEN, 1, start);
        assert_eq!(tenure.ready(start), Ok(()));
        tenure.answered(OPEN, 2, start + SECOND);
        tenure.answered(OPEN, 3, start + SECOND * 2);
        tenure.answered(OPEN, 4, start + SECOND * 3);
        assert_eq!(tenure.ready(start + SECOND * 3), Err(NotReady::NoEcho), "answers alone prove no subscription");
        tenure.echoed(&incarnation, 2);
        assert_eq!(tenure.ready(start + SECOND * 3), Ok(()), "the beat of two seconds ago came back");
        assert_eq!(tenure.ready(start + SECOND * 4), Err(NotReady::NoEcho), "by now it is three seconds old");
    }

    #[test]
    fn a_round_trip_is_known_whichever_comes_first() {
        let (tenure, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        tenure.began(&incarnation);
        assert_eq!(tenure.round_trip(1, start), None, "nothing was sent");
        tenure.sends(start);
        assert_eq!(tenure.round_trip(1, start + SECOND / 4), Some(SECOND / 4), "the echo overtook its answer");
        tenure.answered(OPEN, 1, start);
        assert_eq!(tenure.round_trip(1, start + SECOND / 2), Some(SECOND / 2));
        tenure.sends(start + SECOND);
        assert_eq!(tenure.round_trip(2, start + SECOND * 2), Some(SECOND), "not measured from the beat before");
        assert_eq!(tenure.round_trip(1, start + SECOND * 2), Some(SECOND * 2), "a late one from its own start");
        assert_eq!(tenure.round_trip(7, start + SECOND * 2), None);
    }

    #[test]
    fn a_store_that_recovers_makes_nobody_ready() {
        let (tenure, incarnation, start) = (LeaseHealth::default(), Incarnation::random(), Instant::now());
        let mut generations = tenure.generations();
        tenure.began(&incarnation);
        tenure.echoed(&incarnation, 7);
        tenure.answered(OPEN, 7, start);
        assert_eq!(tenure.ready(start), Ok(()));
        assert!(generations.has_changed().unwrap());
        assert_eq!((*generations.borrow_and_update(), tenure.generation()), (OPEN, 1));

        let recovering = Generation { number: 2, phase: Phase::Recovering };
        tenure.answered(recovering, 3, start + SECOND);
        assert_eq!(tenure.ready(start + SECOND), Err(NotReady::Recovering));
        assert_eq!(*generations.borrow_and_update(), recovering);
        tenure.answered(recovering, 4, start + SECOND);
        assert!(!generations.has_changed().unwrap(), "told once");
        tenure.answered(Generation { phase: Phase::Open, ..recovering }, 5, start + SECOND * 2);
        // It counts from before, and the echo of then is not taken for the echo of now.
        assert_eq!(tenure.ready(start + SECOND * 2), Err(NotReady::NoEcho));
        tenure.echoed(&incarnation, 5);
        assert_eq!(tenure.ready(start + SECOND * 2), Ok(()));
        assert!(generations.has_changed().unwrap());
    }

    #[test]
    fn activity_is_told_once_and_in_portions() {
        let tenure = LeaseHealth::default();
        for n in 0..ACTIVE_PER_BEAT + 5 {
            tenure.active(&NickKey::from_store(&format!("n{n}")));
            tenure.active(&NickKey::from_store(&format!("n{n}")));
        }
        assert_eq!(tenure.take_active().len(), ACTIVE_PER_BEAT);
        assert_eq!(tenure.take_active().len(), 5);
        assert!(tenure.take_active().is_empty());
    }
}
