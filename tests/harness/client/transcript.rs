//! Everything one client was told, with the moment it came, filled by a reading task and searched by expectations.
//!
//! Nothing is ever forgotten: an expectation marks what it used, so that the same event is not expected twice, while
//! counting ("exactly once") looks at all of it.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;

/// Entries shown when an expectation fails.
const SHOWN: usize = 30;

/// Something that a client was told.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedItem<T> {
    /// The time at which it came.
    pub at: Instant,
    /// What it was.
    pub what: T,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptEnd {
    /// When.
    pub at: Instant,
    /// The close code; `None` without a close frame, and on doors that have none.
    pub code: Option<u16>,
    /// The words with it.
    pub reason: String,
}

/// The record of one connection.
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

    pub(super) fn push(&self, what: T) {
        self.lock().entries.push((ReceivedItem { at: Instant::now(), what }, false));
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self, code: Option<u16>, reason: String) {
        self.lock().ending.get_or_insert(TranscriptEnd { at: Instant::now(), code, reason });
        self.changed.notify_waiters();
    }

    /// Everything so far that fits, used or not.
    pub(super) fn all(&self, fits: impl Fn(&T) -> bool) -> Vec<ReceivedItem<T>> {
        self.lock().entries.iter().filter(|(heard, _)| fits(&heard.what)).map(|(heard, _)| heard.clone()).collect()
    }

    /// Everything so far that fits and was not used.
    pub(super) fn unused(&self, fits: impl Fn(&T) -> bool) -> Vec<T> {
        let state = self.lock();
        let unused = state.entries.iter().filter(|(heard, used)| !*used && fits(&heard.what));
        unused.map(|(heard, _)| heard.what.clone()).collect()
    }

    /// Uses up everything received so far.
    pub(super) fn forget(&self) {
        self.lock().entries.iter_mut().for_each(|(_, used)| *used = true);
    }

    /// Waits for the first unused entry that fits, and uses it. `Err` is what to show a person.
    pub(super) async fn take(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<ReceivedItem<T>, String> {
        self.find(within, what, |state| {
            let (heard, used) = state.entries.iter_mut().find(|(heard, used)| !*used && fits(&heard.what))?;
            *used = true;
            Some(heard.clone())
        })
        .await
    }

    /// Waits for the first entry that fits, used or not, and leaves it as it is.
    pub(super) async fn peek(
        &self,
        within: Duration,
        what: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<ReceivedItem<T>, String> {
        self.find(within, what, |state| state.entries.iter().map(|(heard, _)| heard).find(|h| fits(&h.what)).cloned())
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
        mut look: impl FnMut(&mut TranscriptState<T>) -> Option<F>,
    ) -> Result<F, String> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, or a change between look and wait would be missed.
            changed.as_mut().enable();
            let has_ended = {
                let mut state = self.lock();
                if let Some(found) = look(&mut state) {
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
        let newest = &state.entries[state.entries.len().saturating_sub(SHOWN)..];
        let shown: Vec<String> = newest
            .iter()
            .map(|(heard, used)| format!("  {} {:?}", if *used { "used" } else { "    " }, heard.what))
            .collect();
        let ending = state.ending.as_ref().map(|ending| format!("\n  the connection ended: {ending:?}"));
        format!("no {what} within {within:?}; heard:\n{}{}", shown.join("\n"), ending.unwrap_or_default())
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
        assert_eq!(transcript.take(SOON, "b", |what| *what == "b").await.map(|heard| heard.what), Ok("b"));
        assert_eq!(transcript.take(SOON, "any", |_| true).await.map(|heard| heard.what), Ok("a"));
        assert!(transcript.take(SOON, "b again", |what| *what == "b").await.is_err());
        assert_eq!(transcript.all(|_| true).len(), 2);
    }

    #[tokio::test]
    async fn connection_end_interrupts_every_wait() {
        let transcript = Transcript::<String>::new();
        transcript.end(Some(1012), "restart".to_owned());
        let complaint = transcript.take(Duration::from_secs(600), "word", |_| true).await.expect_err("it ended");
        assert!(complaint.contains("1012"), "{complaint}");
        assert_eq!(transcript.ending(SOON).await.expect("it ended").code, Some(1012));
    }
}
