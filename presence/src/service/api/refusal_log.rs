//! [`RefusalLog`]: the refusals of overload in the log: one line at the begin of an episode and one at its end.

use crate::host::client_address::ClientAddress;
use crate::host::refusal_episodes::{EndedEpisode, MetLimit, RefusalEpisodes};

/// The log of refusals. Cheap to clone: clones share the episodes.
#[derive(Debug, Clone)]
pub(super) struct RefusalLog {
    episodes: RefusalEpisodes,
    names_addresses: bool,
}

impl RefusalLog {
    /// Creates the log; `names_addresses` is `log.addresses`.
    pub(super) fn new(names_addresses: bool) -> Self {
        Self { episodes: RefusalEpisodes::default(), names_addresses }
    }

    /// Records a refusal, with the address if it has met its own limit. Logs the episode that begins with it, and
    /// spawns a task that logs its end, with the addresses of the episode.
    pub(super) fn record(&self, limit: MetLimit, address: Option<ClientAddress>) {
        let address = address.filter(|_| self.names_addresses);
        if !self.episodes.record(limit, address) {
            return;
        }
        let (address, scope) = (address.map(tracing::field::display), limit.scope.name());
        tracing::warn!(limit = limit.name, scope, address, "api requests refused");
        let ended = self.episodes.clone().ended(limit);
        tokio::spawn(async move {
            let EndedEpisode { addresses, refused, seconds } = ended.await;
            tracing::info!(limit = limit.name, scope, addresses, refused, seconds, "api refusals ended");
        });
    }
}
