//! [`SeatTable`]: the shares of the API that requests hold: event streams, requests under way, bytes.
//!
//! Each kind has a limit for the process and a lower one for each client address, so no client takes it all. A
//! [`SeatPermit`] returns its seats when it is dropped. Nothing here waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::client_address::ClientAddress;
use crate::service::waiting::share_of;

/// A limited resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatKind {
    /// An event stream.
    Stream,
    /// A request that is being answered.
    Request,
    /// A KiB of memory for a request body that arrives.
    BodyKib,
    /// A KiB of memory for an answer that its client has not read yet.
    AnswerKib,
}

/// Number of kinds.
const KINDS: usize = 4;

impl SeatKind {
    /// Returns its name in logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stream => "event streams",
            Self::Request => "requests under way",
            Self::BodyKib => "bytes of request bodies",
            Self::AnswerKib => "bytes of unread answers",
        }
    }

    /// Returns its limits in a process that may have `connections` connections.
    fn limit(self, connections: usize) -> SeatLimit {
        match self {
            Self::Stream => SeatLimit { all: share_of(3000, connections), each: 64 },
            Self::Request => SeatLimit { all: share_of(512, connections), each: 64 },
            Self::BodyKib => SeatLimit { all: 16 * 1024, each: 2 * 1024 },
            Self::AnswerKib => SeatLimit { all: 48 * 1024, each: 12 * 1024 },
        }
    }
}

/// Limits of one kind.
struct SeatLimit {
    /// Of the process.
    all: usize,
    /// Of one client address.
    each: usize,
}

/// The limit that a refused request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatRefusal {
    /// The limit of the process.
    AllTaken,
    /// The limit of its address.
    AddressFull,
}

/// The seats in use. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(super) struct SeatTable {
    connections: usize,
    counts: Arc<Mutex<SeatCounts>>,
}

#[derive(Debug, Default)]
struct SeatCounts {
    all: [usize; KINDS],
    each: HashMap<ClientAddress, [usize; KINDS]>,
}

impl SeatTable {
    /// Creates a table for a process that may have `connections` connections.
    pub(super) fn new(connections: usize) -> Self {
        Self { connections, counts: Arc::default() }
    }

    /// Takes seats of one kind for an address. An address without any gets its first seats whatever their number, so a
    /// large answer is not refused for ever.
    pub(super) fn take(&self, kind: SeatKind, address: ClientAddress, count: usize) -> Result<SeatPermit, SeatRefusal> {
        let SeatLimit { all, each } = kind.limit(self.connections);
        let mut counts = self.lock();
        let (used, own) = (counts.all[kind as usize], counts.each.get(&address).map_or(0, |own| own[kind as usize]));
        if own > 0 && own + count > each {
            return Err(SeatRefusal::AddressFull);
        }
        if used > 0 && used + count > all {
            return Err(SeatRefusal::AllTaken);
        }
        counts.all[kind as usize] += count;
        counts.each.entry(address).or_default()[kind as usize] += count;
        Ok(SeatPermit { table: self.clone(), kind, address, count })
    }

    fn lock(&self) -> MutexGuard<'_, SeatCounts> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seats in use, returned when it is dropped.
#[derive(Debug)]
pub(super) struct SeatPermit {
    table: SeatTable,
    kind: SeatKind,
    address: ClientAddress,
    count: usize,
}

impl Drop for SeatPermit {
    fn drop(&mut self) {
        let mut counts = self.table.lock();
        counts.all[self.kind as usize] -= self.count;
        if let Some(own) = counts.each.get_mut(&self.address) {
            own[self.kind as usize] -= self.count;
            if *own == [0; KINDS] {
                counts.each.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::service::waiting::CONNECTIONS_MAX;

    fn address(number: u32) -> ClientAddress {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    #[test]
    fn address_gets_its_share_only() {
        let seats = SeatTable::new(CONNECTIONS_MAX);
        let requests: Vec<_> = (0..64).map(|_| seats.take(SeatKind::Request, address(1), 1).unwrap()).collect();
        assert_eq!(seats.take(SeatKind::Request, address(1), 1).unwrap_err(), SeatRefusal::AddressFull);
        drop(requests);
        let mut held: Vec<_> = (0..64).map(|_| seats.take(SeatKind::Stream, address(1), 1).unwrap()).collect();
        assert_eq!(seats.take(SeatKind::Stream, address(1), 1).unwrap_err(), SeatRefusal::AddressFull);
        // Other addresses and other kinds are unaffected.
        let _other = seats.take(SeatKind::Stream, address(2), 1).unwrap();
        let _request = seats.take(SeatKind::Request, address(1), 1).unwrap();
        held.pop();
        held.push(seats.take(SeatKind::Stream, address(1), 1).unwrap());
    }

    #[test]
    fn process_limit_holds_for_many_addresses() {
        let seats = SeatTable::new(CONNECTIONS_MAX);
        for (kind, count) in [(SeatKind::Stream, 3000), (SeatKind::Request, 512)] {
            let held: Vec<_> = (0..count).map(|n| seats.take(kind, address(n), 1).unwrap()).collect();
            assert_eq!(seats.take(kind, address(9999), 1).unwrap_err(), SeatRefusal::AllTaken);
            drop(held);
            assert!(seats.lock().each.is_empty() && seats.lock().all == [0; KINDS]);
        }
    }

    #[test]
    fn large_first_answer_is_admitted() {
        let seats = SeatTable::new(CONNECTIONS_MAX);
        let large = seats.take(SeatKind::AnswerKib, address(1), 20 * 1024).unwrap();
        assert_eq!(seats.take(SeatKind::AnswerKib, address(1), 1).unwrap_err(), SeatRefusal::AddressFull);
        drop(large);
        seats.take(SeatKind::AnswerKib, address(1), 1).unwrap();
    }
}
