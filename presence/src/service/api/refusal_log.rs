//! [`RefusalLog`]: the refusals of overload, logged as episodes: one line at the begin and one at the end.
//!
//! An episode belongs to one limit, of the process or of addresses. It ends when no request has met the limit for a
//! while. Nothing here refuses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::seats::SeatRefusal;
use crate::host::client_address::ClientAddress;

/// Time without refusals after which an episode ends.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// A limit in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetLimit {
    /// The limited resource, in plural.
    pub(super) name: &'static str,
    /// Its scope: the process, or one address.
    pub(super) refusal: SeatRefusal,
}

impl MetLimit {
    fn scope(self) -> &'static str {
        match self.refusal {
            SeatRefusal::AllTaken => "process",
            SeatRefusal::AddressFull => "address",
        }
    }
}

/// The present episodes. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct RefusalLog(Arc<Mutex<OverloadEpisodes>>);

impl RefusalLog {
    /// Records a refusal, with the address if it has met its own limit. Logs the episode that begins with it, and
    /// spawns a task that logs its end.
    pub(super) fn record(&self, limit: MetLimit, address: Option<ClientAddress>) {
        if self.lock().record(limit, Instant::now()) {
            let address = address.map(tracing::field::display);
            tracing::warn!(limit = limit.name, scope = limit.scope(), address, "api requests refused");
            tokio::spawn(self.clone().log_end(limit));
        }
    }

    async fn log_end(self, limit: MetLimit) {
        loop {
            tokio::time::sleep(QUIET_TIME / 2).await;
            let Some(ended) = self.lock().take_ended(limit, Instant::now()) else { continue };
            let OverloadEpisode { began, newest, refused, .. } = ended;
            let seconds = newest.duration_since(began).as_secs();
            tracing::info!(limit = limit.name, scope = limit.scope(), refused, seconds, "api refusals ended");
            return;
        }
    }

    fn lock(&self) -> MutexGuard<'_, OverloadEpisodes> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most one episode of each limit.
#[derive(Debug, Default)]
struct OverloadEpisodes(Vec<OverloadEpisode>);

#[derive(Debug, PartialEq, Eq)]
struct OverloadEpisode {
    limit: MetLimit,
    began: Instant,
    newest: Instant,
    refused: u64,
}

impl OverloadEpisodes {
    /// Counts a refusal. Returns true if an episode begins with it.
    fn record(&mut self, limit: MetLimit, now: Instant) -> bool {
        if let Some(episode) = self.0.iter_mut().find(|episode| episode.limit == limit) {
            (episode.newest, episode.refused) = (now, episode.refused + 1);
            return false;
        }
        self.0.push(OverloadEpisode { limit, began: now, newest: now, refused: 1 });
        true
    }

    /// Removes the episode of this limit if it has ended.
    fn take_ended(&mut self, limit: MetLimit, now: Instant) -> Option<OverloadEpisode> {
        let has_ended =
            |episode: &mut OverloadEpisode| episode.limit == limit && now.duration_since(episode.newest) >= QUIET_TIME;
        self.0.extract_if(.., has_ended).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episode_counts_the_refusals_of_its_limit() {
        let limit = |name, refusal| MetLimit { name, refusal };
        let streams = limit("event streams", SeatRefusal::AddressFull);
        let listings = limit("listings under way", SeatRefusal::AddressFull);
        let (mut episodes, start, second) = (OverloadEpisodes::default(), Instant::now(), Duration::from_secs(1));
        assert!(episodes.record(listings, start));
        assert!(!episodes.record(listings, start + second), "one line for each episode");
        assert!(episodes.record(streams, start + second));
        assert!(episodes.record(limit("listings under way", SeatRefusal::AllTaken), start + second));
        assert!(!episodes.record(listings, start + 2 * second));

        assert_eq!(episodes.take_ended(listings, start + QUIET_TIME), None, "the newest refusal counts");
        let ended = OverloadEpisode { limit: streams, began: start + second, newest: start + second, refused: 1 };
        assert_eq!(episodes.take_ended(streams, start + second + QUIET_TIME), Some(ended));
        let ended = OverloadEpisode { limit: listings, began: start, newest: start + 2 * second, refused: 3 };
        assert_eq!(episodes.take_ended(listings, start + 2 * second + QUIET_TIME), Some(ended));
        assert!(episodes.record(listings, start + 2 * QUIET_TIME), "another episode begins");
    }
}
