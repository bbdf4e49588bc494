//! Listeners and connections: binds both ports, admits connections within the limits, and runs one task for each.
//!
//! One connection, by file: `accept` takes the socket, `forwarded` reads the header of a proxy, `tls_accept`
//! encrypts, `upgrade` answers HTTP requests with files of the chat page (`page`) and turns one into a WebSocket by
//! the rules of `handshake`, `ws` and `tcp` (over `frame`, and over `lines` or `tcp_frames`) are the two
//! transports, on a bare socket or on `tls`, `connection` runs the loop between transport and session,
//! `timer_wheel` keeps its deadlines, `drain` ends all of them. The server owns readiness ([`Admission`]) and
//! begins the drain. Knows no rooms, nicknames or store.

mod accept;
mod admission;
mod certificate;
mod connection;
mod drain;
mod forwarded;
pub mod frame;
mod handshake;
mod http_socket;
mod lines;
mod origin_refusals;
mod origins;
mod page;
mod permits;
pub mod proxy_header;
mod refuse;
mod seat_refusals;
mod stalled;
mod tcp;
mod tcp_frames;
mod telnet;
mod timer_wheel;
mod tls;
mod tls_accept;
mod upgrade;
mod ws;

#[cfg(test)]
mod tests;

pub use self::accept::{BindError, Listeners};
pub use self::admission::Admission;
pub use self::certificate::ServerCertificate;
pub use self::connection::ConnectionSession;
pub use self::drain::{ConnectionDrain, DrainPace};
pub use self::origins::{AllowedOrigins, OriginWord};
pub use self::page::{PageAccess, PageEmbedder, PageEmbedders};
pub use self::tls::TlsTermination;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use presence::host::client_address::{ClientAddress, TrustedProxies};
use presence::host::descriptors::DescriptorLimit;
use presence::host::reloadable::Reloadable;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::outbound::policy::SLOW_READER;
use crate::quota::{Quota, Quotas};
use crate::sanctions::ClusterSanctions;
use crate::wire::Dialect;

use self::origin_refusals::OriginRefusals;
use self::permits::ConnectionPermits;
use self::seat_refusals::SeatRefusals;
use self::stalled::StalledConnections;
use self::timer_wheel::TimerWheel;

/// Addresses of clients, and their share of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressLimits {
    /// Proxies that may name the address of a client.
    pub proxies: TrustedProxies,
    /// True if these proxies send a PROXY header on the line port.
    pub proxy_protocol: bool,
    /// The maximum time for that header.
    pub header_wait: Duration,
    /// Maximum number of connections of one address; one more is refused as `rate_limited`.
    pub connections: usize,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self {
            proxies: TrustedProxies::of_this_machine(),
            proxy_protocol: false,
            header_wait: Duration::from_secs(3),
            connections: 256,
        }
    }
}

/// Connection limits, read when a connection begins and valid until it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Web pages that may open a WebSocket. A client without an origin is not a web page.
    pub origins: AllowedOrigins,
    /// The chat page. Shared, because every connection keeps its limits.
    pub page: Arc<PageAccess>,
    /// Maximum number of connections on both ports; one more is refused as `overloaded`.
    pub connections: usize,
    /// The share of one address. Shared, because every connection keeps its limits.
    pub addresses: Arc<AddressLimits>,
    /// Maximum number of refusals that wait for the client to close. Further ones do not wait. A reload does not
    /// change it.
    pub refusals: usize,
    /// The maximum time for the header of an HTTP request.
    pub header_wait: Duration,
    /// The maximum time for one write before the connection is closed as too slow.
    pub write_stall: Duration,
    /// The maximum time without a frame to a client of WebSocket or binary frames; `None` keeps the heartbeat's own
    /// interval.
    pub proxy_idle: Option<Duration>,
    /// The silence of a line client after which it is sent a visible sign; `None` for never.
    pub line_sign: Option<Duration>,
    /// The maximum time that an ending connection waits for its last bytes and for the client to close.
    pub close_wait: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            origins: AllowedOrigins::default(),
            page: Arc::default(),
            connections: 16_384,
            addresses: Arc::default(),
            refusals: 256,
            header_wait: Duration::from_secs(10),
            write_stall: SLOW_READER.write_stall,
            proxy_idle: Some(Duration::from_secs(45)),
            line_sign: None,
            close_wait: Duration::from_secs(2),
        }
    }
}

