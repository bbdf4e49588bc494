//! Metrics of webhooks. The label `webhook` has the names of the settings.

use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Registry, register_int_counter_vec_with_registry,
    register_int_gauge_vec_with_registry,
};

use crate::host::metrics::gauge;

use super::settings::WebhookSettings;

/// Message if a registration fails.
const REGISTERED_ONCE: &str = "metric names are valid and registered once";

/// The outcome of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) enum DeliveryOutcome {
    /// The receiver answered with 2xx.
    Accepted,
    /// The receiver answered with another status.
    Refused,
    /// There was no answer.
    Unanswered,
}

impl DeliveryOutcome {
    const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Unanswered];

    fn value(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Metrics of the webhooks of a process.
#[derive(Debug, Clone)]
pub(super) struct WebhookMetrics {
    /// 1 while this process sends the webhooks.
    pub(super) leading: IntGauge,
    deliveries: IntCounterVec,
    events: IntCounterVec,
    dead: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGaugeVec,
    lag: IntGaugeVec,
}

impl WebhookMetrics {
    /// Creates the metrics on a registry, with the series of these webhooks.
    pub(super) fn new(registry: &Registry, webhooks: &[WebhookSettings]) -> Self {
        let counter = |name, help, labels: &[&str]| {
            register_int_counter_vec_with_registry!(name, help, labels, registry).expect(REGISTERED_ONCE)
        };
        let gauges = |name, help| {
            register_int_gauge_vec_with_registry!(name, help, &["webhook"], registry).expect(REGISTERED_ONCE)
        };
        let metrics = Self {
            leading: gauge(registry, "parley_webhook_leading", "1 while this process sends the webhooks."),
            deliveries: counter(
                "parley_webhook_deliveries_total",
                "Deliveries to receivers of webhooks, by outcome.",
                &["webhook", "outcome"],
            ),
            events: counter("parley_webhook_events_total", "Events that receivers accepted.", &["webhook"]),
            dead: counter(
                "parley_webhook_dead_letters_total",
                "Events that no delivery brought in time; they are kept as dead letters.",
                &["webhook"],
            ),
            dropped: counter(
                "parley_webhook_dropped_events_total",
                "Events that the bounded log had dropped before they were sent.",
                &["webhook"],
            ),
            waiting: gauges("parley_webhook_waiting_events", "Events in the log that are not yet accepted."),
            lag: gauges("parley_webhook_lag_seconds", "Age of the oldest event that is not yet accepted."),
        };
        for WebhookSettings { name, .. } in webhooks {
            for outcome in DeliveryOutcome::ALL {
                metrics.deliveries.with_label_values(&[name, outcome.value()]);
            }
            for counter in [&metrics.events, &metrics.dead, &metrics.dropped] {
                counter.with_label_values(&[name]);
            }
            metrics.stand(name, 0, 0);
        }
        metrics
    }

    /// Counts a delivery.
    pub(super) fn delivery(&self, webhook: &str, outcome: DeliveryOutcome) {
        self.deliveries.with_label_values(&[webhook, outcome.value()]).inc();
    }

    /// Counts accepted events.
    pub(super) fn accepted(&self, webhook: &str, events: usize) {
        self.events.with_label_values(&[webhook]).inc_by(events as u64);
    }

    /// Counts dead letters.
    pub(super) fn dead(&self, webhook: &str, events: usize) {
        self.dead.with_label_values(&[webhook]).inc_by(events as u64);
    }

    /// Counts dropped events.
    pub(super) fn dropped(&self, webhook: &str, events: u64) {
        self.dropped.with_label_values(&[webhook]).inc_by(events);
    }

    /// Sets the number of waiting events and the age of the oldest, in milliseconds.
    pub(super) fn stand(&self, webhook: &str, waiting: u64, lag_ms: u64) {
        self.waiting.with_label_values(&[webhook]).set(waiting.cast_signed());
        self.lag.with_label_values(&[webhook]).set((lag_ms / 1000).cast_signed());
    }
}
