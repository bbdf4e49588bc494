//! Admission of new connections on both ports.
//!
//! It reads readiness at that moment, so a client that just saw a ready gateway is admitted. It never affects
//! established connections.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use presence::model::codes::ErrorCode;

/// The admission rule: refuses while the gateway is not ready, and for good once it drains.
pub struct Admission {
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    leaving: AtomicBool,
}

impl Admission {
    /// Admits connections while `ready` returns true. It is called often and must not block.
    #[must_use]
    pub fn new(ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { ready: Box::new(ready), leaving: AtomicBool::new(false) }
    }

    /// Refuses new connections as `going_away`, for good: a drain is never revoked.
    pub fn go_away(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Returns true if the gateway drains.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Returns the code of a refusal; `None` admits.
    #[must_use]
    pub fn refusal(&self) -> Option<ErrorCode> {
        if self.is_leaving() {
            return Some(ErrorCode::GoingAway);
        }
        (!(self.ready)()).then_some(ErrorCode::Unavailable)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("refusal", &self.refusal()).finish()
    }
}
