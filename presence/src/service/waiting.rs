//! [`WaitingPool`]: the connections of the API that have no complete request.
//!
//! A new connection, a half-sent request and an idle connection wait here. The pool is bounded: one more closes the
//! oldest connection of the address that has most of them, so requests always find room, whatever one client holds
//! open. A connection that is being answered is not in the pool. Nothing here knows HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::host::client_address::ClientAddress;

/// Maximum number of connections of the API, fewer if the process has fewer descriptors. All shares are parts of it.
pub(super) const CONNECTIONS_MAX: usize = 4096;
/// Maximum number of waiting connections.
const WAITING_MAX: usize = 512;

/// Returns the part of `limit` that fits in a process with at most `connections` connections; at least 1.
pub(super) fn share_of(limit: usize, connections: usize) -> usize {
    (limit * connections.min(CONNECTIONS_MAX) / CONNECTIONS_MAX).max(1)
}

/// The waiting connections, oldest first. Cheap to clone: clones share it.
#[derive(Debug, Clone)]
pub(super) struct WaitingPool(Arc<Mutex<WaitingTable>>);

#[derive(Debug)]
struct WaitingTable {
    limit: usize,
    next_ticket: u64,
    rows: BTreeMap<u64, WaitingRow>,
}

#[derive(Debug)]
struct WaitingRow {
    address: ClientAddress,
    evicted: CancellationToken,
}

impl WaitingTable {
    fn enter(&mut self, row: WaitingRow) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.rows.insert(ticket, row);
        if self.rows.len() > self.limit {
            self.evict();
        }
        ticket
    }

    fn evict(&mut self) {
        let mut by_address: HashMap<ClientAddress, (usize, u64)> = HashMap::new();
        for (ticket, row) in self.rows.iter().rev() {
            let (count, oldest) = by_address.entry(row.address).or_default();
            (*count, *oldest) = (*count + 1, *ticket);
        }
        // Among addresses with the same number, the one that waits longest.
        let heaviest = by_address.into_values().max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
        if let Some(row) = heaviest.and_then(|(_, oldest)| self.rows.remove(&oldest)) {
            tracing::debug!(address = %row.address, "waiting api connection closed");
            row.evicted.cancel();
        }
    }
}

impl WaitingPool {
    /// Creates the pool of a process that may have `connections` connections.
    pub(super) fn new(connections: usize) -> Self {
        let limit = share_of(WAITING_MAX, connections);
        Self(Arc::new(Mutex::new(WaitingTable { limit, next_ticket: 0, rows: BTreeMap::new() })))
    }

    /// Adds a new connection, which waits for its first request.
    pub(super) fn open(&self, address: ClientAddress) -> ConnectionPhase {
        let phase = ConnectionPhase(Arc::new(PhaseInner {
            pool: self.clone(),
            address,
            evicted: CancellationToken::new(),
            state: Mutex::default(),
        }));
        phase.0.enter(&mut phase.0.lock());
        phase
    }

    fn lock(&self) -> MutexGuard<'_, WaitingTable> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection: waiting for a complete request, or being answered. Clones are handles of the same connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPhase(Arc<PhaseInner>);

#[derive(Debug)]
struct PhaseInner {
    pool: WaitingPool,
    address: ClientAddress,
    evicted: CancellationToken,
    state: Mutex<PhaseState>,
}

#[derive(Debug, Default)]
struct PhaseState {
    /// Its place in the pool while it waits.
    ticket: Option<u64>,
    /// Answers that are not written yet: several if its client pipelines requests.
    answers: usize,
}

impl ConnectionPhase {
    /// Leaves the pool until the answer is dropped: a request has arrived completely.
    pub(super) fn answer(&self) -> UnwrittenAnswer {
        let mut state = self.0.lock();
        state.answers += 1;
        self.0.leave(&mut state);
        UnwrittenAnswer(self.clone())
    }

    /// Resolves once the connection has to close in favour of newer ones.
    pub(super) async fn evicted(&self) {
        self.0.evicted.cancelled().await;
    }
}

/// An answer under way. After the last one the connection waits for the next request.
#[derive(Debug)]
pub(super) struct UnwrittenAnswer(ConnectionPhase);

impl Drop for UnwrittenAnswer {
    fn drop(&mut self) {
        let phase = &self.0.0;
        let mut state = phase.lock();
        state.answers -= 1;
        if state.answers == 0 {
            phase.enter(&mut state);
        }
    }
}

impl PhaseInner {
    fn enter(&self, state: &mut PhaseState) {
        let row = WaitingRow { address: self.address, evicted: self.evicted.clone() };
        state.ticket = Some(self.pool.lock().enter(row));
    }

    fn leave(&self, state: &mut PhaseState) {
        if let Some(ticket) = state.ticket.take() {
            self.pool.lock().rows.remove(&ticket);
        }
    }

    fn lock(&self) -> MutexGuard<'_, PhaseState> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PhaseInner {
    fn drop(&mut self) {
        self.leave(&mut self.lock());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn address(text: &str) -> ClientAddress {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    fn is_evicted(phase: &ConnectionPhase) -> bool {
        phase.0.evicted.is_cancelled()
    }

    #[test]
    fn shares_shrink_with_the_connections() {
        for (connections, share) in [(0, 1), (24, 3), (1024, 128), (CONNECTIONS_MAX, 512), (1_000_000, 512)] {
            assert_eq!(share_of(WAITING_MAX, connections), share, "{connections}");
        }
    }

    #[test]
    fn full_pool_evicts_the_heaviest_address() {
        let pool = WaitingPool::new(CONNECTIONS_MAX);
        let quiet = pool.open(address("192.0.2.1"));
        let hostile: Vec<_> = (1..WAITING_MAX).map(|_| pool.open(address("192.0.2.2"))).collect();
        let newcomer = pool.open(address("192.0.2.3"));
        assert!(is_evicted(&hostile[0]) && !is_evicted(&hostile[1]), "the oldest of the heaviest address");
        assert!(!is_evicted(&quiet) && !is_evicted(&newcomer));
        let _more: Vec<_> = (0..WAITING_MAX).map(|_| pool.open(address("192.0.2.2"))).collect();
        assert!(!is_evicted(&quiet) && !is_evicted(&newcomer));
        assert_eq!(pool.lock().rows.len(), WAITING_MAX);
    }

    #[test]
    fn answered_connection_is_never_evicted() {
        let pool = WaitingPool::new(CONNECTIONS_MAX);
        let answered = pool.open(address("192.0.2.1"));
        let (first, second) = (answered.answer(), answered.answer());
        drop(first);
        let waiting: Vec<_> = (0..2 * WAITING_MAX).map(|_| pool.open(address("192.0.2.1"))).collect();
        assert!(!is_evicted(&answered));
        // Idle after the last answer, it is the newest that waits.
        drop(second);
        assert!(!is_evicted(&answered));
        drop(waiting);
        assert_eq!(pool.lock().rows.len(), 1);
        drop(answered);
        assert!(pool.lock().rows.is_empty());
    }
}
