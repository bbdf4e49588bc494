//! [`Reloadable`]: a setting that a reload replaces while the program runs.
//!
//! A composition root keeps one clone for writing and passes others to the code that reads the value, at each use or at
//! the start of a connection. All clones share one value. It sends no notification of a change.

use std::sync::{Arc, PoisonError, RwLock};

/// A shared value that can be replaced.
#[derive(Debug, Clone, Default)]
pub struct Reloadable<T>(Arc<RwLock<T>>);

impl<T: Clone> Reloadable<T> {
    /// Returns the current value.
    #[must_use]
    pub fn get(&self) -> T {
        // An assignment cannot leave the value half written, so a poisoned lock is still usable.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value in all clones.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
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
