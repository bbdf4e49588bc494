//! The drain of a gateway: its sessions move to other gateways at random times within the window, and no acknowledged
//! message is lost.
//!
//! ```text
//! signal   /readyz fails, new connections are refused, every client gets its notice       lease: draining
//! notice   listeners closed; connections closed with 1012, at random times within the window
//! end      every request answered, every queue written, every session left to be resumed on another gateway
//! safe     the store can no longer lose what was acknowledged here                        lease: drained
//! ```
//! While new connections are refused the listeners still answer, so that a load balancer sees the refusals and picks
//! another gateway.

use std::time::Duration;

use presence::registry::LeaseTransition;
use tokio::time::Instant;

use crate::listen::DrainPace;

use crate::server::{Drained, Gateway};

impl Gateway {
    /// Ends in order within `grace`: refuses new connections, notifies every client, and closes the connections at
    /// random times within the window. Then it waits until the store cannot lose what was acknowledged here, and
    /// records the lease as drained.
    ///
    /// The server API and the webhooks of a gateway without Redis end last.
    ///
    /// A gateway without sessions and recent acknowledgements ends at once. Dropping the future aborts it.
    pub async fn drain(self, grace: Duration) -> Drained {
        let deadline = Instant::now() + grace;
        let is_empty = tokio::time::timeout_at(deadline, self.close_connections(grace)).await.is_ok();
        let unsafe_bytes = self.lease.backplane.unsafe_bytes();
        if is_empty && unsafe_bytes > 0 {
            tracing::info!(bytes = unsafe_bytes, "connections drained, waiting for acknowledged messages to be safe");
        }
        let is_safe = tokio::time::timeout_at(deadline, self.lease.backplane.wait_safe()).await.is_ok();
        // A beat after the last transition would find the lease lost, and a new one would open.
        self.lease_loop.cancel();
        if is_empty {
            self.lease.record_transition(LeaseTransition::Drained { hold: self.hold }).await;
        }
        let embedded = self.embedded.end(deadline).await;
        drop(self.background);
        if is_empty && is_safe { embedded } else { Drained::GraceExceeded }
    }

    async fn close_connections(&self, grace: Duration) {
        self.connections.admission.go_away();
        // A detached session may be about to be resumed on another gateway, so none expires from here on.
        self.expiry.cancel();
        let sessions = self.hub.size().sessions;
        self.lease.metrics.drain_began_with.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        let pace = DrainPace::for_sessions(sessions, grace);
        let [notice_seconds, window_seconds] = [pace.notice, pace.window].map(|time| time.as_secs_f64());
        tracing::info!(sessions, notice_seconds, window_seconds, "connection drain started");
        self.connections.drain.begin(pace);
        let listeners = async {
            tokio::time::sleep(pace.notice).await;
            self.connections.closing.cancel();
        };
        tokio::join!(self.lease.record_transition(LeaseTransition::Draining), listeners);
        self.connections.tasks.close();
        self.connections.tasks.wait().await;
    }
}
