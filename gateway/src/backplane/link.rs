//! The receiving side's state, for readiness and metrics.

use std::time::{Duration, Instant};

/// The state of the connection that deliveries arrive on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// The connection is being opened, or its channels are being subscribed again.
    Connecting,
    /// All wanted channels are subscribed.
    Subscribed,
    /// All wanted channels are subscribed, but no echo of an own beat arrived for 3 s.
    Stale,
    /// The connection is closed and will be opened again after a pause.
    Backoff,
}

/// The receiving side at one moment, for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// The state of the connection.
    pub link: LinkState,
    /// The number of times that the subscription was restored after a loss.
    pub reconnects: u64,
    /// The time of the newest echo of an own beat.
    pub last_echo: Option<Instant>,
    /// The number of malformed frames that were skipped.
    pub malformed: u64,
    pub(super) past_gaps: Duration,
    pub(super) broken_since: Option<Instant>,
}

impl SubscriptionStatus {
    /// Returns true if all wanted channels are subscribed, as far as this node can know.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.link == LinkState::Subscribed
    }

    /// Returns the total time, up to `now`, for which an established subscription was incomplete.
    #[must_use]
    pub fn gap(&self, now: Instant) -> Duration {
        let present = self.broken_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.past_gaps + present
    }
}
