//! Whether new connections are let in: written by the server as readiness changes, read by both doors.
//!
//! Says nothing about connections that are in already, and never closes one.

use std::sync::atomic::{AtomicBool, Ordering};

use presence::codes::ErrorCode;

/// The sign at the door. Closed until the gateway is ready, and for good once it goes away.
#[derive(Debug, Default)]
pub struct Admission {
    ready: AtomicBool,
    leaving: AtomicBool,
}

impl Admission {
    /// Lets newcomers in, or refuses them as `unavailable`. Has no effect any more on a gateway that goes away.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
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
        (!self.ready.load(Ordering::Relaxed)).then_some(ErrorCode::Unavailable)
    }
}
