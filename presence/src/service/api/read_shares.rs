//! [`ReadShares`]: places for the reads of the store under way, a few of each kind for each client address.
//!
//! A read without a place waits for one in its order, so a burst of one client is served and a flood of one client
//! delays itself. Requests wait for a limited time, replays of event streams for as long as it takes. Each kind has
//! places of its own. The seats of requests and streams (`seats.rs`) bound the number of waiting reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::host::client_address::ClientAddress;

/// Maximum wait of a request for its place.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Calls of one address that publish at a time. They share connections, so more cost little.
const POSTS_EACH: usize = 16;

/// The places that a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ReadKind {
    /// A listing or a lookup: many short reads in turns.
    Listing,
    /// A read of one user, one room, the gateways or the totals.
    Single,
    /// A page of events that a stream replays.
    EventPage,
    /// A call that publishes messages.
    Post,
}

impl ReadKind {
    /// Returns its name in refusals and logs, in plural.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Listing => "listings under way",
            Self::Single => "other reads under way",
            Self::EventPage => "pages of events under way",
            Self::Post => "messages under way",
        }
    }

    /// Returns the number of places of one address: half of the readers that take turns, of the connections for reads,
    /// and of the pages that all streams replay at a time.
    fn places(self) -> usize {
        match self {
            Self::Listing | Self::Single => 4,
            Self::EventPage => 2,
            Self::Post => POSTS_EACH,
        }
    }
}

type PlacesInUse = HashMap<(ClientAddress, ReadKind), Weak<Semaphore>>;

/// The places of all addresses. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadShares(Arc<Mutex<PlacesInUse>>);

impl ReadShares {
    /// Waits for a place of this address. Returns `None` if none is free in time. Dropping the future gives up.
    pub(super) async fn place(&self, kind: ReadKind, address: ClientAddress) -> Option<OwnedSemaphorePermit> {
        timeout(WAIT_MAX, self.turn(kind, address)).await.ok()?
    }

    /// Waits for a place of this address for as long as that takes. It is never `None`, since places are never closed.
    pub(super) async fn turn(&self, kind: ReadKind, address: ClientAddress) -> Option<OwnedSemaphorePermit> {
        self.places(kind, address).acquire_owned().await.ok()
    }

    /// Returns the places of an address, and forgets the addresses that use none.
    fn places(&self, kind: ReadKind, address: ClientAddress) -> Arc<Semaphore> {
        // Held without an await; a panic elsewhere does not spoil it.
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = shares.get(&(address, kind)).and_then(Weak::upgrade) {
            return places;
        }
        shares.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(kind.places()));
        shares.insert((address, kind), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn address(number: u32) -> ClientAddress {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    #[tokio::test]
    async fn read_waits_for_places_of_its_address() {
        for (kind, other) in [(ReadKind::Listing, ReadKind::Single), (ReadKind::Single, ReadKind::Listing)] {
            let shares = ReadShares::default();
            let mut held = Vec::new();
            for _ in 0..kind.places() {
                held.push(shares.place(kind, address(1)).await.unwrap());
            }
            assert!(shares.place(kind, address(1)).await.is_none(), "its address has all its places");
            let _other_address = shares.place(kind, address(2)).await.unwrap();
            let _other_kind = shares.place(other, address(1)).await.unwrap();
            let (next, ()) = tokio::join!(shares.place(kind, address(1)), async { drop(held.pop()) });
            assert!(next.is_some());
        }
    }

    #[tokio::test]
    async fn addresses_without_reads_are_forgotten() {
        let shares = ReadShares::default();
        let held = shares.place(ReadKind::Listing, address(0)).await.unwrap();
        for number in 1..100 {
            drop(shares.place(ReadKind::Single, address(number)).await.unwrap());
        }
        assert!(shares.0.lock().unwrap().len() <= 2);
        drop(held);
    }
}
