//! The Memory arm: the calls of the contract on the shared [`Store`].
//!
//! Apart from the event log no call waits; they are `async` because the other arm's are.

use crate::model::LookalikePolicy;
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

    /// Sets the rule for look-alike nicknames of this store.
    #[must_use]
    pub fn with_lookalikes(self, lookalikes: LookalikePolicy) -> Self {
        self.store.lock().nicks.lookalikes = lookalikes;
        self
    }
}
