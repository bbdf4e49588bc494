//! The one clock of a run: CLOCK_MONOTONIC, which all processes of a machine share and nobody sets.
//!
//! Why not `Instant`: a message carries the time at which it was due to a receiver in another process. So every
//! process of a run is on one machine, and a time means nothing on another one.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment in the machine's past.
pub(crate) type Nanos = u64;

/// One second.
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// The time now. Zero if the kernel has no such clock, which Linux always has.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    time.map_or(0, nanos)
}

/// A duration as nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
