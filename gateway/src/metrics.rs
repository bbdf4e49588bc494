//! What a gateway counts: typed handles on a registry of its own, made at the start and handed down.
//!
//! Doors, driver, hub, backplane and beat count into it; the admin door reads it. Label values come from the closed
//! tables below and in [`presence::model::codes`]: never a nickname, a room or an address. Every series exists from the start.
//! Nothing here decides anything.

mod counts;
mod scrape;

use presence::host::metrics::{Bounds, Family, Histogram, Label, Labelled, counter, gauge, registry};
use presence::model::codes::{CloseCode, ErrorCode};
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

pub use self::counts::{Counts, Deliveries};
pub use self::scrape::AtScrape;

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
    ListenerKind {
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

label_table! {
    /// What became of messages that did not arrive.
    Missing {
        /// They were read from the log.
        Repaired => "repaired",
        /// The log does not have them any more: members were told so.
        Lost => "lost",
    }
}

label_table! {
    /// How far a connection is.
    Stage {
        /// Accepted; over WebSocket its HTTP request is not answered yet.
        Handshake => "handshake",
        /// It may have a session.
        Open => "open",
    }
}

/// The numbers of one gateway.
#[derive(Debug)]
pub struct Metrics {
    /// Where everything below is registered.
    pub registry: Registry,
    connections: [Labelled<Stage, IntGauge>; 2],
    connections_total: Labelled<ListenerKind, IntCounter>,
    /// Attempts to begin a session, by what came of them.
    pub registrations: Labelled<Registration, IntCounter>,
    /// Attempts to go on with a session, by what came of them.
    pub resumes: Labelled<Return, IntCounter>,
    /// From the request to the last message of what was missed being queued.
    pub resume_seconds: Histogram,
    /// Messages that the store took from clients of this gateway; a repeated one counts once.
    pub published: Labelled<Kind, IntCounter>,
    /// Messages that the store had already: a client said them again.
    pub duplicates: Labelled<Kind, IntCounter>,
    /// Messages that were refused, by why.
    pub refused: Labelled<ErrorCode, IntCounter>,
    /// What the hub counts: deliveries, rounds, gaps.
    pub counts: Counts,
    /// Requests answered with an error.
    pub refusals: Labelled<ErrorCode, IntCounter>,
    /// Connections that this gateway ended, by why.
    pub closes: Labelled<CloseCode, IntCounter>,
    /// Subscriptions that were lost and are whole again.
    pub backplane_reconnects: IntCounter,
    /// Incarnations of other gateways that this one declared dead.
    pub fences: IntCounter,
    /// Own leases that were lost: this gateway was declared dead by others, and began anew.
    pub leases_lost: IntCounter,
    /// Nicknames freed by this gateway after theirs was gone.
    pub reaped_nicks: IntCounter,
    /// Memberships taken away by this gateway after theirs was gone.
    pub reaped_members: IntCounter,
    /// From sending a beat to hearing it over our own subscription: the way of every message, without a reader.
    pub round_trip: Histogram,
    /// How many sessions there were when the drain began.
    pub drain_began_with: IntGauge,
    /// Acked messages that the store had lost and that were put back.
    pub repaired: IntCounter,
}

impl Metrics {
    /// Fresh metrics on a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let registry = registry(env!("CARGO_PKG_VERSION"));
        let on = &registry;
        Self {
            connections: connections(on),
            connections_total: Labelled::counters(
                on,
                "parley_connections_total",
                "Client connections accepted.",
                "door",
            ),
            registrations: Labelled::counters(
                on,
                "parley_registrations_total",
                "Attempts to begin a session, by outcome.",
                "outcome",
            ),
            resumes: Labelled::counters(
                on,
                "parley_resumes_total",
                "Attempts to resume a session, by outcome.",
                "outcome",
            ),
            resume_seconds: Family::single(
                on,
                "parley_resume_seconds",
                "Time from a resume request until its last missed message is queued.",
                Bounds::SECONDS,
            ),
            published: Labelled::counters(
                on,
                "parley_messages_published_total",
                "Messages from clients of this gateway accepted by the store.",
                "kind",
            ),
            duplicates: Labelled::counters(
                on,
                "parley_messages_duplicate_total",
                "Messages repeated by clients that the store already had.",
                "kind",
            ),
            refused: Labelled::counters(
                on,
                "parley_messages_refused_total",
                "Refused messages, by error code.",
                "code",
            ),
            counts: Counts::new(on),
            refusals: Labelled::counters(on, "parley_refusals_total", "Refused requests, by error code.", "code"),
            closes: Labelled::counters(
                on,
                "parley_closes_total",
                "Connections closed by this gateway, by close code.",
                "code",
            ),
            backplane_reconnects: counter(
                on,
                "parley_backplane_reconnects_total",
                "Backplane subscriptions lost and restored.",
            ),
            fences: counter(on, "parley_fences_total", "Gateway incarnations declared dead by this process."),
            leases_lost: counter(
                on,
                "parley_leases_lost_total",
                "Own leases lost: this gateway was declared dead and started a new incarnation.",
            ),
            reaped_nicks: counter(on, "parley_reaped_nicks_total", "Nicknames freed after a gateway was fenced."),
            reaped_members: counter(
                on,
                "parley_reaped_members_total",
                "Memberships removed after a gateway was fenced.",
            ),
            round_trip: Family::single(
                on,
                "parley_backplane_round_trip_seconds",
                "Time from sending a beat to receiving it over the own subscription.",
                Bounds::SECONDS,
            ),
            drain_began_with: gauge(
                on,
                "parley_drain_began_with_sessions",
                "Sessions at the beginning of the drain; 0 before it.",
            ),
            repaired: counter(
                on,
                "parley_repaired_total",
                "Acknowledged messages lost by the store and republished by this gateway.",
            ),
            registry,
        }
    }

    /// A connection was accepted.
    pub fn comes(&self, port: ListenerKind) {
        self.connections_total[port].inc();
        self.connections[port.row()][Stage::Handshake].inc();
    }

    /// A connection may have a session from here on.
    pub fn opens(&self, port: ListenerKind) {
        self.connections[port.row()][Stage::Open].inc();
        self.connections[port.row()][Stage::Handshake].dec();
    }

    /// A connection is over that was at this stage.
    pub fn goes(&self, port: ListenerKind, stage: Stage) {
        self.connections[port.row()][stage].dec();
    }

    /// Connections of a port now.
    #[must_use]
    pub fn open(&self, port: ListenerKind) -> i64 {
        Stage::ROWS.iter().map(|stage| self.connections[port.row()][*stage].get()).sum()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Connections by port and stage, in the order of [`ListenerKind`].
fn connections(registry: &Registry) -> [Labelled<Stage, IntGauge>; 2] {
    let help = "Client connections now. An open connection without a session has not registered.";
    let family = IntGaugeVec::new(Opts::new("parley_connections", help), &["door", "state"]).expect("a valid name");
    registry.register(Box::new(family.clone())).expect("registered once");
    [ListenerKind::Ws, ListenerKind::Tcp]
        .map(|port| Labelled::new(|stage| family.with_label_values(&[port.value(), stage])))
}

#[cfg(test)]
mod tests;
