//! Who is connected: the cap on connections, and the one place that sees every connection come and go.
//!
//! A [`Seat`] is taken when a socket is accepted and given back by its drop, so a connection is counted out exactly
//! once, however its task ends.

use std::sync::{Arc, OnceLock};

use presence::metrics::Label;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::metrics::{Connected, Metrics, Port};

use super::connection::End;

/// Connections beyond the cap that are being told so at one time. Beyond these, sockets are dropped without a word.
const REFUSALS: usize = 256;

/// The seats of one gateway.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Seats {
    pub(super) fn new(count: usize, metrics: Arc<Metrics>) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), refusals: Arc::new(Semaphore::new(REFUSALS)), metrics }
    }

    /// A seat for a new connection; `None` when the house is full.
    pub(super) fn take(&self, port: Port) -> Option<Seat> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let connected = self.metrics.connected(port);
        let metrics = Arc::clone(&self.metrics);
        Some(Seat { port, end: OnceLock::new(), metrics, _connected: connected, _permit: permit })
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
    metrics: Arc<Metrics>,
    _connected: Connected,
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
        if let Some(End::Closed(code)) = self.end.get() {
            self.metrics.closes[*code].inc();
        }
        let reason = self.end.get().map_or("no_session", |end| end.slug());
        debug!(port = self.port.value(), reason, "connection ended");
    }
}
