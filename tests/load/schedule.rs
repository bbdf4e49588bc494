//! Due times of messages, fixed before the first one is sent: the open loop.
//!
//! A late sender counts each message from its due time, even if the sender or the server stalled. The figures thus
//! include the wait of all messages that were due during the stall (no coordinated omission). Pure: it reads no clock
//! and sends nothing.

use std::time::Duration;

use crate::clock::{Nanos, SECOND, nanos};

/// Even stream of `rate` messages a second in total, distributed in turn over `senders`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    start: Nanos,
    /// Thousandths of a message per second: exact, unlike a float, which would drift over a long run.
    millirate: u128,
    senders: u64,
}

impl Schedule {
    /// Creates a schedule. `rate` is per second over all senders; rates below one message per 1,000 s count as that.
    pub(crate) fn new(start: Nanos, rate: f64, senders: u64) -> Self {
        // The cast saturates; negative numbers and NaN become the minimum.
        let millirate = (rate * 1e3) as u64;
        Self { start, millirate: u128::from(millirate.max(1)), senders: senders.max(1) }
    }

    /// Returns the due time of the `turn`-th message (from 0) of the `sender`-th sender (from 0).
    pub(crate) fn due(&self, sender: u64, turn: u64) -> Nanos {
        let number = u128::from(turn) * u128::from(self.senders) + u128::from(sender);
        let after = number * u128::from(SECOND) * 1000 / self.millirate;
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

/// Phases of the measured part, in the clock of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MeasureWindow {
    /// Due time of the first message.
    pub(crate) start: Nanos,
    /// End of the warm-up and start of the measurement.
    pub(crate) measured: Nanos,
    /// End of the measurement; no message is due later.
    pub(crate) end: Nanos,
}

impl MeasureWindow {
    /// Creates a window that begins at `start`.
    pub(crate) fn new(start: Nanos, warmup: Duration, measured: Duration) -> Self {
        let warm = start.saturating_add(nanos(warmup));
        Self { start, measured: warm, end: warm.saturating_add(nanos(measured)) }
    }

    /// Returns true if a message with this due time counts.
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
    fn schedule_distributes_even_due_times_in_turn() {
        let schedule = Schedule::new(7, 1000.0, 4);
        let due: Vec<Nanos> =
            (0..2).flat_map(|turn| (0..4).map(move |sender| (sender, turn))).map(|(s, t)| schedule.due(s, t)).collect();
        assert_eq!(due, (0..8).map(|number| 7 + number * MILLI).collect::<Vec<_>>());
    }

    #[test]
    fn schedule_does_not_drift_at_fractional_rates() {
        let schedule = Schedule::new(0, 3.0, 1);
        assert_eq!((schedule.due(0, 1), schedule.due(0, 3_000_000)), (SECOND / 3, 1_000_000 * SECOND));
        assert_eq!(Schedule::new(0, 0.5, 1).due(0, 1), 2 * SECOND);
        assert_eq!(Schedule::new(0, -1.0, 0).due(0, 1), 1000 * SECOND);
    }

    #[test]
    fn window_excludes_warm_up_and_later_messages() {
        let window = MeasureWindow::new(10, Duration::from_nanos(5), Duration::from_nanos(20));
        assert_eq!([14, 15, 34, 35].map(|due| window.counts(due)), [false, true, true, false]);
    }

    /// Simulates a server that answers within 1 ms, but stalls for one second in the middle of ten. `latency` receives
    /// each message's due time, send time and answer time.
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
    fn latencies_include_the_wait_during_a_stall() {
        let open = stalled(|due, _, answered| answered - due);
        let coordinated = stalled(|_, sent, answered| answered - sent);
        let percentile = |sorted: &[Nanos], share: usize| sorted[sorted.len() * share / 100];
        // A hundred of a thousand messages were due during the stall, with an average wait of half a second.
        assert!(percentile(&open, 95) > 400 * MILLI, "{}", percentile(&open, 95));
        // Measured from the real send, all messages except the first one in the stall look perfect.
        assert_eq!(percentile(&coordinated, 99), MILLI);
    }
}
