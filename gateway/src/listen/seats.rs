//! Who is connected: the cap on connections, and the one place that sees every connection come and go.
//!
//! A [`Seat`] is taken when a socket is accepted and given back by its drop, so a connection is counted out exactly
//! once, however its task ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::connection::End;

/// Connections beyond the cap that are being told so at one time. Beyond these, sockets are dropped without a word.
const REFUSALS: usize = 256;

/// A listening port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// HTTP and WebSocket.
    Ws,
    /// Raw TCP.
    Tcp,
}

impl Port {
    /// The word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Tcp => "tcp",
        }
    }
}

/// The seats of one gateway.
#[derive(Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    taken: Arc<[AtomicUsize; 2]>,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            taken: Arc::default(),
        }
    }

    /// Connections of a port that are open now.
    #[must_use]
    pub fn taken(&self, port: Port) -> usize {
        self.taken[port as usize].load(Ordering::Relaxed)
    }

    /// A seat for a new connection; `None` when the house is full.
    pub(super) fn take(&self, port: Port) -> Option<Seat> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        self.taken[port as usize].fetch_add(1, Ordering::Relaxed);
        Some(Seat { port, end: OnceLock::new(), taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// Leave to tell a newcomer that the house is full; `None` when too many are being told already.
    pub(super) fn refuse(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// One connection's seat.
#[derive(Debug)]
pub(super) struct Seat {
    port: Port,
    end: OnceLock<End>,
    taken: Arc<[AtomicUsize; 2]>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    /// Notes how the conversation ended. A connection that never got as far has none.
    pub(super) fn ended(&self, end: End) {
        let _ = self.end.set(end);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken[self.port as usize].fetch_sub(1, Ordering::Relaxed);
        let reason = self.end.get().map_or("no_session", |end| end.slug());
        debug!(port = self.port.as_str(), reason, "connection ended");
    }
}