impl ConnectionLimits {
    /// Returns these limits, lowered to the descriptors of this process. Logs the number of connections.
    #[must_use]
    pub fn within(self, descriptors: DescriptorLimit) -> Self {
        let connections = descriptors.connections(self.connections);
        Self { connections, refusals: descriptors.budget().refusals, ..self }
    }
}

/// The shared state of all connections of a gateway.
pub struct ConnectionContext<S> {
    open_session: Box<dyn Fn(Dialect, Arc<Quota>) -> S + Send + Sync>,
    admission: Arc<Admission>,
    limits: Reloadable<ConnectionLimits>,
    permits: ConnectionPermits,
    sanctions: Arc<ClusterSanctions>,
    seat_refusals: SeatRefusals,
    origin_refusals: OriginRefusals,
    closing: CancellationToken,
    drain: Arc<ConnectionDrain>,
    /// Ticks for as long as the context lives.
    wheel: Arc<TimerWheel>,
    stalled: StalledConnections,
    tls: TlsTermination,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

/// The parts from which a [`ConnectionContext`] is made.
#[derive(Debug)]
pub struct ConnectionParts<F> {
    /// Opens a session for every admitted connection, with the quota of its client's address.
    pub open_session: F,
    /// Decides whether a connection is admitted.
    pub admission: Arc<Admission>,
    /// Limits of every connection; a reload changes them.
    pub limits: Reloadable<ConnectionLimits>,
    /// The connections of each address, and what its sessions have spent.
    pub quotas: Arc<Quotas>,
    /// Knows the banned addresses.
    pub sanctions: Arc<ClusterSanctions>,
    /// True if the log names the addresses of refused clients.
    pub log_addresses: bool,
    /// TLS of both ports, while it has a certificate.
    pub tls: TlsTermination,
    /// Metrics of the gateway.
    pub metrics: Arc<Metrics>,
    /// Ends the accept loops and every HTTP connection when it is cancelled.
    pub closing: CancellationToken,
    /// Ends every connection at its moment once it has begun, with
    /// [`CloseCode::Restart`](presence::model::codes::CloseCode::Restart).
    pub drain: Arc<ConnectionDrain>,
    /// Runs every connection: waiting for the closed tracker waits for the end of the last session.
    pub tasks: TaskTracker,
}

impl<S: ConnectionSession> ConnectionContext<S> {
    /// Creates the context; [`Listeners::serve`] starts accepting.
    pub fn new<F: Fn(Dialect, Arc<Quota>) -> S + Send + Sync + 'static>(parts: ConnectionParts<F>) -> Arc<Self> {
        let ConnectionParts { open_session, admission, limits, quotas, .. } = parts;
        let ConnectionParts { sanctions, log_addresses, tls, metrics, closing, drain, tasks, .. } = parts;
        let seat_refusals = SeatRefusals::new(Arc::clone(&metrics), log_addresses);
        let origin_refusals = OriginRefusals::new(Arc::clone(&metrics), log_addresses);
        let permits = ConnectionPermits::new(Arc::clone(&metrics), quotas, limits.get().refusals);
        let stalled = StalledConnections::default();
        stalled.register_metrics(&metrics);
        Arc::new(Self {
            open_session: Box::new(open_session),
            admission,
            limits,
            permits,
            sanctions,
            seat_refusals,
            origin_refusals,
            closing,
            drain,
            wheel: Arc::new(TimerWheel::new()),
            stalled,
            tls,
            metrics,
            tasks,
        })
    }
}

impl<S> ConnectionContext<S> {
    /// Returns true for a banned address. Counts and logs the refusal that follows.
    fn refuses_address(&self, address: ClientAddress) -> bool {
        let is_banned = self.sanctions.bans_address(address);
        if is_banned {
            self.metrics.connections_banned.inc();
            self.sanctions.note_refusal(Some(address));
        }
        is_banned
    }
}

impl<S> fmt::Debug for ConnectionContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionContext")
            .field("limits", &self.limits.get())
            .field("permits", &self.permits)
            .finish_non_exhaustive()
    }
}
