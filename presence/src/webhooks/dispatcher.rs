//! [`WebhookDispatcher`]: takes the lead among the processes that send webhooks, and runs a worker for each webhook.
//!
//! The lead only avoids that several processes send the same: every step of a worker compares it again in the store. A
//! process that stops gives it up; after a crash another process leads within 6 s.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry as MetricsRegistry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::host::callback::CallbackClient;
use crate::registry::{Registry, RegistryError, WebhookLead};

use super::config::WebhookConfig;
use super::metrics::WebhookMetrics;
use super::settings::{WebhookRules, WebhookSettings};
use super::worker::WebhookWorker;

/// Interval of the renewals of the lead.
const RENEWAL: Duration = Duration::from_secs(1);
/// Time after the last renewal at which another process may lead.
const LEAD_TIME: Duration = Duration::from_secs(5);
/// Maximum wait for the store at the end of the process.
const RESIGN_MAX: Duration = Duration::from_secs(1);
/// Pause after an event, so that a busy log wakes the workers some hundred times a second at most.
const WAKE_PAUSE: Duration = Duration::from_millis(3);
/// Pause after a failed read.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Interval at which a process without webhooks looks for a log that no webhook reads.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Time without a lead after which events are no longer logged, if a process without webhooks runs.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Sends the webhooks of a cluster, if this process leads.
#[derive(Debug)]
pub struct WebhookDispatcher {
    store: Registry,
    webhooks: Vec<Arc<WebhookSettings>>,
    names: Vec<String>,
    wanted: String,
    rules: Arc<WebhookRules>,
    process: Arc<str>,
    client: CallbackClient,
    metrics: WebhookMetrics,
}

impl WebhookDispatcher {
    /// Creates the dispatcher of a process with this node id.
    #[must_use]
    pub fn new(
        store: Registry,
        node: &str,
        WebhookConfig { webhooks, rules, .. }: WebhookConfig,
        registry: &MetricsRegistry,
    ) -> Self {
        Self {
            store,
            wanted: WebhookSettings::wanted(&webhooks, rules.log),
            metrics: WebhookMetrics::new(registry, &webhooks),
            names: webhooks.iter().map(|webhook| webhook.name.clone()).collect(),
            webhooks: webhooks.into_iter().map(Arc::new).collect(),
            process: format!("{node}/{}", uuid::Uuid::new_v4().simple()).into(),
            client: CallbackClient::new(rules.allow_private),
            rules: Arc::new(rules),
        }
    }

    /// Takes or renews the lead; events are logged from the first time on. Returns false if another process leads.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn take_lead(&self) -> Result<bool, RegistryError> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let lead = WebhookLead { process: &self.process, lasts: LEAD_TIME };
        self.store.lead_webhooks(&lead, &self.wanted, &names).await
    }

    /// Runs until `stop`, then gives up the lead.
    pub async fn run(self, stop: CancellationToken) {
        let mut workers = JoinSet::new();
        if stop.run_until_cancelled(self.lead(&mut workers)).await.is_none() {
            workers.shutdown().await;
            self.metrics.leading.set(0);
            // Without an answer the lead ends by itself.
            let _ = timeout(RESIGN_MAX, self.store.resign_webhooks(&self.process)).await;
        }
    }

    /// Renews the lead, and starts and ends the workers with it. Never returns.
    async fn lead(&self, workers: &mut JoinSet<()>) {
        let (mut renewals, mut is_away) = (interval(RENEWAL), false);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renewals.tick().await;
            // A worker ends when it finds another leader, or by a panic.
            let has_ended = workers.try_join_next().is_some();
            match self.take_lead().await {
                Ok(leads) => {
                    is_away = false;
                    if workers.is_empty() || has_ended || !leads {
                        self.restart(workers, leads).await;
                    }
                }
                // The workers go on: each of their steps fails without the lead.
                Err(error) => report(&mut is_away, &error),
            }
        }
    }

    /// Ends all workers, and starts them if this process leads.
    async fn restart(&self, workers: &mut JoinSet<()>, leads: bool) {
        let led = !workers.is_empty();
        workers.shutdown().await;
        self.metrics.leading.set(leads.into());
        if led && !leads {
            tracing::info!("webhooks left to another process");
            self.names.iter().for_each(|name| self.metrics.stand(name, 0, 0));
        }
        if !leads {
            return;
        }
        tracing::info!(webhooks = self.webhooks.len(), "webhooks taken over");
        let (news, wakes) = watch::channel(());
        workers.spawn(follow(self.store.clone(), news));
        for webhook in &self.webhooks {
            let worker = WebhookWorker {
                store: self.store.clone(),
                client: self.client.clone(),
                webhook: Arc::clone(webhook),
                rules: Arc::clone(&self.rules),
                process: Arc::clone(&self.process),
                metrics: self.metrics.clone(),
                news: wakes.clone(),
            };
            workers.spawn(worker.run());
        }
    }
}

/// Logs the first of several failures.
fn report(is_away: &mut bool, error: &RegistryError) {
    if !std::mem::replace(is_away, true) {
        tracing::warn!(%error, "webhooks interrupted");
    }
}

/// Wakes the workers when the log has new events. Never returns.
async fn follow(store: Registry, news: watch::Sender<()>) {
    let (mut tail, mut seen) = (store.webhook_log_tail(), String::new());
    loop {
        match tail.wait(&seen).await {
            Ok(newest) => {
                seen = newest;
                news.send_replace(());
                sleep(WAKE_PAUSE).await;
            }
            Err(error) => {
                tracing::debug!(%error, "log of webhooks not read");
                sleep(READ_PAUSE).await;
            }
        }
    }
}

/// Ends the logging of events once no process has sent webhooks for an hour. Runs in processes without webhooks, and
/// never returns.
pub async fn forget_unused(store: Registry) {
    let mut checks = interval(FORGET_INTERVAL);
    loop {
        checks.tick().await;
        match store.forget_webhooks(FORGET_AFTER).await {
            Ok(true) => tracing::info!("events are no longer logged: no process has webhooks"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "log of webhooks not checked"),
        }
    }
}
