//! [`AnswerClock`]: the newest call that Redis has answered, which distinguishes a silent Redis from a busy process.
//!
//! A call without an answer proves nothing about Redis while calls that were sent later are answered.
//! [`super::redis::RedisStore`] records its answers here. Nothing here waits or reads Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time after which the newest answered call no longer proves that Redis answers. Above the time of a slow answer.
const LATELY: Duration = Duration::from_millis(1500);

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

    /// Returns true if a call that was sent at `began` or later has been answered, and lately: before the begin of an
    /// outage, an answer proves nothing about it.
    pub(crate) fn has_answered_since(&self, began: Instant) -> bool {
        self.has_answered_at(began, Instant::now())
    }

    fn has_answered_at(&self, began: Instant, now: Instant) -> bool {
        let newest = self.0.newest.load(Ordering::Relaxed);
        let lately = u64::try_from(LATELY.as_nanos()).unwrap_or(u64::MAX);
        newest >= self.nanos(began) && newest.saturating_add(lately) >= self.nanos(now)
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
    use super::*;

    #[test]
    fn only_later_calls_prove_an_answer() {
        let (clock, began) = (AnswerClock::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(!clock.has_answered_at(began, began), "nothing is answered yet");
        clock.record(at(1));
        clock.record(began);
        assert!(clock.has_answered_at(began, at(1)) && clock.has_answered_at(at(1), at(1)));
        assert!(!clock.has_answered_at(at(2), at(2)));
        assert!(!clock.has_answered_at(began, at(3)), "an outage has begun since");
    }
}
