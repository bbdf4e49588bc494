//! The number of connections of each client address.
//!
//! Stores an entry only for addresses with connections, in a few dozen bytes each. Refuses nothing itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use presence::host::client_address::ClientAddress;

/// Minimum capacity that is kept, so that a few connections do not reallocate the table.
const CAPACITY_MIN: usize = 64;

/// The counts of all addresses.
#[derive(Debug, Default)]
pub(super) struct AddressShares(Mutex<HashMap<ClientAddress, u32>>);

impl AddressShares {
    /// Adds a connection to an address. Returns false if it has `count` of them.
    pub(super) fn take(&self, address: ClientAddress, count: usize) -> bool {
        let mut counts = self.lock();
        let taken = counts.entry(address).or_insert(0);
        if *taken as usize >= count {
            if *taken == 0 {
                counts.remove(&address);
            }
            return false;
        }
        *taken += 1;
        true
    }

    /// Removes a connection from an address.
    pub(super) fn release(&self, address: ClientAddress) {
        let mut counts = self.lock();
        let Entry::Occupied(mut taken) = counts.entry(address) else { return };
        *taken.get_mut() -= 1;
        if *taken.get() > 0 {
            return;
        }
        taken.remove();
        // Memory of a burst is released once few addresses are left.
        if counts.len() < counts.capacity() / 8 {
            let capacity = counts.len().max(CAPACITY_MIN) * 2;
            counts.shrink_to(capacity);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientAddress, u32>> {
        // Held for a few instructions; a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> ClientAddress {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    #[test]
    fn address_gets_its_share_and_returns_it() {
        let shares = AddressShares::default();
        assert!(shares.take(address(1), 2) && shares.take(address(1), 2));
        assert!(!shares.take(address(1), 2), "the share is used");
        assert!(shares.take(address(2), 2), "another address has its own");
        shares.release(address(1));
        assert!(shares.take(address(1), 2));
        assert!(!shares.take(address(3), 0));
        [1, 1, 2].into_iter().for_each(|number| shares.release(address(number)));
        assert!(shares.lock().is_empty());
    }

    #[test]
    fn table_shrinks_after_a_burst_of_addresses() {
        let shares = AddressShares::default();
        assert!((0..100_000).all(|number| shares.take(address(number), 1)));
        (0..100_000).for_each(|number| shares.release(address(number)));
        assert!(shares.lock().capacity() < 1000, "{}", shares.lock().capacity());
    }
}
