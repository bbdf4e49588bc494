//! Counts what came over a channel or stood in a log and was not ours, and says so once a minute at most.
//!
//! Kept by both arms beside their reading side. Never holds the text itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines in the log.
const QUIET: Duration = Duration::from_secs(60);

/// The count since the start.
#[derive(Debug, Default)]
pub(super) struct Malformed {
    count: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Malformed {
    /// Adds `skipped` frames that were found at `place`, a channel or a key.
    pub(super) fn note(&self, place: &str, skipped: u64) {
        if skipped == 0 {
            return;
        }
        let total = self.count.fetch_add(skipped, Ordering::Relaxed) + skipped;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= QUIET) {
            *logged = Some(Instant::now());
            tracing::warn!(place, total, "skipped text that is not ours");
        }
    }

    /// How many frames were skipped since the start.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
