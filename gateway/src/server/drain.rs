//! The end of a gateway in order: nobody is lost, nobody is doubled, others see nobody leave, and they are not overrun.
//!
//! ```text
//! signal   red on /readyz, newcomers refused, everybody told when they go      lease: draining
//! notice   listeners closed; connections closed with 1012, evenly over the window
//! the end  every request answered, every queue written, every session left to be resumed elsewhere
//! safe     what was acked here cannot be lost any more: nobody else could put it back         lease: drained
//! ```
//! While newcomers are refused the doors still answer, so that a balancer hears it and takes another gateway.

use std::time::Duration;

use presence::registry::LeaseTransition;
use tokio::time::Instant;

use crate::listen::Pace;

use crate::server::{Drained, Gateway};

/// How long clients may finish what they are doing, and balancers may notice, before the first connection is closed.
const NOTICE: Duration = Duration::from_secs(1);
/// Sessions that are sent elsewhere in a second: what the other gateways take on without a pause for their own clients.
const SESSIONS_PER_SECOND: usize = 500;
/// How long the store may take to note a state of the lease.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Gateway {
    /// Ends in order, all within `grace`: refuses newcomers, tells everybody that they have to go, closes the connections
    /// one by one, gives back what their sessions own, waits until the store cannot lose what was acked here, and notes that
    /// the lease ended cleanly. A gateway without sessions that acked nothing lately ends at once. Dropping the future ends
    /// at once.
    pub async fn drain(self, grace: Duration) -> Drained {
        let until = Instant::now() + grace;
        let whole = tokio::time::timeout_at(until, self.empty(grace)).await.is_ok();
        let kept = self.services.backplane.unsafe_bytes();
        if whole && kept > 0 {
            tracing::info!(kept, "everybody is gone, waiting until nothing that was acked can be lost");
        }
        let safe = tokio::time::timeout_at(until, self.services.backplane.wait_safe()).await.is_ok();
        // A beat after the last word would hear that the lease is gone, and a new one would begin.
        self.beating.cancel();
        if whole {
            self.set_lease(LeaseTransition::Drained { hold: self.services.hold }).await;
        }
        drop(self.background);
        if whole && safe { Drained::Whole } else { Drained::GraceRanOut }
    }

    async fn empty(&self, grace: Duration) {
        self.admission.go_away();
        // Who has lost its connection here may be about to come back somewhere else: nobody is told of a leave any more.
        self.parting.cancel();
        let sessions = self.services.hub.census().sessions;
        self.services.metrics.drain_began_with.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        let pace = pace(sessions, grace);
        tracing::info!(sessions, notice = ?pace.notice, window = ?pace.window, "sending everybody elsewhere");
        self.departure.begin(pace);
        let doors = async {
            tokio::time::sleep(pace.notice).await;
            self.closing.cancel();
        };
        tokio::join!(self.set_lease(LeaseTransition::Draining), doors);
        self.connections.close();
        self.connections.wait().await;
    }

    /// Best effort: without it, as for a gateway whose time ran out, the detectors find out by themselves and clean up.
    async fn set_lease(&self, farewell: LeaseTransition) {
        let Some(incarnation) = self.services.tenure.incarnation() else { return };
        let told = tokio::time::timeout(LAST_WORD, self.services.registry.set_lease(&incarnation, farewell)).await;
        let state = farewell.state();
        match told {
            Ok(Ok(())) => tracing::info!(?state, "lease state told"),
            Ok(Err(error)) => tracing::info!(?state, %error, "lease state not told"),
            Err(_) => tracing::info!(?state, "lease state not told in time"),
        }
    }
}

/// Leaves more than a third of the grace period for goodbyes and for the store.
fn pace(sessions: usize, grace: Duration) -> Pace {
    if sessions == 0 {
        return Pace { notice: Duration::ZERO, window: Duration::ZERO };
    }
    let window = Duration::from_secs_f64(sessions as f64 / SESSIONS_PER_SECOND as f64);
    Pace { notice: NOTICE.min(grace / 8), window: window.min(grace / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pace_follows_the_crowd_and_fits_the_grace_period() {
        let grace = SECOND * 30;
        for (sessions, grace, notice, window) in [
            (0, grace, Duration::ZERO, Duration::ZERO),
            (1, grace, SECOND, Duration::from_millis(2)),
            (500, grace, SECOND, SECOND),
            (1_000_000, grace, SECOND, SECOND * 15),
            (500, SECOND, SECOND / 8, SECOND / 2),
            (500, Duration::ZERO, Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(pace(sessions, grace), Pace { notice, window }, "{sessions} sessions, {grace:?}");
        }
    }
}
