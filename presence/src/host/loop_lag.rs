//! How late this process's event loop is: a task that sleeps and notes by how much it overslept.
//!
//! Started by each `server.rs`. What is late here is late for everybody on this node: a loop that is kept busy, or a
//! machine that gives the process too little time. Costs four timers a second.

use std::time::Duration;

use prometheus::Registry;
use tokio::time::{Instant, sleep_until};

use crate::host::metrics::{Bounds, Family};

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(250);

/// Notes the lag on `registry` for as long as it is polled. Call it once for each registry.
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
        lag.took(due.elapsed());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus::TextEncoder;

    use super::*;

    /// The number of looks, and how many of them were at most 100 ms late.
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
        tokio::time::timeout(Duration::from_secs(20), looks).await.expect("it shows");
    }

    #[tokio::test]
    async fn a_loop_that_stands_still_shows() {
        let registry = Registry::new();
        tokio::spawn(watch(registry.clone()));
        until(|| shown(&registry).0 > 0).await;
        let (looks, in_time) = shown(&registry);
        // What nobody may do on a task: the whole loop, of one thread here, stands still.
        std::thread::sleep(EVERY * 3);
        until(|| shown(&registry).0 > looks).await;
        let late = |(looks, in_time)| looks - in_time;
        assert_eq!(late(shown(&registry)), late((looks, in_time)) + 1, "one look was late");
    }
}
