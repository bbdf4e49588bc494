//! Metrics of a gateway: [`Metrics`] has typed handles, is created at the start and passed down.
//!
//! Listeners, driver, hub, backplane and beat update it; the admin port exports it. Invariant: label values come from
//! the closed tables below and in [`presence::model::codes`], never from a nickname, a room or an address. Every series
//! exists from the start. Nothing here decides anything.

mod counts;
mod scrape;

use presence::host::metrics::{Bounds, Family, Histogram, Label, Labelled, counter, gauge, registry};
use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::moderation::ModerationAction;
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
    /// Listener of a connection.
    ListenerKind {
        /// WebSocket.
        Ws => "ws",
        /// Raw TCP.
        Tcp => "tcp",
    }
}

label_table! {
    /// Outcome of a `register` for a new session.
    RegistrationOutcome {
        /// The session started.
        Registered => "registered",
        /// Another session has the nickname.
        InUse => "nick_in_use",
        /// Another session has a similar nickname.
        Confusable => "nick_confusable",
        /// The store did not answer, or the gateway had no lease.
        Failed => "failed",
    }
}

label_table! {
    /// Outcome of a `register` with a resume token.
    ResumeOutcome {
        /// The session was resumed.
        Resumed => "resumed",
        /// There is no such session, or not with this token.
        UnknownToken => "unknown_token",
        /// Another session has the requested nickname or a similar one.
        InUse => "in_use",
        /// The store did not answer, or the gateway had no lease.
        Failed => "failed",
    }
}

label_table! {
    /// Kind of a message.
    MessageKind {
        /// A message to a room.
        Room => "room",
        /// A message to one user.
        Direct => "direct",
    }
}

label_table! {
    /// Outcome of a gap: messages that did not arrive.
    GapOutcome {
        /// They were read from the stream.
        Repaired => "repaired",
        /// The stream no longer has them, and members received a gap.
        Lost => "lost",
    }
}

label_table! {
    /// Stage of a connection.
    Stage {
        /// Accepted. An HTTP connection loads the chat page, or its request for a WebSocket is not answered yet.
        Handshake => "handshake",
        /// Ready for a session.
        Open => "open",
    }
}

label_table! {
    /// Limit of connections that a refused one has met.
    SeatLimit {
        /// `limits.connections`.
        Gateway => "gateway",
        /// The share of connections that have not registered.
        Unregistered => "unregistered",
        /// `limits.connections_per_address`.
        Address => "address",
    }
}

/// Metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    /// Registry of all fields below.
    pub registry: Registry,
    connections: [Labelled<Stage, IntGauge>; 2],
    connections_total: Labelled<ListenerKind, IntCounter>,
    /// Connections refused for want of a seat, by the limit that they met.
    pub connections_refused: Labelled<SeatLimit, IntCounter>,
    /// Connections refused because their address is banned.
    pub connections_banned: IntCounter,
    /// Clients whose address a trusted proxy did not name correctly.
    pub forwarded_malformed: IntCounter,
    /// Handshakes of web pages whose origin may not connect.
    pub origins_refused: IntCounter,
    /// Attempts to start a session, by outcome.
    pub registrations: Labelled<RegistrationOutcome, IntCounter>,
    /// Attempts to resume a session, by outcome.
    pub resumes: Labelled<ResumeOutcome, IntCounter>,
    /// Orders of moderators that were carried out.
    pub moderation: Labelled<ModerationAction, IntCounter>,
    /// Time from the request to the queueing of the last replayed message.
    pub resume_seconds: Histogram,
    /// Messages of clients of this gateway that the store accepted; a repeated one counts once.
    pub published: Labelled<MessageKind, IntCounter>,
    /// Messages repeated by clients, which the store already had.
    pub duplicates: Labelled<MessageKind, IntCounter>,
    /// Refused messages, by error code.
    pub messages_refused: Labelled<ErrorCode, IntCounter>,
    /// Messages refused because their room or inbox receives too many bytes per second.
    pub messages_over_rate: Labelled<MessageKind, IntCounter>,
    /// Metrics of the hub: deliveries, fan-out batches, gaps.
    pub counts: Counts,
    /// Requests answered with an error.
    pub refusals: Labelled<ErrorCode, IntCounter>,
    /// Connections closed by this gateway, by close code.
    pub closes: Labelled<CloseCode, IntCounter>,
    /// Subscriptions restored after a loss.
    pub backplane_reconnects: IntCounter,
    /// Incarnations of other gateways declared dead by this one.
    pub fences: IntCounter,
    /// Leases lost: this gateway was declared dead by another and started again.
    pub leases_lost: IntCounter,
    /// Nicknames freed by this gateway after another was fenced.
    pub reaped_nicks: IntCounter,
    /// Memberships removed by this gateway after another was fenced.
    pub reaped_members: IntCounter,
    /// Time from sending a beat to receiving its echo: the path of every message, without a reader.
    pub round_trip: Histogram,
    /// Sessions at the start of the drain.
    pub drain_began_with: IntGauge,
    /// Acknowledged messages republished after the store lost them.
    pub republished: IntCounter,
}

