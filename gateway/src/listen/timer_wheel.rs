//! One clock for the deadlines of all connections: a wheel that turns a notch every quarter of a second.
//!
//! Deadlines of silence are minutes away and move with every frame that is heard. Here moving one later costs nothing: an
//! alarm stays at the notch it has, is passed there, and goes on to where it is due by then. So a connection pays once
//! per ping and not per message, and holds a few words instead of a timer. Rings late by up to a notch, never early.
//! For coarse deadlines only; whatever waits for less uses tokio's timers.

use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::time::{MissedTickBehavior, interval};

/// How long the wheel stays at a notch.
const NOTCH: Duration = Duration::from_millis(250);
/// Notches of one turn: 256 s, so that no limit of silence takes more than one.
const NOTCHES: usize = 1024;

/// The clock of one house.
#[derive(Debug)]
pub(super) struct TimerWheel {
    began: Instant,
    /// Notches passed since then. Changed under the lock only.
    passed: AtomicU64,
    hands: Mutex<Hands>,
}

#[derive(Debug)]
struct Hands {
    /// Which alarms hang at each notch, modulo a turn. May name alarms that have moved or gone.
    notches: Vec<Vec<usize>>,
    alarms: Slab<Hung>,
}

/// An alarm, as the wheel knows it.
#[derive(Debug)]
struct Hung {
    notch: u64,
    waker: Waker,
}

/// The deadline of one connection. Set it, then wait for it.
#[derive(Debug)]
pub(super) struct Alarm<'a> {
    wheel: &'a TimerWheel,
    due: Option<u64>,
    hung: Option<WheelEntry>,
}

#[derive(Debug)]
struct WheelEntry {
    key: usize,
    notch: u64,
    waker: Waker,
}

impl TimerWheel {
    pub(super) fn new() -> Self {
        let hands = Hands { notches: vec![Vec::new(); NOTCHES], alarms: Slab::new() };
        Self { began: Instant::now(), passed: AtomicU64::new(0), hands: Mutex::new(hands) }
    }

    /// An alarm without a deadline.
    pub(super) fn alarm(&self) -> Alarm<'_> {
        Alarm { wheel: self, due: None, hung: None }
    }

    /// Turns a wheel until it is dropped.
    pub(super) async fn run(wheel: Weak<Self>) {
        let mut notch = interval(NOTCH);
        notch.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            notch.tick().await;
            let Some(wheel) = wheel.upgrade() else { return };
            // Rounded down: a notch is passed when all of it has.
            wheel.turn_to(notches(wheel.began.elapsed()));
        }
    }

    /// Passes every notch up to this one, and wakes who hangs there.
    fn turn_to(&self, now: u64) {
        let mut woken = Vec::new();
        let mut hands = self.lock();
        let Hands { notches, alarms } = &mut *hands;
        for passed in self.passed.load(Ordering::Relaxed) + 1..=now {
            let here = &mut notches[index(passed)];
            for key in mem::take(here) {
                match alarms.get(key) {
                    Some(hung) if hung.notch == passed => woken.push(hung.waker.clone()),
                    // A later turn.
                    Some(hung) if hung.notch > passed && index(hung.notch) == index(passed) => here.push(key),
                    _ => {}
                }
            }
            self.passed.store(passed, Ordering::Release);
        }
        drop(hands);
        woken.into_iter().for_each(Waker::wake);
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        // A panic while the lock is held leaves a wheel that is still a wheel.
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm<'_> {
    /// Rings from then on; `None`: never.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        // Rounded up, so that it is never early.
        self.due =
            at.map(|at| notches(at.saturating_duration_since(self.wheel.began) + NOTCH - Duration::from_nanos(1)));
    }

    /// Waits until the deadline has passed, and again at once while it has not been moved. Dropping the future loses
    /// nothing.
    pub(super) async fn rang(&mut self) {
        poll_fn(|cx| self.poll_rang(cx)).await;
    }

    fn poll_rang(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let passed = self.wheel.passed();
        if due <= passed {
            return Poll::Ready(());
        }
        match &self.hung {
            // We are woken in time, to look again.
            Some(place) if place.notch > passed && place.notch <= due && place.waker.will_wake(cx.waker()) => {
                Poll::Pending
            }
            _ => self.hang(due, cx.waker()),
        }
    }

    fn hang(&mut self, notch: u64, waker: &Waker) -> Poll<()> {
        let mut hands = self.wheel.lock();
        // It may have turned while we came for the lock.
        if notch <= self.wheel.passed() {
            return Poll::Ready(());
        }
        let hung = Hung { notch, waker: waker.clone() };
        let key = match &self.hung {
            Some(place) => {
                hands.alarms[place.key] = hung;
                place.key
            }
            None => hands.alarms.insert(hung),
        };
        hands.notches[index(notch)].push(key);
        self.hung = Some(WheelEntry { key, notch, waker: waker.clone() });
        Poll::Pending
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(place) = &self.hung {
            self.wheel.lock().alarms.remove(place.key);
        }
    }
}

