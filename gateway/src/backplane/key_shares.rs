//! The shares of sessions in the idempotency keys that a store remembers.
//!
//! A bucket of keys is shared by the cluster, so one session may add only a part of it. [`KeyShares`] counts the keys
//! that sessions of this gateway have added in the present span. Pure, and bounded: beyond [`SESSIONS_MAX`] sessions it
//! counts as Misra and Gries do, at most `keys / SESSIONS_MAX` too few for a session. A known key needs no share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::SessionId;

use super::{PublishError, PublishRequest, Published};

/// The span in which keys are counted: that of a bucket.
const SPAN: Duration = Duration::from_secs(300);
/// Maximum number of keys that a session adds in a span: a sixteenth of a bucket, 208 a second without a pause.
const SESSION_KEYS_MAX: u32 = 62_500;
/// Maximum number of sessions that are counted separately.
const SESSIONS_MAX: usize = 4096;

/// The permission of a session to add a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyAdmission {
    /// The key may be added.
    New,
    /// Only a known key is answered: the share is used up for this time.
    KnownOnly(Duration),
}

/// The counts of one gateway.
#[derive(Debug)]
pub(super) struct KeyShares {
    counts: Mutex<KeyCounts>,
}

#[derive(Debug)]
struct KeyCounts {
    share: u32,
    span_began: Instant,
    by_session: HashMap<SessionId, u32>,
    /// The beginning of the span in which a refusal was logged.
    logged: Option<Instant>,
}

impl KeyAdmission {
    pub(super) fn adds_keys(self) -> bool {
        self == Self::New
    }
}

impl Default for KeyShares {
    fn default() -> Self {
        Self::bounded(SESSION_KEYS_MAX)
    }
}

impl KeyShares {
    /// Creates shares of this number of keys.
    fn bounded(share: u32) -> Self {
        let (span_began, by_session) = (Instant::now(), HashMap::new());
        Self { counts: Mutex::new(KeyCounts { share, span_began, by_session, logged: None }) }
    }

    /// Returns the permission for a message, as its sender's share is now.
    pub(super) fn admit(&self, request: &PublishRequest, now: Instant) -> KeyAdmission {
        if request.key.is_none() {
            return KeyAdmission::New;
        }
        let mut counts = self.lock();
        let Some(wait) = counts.wait(&request.owner.session, now) else { return KeyAdmission::New };
        if counts.logged != Some(counts.span_began) {
            counts.logged = Some(counts.span_began);
            let (from, wait_ms) = (request.from.key().as_str(), wait.as_millis() as u64);
            tracing::info!(from, wait_ms, "key refused, sender's share of idempotency keys used");
        }
        KeyAdmission::KnownOnly(wait)
    }

    /// Counts the key of a message that was stored, and returns the outcome for the sender.
    pub(super) fn conclude(
        &self,
        request: &PublishRequest,
        admission: KeyAdmission,
        outcome: Result<Published, PublishError>,
    ) -> Result<Published, PublishError> {
        match (&outcome, admission) {
            (Ok(published), _) if request.key.is_some() && !published.duplicate => {
                self.lock().count(&request.owner.session);
            }
            (Err(PublishError::KeysExhausted { retry_after }), KeyAdmission::KnownOnly(wait)) => {
                return Err(PublishError::KeysExhausted { retry_after: wait.max(*retry_after) });
            }
            _ => {}
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, KeyCounts> {
        // Every method leaves the counts consistent.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyCounts {
    /// Returns the time for which a session may add no key, if its share is used up.
    fn wait(&mut self, session: &SessionId, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.span_began);
        if age >= SPAN {
            self.by_session = HashMap::new();
            self.span_began = now;
            return None;
        }
        let is_used = self.by_session.get(session).is_some_and(|count| *count >= self.share);
        is_used.then(|| SPAN - age)
    }

    fn count(&mut self, session: &SessionId) {
        if let Some(count) = self.by_session.get_mut(session) {
            *count += 1;
        } else if self.by_session.len() < SESSIONS_MAX {
            self.by_session.insert(session.clone(), 1);
        } else {
            // Each removal was paid by as many counts, so a call costs a constant number of steps on average.
            self.by_session.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use presence::model::{Fence, Incarnation, Nick, Owner};

    use super::*;
    use crate::message::{Accepted, Body};

    fn keyed() -> PublishRequest {
        let owner = Owner { incarnation: Incarnation::random(), session: SessionId::random(), fence: Fence(1) };
        PublishRequest {
            msg_id: "m".to_owned(),
            key: Some("k".to_owned()),
            from: Nick::parse("ann").unwrap(),
            from_user: None,
            owner,
            moderates: false,
            body: Body::from_text("x"),
            accepted: Accepted::default(),
        }
    }

    fn stored(duplicate: bool) -> Result<Published, PublishError> {
        Ok(Published { msg_id: "m".to_owned(), seq: 1, time: 1, duplicate, online: true })
    }

    #[test]
    fn session_adds_only_its_share_of_keys() {
        let shares = KeyShares::bounded(3);
        let (hog, ann, start) = (keyed(), keyed(), Instant::now());
        for _ in 0..3 {
            assert!(shares.admit(&hog, start).adds_keys());
            shares.conclude(&hog, KeyAdmission::New, stored(false)).unwrap();
            shares.conclude(&ann, KeyAdmission::New, stored(true)).unwrap();
        }
        let later = start + Duration::from_secs(60);
        let KeyAdmission::KnownOnly(wait) = shares.admit(&hog, later) else { panic!("the share was not bounded") };
        assert!(wait <= Duration::from_secs(240) && wait > Duration::from_secs(239), "{wait:?}");
        let seconds = Duration::from_secs(9);
        let conclude = |error| shares.conclude(&hog, KeyAdmission::KnownOnly(wait), Err(error));
        let refused = conclude(PublishError::KeysExhausted { retry_after: seconds });
        assert_eq!(refused, Err(PublishError::KeysExhausted { retry_after: wait }));
        let ring_is_full = PublishError::Exhausted { retry_after: seconds };
        assert_eq!(conclude(ring_is_full.clone()), Err(ring_is_full), "the key may be known");
        assert!(shares.admit(&ann, later).adds_keys(), "duplicates were counted, or another session's keys");
        assert!(shares.admit(&PublishRequest { key: None, ..hog.clone() }, later).adds_keys());
        assert!(shares.admit(&hog, start + Duration::from_secs(301)).adds_keys(), "a new span begins with full shares");
    }

    #[test]
    fn many_sessions_hide_no_greedy_one() {
        let shares = KeyShares::bounded(1000);
        let hog = keyed();
        for _ in 0..1020 {
            shares.conclude(&hog, KeyAdmission::New, stored(false)).unwrap();
        }
        for _ in 0..3 * SESSIONS_MAX {
            shares.conclude(&keyed(), KeyAdmission::New, stored(false)).unwrap();
        }
        assert!(shares.lock().by_session.len() <= SESSIONS_MAX);
        assert!(!shares.admit(&hog, Instant::now()).adds_keys(), "the hog's count was lost");
    }
}
