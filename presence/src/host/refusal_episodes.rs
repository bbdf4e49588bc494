//! [`RefusalEpisodes`]: the refusals of overload as episodes, so that a log has two lines for any number of refusals.
//!
//! An episode belongs to one limit, of the process or of addresses. It ends when no request has met the limit for a
//! while. Nothing here refuses or logs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::client_address::ClientAddress;

/// Time without refusals after which an episode ends.
const QUIET_TIME: Duration = Duration::from_secs(10);

/// Maximum number of addresses that the end of an episode names.
const NAMED_MAX: usize = 8;

/// The clients that a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// All clients of the process.
    Process,
    /// The clients of one address.
    Address,
}

impl LimitScope {
    /// Returns its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Address => "address",
        }
    }
}

/// A limit in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetLimit {
    /// The limited resource, in plural.
    pub name: &'static str,
    /// The clients that it counts.
    pub scope: LimitScope,
}

/// An episode that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedEpisode {
    /// The first addresses of the episode; `None` without addresses.
    pub addresses: Option<String>,
    /// Number of refusals.
    pub refused: u64,
    /// Time from the first refusal to the last one, in seconds.
    pub seconds: u64,
}

/// The present episodes. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub struct RefusalEpisodes(Arc<Mutex<EpisodeTable>>);

impl RefusalEpisodes {
    /// Records a refusal, with the address if it has met its own limit. Returns true if an episode begins with it; the
    /// caller then awaits [`RefusalEpisodes::ended`].
    #[must_use]
    pub fn record(&self, limit: MetLimit, address: Option<ClientAddress>) -> bool {
        self.lock().record(limit, address, Instant::now())
    }

    /// Waits for the end of an episode.
    pub async fn ended(self, limit: MetLimit) -> EndedEpisode {
        loop {
            tokio::time::sleep(QUIET_TIME / 2).await;
            let Some(ended) = self.lock().take_ended(limit, Instant::now()) else { continue };
            let OverloadEpisode { began, newest, refused, addresses, .. } = ended;
            return EndedEpisode {
                addresses: addresses.shown(),
                refused,
                seconds: newest.duration_since(began).as_secs(),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, EpisodeTable> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most one episode of each limit.
#[derive(Debug, Default)]
struct EpisodeTable(Vec<OverloadEpisode>);

#[derive(Debug, PartialEq, Eq)]
struct OverloadEpisode {
    limit: MetLimit,
    began: Instant,
    newest: Instant,
    refused: u64,
    addresses: RefusedAddresses,
}

/// The first [`NAMED_MAX`] addresses of an episode.
#[derive(Debug, Default, PartialEq, Eq)]
struct RefusedAddresses {
    named: Vec<ClientAddress>,
    has_more: bool,
}

impl RefusedAddresses {
    fn note(&mut self, address: ClientAddress) {
        if self.named.contains(&address) {
            return;
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(address);
        } else {
            self.has_more = true;
        }
    }

    /// Returns the list for a log line; `None` without addresses.
    fn shown(&self) -> Option<String> {
        let named: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        let more = if self.has_more { " and more" } else { "" };
        (!named.is_empty()).then(|| named.join(", ") + more)
    }
}

impl EpisodeTable {
    /// Counts a refusal. Returns true if an episode begins with it.
    fn record(&mut self, limit: MetLimit, address: Option<ClientAddress>, now: Instant) -> bool {
        let known = self.0.iter().position(|episode| episode.limit == limit);
        if known.is_none() {
            let addresses = RefusedAddresses::default();
            self.0.push(OverloadEpisode { limit, began: now, newest: now, refused: 0, addresses });
        }
        let at = known.unwrap_or(self.0.len() - 1);
        let episode = &mut self.0[at];
        (episode.newest, episode.refused) = (now, episode.refused + 1);
        address.into_iter().for_each(|address| episode.addresses.note(address));
        known.is_none()
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
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn address(number: u32) -> ClientAddress {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn episode_counts_the_refusals_of_its_limit() {
        let limit = |name, scope| MetLimit { name, scope };
        let streams = limit("event streams", LimitScope::Process);
        let listings = limit("listings under way", LimitScope::Address);
        let (mut episodes, start, second) = (EpisodeTable::default(), Instant::now(), Duration::from_secs(1));
        assert!(episodes.record(listings, Some(address(1)), start));
        assert!(!episodes.record(listings, Some(address(2)), start + second), "one line for each episode");
        assert!(episodes.record(streams, None, start + second));
        assert!(episodes.record(limit("listings under way", LimitScope::Process), None, start + second));
        assert!(!episodes.record(listings, Some(address(1)), start + 2 * second));

        assert_eq!(episodes.take_ended(listings, start + QUIET_TIME), None, "the newest refusal counts");
        let ended = episodes.take_ended(streams, start + second + QUIET_TIME).unwrap();
        assert_eq!((ended.began, ended.newest, ended.refused), (start + second, start + second, 1));
        assert_eq!(ended.addresses.shown(), None);
        let ended = episodes.take_ended(listings, start + 2 * second + QUIET_TIME).unwrap();
        assert_eq!((ended.began, ended.newest, ended.refused), (start, start + 2 * second, 3));
        assert_eq!(ended.addresses.shown().as_deref(), Some("0.0.0.1, 0.0.0.2"));
        assert!(episodes.record(listings, None, start + 2 * QUIET_TIME), "another episode begins");
    }

    #[test]
    fn end_names_a_bounded_number_of_addresses() {
        let mut addresses = RefusedAddresses::default();
        (1..=8).chain(1..=8).for_each(|number| addresses.note(address(number)));
        assert!(addresses.shown().unwrap().ends_with(", 0.0.0.8"));
        addresses.note(address(9));
        addresses.note(address(1));
        assert!(addresses.shown().unwrap().ends_with(", 0.0.0.8 and more"));
    }
}
