//! The gateway's numbers that are asked for where the truth is, at each scrape.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::host::metrics::{Pulled, Rises};
use presence::registry::{Generation, Phase};

use super::Metrics;
use crate::backplane::{LinkState, SubscriptionStatus};

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What is asked for at each scrape. The closures must not block.
pub struct AtScrape {
    /// How many sessions this gateway has.
    pub sessions: Ask<usize>,
    /// How many sessions lost their connection and are waited for.
    pub detached: Ask<usize>,
    /// How many rooms have members on this gateway.
    pub rooms: Ask<usize>,
    /// Bytes of acked messages that the store may still lose.
    pub kept: Ask<usize>,
    /// Since the newest beat whose echo came back; since the start, before the first one.
    pub beat_age: Ask<Duration>,
    /// In which generation the store is.
    pub generation: Ask<Generation>,
    /// How the receiving side is doing.
    pub subscription: Ask<SubscriptionStatus>,
    /// Whether newcomers are sent elsewhere for good.
    pub draining: Ask<bool>,
}

impl fmt::Debug for AtScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl Metrics {
    /// Adds the numbers that are read where the truth is. Call it once.
    ///
    /// # Panics
    /// On a second call.
    pub fn at_scrape(&self, at_scrape: AtScrape) {
        let AtScrape { sessions, detached, rooms, kept, beat_age, generation, subscription, draining } = at_scrape;
        self.pull("parley_sessions", "Sessions on this gateway.", move || sessions() as f64);
        let help = "Detached sessions: they lost their connection here and may be resumed.";
        self.pull("parley_detached_sessions", help, move || detached() as f64);
        self.pull("parley_rooms", "Rooms with members on this gateway.", move || rooms() as f64);
        let help = "Bytes of acknowledged messages kept for republishing, because the store may still lose them.";
        self.pull("parley_repair_bytes", help, move || kept() as f64);
        let help = "Seconds since the newest beat that came back.";
        self.pull("parley_beat_age_seconds", help, move || beat_age().as_secs_f64());
        self.show_generation(generation);
        let help = "1 since the drain began, otherwise 0.";
        self.pull("parley_draining", help, move || f64::from(u8::from(draining())));
        self.show_subscription(subscription);
    }

    /// Adds the numbers of connections whose sockets take nothing: how many, and the bytes that wait for them. Call it
    /// once.
    ///
    /// # Panics
    /// On a second call.
    pub fn standing(
        &self,
        connections: impl Fn() -> usize + Send + Sync + 'static,
        bytes: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let help = "Connections whose socket accepts no data now.";
        self.pull("parley_stalled_connections", help, move || connections() as f64);
        let help = "Bytes queued in the outboxes of stalled connections.";
        self.pull("parley_outbox_bytes", help, move || bytes() as f64);
    }

    fn show_generation(&self, generation: Ask<Generation>) {
        // Left out before the first beat: a 0 would be followed by a jump that never was.
        let known = Arc::new(move || Some(generation()).filter(|generation| generation.number > 0));
        let asked = Arc::clone(&known);
        let help = "Generation of the store. It rises after each restart, failover or data loss of Redis, by any step.";
        let number = move || asked().map(|generation| generation.number as f64);
        Pulled::register(&self.registry, Rises::No, "parley_store_generation", help, number);
        let help = "1 while the store recovers: gateways reassert their claims, and all other requests are refused.";
        let recovering = move || known().map(|generation| f64::from(u8::from(generation.phase == Phase::Recovering)));
        Pulled::register(&self.registry, Rises::No, "parley_store_recovering", help, recovering);
    }

    fn show_subscription(&self, subscription: Ask<SubscriptionStatus>) {
        let subscription = Arc::new(subscription);
        let asked = Arc::clone(&subscription);
        let help = "1 while all wanted channels are subscribed.";
        self.pull("parley_backplane_subscribed", help, move || {
            f64::from(u8::from(asked().link == LinkState::Subscribed))
        });
        let on = &self.registry;
        let asked = Arc::clone(&subscription);
        let help = "Total time without a complete subscription.";
        let gap = move || Some(asked().gap(Instant::now()).as_secs_f64());
        Pulled::register(on, Rises::Only, "parley_backplane_gap_seconds_total", help, gap);
        let help = "Backplane frames skipped because they were malformed.";
        let malformed = move || Some(subscription().malformed as f64);
        Pulled::register(on, Rises::Only, "parley_backplane_malformed_total", help, malformed);
    }

    fn pull(&self, name: &str, help: &str, number: impl Fn() -> f64 + Send + Sync + 'static) {
        Pulled::register(&self.registry, Rises::No, name, help, move || Some(number()));
    }
}
