//! [`Reloadable`]: a setting that a reload replaces while the program runs.
//!
//! A composition root keeps one clone for writing and passes others to the code that reads the value, at each use or at
//! the start of a connection. All clones share one value. What lasts longer than a use waits for a change.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A shared value that can be replaced.
#[derive(Debug, Clone, Default)]
pub struct Reloadable<T>(Arc<SharedValue<T>>);

#[derive(Debug, Default)]
struct SharedValue<T> {
    value: RwLock<T>,
    changed: Notify,
}

impl<T: Clone> Reloadable<T> {
    /// Returns the current value.
    #[must_use]
    pub fn get(&self) -> T {
        // An assignment cannot leave the value half written, so a poisoned lock is still usable.
        self.0.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value in all clones.
    pub fn set(&self, value: T) {
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.changed.notify_waiters();
    }

    /// Returns a future that ends with the next change from this call on.
    pub fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }
}

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(SharedValue { value: RwLock::new(value), changed: Notify::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_the_new_value() {
        let live = Reloadable::from(1);
        let clone = live.clone();
        live.set(2);
        assert_eq!(clone.get(), 2);
    }
}
