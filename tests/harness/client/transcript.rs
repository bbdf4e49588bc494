//! Everything that one client received, with its time. A reading task appends, and expectations search.
//!
//! Invariant: no entry is ever removed. An expectation marks the entry that it used, so no two expectations use the
//! same one. Counts ("exactly once") include used entries.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

/// Maximum number of entries in the error of a failed expectation.
const ENTRIES_SHOWN_MAX: usize = 30;

/// A line or frame that a client received.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedItem<T> {
    /// Time of arrival.
    pub at: Instant,
    /// The line or frame.
    pub value: T,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptEnd {
    /// Time of the end.
    pub at: Instant,
    /// Close code; `None` without a close frame and on the line port.
    pub code: Option<u16>,
    /// Reason of the close frame.
    pub reason: String,
}

/// All items received on one connection.
#[derive(Debug)]
pub(super) struct Transcript<T> {
    state: Mutex<TranscriptState<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct TranscriptState<T> {
    entries: Vec<(ReceivedItem<T>, bool)>,
    ending: Option<TranscriptEnd>,
}

impl<T: Clone + Debug> Transcript<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(TranscriptState { entries: Vec::new(), ending: None }), changed: Notify::new() }
    }

    pub(super) fn push(&self, value: T) {
        self.lock().entries.push((ReceivedItem { at: Instant::now(), value }, false));
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self, code: Option<u16>, reason: String) {
        self.lock().ending.get_or_insert(TranscriptEnd { at: Instant::now(), code, reason });
        self.changed.notify_waiters();
    }

    /// Returns all items that fit, used or not.
    pub(super) fn all(&self, fits: impl Fn(&T) -> bool) -> Vec<ReceivedItem<T>> {
        self.lock().entries.iter().filter(|(item, _)| fits(&item.value)).map(|(item, _)| item.clone()).collect()
    }

    /// Returns all unused items that fit.
    pub(super) fn unused(&self, fits: impl Fn(&T) -> bool) -> Vec<T> {
        let state = self.lock();
        let unused = state.entries.iter().filter(|(item, used)| !*used && fits(&item.value));
        unused.map(|(item, _)| item.value.clone()).collect()
    }

    /// Waits for the first unused entry that fits, and marks it as used. The error describes the received items.
    pub(super) async fn take(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<ReceivedItem<T>, String> {
        self.find(within, what, |state| {
            let (item, used) = state.entries.iter_mut().find(|(item, used)| !*used && fits(&item.value))?;
            *used = true;
            Some(item.clone())
        })
        .await
    }

    /// Waits for the first entry that fits, used or not, without a mark.
    pub(super) async fn peek(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<ReceivedItem<T>, String> {
        self.find(within, what, |state| {
            state.entries.iter().map(|(item, _)| item).find(|item| fits(&item.value)).cloned()
        })
        .await
    }

    /// Waits for the end of the connection.
    pub(super) async fn ending(&self, within: Duration) -> Result<TranscriptEnd, String> {
        self.find(within, "the end of the connection", |state| state.ending.clone()).await
    }

    pub(super) fn has_ended(&self) -> Option<TranscriptEnd> {
        self.lock().ending.clone()
    }

    async fn find<F>(
        &self,
        within: Duration,
        what: &str,
        mut search: impl FnMut(&mut TranscriptState<T>) -> Option<F>,
    ) -> Result<F, String> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the search, or a change between search and wait would be missed.
            changed.as_mut().enable();
            let has_ended = {
                let mut state = self.lock();
                if let Some(found) = search(&mut state) {
                    return Ok(found);
                }
                state.ending.is_some()
            };
            if has_ended || timeout_at(deadline, changed).await.is_err() {
                return Err(self.complaint(within, what));
            }
        }
    }

    fn complaint(&self, within: Duration, what: &str) -> String {
        let state = self.lock();
        let newest = &state.entries[state.entries.len().saturating_sub(ENTRIES_SHOWN_MAX)..];
        let shown: Vec<String> = newest
            .iter()
            .map(|(item, used)| format!("  {} {:?}", if *used { "used" } else { "    " }, item.value))
            .collect();
        let ending = state.ending.as_ref().map(|ending| format!("\n  the connection ended: {ending:?}"));
        format!("no {what} within {within:?}; received:\n{}{}", shown.join("\n"), ending.unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, TranscriptState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn take_uses_each_entry_once() {
        let transcript = Transcript::new();
        transcript.push("a");
        transcript.push("b");
        assert_eq!(transcript.take(SOON, "b", |value| *value == "b").await.map(|item| item.value), Ok("b"));
        assert_eq!(transcript.take(SOON, "any", |_| true).await.map(|item| item.value), Ok("a"));
        assert!(transcript.take(SOON, "b again", |value| *value == "b").await.is_err());
        assert_eq!(transcript.all(|_| true).len(), 2);
    }

    #[tokio::test]
    async fn connection_end_interrupts_every_wait() {
        let transcript = Transcript::<String>::new();
        transcript.end(Some(1012), "restart".to_owned());
        let error = transcript.take(Duration::from_secs(600), "word", |_| true).await.expect_err("it ended");
        assert!(error.contains("1012"), "{error}");
        assert_eq!(transcript.ending(SOON).await.expect("it ended").code, Some(1012));
    }
}
