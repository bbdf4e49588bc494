//! [`JwksCache`]: the set of keys of a URL, fetched when it is needed and kept while it is good.
//!
//! A set is fetched again at an interval (`auth.jwks_refresh_seconds`), and after an hour when it is used. It stays in
//! use meanwhile; without success it expires a day later. An unknown key id also fetches it, and so does a reload.
//! Invariant: one request at a time, and at least [`FETCH_PAUSE`] between two, whatever clients send; without any set
//! at least [`FIRST_PAUSE`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::identity::fault::TokenFault;
use crate::identity::keys::{KeyFingerprint, KeySet};

use super::JwksUrl;
use super::fetch::{FETCH_LIMIT, fetch};

/// Minimum time between two requests.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// Minimum time between two requests until the first one succeeds. Until then no user can register.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Age at which a set is fetched again.
const FRESH: Duration = Duration::from_secs(3600);
/// Age at which a set that could not be fetched again expires.
const STALE_MAX: Duration = Duration::from_secs(25 * 3600);

/// The keys of a URL.
#[derive(Debug)]
pub(in crate::identity) struct JwksCache {
    url: JwksUrl,
    fetch_limit: Duration,
    /// Notified after each set that was fetched.
    fetched: Arc<Notify>,
    state: Mutex<CachedSet>,
    /// Held during a request.
    in_flight: tokio::sync::Mutex<()>,
}

/// The last set and the last request. Pure: the time is passed in.
#[derive(Debug, Default)]
struct CachedSet {
    fetched: Option<(Arc<KeySet>, Instant)>,
    asked: Option<Instant>,
}

impl CachedSet {
    /// Returns the keys, unless they have expired.
    fn keys(&self, now: Instant) -> Option<Arc<KeySet>> {
        self.fetched.as_ref().filter(|(_, at)| now.duration_since(*at) < STALE_MAX).map(|(keys, _)| Arc::clone(keys))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.fetched.as_ref().is_some_and(|(_, at)| now.duration_since(*at) < FRESH)
    }

    /// Returns true if there are keys and the last request is as old as the interval.
    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.fetched.is_some() && self.asked.is_none_or(|asked| now.duration_since(asked) >= interval)
    }

    /// Returns the time until the next request is allowed; `None` if it is allowed now.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let next = self.asked? + if self.fetched.is_some() { FETCH_PAUSE } else { FIRST_PAUSE };
        (next > now).then(|| next - now)
    }
}

impl JwksCache {
    /// Creates a cache that notifies after each set that it has fetched.
    pub(in crate::identity) fn new(url: JwksUrl, fetched: Arc<Notify>) -> Arc<Self> {
        Self::with_limit(url, fetched, FETCH_LIMIT)
    }

    pub(in crate::identity) fn with_limit(url: JwksUrl, fetched: Arc<Notify>, fetch_limit: Duration) -> Arc<Self> {
        let (state, in_flight) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Self { url, fetch_limit, fetched, state, in_flight })
    }

    pub(in crate::identity) fn url(&self) -> &JwksUrl {
        &self.url
    }

    /// Returns the keys. Waits for a request only if there are none.
    ///
    /// # Errors
    /// `NoKeys` without keys.
    pub(in crate::identity) async fn keys(self: &Arc<Self>) -> Result<Arc<KeySet>, TokenFault> {
        let (keys, is_due) = {
            let (state, now) = (self.state(), Instant::now());
            (state.keys(now), !state.is_fresh(now) && state.pause(now).is_none())
        };
        match keys {
            Some(keys) => {
                if is_due {
                    let cache = Arc::clone(self);
                    tokio::spawn(async move { cache.fetch_unless(CachedSet::is_fresh).await });
                }
                Ok(keys)
            }
            None => {
                self.fetch_unless(CachedSet::is_fresh).await;
                let (state, now) = (self.state(), Instant::now());
                state.keys(now).ok_or(TokenFault::NoKeys { retry_after: state.pause(now).unwrap_or_default() })
            }
        }
    }

    /// Returns newer keys than these, after a request.
    ///
    /// # Errors
    /// `NoKeys` if no request is allowed yet, or it failed.
    pub(in crate::identity) async fn refreshed_for_unknown_key(
        self: &Arc<Self>,
        known: &Arc<KeySet>,
    ) -> Result<Arc<KeySet>, TokenFault> {
        let is_newer = |state: &CachedSet| state.fetched.as_ref().is_some_and(|(keys, _)| !Arc::ptr_eq(keys, known));
        self.fetch_unless(|state, _| is_newer(state)).await;
        let state = self.state();
        match &state.fetched {
            Some((keys, _)) if is_newer(&state) => Ok(Arc::clone(keys)),
            _ => Err(TokenFault::NoKeys { retry_after: state.pause(Instant::now()).unwrap_or_default() }),
        }
    }

    /// Sends a request in the background, whatever the age of the keys: an operator's order.
    pub(in crate::identity) fn refetch(self: &Arc<Self>) {
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            cache.state().asked = None;
            cache.fetch_unless(|_, _| false).await;
        });
    }

    /// Sends a request if there are keys, and the last request is as old as this. Without keys a client causes it.
    pub(in crate::identity) async fn refresh_after(&self, interval: Duration) {
        self.fetch_unless(|state, now| !state.is_due(now, interval)).await;
    }

    /// Returns true if a key is in the set, or no set was fetched yet.
    pub(in crate::identity) fn may_have(&self, key: KeyFingerprint) -> bool {
        self.state().fetched.as_ref().is_none_or(|(keys, _)| keys.has(key))
    }

    /// Sends a request, unless another one has satisfied `done` meanwhile or the pause lasts.
    async fn fetch_unless(&self, done: impl Fn(&CachedSet, Instant) -> bool) {
        let _in_flight = self.in_flight.lock().await;
        {
            let (mut state, now) = (self.state(), Instant::now());
            if done(&state, now) || state.pause(now).is_some() {
                return;
            }
            state.asked = Some(now);
        }
        let (url, limit) = (self.url.clone(), self.fetch_limit);
        let fetched = tokio::task::spawn_blocking(move || fetch(&url, limit)).await;
        match fetched.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(keys) => {
                self.state().fetched = Some((Arc::new(keys), Instant::now()));
                self.fetched.notify_one();
            }
            Err(reason) => tracing::warn!(url = %self.url, reason, "keys of tokens not fetched"),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CachedSet> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
