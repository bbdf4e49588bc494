//! Clock of a run: CLOCK_MONOTONIC, which all processes of a machine share and which never jumps.
//!
//! An `Instant` does not suffice, because a message carries its due time to a receiver in another process. Therefore
//! all processes of a run share one machine; a time has no meaning on another one.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since a fixed moment in the machine's past.
pub(crate) type Nanos = u64;

/// One second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// Returns the current time; zero without such a clock, which Linux always has.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    time.map_or(0, nanos)
}

/// Converts a duration to nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
