//! The doors: sockets in, sessions out. Binds both ports, decides who gets a seat, runs one task per connection.
//!
//! One connection, by file: `accept` takes the socket, `upgrade` turns an HTTP request into a WebSocket, `ws` and `tcp`
//! (over `frame` and `lines`) speak the two framings, `connection` runs the conversation between a door and its session, `wheel` is
//! its clock, `departure` ends them all. Called by the server, which owns readiness ([`Admission`]) and says when to go. Never knows rooms,
//! nicknames or the store.

mod accept;
mod admission;
mod connection;
mod drain;
pub mod frame;
mod lines;
mod permits;
mod stalled;
mod tcp;
mod timer_wheel;
mod upgrade;
mod ws;

#[cfg(test)]
mod tests;

pub use self::accept::{BindError, Listeners};
pub use self::admission::Admission;
pub use self::connection::Session;
pub use self::drain::{ConnectionDrain, Pace};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use presence::host::reloadable::Reloadable;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::outbound::policy::SLOW_READER;
use crate::wire::Dialect;

use self::permits::ConnectionPermits;
use self::stalled::StalledConnections;
use self::timer_wheel::TimerWheel;

/// Whom the doors let in, how much they take on and how long they wait. They are asked when a connection begins and hold
/// for all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Origins of web pages that may open a WebSocket; empty lets all in. What sends no origin is no web page.
    pub origins: Arc<[String]>,
    /// Connections of both ports together; one more is refused as `overloaded`.
    pub connections: usize,
    /// How long a WebSocket client may take for its HTTP header.
    pub header_wait: Duration,
    /// How long one round of output may take to go out before the connection is dropped as too slow.
    pub write_stall: Duration,
    /// How long a connection that ends waits for its last bytes to go out, and for the other side to hang up.
    pub close_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            origins: Arc::default(),
            connections: 16_384,
            header_wait: Duration::from_secs(10),
            write_stall: SLOW_READER.write_stall,
            close_wait: Duration::from_secs(2),
        }
    }
}

/// What all connections of a gateway share.
pub struct ConnectionContext<S> {
    open_session: Box<dyn Fn(Dialect) -> S + Send + Sync>,
    admission: Arc<Admission>,
    limits: Reloadable<Limits>,
    seats: ConnectionPermits,
    closing: CancellationToken,
    departure: Arc<ConnectionDrain>,
    /// Turns for as long as anybody is in the house.
    wheel: Arc<TimerWheel>,
    standing: StalledConnections,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl<S: Session> ConnectionContext<S> {
    /// Puts a house together; [`Listeners::serve`] opens its doors.
    ///
    /// `open_session` begins a session for every connection that is let in. Cancelling `closing` ends the accept loops
    /// and every handshake; beginning `departure` ends every conversation in its time, with
    /// [`CloseCode::Restart`](presence::model::codes::CloseCode::Restart). Every task runs on `tasks`, so closing that and
    /// waiting for it is waiting for the last session's end.
    pub fn new(
        open_session: impl Fn(Dialect) -> S + Send + Sync + 'static,
        admission: Arc<Admission>,
        limits: Reloadable<Limits>,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
        departure: Arc<ConnectionDrain>,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let seats = ConnectionPermits::new(Arc::clone(&metrics));
        let (open_session, wheel, standing) =
            (Box::new(open_session), Arc::new(TimerWheel::new()), StalledConnections::default());
        standing.show(&metrics);
        Arc::new(Self { open_session, admission, limits, seats, closing, departure, wheel, standing, metrics, tasks })
    }
}

impl<S> fmt::Debug for ConnectionContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House").field("limits", &self.limits.get()).field("seats", &self.seats).finish_non_exhaustive()
    }
}
