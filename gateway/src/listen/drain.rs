//! The drain of all connections without a stampede: one announcement, then each connection closes at a moment of its
//! own.
//!
//! The server begins it once. Each connection draws its moment at random, so the reconnects are spread over the window.
//! It never closes a connection itself.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Time between the notice and the first close: clients finish their requests, and load balancers see the failed
/// readiness.
const NOTICE: Duration = Duration::from_secs(1);
/// Sessions closed per second; other gateways accept this rate without a pause for their own clients.
const SESSIONS_PER_SECOND: usize = 500;
/// The quiet time after the last request, before a due connection closes: requests in flight are answered.
const QUIET_TIME: Duration = Duration::from_millis(50);

/// The speed of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainPace {
    /// The time between the announcement and the first close.
    pub notice: Duration,
    /// The time over which the closes are spread.
    pub window: Duration,
}

impl DrainPace {
    /// Spreads the closes so that more than a third of the grace period is left for last writes and for the store.
    #[must_use]
    pub fn for_sessions(sessions: usize, grace: Duration) -> Self {
        if sessions == 0 {
            return Self { notice: Duration::ZERO, window: Duration::ZERO };
        }
        let window = Duration::from_secs_f64(sessions as f64 / SESSIONS_PER_SECOND as f64);
        Self { notice: NOTICE.min(grace / 8), window: window.min(grace / 2) }
    }
}

/// The drain of one gateway. Begins once and is never revoked.
#[derive(Debug, Default)]
pub struct ConnectionDrain {
    begun: CancellationToken,
    plan: OnceLock<DrainPlan>,
}

#[derive(Debug, Clone, Copy)]
struct DrainPlan {
    first: Instant,
    window: Duration,
}

impl ConnectionDrain {
    /// Announces the drain to every connection, also to those about to begin. Later calls are ignored.
    pub fn begin(&self, DrainPace { notice, window }: DrainPace) {
        let _ = self.plan.set(DrainPlan { first: Instant::now() + notice, window });
        self.begun.cancel();
    }

    /// Waits for the announcement and draws the caller's moment. Dropping the future loses nothing.
    pub(super) async fn announced(&self, late_by_max: Duration) -> DrainMoment {
        let DrainPlan { first, window } = self.plan().await;
        let moment = first + window.mul_f64(rand::random());
        DrainMoment { due_at: moment, close_at: moment + QUIET_TIME, at_latest: moment + late_by_max }
    }

    /// Waits until the moment of every connection has come. Dropping the future loses nothing.
    pub(super) async fn over(&self) {
        let DrainPlan { first, window } = self.plan().await;
        sleep_until(first + window).await;
    }

    async fn plan(&self) -> DrainPlan {
        self.begun.cancelled().await;
        *self.plan.get().expect("set before the announcement")
    }
}

/// The moment at which one connection closes.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrainMoment {
    due_at: Instant,
    close_at: Instant,
    at_latest: Instant,
}

impl DrainMoment {
    /// Returns the time until this connection closes, after which the client should reconnect elsewhere.
    pub(super) fn retry_after_ms(&self) -> u64 {
        let left = self.due_at.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// Extends the quiet time after a request: more requests may be in flight.
    pub(super) fn note_request(&mut self) {
        self.close_at = self.close_at.max(Instant::now() + QUIET_TIME).min(self.at_latest);
    }

    /// Returns true if the time is over, even for requests in flight.
    pub(super) fn is_final(&self) -> bool {
        Instant::now() >= self.at_latest
    }
}

/// Waits until a connection has to close; without a moment it waits forever.
pub(super) async fn due(moment: Option<DrainMoment>) {
    match moment {
        Some(moment) => sleep_until(moment.close_at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pace_follows_the_sessions_within_the_grace_period() {
        let grace = SECOND * 30;
        for (sessions, grace, notice, window) in [
            (0, grace, Duration::ZERO, Duration::ZERO),
            (1, grace, SECOND, Duration::from_millis(2)),
            (500, grace, SECOND, SECOND),
            (1_000_000, grace, SECOND, SECOND * 15),
            (500, SECOND, SECOND / 8, SECOND / 2),
            (500, Duration::ZERO, Duration::ZERO, Duration::ZERO),
        ] {
            let pace = DrainPace::for_sessions(sessions, grace);
            assert_eq!(pace, DrainPace { notice, window }, "{sessions} sessions, {grace:?}");
        }
    }
}
