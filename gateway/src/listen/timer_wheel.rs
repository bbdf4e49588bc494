//! One timer wheel for the deadlines of all connections, with a tick of 250 ms.
//!
//! Silence deadlines are minutes away and move with every received frame. Moving one later costs nothing: the timer
//! keeps its slot, wakes there once, and moves to its present deadline. So a connection pays once per ping instead of
//! once per message. A timer is late by up to one tick and never early. For coarse deadlines only.

use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::time::{MissedTickBehavior, interval};

/// The time between two ticks.
const TICK: Duration = Duration::from_millis(250);
/// The slots of one revolution: 256 s, longer than any silence limit.
const SLOTS: usize = 1024;

/// The timer wheel of one gateway.
#[derive(Debug)]
pub(super) struct TimerWheel {
    began: Instant,
    /// Ticks since then. Changed under the lock only.
    passed: AtomicU64,
    state: Mutex<WheelState>,
}

#[derive(Debug)]
struct WheelState {
    /// The keys of the timers in each slot. May name timers that have moved or gone.
    slots: Vec<Vec<usize>>,
    timers: Slab<SlottedTimer>,
}

/// A timer in a slot.
#[derive(Debug)]
struct SlottedTimer {
    tick: u64,
    waker: Waker,
}

/// The deadline of one connection. Set it, then wait for it.
#[derive(Debug)]
pub(super) struct WheelTimer<'a> {
    wheel: &'a TimerWheel,
    due: Option<u64>,
    slotted: Option<WheelEntry>,
}

#[derive(Debug)]
struct WheelEntry {
    key: usize,
    tick: u64,
    waker: Waker,
}

impl TimerWheel {
    pub(super) fn new() -> Self {
        let state = WheelState { slots: vec![Vec::new(); SLOTS], timers: Slab::new() };
        Self { began: Instant::now(), passed: AtomicU64::new(0), state: Mutex::new(state) }
    }

    /// Creates a timer without a deadline.
    pub(super) fn timer(&self) -> WheelTimer<'_> {
        WheelTimer { wheel: self, due: None, slotted: None }
    }

    /// Ticks until the wheel is dropped.
    pub(super) async fn run(wheel: Weak<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let Some(wheel) = wheel.upgrade() else { return };
            // Rounded down: a tick counts once it is complete.
            wheel.advance_to(slots(wheel.began.elapsed()));
        }
    }

    /// Advances to this tick and wakes the timers of the passed slots.
    fn advance_to(&self, now: u64) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        let WheelState { slots, timers } = &mut *state;
        for passed in self.passed.load(Ordering::Relaxed) + 1..=now {
            let here = &mut slots[index(passed)];
            for key in mem::take(here) {
                match timers.get(key) {
                    Some(slotted) if slotted.tick == passed => woken.push(slotted.waker.clone()),
                    // Due in a later revolution.
                    Some(slotted) if slotted.tick > passed && index(slotted.tick) == index(passed) => here.push(key),
                    _ => {}
                }
            }
            self.passed.store(passed, Ordering::Release);
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, WheelState> {
        // A panic while the lock is held leaves the wheel intact.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WheelTimer<'_> {
    /// Sets the deadline; `None`: never.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        // Rounded up, so that it is never early.
        self.due = at.map(|at| slots(at.saturating_duration_since(self.wheel.began) + TICK - Duration::from_nanos(1)));
    }

    /// Waits until the deadline has passed, and returns at once until it is moved. Dropping the future loses nothing.
    pub(super) async fn fired(&mut self) {
        poll_fn(|cx| self.poll_fired(cx)).await;
    }

    fn poll_fired(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let passed = self.wheel.passed();
        if due <= passed {
            return Poll::Ready(());
        }
        match &self.slotted {
            // The slot wakes this task in time to check again.
            Some(entry) if entry.tick > passed && entry.tick <= due && entry.waker.will_wake(cx.waker()) => {
                Poll::Pending
            }
            _ => self.enter_slot(due, cx.waker()),
        }
    }

    fn enter_slot(&mut self, tick: u64, waker: &Waker) -> Poll<()> {
        let mut state = self.wheel.lock();
        // The wheel may have advanced before the lock was taken.
        if tick <= self.wheel.passed() {
            return Poll::Ready(());
        }
        let slotted = SlottedTimer { tick, waker: waker.clone() };
        let key = match &self.slotted {
            Some(entry) => {
                state.timers[entry.key] = slotted;
                entry.key
            }
            None => state.timers.insert(slotted),
        };
        state.slots[index(tick)].push(key);
        self.slotted = Some(WheelEntry { key, tick, waker: waker.clone() });
        Poll::Pending
    }
}

impl Drop for WheelTimer<'_> {
    fn drop(&mut self) {
        if let Some(entry) = &self.slotted {
            self.wheel.lock().timers.remove(entry.key);
        }
    }
}

