//! A setting that changes while the program runs: one value that many read and a reload replaces.
//!
//! Composition roots keep one end and hand the other to whoever asks it at each use, or at the beginning of a connection.
//! Says nothing when it changes: who needs to be told has no place here.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that can be replaced. Clones are the same value.
#[derive(Debug, Clone, Default)]
pub struct Reloadable<T>(Arc<RwLock<T>>);

impl<T: Clone> Reloadable<T> {
    /// The value of this moment.
    #[must_use]
    pub fn get(&self) -> T {
        // A value that is whole before and after every assignment is whole after a panic too.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it for everybody.
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
