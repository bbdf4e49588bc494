//! [`EmbeddedServices`]: the server API and the webhooks of a gateway without Redis, on its own store.
//!
//! In a cluster the presence service has these parts. Invariant: with Redis there is nothing of it here. The store is
//! lost when the process ends, so a drain waits a while for the last deliveries.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use presence::host::descriptors::DescriptorLimit;
use presence::host::metrics::ApiMetrics;
use presence::registry::Registry;
use presence::service::server::{ApiServer, ApiServerSettings};
use presence::webhooks::WebhookDispatcher;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Drained;
use crate::config::{EmbeddedApiConfig, GatewayConfig};

/// Part of the descriptors of the process that connections of the API may use: one of eight.
const DESCRIPTOR_SHARE: u64 = 8;
/// Maximum wait for the last deliveries of webhooks at the end.
const LAST_DELIVERIES_MAX: Duration = Duration::from_secs(5);
/// Interval at which the end looks for events that wait.
const LAST_DELIVERIES_CHECK: Duration = Duration::from_millis(20);

/// The running parts; none with Redis. Dropping them ends them at once.
#[derive(Debug)]
pub(super) struct EmbeddedServices {
    api: Option<ApiServer>,
    webhooks: Option<JoinHandle<()>>,
    registry: Registry,
    /// Ends the API: no new connections, event streams close, requests in flight are answered.
    closing: DropGuard,
    /// Ends the webhooks.
    stop: DropGuard,
}

/// Binds the listener of the API, if it is set.
pub(super) async fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).with_context(|| format!("bind api.addr {address}"))
}

/// Returns the maximum number of connections of the API.
fn api_connections(descriptors: DescriptorLimit) -> usize {
    let share = usize::try_from(descriptors.soft / DESCRIPTOR_SHARE).unwrap_or(usize::MAX);
    share.clamp(1, ApiServer::CONNECTIONS_MAX)
}

impl EmbeddedServices {
    /// Starts the parts that are set. Events are logged for webhooks from here on, so clients are served after this.
    ///
    /// # Errors
    /// Another gateway on this store sends webhooks.
    pub(super) async fn start(
        config: &GatewayConfig,
        listener: Option<TcpListener>,
        registry: &Registry,
        metrics: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let EmbeddedApiConfig { access, webhooks, .. } = &config.api;
        let mut sending = None;
        if !webhooks.webhooks.is_empty() {
            let dispatcher = WebhookDispatcher::new(registry.clone(), &config.node, webhooks.clone(), metrics);
            dispatcher.take_lead().await.context("log events for webhooks")?;
            sending = Some(tokio::spawn(dispatcher.run(stop.clone())));
        }
        let serve = |listener| {
            let settings = ApiServerSettings {
                access: access.clone(),
                proxies: config.limits.addresses.proxies.clone(),
                connections: api_connections(DescriptorLimit::of_process()),
                log_addresses: config.logs.addresses,
            };
            ApiServer::start(listener, registry.clone(), ApiMetrics::new(metrics), settings, closing.clone())
        };
        let (api, registry) = (listener.map(serve), registry.clone());
        Ok(Self { api, webhooks: sending, registry, closing: closing.drop_guard(), stop: stop.drop_guard() })
    }

    /// Returns the descriptors for client connections: those of the process without the share of the API.
    pub(super) fn client_descriptors(&self) -> DescriptorLimit {
        let whole = DescriptorLimit::of_process();
        let used = self.api.as_ref().map_or(0, |_| api_connections(whole) as u64);
        DescriptorLimit { soft: whole.soft - used, ..whole }
    }

    /// Applies keys and origins.
    pub(super) fn reload(&self, config: &EmbeddedApiConfig) {
        if let Some(api) = &self.api {
            api.reload(config.access.clone());
        }
    }

    /// Waits until the API has failed. Never returns without one.
    pub(super) async fn api_failed(&self) {
        match &self.api {
            Some(api) => api.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends in order, until a deadline: answers the requests in flight, delivers the last events, and stops.
    pub(super) async fn end(self, deadline: Instant) -> Drained {
        drop(self.closing);
        let drained = match self.api {
            Some(mut api) => api.finish(deadline.saturating_duration_since(Instant::now())).await,
            None => Drained::Complete,
        };
        if let Some(webhooks) = self.webhooks {
            let last = deadline.min(Instant::now() + LAST_DELIVERIES_MAX);
            if timeout_at(last, all_settled(&self.registry)).await.is_err() {
                let events = waiting(&self.registry).await;
                tracing::warn!(events, "webhook events lost at the end");
            }
            drop(self.stop);
            // It ends at once, because the store is in this process.
            let _ = webhooks.await;
        }
        drained
    }
}

/// Waits until no webhook has events that wait.
async fn all_settled(registry: &Registry) {
    while waiting(registry).await > 0 {
        sleep(LAST_DELIVERIES_CHECK).await;
    }
}

/// Returns the number of events that wait for the slowest webhook.
async fn waiting(registry: &Registry) -> u64 {
    let rows = registry.show_webhooks().await.map(|shown| shown.rows).unwrap_or_default();
    rows.iter().map(|row| row.waiting).max().unwrap_or(0)
}
