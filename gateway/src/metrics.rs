//! What a gateway counts: typed handles on a registry of its own, made at the start and handed down.
//!
//! Doors, driver, hub, backplane and beat count into it; the admin door reads it. Label values come from the closed
//! tables below and in [`presence::codes`]: never a nickname, a room or an address. Every series exists from the start.
//! Nothing here decides anything.

use presence::codes::{CloseCode, ErrorCode};
use presence::metrics::{Label, Labelled, counter, registry};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, PullingGauge, Registry};

/// Declares a closed table of label values.
macro_rules! label_table {
    ($(#[$doc:meta])* $table:ident { $($(#[$row_doc:meta])* $row:ident => $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $table { $($(#[$row_doc])* $row,)* }

        impl Label for $table {
            const ROWS: &'static [Self] = &[$(Self::$row,)*];

            fn value(self) -> &'static str {
                match self { $(Self::$row => $value,)* }
            }

            fn row(self) -> usize {
                self as usize
            }
        }
    };
}

label_table! {
    /// By which port a connection came.
    Port {
        /// WebSocket.
        Ws => "ws",
        /// Raw TCP.
        Tcp => "tcp",
    }
}

label_table! {
    /// What came of a `register`.
    Registration {
        /// The session began.
        Registered => "registered",
        /// Somebody has the nickname.
        InUse => "nick_in_use",
        /// Somebody has one that looks like it.
        Confusable => "nick_confusable",
        /// The store could not say, or our lease was gone.
        Failed => "failed",
    }
}

label_table! {
    /// What came of a `register` that was to go on with a session.
    Return {
        /// The session goes on.
        Resumed => "resumed",
        /// There is no such session, or not with this token.
        UnknownToken => "unknown_token",
        /// Another nickname was asked for, and somebody has it or one that looks like it.
        InUse => "in_use",
        /// The store could not say, or our lease was gone.
        Failed => "failed",
    }
}

label_table! {
    /// To whom a message went.
    Kind {
        /// Into a room.
        Room => "room",
        /// To one user.
        Direct => "direct",
    }
}

/// The numbers of one gateway.
#[derive(Debug)]
pub struct Metrics {
    /// Where everything below is registered.
    pub registry: Registry,
    connections: Labelled<Port, IntGauge>,
    connections_total: Labelled<Port, IntCounter>,
    /// Attempts to begin a session, by what came of them.
    pub registrations: Labelled<Registration, IntCounter>,
    /// Attempts to go on with a session, by what came of them.
    pub resumes: Labelled<Return, IntCounter>,
    /// From the request to the last message of what was missed being queued, in seconds.
    pub resume_seconds: Histogram,
    /// Messages that the store took from clients of this gateway; a repeated one counts once.
    pub published: Labelled<Kind, IntCounter>,
    /// Messages put into outboxes of this gateway, one for each receiver.
    pub delivered: IntCounter,
    /// Changes of presence that were left out because too much waited for a reader, one for each receiver.
    pub dropped: IntCounter,
    /// Requests answered with an error.
    pub refusals: Labelled<ErrorCode, IntCounter>,
    /// Connections that this gateway ended, by why.
    pub closes: Labelled<CloseCode, IntCounter>,
    /// Subscriptions that were lost and are whole again.
    pub backplane_reconnects: IntCounter,
    /// Incarnations of other gateways that this one declared dead.
    pub fences: IntCounter,
}

/// What is asked for at each scrape. The closures must not block.
pub struct AtScrape {
    /// How many sessions this gateway has.
    pub sessions: Box<dyn Fn() -> usize + Send + Sync>,
    /// How many sessions lost their connection and are waited for.
    pub detached: Box<dyn Fn() -> usize + Send + Sync>,
    /// How many rooms have members on this gateway.
    pub rooms: Box<dyn Fn() -> usize + Send + Sync>,
    /// Seconds since the newest beat whose echo came back; since the start, before the first one.
    pub beat_age: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl std::fmt::Debug for AtScrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtScrape")
    }
}

impl Metrics {
    /// Fresh metrics on a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry(env!("CARGO_PKG_VERSION"));
        let on = &registry;
        Self {
            connections: Labelled::gauges(on, "parley_connections", "Client connections open now.", "door"),
            connections_total: Labelled::counters(
                on,
                "parley_connections_total",
                "Client connections accepted.",
                "door",
            ),
            registrations: Labelled::counters(
                on,
                "parley_registrations_total",
                "Attempts to begin a session, by what came of them.",
                "outcome",
            ),
            resumes: Labelled::counters(
                on,
                "parley_resumes_total",
                "Attempts to go on with a session, by what came of them.",
                "outcome",
            ),
            resume_seconds: resume_seconds(on),
            published: Labelled::counters(
                on,
                "parley_messages_published_total",
                "Messages that the store took from clients of this gateway.",
                "kind",
            ),
            delivered: counter(
                on,
                "parley_messages_delivered_total",
                "Messages put into outboxes of this gateway, one for each receiver.",
            ),
            dropped: counter(
                on,
                "parley_events_dropped_total",
                "Presence events left out for slow readers, one for each receiver.",
            ),
            refusals: Labelled::counters(on, "parley_refusals_total", "Requests answered with an error.", "code"),
            closes: Labelled::counters(on, "parley_closes_total", "Connections that this gateway ended.", "code"),
            backplane_reconnects: counter(
                on,
                "parley_backplane_reconnects_total",
                "Subscriptions that were lost and are whole again.",
            ),
            fences: counter(on, "parley_fences_total", "Gateway incarnations that this process declared dead."),
            registry,
        }
    }

    /// Counts a connection for as long as the answer lives.
    #[must_use]
    pub fn connected(&self, port: Port) -> Connected {
        self.connections_total[port].inc();
        let open = self.connections[port].clone();
        open.inc();
        Connected { open }
    }

    /// Connections of a port that are open now.
    #[must_use]
    pub fn open(&self, port: Port) -> i64 {
        self.connections[port].get()
    }

    /// Adds the gauges that are read where the truth is. Call it once.
    ///
    /// # Panics
    /// On a second call.
    pub fn at_scrape(&self, AtScrape { sessions, detached, rooms, beat_age }: AtScrape) {
        let gauges = [
            PullingGauge::new("parley_sessions", "Sessions on this gateway.", Box::new(move || sessions() as f64)),
            PullingGauge::new(
                "parley_detached_sessions",
                "Sessions that lost their connection here and may come back.",
                Box::new(move || detached() as f64),
            ),
            PullingGauge::new("parley_rooms", "Rooms with members on this gateway.", Box::new(move || rooms() as f64)),
            PullingGauge::new("parley_beat_age_seconds", "Since the newest beat that came back whole.", beat_age),
        ];
        for gauge in gauges {
            let gauge = gauge.expect("the name is valid");
            self.registry.register(Box::new(gauge)).expect("the gauges are added once");
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Buckets from a millisecond to ten seconds.
fn resume_seconds(registry: &Registry) -> Histogram {
    let help = "From a request to go on with a session to the last message of what it missed being queued.";
    let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    let histogram = Histogram::with_opts(HistogramOpts::new("parley_resume_seconds", help).buckets(buckets));
    let histogram = histogram.expect("the name is valid");
    registry.register(Box::new(histogram.clone())).expect("the name is not taken");
    histogram
}

/// An open connection in the numbers; dropping it takes it out.
#[derive(Debug)]
pub struct Connected {
    open: IntGauge,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests;
