//! [`WebhookWorker`]: sends the events of one webhook, in order, one delivery at a time.
//!
//! A receiver that fails delays only its own webhook. While a delivery is under way new events wait, and go together in
//! the next one: batches grow with the load, without a timer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use utoipa::ToSchema;

use crate::host::callback::{CallbackClient, CallbackRequest, signature};
use crate::host::failpoints::{Failpoint, is_disabled};
use crate::registry::{LoggedEvent, Registry, RegistryError, TakenEvents, WebhookSettlement};

use super::event::{OutgoingEvent, gap};
use super::metrics::{DeliveryOutcome, WebhookMetrics};
use super::settings::{WebhookRules, WebhookSettings};

/// Maximum number of events, and of their bytes, in a delivery. A larger event goes alone.
const BATCH: [usize; 2] = [100, 512 * 1024];
/// Wait for a wake before the log is read again all the same.
const IDLE: Duration = Duration::from_secs(1);
/// Pause after a failed read.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Pauses after failed deliveries: they double from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Sends the events of one webhook.
pub(super) struct WebhookWorker {
    pub(super) store: Registry,
    pub(super) client: CallbackClient,
    pub(super) webhook: Arc<WebhookSettings>,
    pub(super) rules: Arc<WebhookRules>,
    pub(super) process: Arc<str>,
    pub(super) metrics: WebhookMetrics,
    /// Changes when the log has new events.
    pub(super) news: watch::Receiver<()>,
}

/// The events of a delivery.
struct Batch {
    /// The cursor before and after it.
    from: u64,
    to: u64,
    /// The entries that this webhook wants, each with its event.
    events: Vec<(LoggedEvent, OutgoingEvent)>,
    /// The number of events that the log had dropped before them.
    dropped: u64,
    /// The time of the store.
    now: u64,
}

/// The body of a delivery.
#[derive(Serialize)]
struct DeliveryBody<'a> {
    sent: u64,
    events: Vec<&'a RawValue>,
}

/// The state of the deliveries to a receiver.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryReport {
    /// The origin of the address.
    pub url: String,
    /// Unix milliseconds of the last accepted delivery by this process.
    pub accepted: Option<u64>,
    /// Unix milliseconds of the first failure since then.
    pub failing_since: Option<u64>,
    /// Number of failures since then.
    pub failures: u32,
    /// The last failure.
    pub error: Option<String>,
}

impl DeliveryReport {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("a report is texts and numbers")
    }
}

