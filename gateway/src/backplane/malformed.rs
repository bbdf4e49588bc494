//! The counter of malformed frames and entries: text on a channel or in a stream that this gateway cannot decode.
//!
//! Both arms have one [`MalformedCounter`] at their reading side. It logs at most once a minute and never the text
//! itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The minimum time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The number of malformed frames since the start.
#[derive(Debug, Default)]
pub(super) struct MalformedCounter {
    count: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl MalformedCounter {
    /// Adds `skipped` frames of `source`, a channel or a key.
    pub(super) fn add(&self, source: &str, skipped: u64) {
        if skipped == 0 {
            return;
        }
        let total = self.count.fetch_add(skipped, Ordering::Relaxed) + skipped;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(source, total, "malformed text skipped");
        }
    }

    /// Returns the count.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
