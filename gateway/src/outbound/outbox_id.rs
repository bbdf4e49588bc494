//! The identity of an outbox, to leave its connection out of a broadcast.
//!
//! Invariant: as long as an [`OutboxId`] exists, no other outbox is equal to it. It keeps no outbox open.

use std::any::Any;
use std::sync::{Arc, Weak};

/// The identity of one outbox.
#[derive(Debug, Clone)]
pub struct OutboxId(Weak<dyn Any + Send + Sync>);

impl OutboxId {
    /// Returns the identity of the outbox with this state.
    pub(super) fn of<T: Any + Send + Sync>(state: &Arc<T>) -> Self {
        let weak: Weak<T> = Arc::downgrade(state);
        Self(weak)
    }

    /// Returns true for the outbox with this state.
    pub(super) fn is_of<T>(&self, state: &Arc<T>) -> bool {
        self.0.as_ptr().cast::<()>() == Arc::as_ptr(state).cast::<()>()
    }
}
