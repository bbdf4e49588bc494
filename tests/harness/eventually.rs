//! Waiting for the world: poll until it is so, or say what was seen last.
//!
//! The only place of the tests that sleeps. A cluster has no "settled" moment to wait for, so every expectation names
//! its own deadline; a fixed pause would be too short on a busy machine and too long on an idle one.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks. Short beside every deadline, long beside one look.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `probe` answers `Ok`, and returns what it found. `Err` is the state seen so far.
///
/// # Panics
/// When `within` is over: with `what` was expected and the last state seen.
pub async fn eventually<T, S: Debug>(within: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + within;
    let mut seen = None;
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(state)) => seen = Some(state),
            Err(_) => panic!("not within {within:?}: {what}; it hung in its last look, seen before: {seen:?}"),
        }
        if Instant::now() + PAUSE > deadline {
            panic!("not within {within:?}: {what}; last seen: {seen:?}");
        }
        sleep(PAUSE).await;
    }
}

/// Looks again and again until `probe` finds something; `None` when `limit` is over. For tests that go on without it.
pub async fn within<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = timeout_at(deadline, probe()).await.ok()? {
            return Some(found);
        }
        if Instant::now() + PAUSE > deadline {
            return None;
        }
        sleep(PAUSE).await;
    }
}

/// Looks again and again for as long as `period` and insists that `probe` answers `Ok` every time.
///
/// # Panics
/// At the first `Err`, with the state seen.
pub async fn stays<S: Debug>(period: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<(), S>) {
    let start = Instant::now();
    while start.elapsed() < period {
        if let Err(state) = probe().await {
            panic!("{what} held for {:?} only; seen: {state:?}", start.elapsed());
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_returns_the_found_value() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(5), "three looks", || {
            looks += 1;
            let now = looks;
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
    #[should_panic(expected = "it hung in its last look")]
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
