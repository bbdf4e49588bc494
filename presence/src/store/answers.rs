//! [`AnswerClock`]: the newest call that Redis has answered, which distinguishes a silent Redis from a busy process.
//!
//! A call without an answer proves nothing about Redis while calls that were sent later are answered.
//! [`super::redis::RedisStore`] records its answers here. Nothing here waits or reads Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Answers of one Redis. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AnswerClock(Arc<AnswerTimes>);

#[derive(Debug)]
struct AnswerTimes {
    started: Instant,
    /// Sending time of the newest answered call, in nanoseconds after `started` and at least 1; 0 before the first.
    newest: AtomicU64,
}

impl AnswerClock {
    /// Records the answer to a call that was sent at `sent`.
    pub(crate) fn record(&self, sent: Instant) {
        self.0.newest.fetch_max(self.nanos(sent), Ordering::Relaxed);
    }

    /// Returns true if a call that was sent at `began` or later has been answered.
    pub(crate) fn has_answered_since(&self, began: Instant) -> bool {
        self.0.newest.load(Ordering::Relaxed) >= self.nanos(began)
    }

    fn nanos(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.0.started).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }
}

impl Default for AnswerClock {
    fn default() -> Self {
        Self(Arc::new(AnswerTimes { started: Instant::now(), newest: AtomicU64::new(0) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_later_calls_prove_an_answer() {
        let (clock, began) = (AnswerClock::default(), Instant::now());
        assert!(!clock.has_answered_since(began), "nothing is answered yet");
        clock.record(began + Duration::from_secs(1));
        clock.record(began);
        assert!(clock.has_answered_since(began) && clock.has_answered_since(began + Duration::from_secs(1)));
        assert!(!clock.has_answered_since(began + Duration::from_secs(2)));
    }
}
