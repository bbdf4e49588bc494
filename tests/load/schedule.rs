//! When messages are due, decided before the first one is sent: the open loop.
//!
//! A sender that is late, because it or the server stood still, still counts each message from the time at which it was
//! due, so the wait of everybody who would have come in that time is in the figures (no coordinated omission).
//! Pure: it reads no clock and sends nothing.

use std::time::Duration;

use crate::clock::{Nanos, SECOND, nanos};

/// An even stream of `rate` messages a second in all, dealt out in turn to `senders`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    start: Nanos,
    /// Thousandths of a message per second: exact where a float would drift over a long run.
    millirate: u128,
    senders: u64,
}

impl Schedule {
    /// `rate` is per second over all senders and above zero; a slower one than one in 1,000 s is taken as that.
    pub(crate) fn new(start: Nanos, rate: f64, senders: u64) -> Self {
        // Saturates by the rules of `as`, and what is negative or not a number becomes the floor.
        let millirate = (rate * 1e3) as u64;
        Self { start, millirate: u128::from(millirate.max(1)), senders: senders.max(1) }
    }

    /// If the `turn`-th message (from 0) of the `sender`-th sender (from 0) is due.
    pub(crate) fn due(&self, sender: u64, turn: u64) -> Nanos {
        let number = u128::from(turn) * u128::from(self.senders) + u128::from(sender);
        let after = number * u128::from(SECOND) * 1000 / self.millirate;
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

/// The phases of the measured part, in the clock of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MeasureWindow {
    /// The first message is due.
    pub(crate) start: Nanos,
    /// What is due from here on is measured; before it is warm-up.
    pub(crate) measured: Nanos,
    /// Nothing is due from here on.
    pub(crate) end: Nanos,
}

impl MeasureWindow {
    /// A window that begins at `start`.
    pub(crate) fn new(start: Nanos, warmup: Duration, measured: Duration) -> Self {
        let warm = start.saturating_add(nanos(warmup));
        Self { start, measured: warm, end: warm.saturating_add(nanos(measured)) }
    }

    /// True if a message that was due then counts.
    pub(crate) fn counts(&self, due: Nanos) -> bool {
        (self.measured..self.end).contains(&due)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MILLI: Nanos = 1_000_000;

    #[test]
    fn a_rate_becomes_even_times_that_are_dealt_out_in_turn() {
        let schedule = Schedule::new(7, 1000.0, 4);
        let due: Vec<Nanos> =
            (0..2).flat_map(|turn| (0..4).map(move |sender| (sender, turn))).map(|(s, t)| schedule.due(s, t)).collect();
        assert_eq!(due, (0..8).map(|number| 7 + number * MILLI).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_that_divides_no_second_does_not_drift() {
        let schedule = Schedule::new(0, 3.0, 1);
        assert_eq!((schedule.due(0, 1), schedule.due(0, 3_000_000)), (SECOND / 3, 1_000_000 * SECOND));
        assert_eq!(Schedule::new(0, 0.5, 1).due(0, 1), 2 * SECOND);
        assert_eq!(Schedule::new(0, -1.0, 0).due(0, 1), 1000 * SECOND);
    }

    #[test]
    fn warm_up_and_the_time_after_do_not_count() {
        let window = MeasureWindow::new(10, Duration::from_nanos(5), Duration::from_nanos(20));
        assert_eq!([14, 15, 34, 35].map(|due| window.counts(due)), [false, true, true, false]);
    }

    /// A server answers within 1 ms, but stands still for one second in the middle of ten. `latencies` sees when each
    /// message was due and when it really went out.
    fn stalled(latency: impl Fn(Nanos, Nanos, Nanos) -> Nanos) -> Vec<Nanos> {
        let (schedule, stall) = (Schedule::new(0, 100.0, 1), 5 * SECOND..6 * SECOND);
        let mut free = 0;
        let mut latencies: Vec<Nanos> = (0..1000)
            .map(|turn| {
                let due = schedule.due(0, turn);
                let sent = due.max(free);
                let begun = if stall.contains(&sent) { stall.end } else { sent };
                free = begun + MILLI;
                latency(due, sent, free)
            })
            .collect();
        latencies.sort_unstable();
        latencies
    }

    #[test]
    fn the_wait_of_a_stalled_sender_is_in_the_figures() {
        let open = stalled(|due, _, answered| answered - due);
        let coordinated = stalled(|_, sent, answered| answered - sent);
        let percentile = |sorted: &[Nanos], share: usize| sorted[sorted.len() * share / 100];
        // A hundred of a thousand were due during the stall, and waited half a second on average.
        assert!(percentile(&open, 95) > 400 * MILLI, "{}", percentile(&open, 95));
        // MeasuredWindow from the real send, all but the one that hit the stall look perfect.
        assert_eq!(percentile(&coordinated, 99), MILLI);
    }
}
