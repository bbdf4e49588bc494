//! Composition root of the presence process: registry, HTTP API, admin listener and failure detector.
//!
//! [`Presence::start`] binds the listeners and starts every task; [`Presence::shutdown`] ends them. Redis may be away
//! at the start: the process is not ready until it answers. It decides nothing.

mod api_server;
mod http;
mod numbers;
mod write_stall;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::admin::{self, AdminRoutes};
use crate::host::descriptors::DescriptorLimit;
use crate::host::loop_lag;
use crate::host::metrics::PresenceMetrics;
use crate::host::program::Drained;
use crate::host::reloadable::Reloadable;
use crate::lease::LeaseSample;
use crate::lease::detector::{self, ReapOutcome};
use crate::model::{Retention, RoomPolicies};
use crate::registry::{RedisRegistry, Registry};
use crate::service::config::PresenceConfig;
use crate::service::readiness;
use crate::store::redis::RedisStore;
use crate::webhooks::{WebhookDispatcher, forget_unused};

pub use self::api_server::{ApiServer, ApiServerSettings};

/// Listening addresses of a presence process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceAddresses {
    /// The HTTP API.
    pub api: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
}

/// A running presence process. Dropping it ends its tasks without waiting for them.
#[derive(Debug)]
pub struct Presence {
    addresses: PresenceAddresses,
    metrics: PresenceMetrics,
    /// The API server; ends after its last answer.
    api: ApiServer,
    retention: Reloadable<Retention>,
    rooms: Reloadable<RoomPolicies>,
    /// All other tasks.
    tasks: TaskTracker,
    /// Ends the API: no new connections, event streams close, requests in flight are answered.
    closing: CancellationToken,
    /// Ends every task, including the API.
    stop: CancellationToken,
}

impl Presence {
    /// Binds the listeners and starts every task. Needs a tokio runtime.
    ///
    /// # Errors
    /// The Redis URL is invalid, Redis is unfit, or an address cannot be bound. If Redis is unreachable, the process
    /// starts not ready.
    pub async fn start(config: PresenceConfig) -> anyhow::Result<Self> {
        let redis = RedisStore::open_with(config.redis.reveal(), &config.redis_tls, &config.prefix);
        let redis = redis.context("open redis")?;
        redis.is_fit().await?;
        let (retention, rooms) = (Reloadable::from(config.history), Reloadable::from(config.rooms));
        let store = RedisRegistry::new(redis.clone());
        let store = store.with_retention(retention.clone()).with_room_policies(rooms.clone());
        let registry = Registry::Redis(store.clone());
        let metrics = PresenceMetrics::new();
        let api = bind(config.api).await.context("bind the api listener")?;
        let admin = bind(config.admin).await.context("bind the admin listener")?;
        let addresses = PresenceAddresses { api: api.local_addr()?, admin: admin.local_addr()? };

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let closing = stop.child_token();
        let (samples, newest) = watch::channel(None);
        let all_reasons = {
            let (closing, newest, redis) = (closing.clone(), newest.clone(), redis.clone());
            move || {
                let refused = redis.reasons();
                readiness::judge(closing.is_cancelled(), newest.borrow().as_ref(), !refused.is_empty()).with(refused)
            }
        };
        // A process that shuts down is expected to be unready, so only answers count here.
        let answer_reasons = {
            let (newest, redis) = (newest.clone(), redis.clone());
            move || readiness::judge(false, newest.borrow().as_ref(), !redis.reasons().is_empty())
        };
        spawn(&tasks, &stop, redis.clone().watch());
        spawn(&tasks, &stop, detector::observe(registry.clone(), samples));
        spawn(&tasks, &stop, reap(registry.clone(), newest, metrics.clone()));
        spawn(&tasks, &closing, readiness::log_changes(answer_reasons));
        redis.register_metrics(&metrics.registry);
        spawn(&tasks, &stop, loop_lag::watch(metrics.registry.clone()));
        if config.webhooks.webhooks.is_empty() {
            spawn(&tasks, &stop, forget_unused(registry.clone()));
        } else {
            let dispatcher = WebhookDispatcher::new(registry.clone(), &config.node, config.webhooks, &metrics.registry);
            tasks.spawn(dispatcher.run(closing.clone()));
        }
        let refresh = numbers::register(&metrics.registry, store, redis);
        let answers = AdminRoutes {
            metrics: metrics.registry.clone(),
            ready: Arc::new(all_reasons),
            before_scrape: Some(refresh),
            documents: Vec::new(),
        };
        tasks.spawn(admin::serve(admin, answers, stop.clone()));
        let settings = ApiServerSettings {
            access: config.access,
            proxies: config.proxies,
            connections: DescriptorLimit::of_process().connections(ApiServer::CONNECTIONS_MAX),
            log_addresses: config.logs.addresses,
        };
        let api = ApiServer::start(api, registry, metrics.api.clone(), settings, closing.clone());
        Ok(Self { addresses, metrics, api, retention, rooms, tasks, closing, stop })
    }

    /// Returns the bound addresses, with the real ports where the settings have port 0.
    #[must_use]
    pub fn addresses(&self) -> PresenceAddresses {
        self.addresses
    }

    /// Returns the metrics registry.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.metrics.registry
    }

    /// Applies keys, origins and retention, for requests that begin from now on.
    pub fn reload(&self, config: &PresenceConfig) {
        self.api.reload(config.access.clone());
        self.retention.set(config.history);
        self.rooms.set(config.rooms.clone());
    }

    /// Waits for the end of the API server. While the process runs only a failure ends it.
    pub async fn api_ended(&self) {
        self.api.ended().await;
    }

    /// Stops accepting requests, answers those in flight within `grace`, then ends every other task. Until then the
    /// admin listener reports the process as not ready. Dropping the future ends everything at once.
    pub async fn shutdown(mut self, grace: Duration) -> Drained {
        self.closing.cancel();
        let drained = self.api.finish(grace).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        drained
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| address.to_string())
}

/// Runs a task until it ends or `stop` is cancelled.
fn spawn(tasks: &TaskTracker, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(stop.clone().run_until_cancelled_owned(task));
}

/// Runs the failure detector and counts what it does.
async fn reap(registry: Registry, samples: watch::Receiver<Option<LeaseSample>>, metrics: PresenceMetrics) {
    let count = |outcome| match outcome {
        ReapOutcome::Fenced => metrics.fences.inc(),
        ReapOutcome::Reaped(reaped) => {
            metrics.reaped_nicks.inc_by(reaped.nicks);
            metrics.reaped_members.inc_by(reaped.members);
        }
    };
    detector::run(registry, samples, || None, count).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::host::settings::{Settings, Sources};
    use crate::service::config::KEYS;

    #[tokio::test]
    async fn failed_api_server_makes_drain_fail() {
        let flags = ["api.addr=127.0.0.1:0", "admin.addr=127.0.0.1:0"].map(str::to_owned).into();
        let environment = vec![("PARLEY__REDIS__URL".into(), "redis://127.0.0.1:1".into())];
        let sources = Sources { file: None, environment, flags };
        let config = PresenceConfig::new(&Settings::load(KEYS, &sources).unwrap()).unwrap();
        let presence = Presence::start(config).await.unwrap();
        presence.api.abort();
        presence.api_ended().await;
        assert_eq!(presence.shutdown(Duration::from_secs(5)).await, Drained::Failed);
    }
}
