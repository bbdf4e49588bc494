//! Connection permits: the limit on connections, and their metrics.
//!
//! A [`ConnectionPermit`] is acquired when a socket is accepted and released by its drop, so every connection is
//! released exactly once, however its task ends. It counts for its client's address from the moment that this is known:
//! behind a proxy that is later.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use presence::host::client_address::ClientAddress;
use presence::host::metrics::Label;
use presence::model::codes::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::metrics::{ListenerKind, Metrics, SeatLimit, Stage};
use crate::session::ConnectionEnd;

use super::ConnectionLimits;
use super::address_shares::AddressShares;

impl SeatLimit {
    /// Returns the code of a refusal.
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::Gateway | Self::Unregistered => ErrorCode::Overloaded,
            Self::Address => ErrorCode::RateLimited,
        }
    }
}

/// Minimum share of the connections that have not registered: that of one address by default.
const UNREGISTERED_MIN: usize = 256;

/// Adds one to a count below its maximum. Returns false at the maximum.
fn add_below(count: &AtomicUsize, maximum: usize) -> bool {
    let next = |taken: usize| (taken < maximum).then_some(taken + 1);
    count.try_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

/// The permits in use.
#[derive(Debug, Default)]
struct TakenPermits {
    all: AtomicUsize,
    unregistered: AtomicUsize,
    addresses: AddressShares,
}

/// The permits of one gateway.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    taken: Arc<TakenPermits>,
    refusals: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermits {
    pub(super) fn new(metrics: Arc<Metrics>, refusals: usize) -> Self {
        Self { taken: Arc::default(), refusals: Arc::new(Semaphore::new(refusals)), metrics }
    }

    /// Acquires a permit for a client whose address may not be known yet. A lowered limit closes no connection.
    ///
    /// # Errors
    /// The limit that has no space.
    pub(super) fn take(
        &self,
        port: ListenerKind,
        limits: &ConnectionLimits,
        address: Option<ClientAddress>,
    ) -> Result<ConnectionPermit, SeatLimit> {
        let TakenPermits { all, unregistered, addresses } = &*self.taken;
        if !add_below(all, limits.connections) {
            return Err(SeatLimit::Gateway);
        }
        // Clients that never register leave half of the connections to others.
        if !add_below(unregistered, (limits.connections / 2).max(UNREGISTERED_MIN)) {
            all.fetch_sub(1, Ordering::Relaxed);
            return Err(SeatLimit::Unregistered);
        }
        if let Some(address) = address
            && !addresses.take(address, limits.addresses.connections)
        {
            all.fetch_sub(1, Ordering::Relaxed);
            unregistered.fetch_sub(1, Ordering::Relaxed);
            return Err(SeatLimit::Address);
        }
        self.metrics.connection_accepted(port);
        Ok(ConnectionPermit {
            port,
            end: OnceLock::new(),
            address: address.map(OnceLock::from).unwrap_or_default(),
            metrics: Arc::clone(&self.metrics),
            taken: Arc::clone(&self.taken),
            is_open: AtomicBool::new(false),
            is_registered: AtomicBool::new(false),
        })
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
    address: OnceLock<ClientAddress>,
    metrics: Arc<Metrics>,
    taken: Arc<TakenPermits>,
    is_open: AtomicBool,
    is_registered: AtomicBool,
}

impl ConnectionPermit {
    /// Returns the client's address; `None` until a trusted proxy has named it.
    pub(super) fn address(&self) -> Option<ClientAddress> {
        self.address.get().copied()
    }

    /// Counts the connection for the address of its client, which may have `count` of them. A known address stays.
    ///
    /// # Errors
    /// The address has no seat left.
    pub(super) fn identify(&self, address: ClientAddress, count: usize) -> Result<(), SeatLimit> {
        if self.address.get().is_some() {
            return Ok(());
        }
        if !self.taken.addresses.take(address, count) {
            return Err(SeatLimit::Address);
        }
        if self.address.set(address).is_err() {
            self.taken.addresses.release(address);
        }
        Ok(())
    }

    /// Counts the connection as open.
    pub(super) fn opened(&self) {
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.metrics.connection_opened(self.port);
        }
    }

    /// Counts the connection as registered.
    pub(super) fn registered(&self) {
        if !self.is_registered.swap(true, Ordering::Relaxed) {
            self.taken.unregistered.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Records the end of an open connection.
    pub(super) fn ended(&self, end: ConnectionEnd) {
        let _ = self.end.set(end);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.registered();
        self.taken.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address.get() {
            self.taken.addresses.release(*address);
        }
        let stage = if *self.is_open.get_mut() { Stage::Open } else { Stage::Handshake };
        self.metrics.connection_closed(self.port, stage);
        if let Some(ConnectionEnd::Closed(code)) = self.end.get() {
            self.metrics.closes[*code].inc();
        }
        let reason = self.end.get().map_or("no_session", |end| end.slug());
        debug!(port = self.port.value(), reason, "connection ended");
    }
}
