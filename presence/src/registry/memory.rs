//! The Memory arm: the calls of the contract on the shared [`Store`].
//!
//! Apart from the event log no call waits; they are `async` because the other arm's are.

use crate::store::memory::Store;

/// The registry in memory. Cheap to clone: clones share the store.
#[derive(Debug, Clone)]
pub struct MemoryRegistry {
    pub(super) store: Store,
}

impl MemoryRegistry {
    /// A registry on this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}
