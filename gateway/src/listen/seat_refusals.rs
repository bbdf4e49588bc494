//! [`SeatRefusals`]: connections refused for want of a seat, as metrics and in the log.
//!
//! An episode of refusals has two lines, however many connections it refuses. Invariant: addresses are in no metric,
//! and in the log only if `log.addresses` allows it.

use std::sync::Arc;

use presence::host::client_address::ClientAddress;
use presence::host::refusal_episodes::{EndedEpisode, LimitScope, MetLimit, RefusalEpisodes};

use crate::metrics::{Metrics, SeatLimit};

/// The record of refused connections.
#[derive(Debug)]
pub(super) struct SeatRefusals {
    episodes: RefusalEpisodes,
    names_addresses: bool,
    metrics: Arc<Metrics>,
}

impl SeatRefusals {
    /// Creates the record; `names_addresses` is `log.addresses`.
    pub(super) fn new(metrics: Arc<Metrics>, names_addresses: bool) -> Self {
        Self { episodes: RefusalEpisodes::default(), names_addresses, metrics }
    }

    /// Records a refused connection. The log names its address if that has met its own limit.
    pub(super) fn record(&self, met: SeatLimit, address: Option<ClientAddress>) {
        self.metrics.connections_refused[met].inc();
        let (limit, address) = match met {
            SeatLimit::Gateway => (MetLimit { name: "connections", scope: LimitScope::Process }, None),
            SeatLimit::Unregistered => {
                (MetLimit { name: "unregistered connections", scope: LimitScope::Process }, None)
            }
            SeatLimit::Address => (MetLimit { name: "connections", scope: LimitScope::Address }, address),
        };
        let address = address.filter(|_| self.names_addresses);
        if !self.episodes.record(limit, address) {
            return;
        }
        let (name, scope, address) = (limit.name, limit.scope.name(), address.map(tracing::field::display));
        tracing::info!(event = "seats_refused", limit = name, scope, address, "connections refused");
        let ended = self.episodes.clone().ended(limit);
        tokio::spawn(async move {
            let EndedEpisode { addresses, refused, seconds } = ended.await;
            let event = "seats_refused_ended";
            tracing::info!(event, limit = name, scope, addresses, refused, seconds, "connection refusals ended");
        });
    }
}
