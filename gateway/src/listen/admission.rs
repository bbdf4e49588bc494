//! Whether new connections are let in: asked by both doors for every newcomer.
//!
//! Asks for readiness at that moment, so whoever was just told that the gateway is ready gets in. Says nothing about
//! connections that are in already, and never closes one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use presence::model::codes::ErrorCode;

/// The sign at the door. Closed while the gateway is not ready, and for good once it goes away.
pub struct Admission {
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    leaving: AtomicBool,
}

impl Admission {
    /// Lets newcomers in while `ready` says so. It is asked often and must not block.
    #[must_use]
    pub fn new(ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { ready: Box::new(ready), leaving: AtomicBool::new(false) }
    }

    /// Refuses newcomers as `going_away`, for good: a drain is not taken back.
    pub fn go_away(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway goes away.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Why a newcomer is refused; `None` lets them in.
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
