//! [`ListingShares`]: places for the listings and lookups under way, a few for each client address.
//!
//! A listing without a place waits for one in its order and for a limited time, so a burst of one client is served and
//! a flood of one client delays itself. Requests under way (`seats.rs`) bound the number of waiting ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::host::client_address::ClientAddress;

/// Number of places of one address: half of the readers that take turns.
const PLACES: usize = 4;
/// Maximum wait for a place.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The places of all addresses. Cheap to clone: clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ListingShares(Arc<Mutex<HashMap<ClientAddress, Weak<Semaphore>>>>);

impl ListingShares {
    /// Waits for a place of this address. Returns `None` if none is free in time. Dropping the future gives up.
    pub(super) async fn place(&self, address: ClientAddress) -> Option<OwnedSemaphorePermit> {
        timeout(WAIT_MAX, self.places(address).acquire_owned()).await.ok()?.ok()
    }

    /// Returns the places of an address, and forgets the addresses that use none.
    fn places(&self, address: ClientAddress) -> Arc<Semaphore> {
        // Held without an await; a panic elsewhere does not spoil it.
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = shares.get(&address).and_then(Weak::upgrade) {
            return places;
        }
        shares.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(PLACES));
        shares.insert(address, Arc::downgrade(&places));
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
    async fn listing_waits_for_places_of_its_address() {
        let shares = ListingShares::default();
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(shares.place(address(1)).await.unwrap());
        }
        assert!(shares.place(address(1)).await.is_none(), "its address has all its places");
        let _other = shares.place(address(2)).await.unwrap();
        let (next, ()) = tokio::join!(shares.place(address(1)), async { drop(held.pop()) });
        assert!(next.is_some());
    }

    #[tokio::test]
    async fn addresses_without_listings_are_forgotten() {
        let shares = ListingShares::default();
        let held = shares.place(address(0)).await.unwrap();
        for number in 1..100 {
            drop(shares.place(address(number)).await.unwrap());
        }
        assert!(shares.0.lock().unwrap().len() <= 2);
        drop(held);
    }
}