fn slots(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

fn index(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task that waits for a timer.
    struct WaitingTask<'a> {
        timer: WheelTimer<'a>,
        woken: Arc<WakeCounter>,
    }

    impl<'a> WaitingTask<'a> {
        fn on(wheel: &'a TimerWheel) -> Self {
            Self { timer: wheel.timer(), woken: Arc::default() }
        }

        /// Sets the deadline to the end of a tick.
        fn until(&mut self, tick: u32) -> &mut Self {
            self.timer.set(Some(self.timer.wheel.began + TICK * tick));
            self
        }

        fn fired(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.timer.poll_fired(&Context::from_waker(&waker)).is_ready()
        }

        fn times_woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    /// Counts the keys in all slots.
    fn slotted_keys(wheel: &TimerWheel) -> usize {
        wheel.lock().slots.iter().map(Vec::len).sum()
    }

    #[test]
    fn timer_fires_at_its_tick_and_not_before() {
        let wheel = TimerWheel::new();
        let mut task = WaitingTask::on(&wheel);
        assert!(!task.until(3).fired());
        wheel.advance_to(2);
        assert_eq!((task.times_woken(), task.fired()), (0, false));
        wheel.advance_to(3);
        assert_eq!((task.times_woken(), task.fired()), (1, true));
        assert!(task.fired(), "as long as the deadline stands");
        task.timer.set(None);
        assert!(!task.fired());
    }

    #[test]
    fn deadline_within_a_tick_waits_for_its_end() {
        let wheel = TimerWheel::new();
        let mut task = WaitingTask::on(&wheel);
        task.timer.set(Some(wheel.began + TICK * 2 + Duration::from_nanos(1)));
        wheel.advance_to(2);
        assert!(!task.fired());
        wheel.advance_to(3);
        assert!(task.fired());
        task.timer.set(Some(wheel.began));
        assert!(task.fired(), "a past deadline fires at once");
    }

    #[test]
    fn later_deadline_keeps_its_old_slot() {
        let wheel = TimerWheel::new();
        let mut task = WaitingTask::on(&wheel);
        for tick in 5..500 {
            assert!(!task.until(tick).fired());
        }
        assert_eq!(slotted_keys(&wheel), 1);
        wheel.advance_to(498);
        assert_eq!((task.times_woken(), task.fired()), (1, false));
        wheel.advance_to(499);
        assert_eq!((task.times_woken(), task.fired()), (2, true));
    }

    #[test]
    fn earlier_deadline_fires_earlier() {
        let wheel = TimerWheel::new();
        let mut task = WaitingTask::on(&wheel);
        assert!(!task.until(100).fired());
        assert!(!task.until(2).fired());
        wheel.advance_to(2);
        assert_eq!((task.times_woken(), task.fired()), (1, true));
        task.timer.set(None);
        wheel.advance_to(100);
        assert_eq!(task.times_woken(), 1, "no wake for the old deadline");
        assert_eq!(slotted_keys(&wheel), 0);
    }

    #[test]
    fn deadline_may_be_several_revolutions_away() {
        let wheel = TimerWheel::new();
        let mut task = WaitingTask::on(&wheel);
        let far = 3 * SLOTS as u32 + 7;
        assert!(!task.until(far).fired());
        wheel.advance_to(u64::from(far) - 1);
        assert_eq!((task.times_woken(), task.fired()), (0, false));
        wheel.advance_to(u64::from(far));
        assert_eq!((task.times_woken(), task.fired()), (1, true));
    }

    #[test]
    fn dropped_timer_wakes_no_other_timer() {
        let wheel = TimerWheel::new();
        let mut gone = WaitingTask::on(&wheel);
        assert!(!gone.until(2).fired());
        drop(gone);
        let mut next = WaitingTask::on(&wheel);
        assert!(!next.until(9).fired(), "reuses the slab key");
        wheel.advance_to(2);
        assert_eq!((next.times_woken(), next.fired()), (0, false));
        wheel.advance_to(9);
        assert_eq!((next.times_woken(), next.fired()), (1, true));
        drop(next);
        assert_eq!((slotted_keys(&wheel), wheel.lock().timers.len()), (0, 0));
    }

    #[tokio::test]
    async fn wheel_ticks_until_it_is_dropped() {
        let wheel = Arc::new(TimerWheel::new());
        let turning = tokio::spawn(TimerWheel::run(Arc::downgrade(&wheel)));
        let start = Instant::now();
        let mut timer = wheel.timer();
        timer.set(Some(start + Duration::from_millis(300)));
        tokio::time::timeout(Duration::from_secs(5), timer.fired()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300), "fired early");
        drop(timer);
        drop(wheel);
        tokio::time::timeout(Duration::from_secs(5), turning).await.unwrap().unwrap();
    }
}
