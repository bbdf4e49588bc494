//! The Memory arm: the calls of the contract on the shared [`Store`].
//!
//! Apart from the event log no call waits; they are `async` because the other arm's are.

use crate::host::reloadable::Reloadable;
use crate::model::{LookalikePolicy, RoomPolicies};
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

    /// Sets the rules of rooms by pattern of this store.
    #[must_use]
    pub fn with_room_policies(self, rooms: Reloadable<RoomPolicies>) -> Self {
        self.store.lock().room_policies = rooms;
        self
    }
}
