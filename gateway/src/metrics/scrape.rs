//! The gateway's numbers that are asked for where the truth is, at each scrape.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::host::metrics::{Pulled, Rises};
use presence::registry::{Generation, Phase};

use super::Metrics;
use crate::backplane::{LinkState, SubscriptionStatus};

type ScrapeSource<T> = Box<dyn Fn() -> T + Send + Sync>;

/// What is asked for at each scrape. The closures must not block.
pub struct AtScrape {
    /// How many sessions this gateway has.
    pub sessions: ScrapeSource<usize>,
    /// How many sessions lost their connection and are waited for.
    pub detached: ScrapeSource<usize>,
    /// How many rooms have members on this gateway.
    pub rooms: ScrapeSource<usize>,
    /// Bytes of acked messages that the store may still lose.
    pub kept: ScrapeSource<usize>,
    /// Since the newest beat whose echo came back; since the start, before the first one.
    pub beat_age: ScrapeSource<Duration>,
    /// In which generation the store is.
    pub generation: ScrapeSource<Generation>,
    /// How the receiving side is doing.
    pub subscription: ScrapeSource<SubscriptionStatus>,
    /// Whether newcomers are sent elsewhere for good.
    pub draining: ScrapeSource<bool>,
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
        let help = "Sessions that lost their connection here and may come back.";
        self.pull("parley_detached_sessions", help, move || detached() as f64);
        self.pull("parley_rooms", "Rooms with members on this gateway.", move || rooms() as f64);
        let help = "Acked messages that are kept because the store may still lose them.";
        self.pull("parley_repair_bytes", help, move || kept() as f64);
        let help = "Since the newest beat that came back whole.";
        self.pull("parley_beat_age_seconds", help, move || beat_age().as_secs_f64());
        self.show_generation(generation);
        let help = "1 from the begin of the drain on.";
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
        let help = "Connections whose reader takes nothing right now.";
        self.pull("parley_stalled_connections", help, move || connections() as f64);
        let help = "Bytes that wait in outboxes for readers that take nothing right now.";
        self.pull("parley_outbox_bytes", help, move || bytes() as f64);
    }

    fn show_generation(&self, generation: ScrapeSource<Generation>) {
        // Left out before the first beat: a 0 would be followed by a jump that never was.
        let known = Arc::new(move || Some(generation()).filter(|generation| generation.number > 0));
        let asked = Arc::clone(&known);
        let help = "The generation of the store: higher after each restart, failover or loss of data of Redis, by no fixed step.";
        let number = move || asked().map(|generation| generation.number as f64);
        Pulled::register(&self.registry, Rises::No, "parley_store_generation", help, number);
        let help = "1 while the store recovers: gateways tell it again what they hold, and everything else is refused.";
        let recovering = move || known().map(|generation| f64::from(u8::from(generation.phase == Phase::Recovering)));
        Pulled::register(&self.registry, Rises::No, "parley_store_recovering", help, recovering);
    }

    fn show_subscription(&self, subscription: ScrapeSource<SubscriptionStatus>) {
        let subscription = Arc::new(subscription);
        let asked = Arc::clone(&subscription);
        let help = "1 while everything that is wanted is heard over the backplane.";
        self.pull("parley_backplane_subscribed", help, move || {
            f64::from(u8::from(asked().link == LinkState::Subscribed))
        });
        let on = &self.registry;
        let asked = Arc::clone(&subscription);
        let help = "For how long in all not everything was heard that had been heard before.";
        let gap = move || Some(asked().gap(Instant::now()).as_secs_f64());
        Pulled::register(on, Rises::Only, "parley_backplane_gap_seconds_total", help, gap);
        let help = "Frames from the backplane that were skipped because they were not ours.";
        let malformed = move || Some(subscription().malformed as f64);
        Pulled::register(on, Rises::Only, "parley_backplane_malformed_total", help, malformed);
    }

    fn pull(&self, name: &str, help: &str, number: impl Fn() -> f64 + Send + Sync + 'static) {
        Pulled::register(&self.registry, Rises::No, name, help, move || Some(number()));
    }
}
