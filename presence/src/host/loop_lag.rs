//! Event-loop lag: a task that sleeps for a fixed time and records the delay of its wake-up.
//!
//! Each `server.rs` starts [`watch`] once. A high lag delays every session of the node: the loop is busy, or the
//! machine gives the process too little CPU time. The cost is four timers a second. It only measures and never limits
//! work.

use std::time::Duration;

use prometheus::Registry;
use tokio::time::{Instant, sleep_until};

use crate::host::metrics::{Bounds, Family};

/// Pause between two measurements.
const EVERY: Duration = Duration::from_millis(250);

/// Records the lag on `registry` while it is polled. Must be called once for each registry.
pub async fn watch(registry: Registry) {
    let lag = Family::single(
        &registry,
        "parley_event_loop_lag_seconds",
        "Delay of a timer of the event loop. The resolution is one millisecond.",
        Bounds::SECONDS,
    );
    loop {
        let due = Instant::now() + EVERY;
        sleep_until(due).await;
        lag.record(due.elapsed());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus::TextEncoder;

    use super::*;

    /// Returns the number of measurements, and the number of those that were at most 100 ms late.
    fn shown(registry: &Registry) -> (u64, u64) {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let value = |start: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(start));
            line.map_or(0, |value| value.trim().parse().unwrap())
        };
        (value("parley_event_loop_lag_seconds_count"), value("parley_event_loop_lag_seconds_bucket{le=\"0.1\"}"))
    }

    async fn until(what: impl Fn() -> bool) {
        let looks = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), looks).await.expect("the condition holds within 20 s");
    }

    #[tokio::test]
    async fn monitor_records_a_blocked_loop() {
        let registry = Registry::new();
        tokio::spawn(watch(registry.clone()));
        until(|| shown(&registry).0 > 0).await;
        let (looks, in_time) = shown(&registry);
        // A blocking call in a task: the loop has one thread here, so it stops as a whole.
        std::thread::sleep(EVERY * 3);
        until(|| shown(&registry).0 > looks).await;
        let late = |(looks, in_time)| looks - in_time;
        assert_eq!(late(shown(&registry)), late((looks, in_time)) + 1, "one measurement is late");
    }
}
