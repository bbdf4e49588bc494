//! Connection permits: the limit on connections, and their metrics.
//!
//! A [`ConnectionPermit`] is acquired when a socket is accepted and released by its drop, so every connection is
//! released exactly once, however its task ends. It counts for its client's address from the moment that this is known:
//! behind a proxy that is later.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use presence::host::client_address::ClientAddress;
use presence::host::metrics::Label;
use presence::model::codes::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use crate::metrics::{ListenerKind, Metrics, SeatLimit, Stage};
use crate::quota::{Quota, Quotas};
use crate::session::ConnectionEnd;
use crate::wire::Refusal;

use super::ConnectionLimits;

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

/// Bytes of a partial request that each client may hold before it has registered.
pub(super) const PARTIAL_BYTES_FREE: usize = 4 * 1024;
/// Maximum memory of partial requests beyond these, of all clients that have not registered: that of 400 clients that
/// return to many rooms at once.
pub(super) const PARTIAL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The pause that a client without space is advised to make.
const PARTIAL_RETRY_MS: u64 = 1000;

/// The refusal of a partial request that has no space.
pub(super) fn no_partial_space() -> Refusal {
    let refusal = Refusal { retry_after_ms: Some(PARTIAL_RETRY_MS), ..ErrorCode::Overloaded.into() };
    refusal.with_detail("too many clients have begun a large first request")
}

/// Adds one to a count below its maximum. Returns false at the maximum.
fn add_below(count: &AtomicUsize, maximum: usize) -> bool {
    let next = |taken: usize| (taken < maximum).then_some(taken + 1);
    count.try_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

/// The permits in use.
#[derive(Debug)]
struct TakenPermits {
    all: AtomicUsize,
    unregistered: AtomicUsize,
    /// Bytes of partial requests of clients that have not registered, beyond those that each may hold.
    partial_bytes: AtomicUsize,
    quotas: Arc<Quotas>,
}

/// The permits of one gateway.
#[derive(Debug)]
pub(super) struct ConnectionPermits {
    taken: Arc<TakenPermits>,
    refusals: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl ConnectionPermits {
    pub(super) fn new(metrics: Arc<Metrics>, quotas: Arc<Quotas>, refusals: usize) -> Self {
        let [all, unregistered, partial_bytes] = [0; 3].map(AtomicUsize::new);
        let taken = TakenPermits { all, unregistered, partial_bytes, quotas };
        Self { taken: Arc::new(taken), refusals: Arc::new(Semaphore::new(refusals)), metrics }
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
        let TakenPermits { all, unregistered, quotas, .. } = &*self.taken;
        if !add_below(all, limits.connections) {
            return Err(SeatLimit::Gateway);
        }
        // Clients that never register leave half of the connections to others.
        if !add_below(unregistered, (limits.connections / 2).max(UNREGISTERED_MIN)) {
            all.fetch_sub(1, Ordering::Relaxed);
            return Err(SeatLimit::Unregistered);
        }
        let quota = address.map(|address| quotas.take_seat(address, limits.addresses.connections));
        if let Some(None) = quota {
            all.fetch_sub(1, Ordering::Relaxed);
            unregistered.fetch_sub(1, Ordering::Relaxed);
            return Err(SeatLimit::Address);
        }
        self.metrics.connection_accepted(port);
        Ok(ConnectionPermit {
            port,
            end: OnceLock::new(),
            quota: quota.flatten().map(OnceLock::from).unwrap_or_default(),
            metrics: Arc::clone(&self.metrics),
            taken: Arc::clone(&self.taken),
            is_open: AtomicBool::new(false),
            is_registered: AtomicBool::new(false),
            partial_bytes: AtomicU32::new(0),
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
    /// That of the address, which counts the connection.
    quota: OnceLock<Arc<Quota>>,
    metrics: Arc<Metrics>,
    taken: Arc<TakenPermits>,
    is_open: AtomicBool,
    is_registered: AtomicBool,
    /// Its part of [`TakenPermits::partial_bytes`].
    partial_bytes: AtomicU32,
}

impl ConnectionPermit {
    /// Returns the client's address; `None` until a trusted proxy has named it.
    pub(super) fn address(&self) -> Option<ClientAddress> {
        self.quota.get().and_then(|quota| quota.address())
    }

    /// Returns the quota of that address; `None` until a trusted proxy has named it.
    pub(super) fn quota(&self) -> Option<Arc<Quota>> {
        self.quota.get().cloned()
    }

    /// Counts the connection for the address of its client, which may have `count` of them. A known address stays.
    ///
    /// # Errors
    /// The address has no seat left.
    pub(super) fn identify(&self, address: ClientAddress, count: usize) -> Result<(), SeatLimit> {
        if self.quota.get().is_some() {
            return Ok(());
        }
        let quota = self.taken.quotas.take_seat(address, count).ok_or(SeatLimit::Address)?;
        if let Err(quota) = self.quota.set(quota) {
            self.taken.quotas.release_seat(&quota);
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
            let bytes = self.partial_bytes.swap(0, Ordering::Relaxed);
            self.taken.partial_bytes.fetch_sub(bytes as usize, Ordering::Relaxed);
        }
    }

    /// Notes the memory of a partial request. Returns false if there is none left for this client, which has not
    /// registered: the connection has to end. Called by the connection's own task only.
    pub(super) fn holds_partial(&self, bytes: usize) -> bool {
        let (before, after) = (self.partial_bytes.load(Ordering::Relaxed), bytes.saturating_sub(PARTIAL_BYTES_FREE));
        if after == before as usize || self.is_registered.load(Ordering::Relaxed) {
            return true;
        }
        let taken = &self.taken.partial_bytes;
        let next = |all: usize| {
            let all = all - before as usize + after;
            (all <= PARTIAL_BYTES_MAX || after < before as usize).then_some(all)
        };
        let is_noted = taken.try_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if is_noted {
            self.partial_bytes.store(after as u32, Ordering::Relaxed);
        }
        is_noted
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
        if let Some(quota) = self.quota.take() {
            self.taken.quotas.release_seat(&quota);
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
