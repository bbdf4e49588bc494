//! How a house empties without a stampede: one announcement to all, then every connection goes at a moment of its own.
//!
//! The server begins it once; each conversation asks it when to go. The moments are drawn, not handed out in turn, so
//! the order is random and the other gateways are met by an even stream. Never closes a connection itself.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A connection whose moment has come is closed once nothing was asked for so long: what is on its way is answered.
const QUIET: Duration = Duration::from_millis(50);

/// How fast a house empties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How long everybody may still finish what they are doing before the first connection is closed.
    pub notice: Duration,
    /// Over how long the closes are spread after that.
    pub window: Duration,
}

/// The way out of one house. Begins once and is not taken back.
#[derive(Debug, Default)]
pub struct ConnectionDrain {
    begun: CancellationToken,
    plan: OnceLock<Plan>,
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    first: Instant,
    window: Duration,
}

impl ConnectionDrain {
    /// Announces the end to every connection, also to those that are about to begin. The first call stands.
    pub fn begin(&self, Pace { notice, window }: Pace) {
        let _ = self.plan.set(Plan { first: Instant::now() + notice, window });
        self.begun.cancel();
    }

    /// Waits for the announcement, and draws the moment at which the one who asks is to go. Dropping the future loses
    /// nothing.
    pub(super) async fn announced(&self, patience: Duration) -> Parting {
        let Plan { first, window } = self.plan().await;
        let moment = first + window.mul_f64(rand::random());
        Parting { moment, close_at: moment + QUIET, at_latest: moment + patience }
    }

    /// Waits until everybody's moment has come. Dropping the future loses nothing.
    pub(super) async fn over(&self) {
        let Plan { first, window } = self.plan().await;
        sleep_until(first + window).await;
    }

    async fn plan(&self) -> Plan {
        self.begun.cancelled().await;
        *self.plan.get().expect("set before the announcement")
    }
}

/// When one connection goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parting {
    moment: Instant,
    close_at: Instant,
    at_latest: Instant,
}

impl Parting {
    /// When to come back somewhere else: when this connection is closed.
    pub(super) fn retry_after_ms(&self) -> u64 {
        let left = self.moment.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// The client still asked for something: more of it may be on its way.
    pub(super) fn was_asked(&mut self) {
        self.close_at = self.close_at.max(Instant::now() + QUIET).min(self.at_latest);
    }

    /// Whether the client has had all the time there is, whatever it still asks for.
    pub(super) fn is_final(&self) -> bool {
        Instant::now() >= self.at_latest
    }
}

/// Waits until a connection is to be closed; one that is not to go waits for ever.
pub(super) async fn due(parting: Option<Parting>) {
    match parting {
        Some(parting) => sleep_until(parting.close_at).await,
        None => std::future::pending().await,
    }
}
