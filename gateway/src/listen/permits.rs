//! Who is connected: the cap on connections, and the one place that sees every connection come and go.
//!
//! A [`ConnectionPermit`] is taken when a socket is accepted and given back by its drop, so a connection is counted out exactly
//! once, however its task ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use presence::host::metrics::Label;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::metrics::{ListenerKind, Metrics, Stage};

use crate::listen::connection::End;

/// Connections beyond the cap that are being told so at one time. Beyond these, sockets are dropped without a word.
const REFUSALS: usize = 256;

/// The seats of one gateway.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    taken: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermits {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { taken: Arc::default(), refusals: Arc::new(Semaphore::new(REFUSALS)), metrics }
    }

    /// A seat for a new connection; `None` when `count` of them are taken. When there were more once, nobody is asked to
    /// leave.
    pub(super) fn take(&self, port: ListenerKind, count: usize) -> Option<ConnectionPermit> {
        let is_free = |taken: usize| (taken < count).then_some(taken + 1);
        self.taken.try_update(Ordering::Relaxed, Ordering::Relaxed, is_free).ok()?;
        let taken = Arc::clone(&self.taken);
        let metrics = Arc::clone(&self.metrics);
        metrics.comes(port);
        Some(ConnectionPermit { port, end: OnceLock::new(), metrics, taken, is_open: AtomicBool::new(false) })
    }

    /// Leave to tell a newcomer that the house is full; `None` when too many are being told already.
    pub(super) fn refuse(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// One connection's seat.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    port: ListenerKind,
    end: OnceLock<End>,
    metrics: Arc<Metrics>,
    taken: Arc<AtomicUsize>,
    is_open: AtomicBool,
}

impl ConnectionPermit {
    /// Notes that the conversation begins.
    pub(super) fn opened(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.metrics.opens(self.port);
        }
    }

    /// Notes how the conversation ended. A connection that never got as far has none.
    pub(super) fn ended(&self, end: End) {
        let _ = self.end.set(end);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        let stage = if *self.is_open.get_mut() { Stage::Open } else { Stage::Handshake };
        self.metrics.goes(self.port, stage);
        if let Some(End::Closed(code)) = self.end.get() {
            self.metrics.closes[*code].inc();
        }
        let reason = self.end.get().map_or("no_session", |end| end.slug());
        debug!(port = self.port.value(), reason, "connection ended");
    }
}
