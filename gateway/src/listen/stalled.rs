//! Which connections stand still: their sockets take nothing, so what is for them waits.
//!
//! Only those are noted, when they begin to stand and when they go on, so a connection that reads costs nothing here. The
//! numbers are asked of their outboxes at the scrape. Decides nothing: when a reader is too slow is the outbox' to say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use crate::metrics::Metrics;
use crate::outbound::Outbox;

/// The outboxes whose sockets take nothing right now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct StalledConnections {
    outboxes: Arc<Mutex<Slab<Outbox>>>,
}

/// Notes a connection as standing until it is dropped.
#[derive(Debug)]
pub(super) struct Stands<'a> {
    standing: &'a StalledConnections,
    place: usize,
}

impl StalledConnections {
    /// From here on this one stands still.
    pub(super) fn enter(&self, outbox: &Outbox) -> Stands<'_> {
        Stands { standing: self, place: self.lock().insert(outbox.clone()) }
    }

    /// Has its numbers asked for at each scrape. Call it once.
    pub(super) fn show(&self, metrics: &Metrics) {
        let (count, bytes) = (self.clone(), self.clone());
        metrics
            .standing(move || count.lock().len(), move || bytes.lock().iter().map(|(_, outbox)| outbox.bytes()).sum());
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Outbox>> {
        // Nothing panics while it is held.
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stands<'_> {
    fn drop(&mut self) {
        self.standing.lock().remove(self.place);
    }
}
