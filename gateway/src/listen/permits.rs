//! Connection permits: the limit on connections, and their metrics.
//!
//! A [`ConnectionPermit`] is acquired when a socket is accepted and released by its drop, so every connection is
//! released exactly once, however its task ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use presence::host::metrics::Label;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::metrics::{ListenerKind, Metrics, Stage};

use crate::session::ConnectionEnd;

/// The permits of one gateway.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    taken: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermits {
    pub(super) fn new(metrics: Arc<Metrics>, refusals: usize) -> Self {
        Self { taken: Arc::default(), refusals: Arc::new(Semaphore::new(refusals)), metrics }
    }

    /// Acquires a permit; `None` if `count` of them are taken. A lowered limit closes no connection.
    pub(super) fn take(&self, port: ListenerKind, count: usize) -> Option<ConnectionPermit> {
        let is_free = |taken: usize| (taken < count).then_some(taken + 1);
        self.taken.try_update(Ordering::Relaxed, Ordering::Relaxed, is_free).ok()?;
        let taken = Arc::clone(&self.taken);
        let metrics = Arc::clone(&self.metrics);
        metrics.connection_accepted(port);
        Some(ConnectionPermit { port, end: OnceLock::new(), metrics, taken, is_open: AtomicBool::new(false) })
    }

    /// Acquires the permission to wait for the end of a refusal; `None` if too many are waiting.
    pub(super) fn refuse(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.refusals).try_acquire_owned().ok()
    }
}

/// The permit of one connection.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    port: ListenerKind,
    end: OnceLock<ConnectionEnd>,
    metrics: Arc<Metrics>,
    taken: Arc<AtomicUsize>,
    is_open: AtomicBool,
}

impl ConnectionPermit {
    /// Counts the connection as open.
    pub(super) fn opened(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.metrics.connection_opened(self.port);
        }
    }

    /// Records the end of an open connection.
    pub(super) fn ended(&self, end: ConnectionEnd) {
        let _ = self.end.set(end);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        let stage = if *self.is_open.get_mut() { Stage::Open } else { Stage::Handshake };
        self.metrics.connection_closed(self.port, stage);
        if let Some(ConnectionEnd::Closed(code)) = self.end.get() {
            self.metrics.closes[*code].inc();
        }
        let reason = self.end.get().map_or("no_session", |end| end.slug());
        debug!(port = self.port.value(), reason, "connection ended");
    }
}
