//! [`AnswerClock`]: the time of the newest answer of a store, which distinguishes a silent Redis from a busy process.
//!
//! A call without an answer proves nothing about Redis while other calls are answered.
//! [`super::redis::RedisStore`] records its answers here. Nothing here waits or reads Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time since the newest answer after which a store is silent. Above the interval of the calls that both programs
/// repeat, and below the timeout of a read.
const SILENCE_MIN: Duration = Duration::from_millis(1500);

/// Answers of one store. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(crate) struct AnswerClock(Arc<AnswerTimes>);

#[derive(Debug)]
struct AnswerTimes {
    started: Instant,
    /// Time of the newest answer, in nanoseconds after `started` and at least 1; 0 before the first.
    newest: AtomicU64,
}

impl AnswerClock {
    /// Creates a clock without an answer.
    pub(crate) fn silent() -> Self {
        Self::with_newest(0)
    }

    /// Creates the clock of a store that always answers: one in memory.
    pub(crate) fn always_answering() -> Self {
        Self::with_newest(u64::MAX)
    }

    fn with_newest(nanos: u64) -> Self {
        Self(Arc::new(AnswerTimes { started: Instant::now(), newest: AtomicU64::new(nanos) }))
    }

    /// Records an answer that arrives now.
    pub(crate) fn record(&self) {
        self.record_at(Instant::now());
    }

    /// Returns true if an answer came lately. A call that took too long is then a matter of this process and not of the
    /// store.
    pub(crate) fn is_answering(&self) -> bool {
        self.is_answering_at(Instant::now())
    }

    fn record_at(&self, time: Instant) {
        self.0.newest.fetch_max(self.nanos(time), Ordering::Relaxed);
    }

    fn is_answering_at(&self, now: Instant) -> bool {
        let newest = self.0.newest.load(Ordering::Relaxed);
        let silence = u64::try_from(SILENCE_MIN.as_nanos()).unwrap_or(u64::MAX);
        newest > 0 && newest.saturating_add(silence) > self.nanos(now)
    }

    fn nanos(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.0.started).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_proves_a_store_for_a_while() {
        let (clock, began) = (AnswerClock::silent(), Instant::now());
        let at = |millis| began + Duration::from_millis(millis);
        assert!(!clock.is_answering_at(began), "nothing is answered yet");
        clock.record_at(at(1000));
        clock.record_at(began);
        assert!(clock.is_answering_at(at(1000)) && clock.is_answering_at(at(2400)));
        assert!(!clock.is_answering_at(at(2600)), "an outage has begun since");
        clock.record_at(at(2700));
        assert!(clock.is_answering_at(at(2700)));
    }

    #[test]
    fn store_in_memory_is_never_silent() {
        let clock = AnswerClock::always_answering();
        assert!(clock.is_answering_at(Instant::now() + Duration::from_secs(60)));
    }
}