impl Metrics {
    /// Creates the metrics on a new registry.
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
            connections_refused: Labelled::counters(
                on,
                "parley_connections_refused_total",
                "Client connections refused because a limit of connections was reached.",
                "limit",
            ),
            connections_banned: counter(
                on,
                "parley_connections_banned_total",
                "Client connections refused because their address is banned.",
            ),
            forwarded_malformed: counter(
                on,
                "parley_forwarded_malformed_total",
                "Client addresses from trusted proxies that were malformed: X-Forwarded-For and PROXY headers.",
            ),
            origins_refused: counter(
                on,
                "parley_origins_refused_total",
                "WebSocket handshakes refused because listen.origins does not allow their Origin.",
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
            moderation: Labelled::counters(
                on,
                "parley_moderation_total",
                "Orders of moderators carried out, by action.",
                "action",
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
            messages_refused: Labelled::counters(
                on,
                "parley_messages_refused_total",
                "Refused messages, by error code.",
                "code",
            ),
            messages_over_rate: Labelled::counters(
                on,
                "parley_messages_over_rate_total",
                "Messages refused because their room or inbox receives more than limits.room_bytes_per_second.",
                "kind",
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
            republished: counter(
                on,
                "parley_repaired_total",
                "Acknowledged messages lost by the store and republished by this gateway.",
            ),
            registry,
        }
    }

    /// Counts an accepted connection.
    pub fn connection_accepted(&self, port: ListenerKind) {
        self.connections_total[port].inc();
        self.connections[port.row()][Stage::Handshake].inc();
    }

    /// Moves a connection to [`Stage::Open`].
    pub fn connection_opened(&self, port: ListenerKind) {
        self.connections[port.row()][Stage::Open].inc();
        self.connections[port.row()][Stage::Handshake].dec();
    }

    /// Removes a closed connection from its stage.
    pub fn connection_closed(&self, port: ListenerKind, stage: Stage) {
        self.connections[port.row()][stage].dec();
    }

    /// Returns the number of present connections of a listener.
    #[cfg(test)]
    pub(crate) fn open(&self, port: ListenerKind) -> i64 {
        Stage::ROWS.iter().map(|stage| self.connections[port.row()][*stage].get()).sum()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers the gauges of connections by listener and stage, in the order of [`ListenerKind`].
fn connections(registry: &Registry) -> [Labelled<Stage, IntGauge>; 2] {
    let help = "Client connections now. An open connection without a session has not registered.";
    let family = IntGaugeVec::new(Opts::new("parley_connections", help), &["door", "state"]).expect("a valid name");
    registry.register(Box::new(family.clone())).expect("registered once");
    [ListenerKind::Ws, ListenerKind::Tcp]
        .map(|port| Labelled::new(|stage| family.with_label_values(&[port.value(), stage])))
}

#[cfg(test)]
mod tests;
