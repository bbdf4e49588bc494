//! The presence process, put together: registry, HTTP API, operators' door, failure detector; how they start and end.
//!
//! `main` starts it with checked settings and shuts it down; tests do the same in their own process. Listeners are bound
//! before [`Presence::start`] returns. Redis need not be there then: the process says that it is not ready, and is ready
//! when Redis is. No rule of names, rooms or leases is in here.

mod http;
mod numbers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::admin::{self, AdminRoutes, Readiness};
use crate::host::loop_lag;
use crate::host::metrics::Metrics;
use crate::host::program::Drained;
use crate::lease::beat::Sample;
use crate::lease::detector::{self, ReapOutcome};
use crate::registry::{RedisRegistry, Registry};
use crate::service::api;
use crate::service::config::Config;
use crate::store::redis::RedisStore;

/// Ready while the registry has answered within this time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// How often a change of readiness is looked for, to log it.
const READINESS_ROUND: Duration = Duration::from_millis(250);

/// Where a presence process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The HTTP API.
    pub api: SocketAddr,
    /// The operators' door.
    pub admin: SocketAddr,
}

/// A running presence process. Dropping it ends its tasks without waiting for them.
#[derive(Debug)]
pub struct Presence {
    addresses: Addresses,
    metrics: Metrics,
    /// The API's listener, until its last answer.
    api: JoinHandle<()>,
    /// Everything else.
    tasks: TaskTracker,
    /// Ends the API: no new connections, event streams close, answers under way are finished.
    leave: CancellationToken,
    /// Ends everything, `leave` included.
    stop: CancellationToken,
}

impl Presence {
    /// Binds the listeners and starts every task. Needs a tokio runtime.
    ///
    /// # Errors
    /// Redis' URL cannot be understood, it is unfit, or an address cannot be bound. An unreachable Redis is no error.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let redis = RedisStore::open(config.redis.reveal(), &config.prefix).context("open redis")?;
        let is_there = redis.is_fit().await?;
        let registry = Registry::Redis(RedisRegistry::new(redis.clone()));
        let metrics = Metrics::new();
        let api = bind(config.api).await.context("bind the api listener")?;
        let admin = bind(config.admin).await.context("bind the admin listener")?;
        let addresses = Addresses { api: api.local_addr()?, admin: admin.local_addr()? };

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let leave = stop.child_token();
        let (samples, sampled) = watch::channel(None);
        let ready = {
            let (leave, sampled) = (leave.clone(), sampled.clone());
            move || readiness(&leave, sampled.borrow().as_ref())
        };
        if !is_there {
            spawn(&tasks, &stop, redis.clone().complain_when_unfit());
        }
        spawn(&tasks, &stop, observe(registry.clone(), samples));
        spawn(&tasks, &stop, reap(registry.clone(), sampled, metrics.clone()));
        // Up to the end only: that it is not ready then is no news.
        spawn(&tasks, &leave, log_readiness(ready.clone()));
        redis.calls().register(&metrics.registry);
        spawn(&tasks, &stop, loop_lag::watch(metrics.registry.clone()));
        let numbers = numbers::numbers(&metrics.registry, registry.clone(), redis);
        let answers = AdminRoutes {
            metrics: metrics.registry.clone(),
            ready: Arc::new(ready),
            before_scrape: Some(numbers),
            documents: Vec::new(),
        };
        let operators = admin::serve(admin, answers, stop.clone());
        tasks.spawn(async {
            if let Err(error) = operators.await {
                tracing::error!(%error, "admin listener broke");
            }
        });
        let router = api::router(registry, metrics.clone(), leave.clone());
        let api = tokio::spawn(http::serve(api, router, leave.clone()));
        Ok(Self { addresses, metrics, api, tasks, leave, stop })
    }

    /// Where it listens: the real ports, also where the settings say 0.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where its numbers are.
    #[must_use]
    pub fn metrics(&self) -> &prometheus::Registry {
        &self.metrics.registry
    }

    /// Stops taking requests, finishes those under way within `grace`, then ends everything else. Until then the
    /// operators' door answers, and says that the process is not ready. Dropping the future ends all at once.
    pub async fn shutdown(mut self, grace: Duration) -> Drained {
        self.leave.cancel();
        let answered = tokio::time::timeout(grace, &mut self.api).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        match answered {
            Ok(Ok(())) => Drained::Whole,
            Ok(Err(error)) => {
                tracing::error!(%error, "api listener broke");
                Drained::Whole
            }
            Err(_) => Drained::GraceRanOut,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.cancel();
        self.api.abort();
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| address.to_string())
}

/// Runs a task to its end or to `stop`, whichever is first.
fn spawn(tasks: &TaskTracker, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(stop.clone().run_until_cancelled_owned(task));
}

async fn observe(registry: Registry, samples: watch::Sender<Option<Sample>>) {
    detector::observe(&registry, samples).await;
}

/// The failure detector and its clean-up.
async fn reap(registry: Registry, samples: watch::Receiver<Option<Sample>>, metrics: Metrics) {
    let count = |deed| match deed {
        ReapOutcome::Fenced => metrics.fences.inc(),
        ReapOutcome::Reaped(reaped) => {
            metrics.reaped_nicks.inc_by(reaped.nicks);
            metrics.reaped_members.inc_by(reaped.members);
        }
    };
    detector::run(registry, samples, || None, count).await;
}

/// Whether questions are answered: judged by the answers that the failure detector gets, so that a thousand checks cost
/// Redis nothing.
fn readiness(leave: &CancellationToken, newest: Option<&Sample>) -> Readiness {
    let silent = newest.map(|sample| sample.received.elapsed());
    let reasons = [
        leave.is_cancelled().then(|| "the process is ending".to_owned()),
        match silent {
            None => Some("redis has not answered yet".to_owned()),
            Some(silent) if silent > ANSWERED_WITHIN => {
                Some(format!("redis has not answered for {} s", silent.as_secs()))
            }
            Some(_) => None,
        },
    ];
    Readiness { reasons: reasons.into_iter().flatten().collect() }
}

/// Logs when the process becomes ready and when it no longer is.
async fn log_readiness(ready: impl Fn() -> Readiness) {
    let mut rounds = tokio::time::interval(READINESS_ROUND);
    let mut was_ready = false;
    loop {
        rounds.tick().await;
        let Readiness { reasons } = ready();
        match (was_ready, reasons.as_slice()) {
            (false, []) => tracing::info!("ready"),
            (true, [_, ..]) => tracing::warn!(?reasons, "not ready"),
            _ => continue,
        }
        was_ready = !was_ready;
    }
}