fn notches(time: Duration) -> u64 {
    (time.as_millis() / NOTCH.as_millis()) as u64
}

fn index(notch: u64) -> usize {
    (notch % NOTCHES as u64) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task that waits for an alarm.
    struct Sleeper<'a> {
        alarm: Alarm<'a>,
        woken: Arc<Woken>,
    }

    impl<'a> Sleeper<'a> {
        fn on(wheel: &'a TimerWheel) -> Self {
            Self { alarm: wheel.alarm(), woken: Arc::default() }
        }

        /// Sets the deadline to the moment when a notch has passed.
        fn until(&mut self, notch: u32) -> &mut Self {
            self.alarm.set(Some(self.alarm.wheel.began + NOTCH * notch));
            self
        }

        fn rang(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.alarm.poll_rang(&Context::from_waker(&waker)).is_ready()
        }

        fn times_woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    /// Names of alarms at all notches.
    fn hanging(wheel: &TimerWheel) -> usize {
        wheel.lock().notches.iter().map(Vec::len).sum()
    }

    #[test]
    fn rings_at_its_notch_and_not_before() {
        let wheel = TimerWheel::new();
        let mut sleeper = Sleeper::on(&wheel);
        assert!(!sleeper.until(3).rang());
        wheel.turn_to(2);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (0, false));
        wheel.turn_to(3);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (1, true));
        assert!(sleeper.rang(), "as long as the deadline stands");
        sleeper.alarm.set(None);
        assert!(!sleeper.rang());
    }

    #[test]
    fn a_deadline_inside_a_notch_waits_for_its_end() {
        let wheel = TimerWheel::new();
        let mut sleeper = Sleeper::on(&wheel);
        sleeper.alarm.set(Some(wheel.began + NOTCH * 2 + Duration::from_nanos(1)));
        wheel.turn_to(2);
        assert!(!sleeper.rang());
        wheel.turn_to(3);
        assert!(sleeper.rang());
        sleeper.alarm.set(Some(wheel.began));
        assert!(sleeper.rang(), "the past rings at once");
    }

    #[test]
    fn a_deadline_that_moves_later_costs_nothing_until_its_old_notch() {
        let wheel = TimerWheel::new();
        let mut sleeper = Sleeper::on(&wheel);
        for notch in 5..500 {
            assert!(!sleeper.until(notch).rang());
        }
        assert_eq!(hanging(&wheel), 1);
        wheel.turn_to(498);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (1, false));
        wheel.turn_to(499);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (2, true));
    }

    #[test]
    fn a_deadline_that_moves_earlier_rings_earlier() {
        let wheel = TimerWheel::new();
        let mut sleeper = Sleeper::on(&wheel);
        assert!(!sleeper.until(100).rang());
        assert!(!sleeper.until(2).rang());
        wheel.turn_to(2);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (1, true));
        sleeper.alarm.set(None);
        wheel.turn_to(100);
        assert_eq!(sleeper.times_woken(), 1, "not for the old deadline");
        assert_eq!(hanging(&wheel), 0);
    }

    #[test]
    fn a_deadline_may_be_turns_away() {
        let wheel = TimerWheel::new();
        let mut sleeper = Sleeper::on(&wheel);
        let far = 3 * NOTCHES as u32 + 7;
        assert!(!sleeper.until(far).rang());
        wheel.turn_to(u64::from(far) - 1);
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (0, false));
        wheel.turn_to(u64::from(far));
        assert_eq!((sleeper.times_woken(), sleeper.rang()), (1, true));
    }

    #[test]
    fn an_alarm_that_is_gone_rings_nobody_else() {
        let wheel = TimerWheel::new();
        let mut gone = Sleeper::on(&wheel);
        assert!(!gone.until(2).rang());
        drop(gone);
        let mut heir = Sleeper::on(&wheel);
        assert!(!heir.until(9).rang(), "takes the place in the slab");
        wheel.turn_to(2);
        assert_eq!((heir.times_woken(), heir.rang()), (0, false));
        wheel.turn_to(9);
        assert_eq!((heir.times_woken(), heir.rang()), (1, true));
        drop(heir);
        assert_eq!((hanging(&wheel), wheel.lock().alarms.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_wheel_turns_by_itself_and_stops_with_its_house() {
        let wheel = Arc::new(TimerWheel::new());
        let turning = tokio::spawn(TimerWheel::run(Arc::downgrade(&wheel)));
        let start = Instant::now();
        let mut alarm = wheel.alarm();
        alarm.set(Some(start + Duration::from_millis(300)));
        tokio::time::timeout(Duration::from_secs(5), alarm.rang()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300), "early");
        drop(alarm);
        drop(wheel);
        tokio::time::timeout(Duration::from_secs(5), turning).await.unwrap().unwrap();
    }
}
