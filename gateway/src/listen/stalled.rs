//! Stalled connections: their sockets accept no bytes, so their output waits.
//!
//! Only stalled connections are listed, so others cost nothing here. Their outboxes are read at the scrape.
//! Decides nothing: the limits are in [`crate::outbound::policy`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::metrics::Metrics;
use crate::outbound::Outbox;

/// The outboxes of stalled connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StalledConnections {
    outboxes: Arc<Mutex<Slab<Outbox>>>,
}

/// Lists a connection as stalled until it is dropped.
#[derive(Debug)]
pub(super) struct StalledGuard<'a> {
    connections: &'a StalledConnections,
    key: usize,
}

impl StalledConnections {
    /// Lists this connection as stalled.
    pub(super) fn enter(&self, outbox: &Outbox) -> StalledGuard<'_> {
        StalledGuard { connections: self, key: self.lock().insert(outbox.clone()) }
    }

    /// Registers the numbers that each scrape reads. Call it once.
    pub(super) fn register_metrics(&self, metrics: &Metrics) {
        let (count, bytes) = (self.clone(), self.clone());
        metrics.pull_stalled(
            move || count.lock().len(),
            move || bytes.lock().iter().map(|(_, outbox)| outbox.queued_bytes()).sum(),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Outbox>> {
        // Nothing panics while it is held.
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StalledGuard<'_> {
    fn drop(&mut self) {
        self.connections.lock().remove(self.key);
    }
}
