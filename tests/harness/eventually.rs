//! Waits: poll a condition until it holds, or fail with the last state.
//!
//! Only this module sleeps. A cluster has no settled state to wait for, so every expectation has its own deadline. A
//! fixed pause would be too short on a busy machine and too long on an idle one.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Interval between two probes: short compared with every deadline, long compared with a probe.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Calls `probe` repeatedly until it returns `Ok`, and returns that value. `Err` is the current state.
///
/// # Panics
/// After `within`, with the expectation `what` and the last state.
pub async fn eventually<T, S: Debug>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + within;
    let mut seen = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => seen = Some(state),
            Err(_) => panic!("not within {within:?}: {what}; the last probe hung, last seen: {seen:?}"),
        }
        if Instant::now() + POLL_INTERVAL > deadline {
            panic!("not within {within:?}: {what}; last seen: {seen:?}");
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Calls `probe` repeatedly until it returns a value; returns `None` after `limit`. For tests that continue without it.
pub async fn within<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = timeout_at(deadline, probe()).await.ok()? {
            return Some(found);
        }
        if Instant::now() + POLL_INTERVAL > deadline {
            return None;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Calls `probe` repeatedly during `period`, and requires `Ok` every time.
///
/// # Panics
/// At the first `Err`, with that state.
pub async fn stays<S: Debug>(period: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<(), S>) {
    let start = Instant::now();
    while start.elapsed() < period {
        if let Err(state) = probe().await {
            panic!("{what} held for {:?} only; seen: {state:?}", start.elapsed());
        }
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_returns_the_found_value() {
        let mut probes = 0;
        let found = eventually(Duration::from_secs(5), "three probes", || {
            probes += 1;
            let now = probes;
            async move { if now == 3 { Ok(now) } else { Err(now) } }
        });
        assert_eq!(found.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the moon is blue; last seen: Some(\"grey\")")]
    async fn timeout_message_shows_last_state() {
        eventually(Duration::from_millis(50), "the moon is blue", || async { Err::<(), _>("grey") }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the last probe hung")]
    async fn deadline_interrupts_a_hanging_probe() {
        eventually(Duration::from_millis(50), "anything", std::future::pending::<Result<(), ()>>).await;
    }

    #[tokio::test]
    async fn within_returns_none_after_its_limit() {
        assert_eq!(within(Duration::from_secs(5), async || Some(7)).await, Some(7));
        assert_eq!(within(Duration::from_millis(50), async || None::<()>).await, None);
    }

    #[tokio::test]
    #[should_panic(expected = "calm held for")]
    async fn stays_panics_at_first_error() {
        let start = Instant::now();
        stays(Duration::from_secs(5), "calm", || async move {
            if start.elapsed() < Duration::from_millis(50) { Ok(()) } else { Err("storm") }
        })
        .await;
    }
}
