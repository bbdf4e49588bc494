//! Metrics whose values are read at each scrape.
//!
//! Each closure of [`AtScrape`] reads the part of the gateway that owns the value. Nothing here stores a value.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::host::metrics::Pulled;
use presence::registry::{Generation, Phase};

use super::Metrics;
use crate::backplane::{LinkState, SubscriptionStatus};

type ScrapeSource<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Sources of the values that each scrape reads. The closures must not block.
pub struct AtScrape {
    /// Number of sessions of this gateway.
    pub sessions: ScrapeSource<usize>,
    /// Number of detached sessions.
    pub detached: ScrapeSource<usize>,
    /// Number of rooms with members on this gateway.
    pub rooms: ScrapeSource<usize>,
    /// Bytes of acknowledged messages in the republish ring.
    pub unsafe_bytes: ScrapeSource<usize>,
    /// Age of the newest beat with an echo; before the first echo, the time since the start.
    pub beat_age: ScrapeSource<Duration>,
    /// Generation of the store.
    pub generation: ScrapeSource<Generation>,
    /// Status of the subscription to the backplane.
    pub subscription: ScrapeSource<SubscriptionStatus>,
    /// True during the drain.
    pub draining: ScrapeSource<bool>,
}

impl fmt::Debug for AtScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl Metrics {
    /// Registers the metrics that are read at the scrape. Must be called once.
    ///
    /// # Panics
    /// On a second call.
    pub fn at_scrape(&self, at_scrape: AtScrape) {
        let AtScrape { sessions, detached, rooms, unsafe_bytes, beat_age, generation, subscription, draining } =
            at_scrape;
        self.pull("parley_sessions", "Sessions on this gateway.", move || sessions() as f64);
        let help = "Detached sessions: they lost their connection here and may be resumed.";
        self.pull("parley_detached_sessions", help, move || detached() as f64);
        self.pull("parley_rooms", "Rooms with members on this gateway.", move || rooms() as f64);
        let help = "Bytes of acknowledged messages kept for republishing, because the store may still lose them.";
        self.pull("parley_repair_bytes", help, move || unsafe_bytes() as f64);
        let help = "Seconds since the newest beat that came back.";
        self.pull("parley_beat_age_seconds", help, move || beat_age().as_secs_f64());
        self.show_generation(generation);
        let help = "1 since the drain began, otherwise 0.";
        self.pull("parley_draining", help, move || f64::from(u8::from(draining())));
        self.show_subscription(subscription);
    }

    /// Registers the number of stalled connections and the bytes in outboxes. Must be called once.
    ///
    /// # Panics
    /// On a second call.
    pub fn pull_stalled(
        &self,
        connections: impl Fn() -> usize + Send + Sync + 'static,
        bytes: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let help = "Connections whose socket accepts no data now.";
        self.pull("parley_stalled_connections", help, move || connections() as f64);
        let help = "Bytes queued in the outboxes of stalled connections.";
        self.pull("parley_outbox_bytes", help, move || bytes() as f64);
    }

    /// Registers the maximum number of connections. Must be called once.
    ///
    /// # Panics
    /// On a second call.
    pub fn pull_connection_limit(&self, connections: impl Fn() -> usize + Send + Sync + 'static) {
        let help = "Maximum number of client connections: limits.connections, or fewer if descriptors are short.";
        self.pull("parley_connections_limit", help, move || connections() as f64);
    }

    /// Registers the reserved bytes of the reply budget. Must be called once.
    ///
    /// # Panics
    /// On a second call.
    pub fn pull_replies(&self, bytes: impl Fn() -> usize + Send + Sync + 'static) {
        let help = "Bytes reserved for lists that clients have not read yet. Limit: limits.reply_mib.";
        self.pull("parley_reply_reserved_bytes", help, move || bytes() as f64);
    }

    /// Registers the size of the list of sanctions, and the time for which it differs from the one in the store. Must
    /// be called once.
    ///
    /// # Panics
    /// On a second call.
    pub fn pull_sanctions(
        &self,
        entries: impl Fn() -> usize + Send + Sync + 'static,
        lag: impl Fn() -> Duration + Send + Sync + 'static,
    ) {
        let help = "Bans, mutes, kicks and revocations that this gateway knows.";
        self.pull("parley_sanctions_entries", help, move || entries() as f64);
        let help =
            "Seconds since the list of sanctions of this gateway differs from the one in the store; 0 if it is equal.";
        self.pull("parley_sanctions_lag_seconds", help, move || lag().as_secs_f64());
    }

    fn show_generation(&self, generation: ScrapeSource<Generation>) {
        // Omitted before the first beat: a jump from 0 would look like a new generation.
        let known = Arc::new(move || Some(generation()).filter(|generation| generation.number > 0));
        let read = Arc::clone(&known);
        let help = "Generation of the store. It rises after each restart, failover or data loss of Redis, by any step.";
        let number = move || read().map(|generation| generation.number as f64);
        Pulled::gauge(&self.registry, "parley_store_generation", help, number);
        let help = "1 while the store recovers: gateways reassert their claims, and all other requests are refused.";
        let recovering = move || known().map(|generation| f64::from(u8::from(generation.phase == Phase::Recovering)));
        Pulled::gauge(&self.registry, "parley_store_recovering", help, recovering);
    }

    fn show_subscription(&self, subscription: ScrapeSource<SubscriptionStatus>) {
        let subscription = Arc::new(subscription);
        let read = Arc::clone(&subscription);
        let help = "1 while all wanted channels are subscribed.";
        self.pull("parley_backplane_subscribed", help, move || {
            f64::from(u8::from(read().link == LinkState::Subscribed))
        });
        let on = &self.registry;
        let read = Arc::clone(&subscription);
        let help = "Total time without a complete subscription.";
        let gap = move || Some(read().gap(Instant::now()).as_secs_f64());
        Pulled::counter(on, "parley_backplane_gap_seconds_total", help, gap);
        let help = "Backplane frames skipped because they were malformed.";
        let malformed = move || Some(subscription().malformed as f64);
        Pulled::counter(on, "parley_backplane_malformed_total", help, malformed);
    }

    fn pull(&self, name: &str, help: &str, number: impl Fn() -> f64 + Send + Sync + 'static) {
        Pulled::gauge(&self.registry, name, help, move || Some(number()));
    }
}