impl WebhookWorker {
    /// Runs until another process leads.
    pub(super) async fn run(mut self) {
        let mut report = DeliveryReport { url: self.webhook.url.to_string(), ..DeliveryReport::default() };
        loop {
            self.news.borrow_and_update();
            match self.store.take_webhook_events(&self.process, &self.webhook.name, BATCH).await {
                Ok(Some(taken)) => {
                    let step = self.step(self.batch(taken), &mut report).await;
                    if !self.is_leading(step).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Waits after a failed step. Returns false once another process leads.
    async fn is_leading(&self, step: Result<bool, RegistryError>) -> bool {
        match step {
            Ok(leads) => leads,
            Err(error) => {
                self.pause(&error).await;
                true
            }
        }
    }

    async fn pause(&self, error: &RegistryError) {
        tracing::debug!(%error, webhook = %self.webhook.name, "log of webhooks not read");
        sleep(READ_PAUSE).await;
    }

    /// Selects the events that the webhook wants.
    fn batch(&self, TakenEvents { cursor, newest, now, events }: TakenEvents) -> Batch {
        let (first, since) = events.first().map_or((newest + 1, now), |event| (event.number, event.logged));
        let gap = gap(cursor, first, since);
        let to = events.last().map_or(newest.max(cursor), |event| event.number);
        let outgoing = |event: LoggedEvent| Some((OutgoingEvent::of(&event)?, event)).map(|(out, event)| (event, out));
        let all = gap.into_iter().chain(events).filter_map(outgoing);
        let events: Vec<_> = all.filter(|(logged, event)| self.wants(logged, event)).collect();
        let lag = events.first().map_or(0, |(oldest, _)| now.saturating_sub(oldest.logged));
        self.metrics.stand(&self.webhook.name, newest.saturating_sub(cursor), lag);
        Batch { from: cursor, to, events, dropped: first.saturating_sub(cursor + 1), now }
    }

    fn wants(&self, logged: &LoggedEvent, event: &OutgoingEvent) -> bool {
        match (&logged.only, event.kind) {
            (Some(only), _) => *only == self.webhook.name,
            (None, Some(kind)) => self.webhook.wants(kind, event.room.as_ref()),
            (None, None) => true,
        }
    }

    /// Sends a batch and settles it; without events, waits for some. Returns false once another process leads.
    async fn step(&mut self, batch: Batch, report: &mut DeliveryReport) -> Result<bool, RegistryError> {
        if batch.events.is_empty() {
            if batch.to > batch.from {
                return self.settle(&batch, batch.to, &[], report).await;
            }
            // A closed channel ends with its worker.
            let _ = timeout(IDLE, self.news.changed()).await;
            return Ok(true);
        }
        if report.failures > 0 {
            let dead = self.expired(&batch);
            if !dead.is_empty() {
                let to = if dead.len() == batch.events.len() { batch.to } else { dead[dead.len() - 1].number };
                self.metrics.dead(&self.webhook.name, dead.len());
                tracing::warn!(webhook = %self.webhook.name, events = dead.len(), "webhook events became dead letters");
                return self.settle(&batch, to, &dead, report).await;
            }
        }
        match self.deliver(&batch).await {
            Ok(()) => {
                if report.failures > 0 {
                    tracing::info!(webhook = %self.webhook.name, "webhook deliveries restored");
                }
                let url = std::mem::take(&mut report.url);
                *report = DeliveryReport { url, accepted: Some(unix_ms()), ..DeliveryReport::default() };
                self.metrics.accepted(&self.webhook.name, batch.events.len());
                self.settle(&batch, batch.to, &[], report).await
            }
            Err(error) => {
                if report.failures == 0 {
                    tracing::warn!(webhook = %self.webhook.name, url = %self.webhook.url, error, "webhook not delivered");
                }
                report.failures = report.failures.saturating_add(1);
                report.failing_since.get_or_insert_with(unix_ms);
                report.error = Some(error);
                let to = if is_disabled(Failpoint::WebhookRetry) { batch.to } else { batch.from };
                let leads = self.settle(&batch, to, &[], report).await;
                sleep(retry_pause(report.failures)).await;
                leads
            }
        }
    }

    /// Returns the first events of a batch that are too old for another attempt.
    fn expired(&self, batch: &Batch) -> Vec<LoggedEvent> {
        let dead_after = self.rules.dead_after.as_millis() as u64;
        let is_old = |event: &&LoggedEvent| batch.now.saturating_sub(event.logged) >= dead_after;
        batch.events.iter().map(|(logged, _)| logged).take_while(is_old).cloned().collect()
    }

    async fn deliver(&self, batch: &Batch) -> Result<(), String> {
        let delivery =
            DeliveryBody { sent: unix_ms(), events: batch.events.iter().map(|(_, event)| &*event.json).collect() };
        let body = serde_json::to_vec(&delivery).map_err(|error| error.to_string())?;
        let signed = signature::sign(&self.webhook.secrets, delivery.sent / 1000, &body);
        let (url, header, deadline) = (&self.webhook.url, (signature::HEADER, signed), self.rules.deadline);
        let answer = self.client.post(CallbackRequest { url, header, body: Bytes::from(body), deadline }).await;
        let (outcome, result) = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => (DeliveryOutcome::Accepted, Ok(())),
            Ok(answer) => (DeliveryOutcome::Refused, Err(format!("the receiver answered {}", answer.status))),
            Err(error) => (DeliveryOutcome::Unanswered, Err(error.to_string())),
        };
        self.metrics.delivery(&self.webhook.name, outcome);
        result
    }

    async fn settle(
        &self,
        batch: &Batch,
        to: u64,
        dead: &[LoggedEvent],
        report: &DeliveryReport,
    ) -> Result<bool, RegistryError> {
        let (webhook, about) = (&*self.webhook.name, &*report.json());
        let settlement = WebhookSettlement { webhook, from: batch.from, to, about, dead };
        let settled = self.store.settle_webhook(&self.process, &settlement).await?;
        if settled && to > batch.from {
            self.metrics.dropped(webhook, batch.dropped);
        }
        Ok(settled)
    }
}

/// Returns the pause after this number of failures: 1 s, doubled up to 60 s, of which a random half or more.
fn retry_pause(failures: u32) -> Duration {
    let [first, last] = PAUSES;
    let pause = first.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(last);
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)] {
            let (pause, most) = (retry_pause(failures), Duration::from_secs(most));
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
    }
}
