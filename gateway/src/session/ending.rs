//! The end of a connection, and its consequence for the session: over for good, or detached until it is resumed.
//!
//! Runs as the last step of a driver, on its connection's task. Invariant: every call compares the claim, so it cannot
//! disturb a session that was resumed elsewhere, before or after. The expiry of detached sessions is not done here.

use std::time::{Duration, Instant};

use presence::host::failpoints::{self, Failpoint};
use presence::model::codes::CloseCode;
use presence::model::{Nick, OfflineReason, Owner};
use presence::registry::{DetachOutcome, HoldTerms, LeaveIntent, LeaveRequest, ReleaseCause};

use crate::wire::Dialect;

use super::driver::Driver;
use super::performer::Performer;
use super::retry::{until_answered, until_known};

/// The time before others see the leave of a session that lost its connection.
const LEAVE_DELAY: Duration = Duration::from_secs(5);

/// The end of a connection, as its transport saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client hung up, without a close or with one that does not end its session.
    Gone,
    /// The client closed in order.
    Goodbye,
    /// The gateway closed it.
    Closed(CloseCode),
}

impl ConnectionEnd {
    /// Returns the word for logs and metric labels.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Goodbye => "goodbye",
            Self::Closed(code) => code.slug(),
        }
    }

    /// Returns true if the gateway ended it for a reason of its own.
    fn is_by_gateway(self) -> bool {
        matches!(self, Self::Closed(CloseCode::Restart | CloseCode::Internal))
    }

    /// Returns the code with which the gateway closed it.
    #[must_use]
    pub fn code(self) -> Option<CloseCode> {
        match self {
            Self::Gone | Self::Goodbye => None,
            Self::Closed(code) => Some(code),
        }
    }
}

/// The consequence for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionFate {
    /// It ends now, for this reason.
    Ends(OfflineReason),
    /// It may be resumed. If it is not, it ends for this reason.
    Detaches(OfflineReason),
    /// It is not this connection's any more.
    Elsewhere,
}

fn session_fate(ending: ConnectionEnd, dialect: Dialect) -> SessionFate {
    let reason = match ending {
        ConnectionEnd::Closed(CloseCode::TakenOver) => return SessionFate::Elsewhere,
        ConnectionEnd::Closed(CloseCode::Kicked) => return SessionFate::Ends(OfflineReason::Kicked),
        ConnectionEnd::Closed(CloseCode::Banned) => return SessionFate::Ends(OfflineReason::Banned),
        ConnectionEnd::Goodbye | ConnectionEnd::Closed(CloseCode::Normal) => {
            return SessionFate::Ends(OfflineReason::Closed);
        }
        ConnectionEnd::Closed(CloseCode::Timeout | CloseCode::RegisterTimeout) => OfflineReason::Timeout,
        ConnectionEnd::Closed(CloseCode::TokenExpired) => OfflineReason::TokenExpired,
        ConnectionEnd::Gone | ConnectionEnd::Closed(_) => OfflineReason::Closed,
    };
    // Line clients have no token to resume with.
    if dialect.is_line() { SessionFate::Ends(reason) } else { SessionFate::Detaches(reason) }
}

impl Driver {
    /// Ends the connection: waits for the messages under way, then leaves all rooms and releases the nickname, or
    /// detaches the session. Repeats each call until the store has answered. Must run to its end; no client waits for
    /// it.
    pub async fn end(mut self, ending: ConnectionEnd) {
        if let Some(me) = self.core.identity() {
            self.performer.stop_receiving_everything(&me.owner);
        }
        self.conclude().await;
        let Self { core, mut performer, .. } = self;
        performer.resolve_claims().await;
        let Some(me) = core.identity() else {
            return performer.release_all(OfflineReason::Closed).await;
        };
        let services = &performer.services;
        let holds_lease = services.health.incarnation().as_ref() == Some(&me.owner.incarnation);
        match session_fate(ending, performer.outbox.dialect()) {
            SessionFate::Elsewhere => services.claims.release(&me.owner),
            // A client without a token of its session would find its nickname in use by itself.
            SessionFate::Detaches(reason) if !core.is_resumable() => performer.release_all(reason).await,
            // The session was lost with the lease; the reapers announce its end.
            SessionFate::Detaches(_) if !holds_lease => services.claims.release(&me.owner),
            SessionFate::Detaches(reason) => {
                // A gateway that restarts frees no nickname.
                let after = if ending.is_by_gateway() { Duration::ZERO } else { services.hold.after };
                let terms = HoldTerms { after, ..services.hold };
                performer.detach(&me.owner, reason, terms).await;
            }
            SessionFate::Ends(reason) => performer.release_all(reason).await,
        }
    }
}

impl Performer {
    async fn release_all(&self, reason: OfflineReason) {
        for (nick, owner) in &self.claims {
            self.release(nick, owner, reason, LeaveIntent::ForGood).await;
        }
    }

    /// Detaches the session. A second nickname, of a change that stopped half-way, is released all the same, and so is
    /// one that the session has only just claimed.
    async fn detach(&self, current: &Owner, reason: OfflineReason, terms: HoldTerms) {
        let after = if failpoints::is_disabled(Failpoint::LeaveDelay) { Duration::ZERO } else { LEAVE_DELAY };
        let due = Instant::now() + after;
        let services = &self.services;
        for (nick, owner) in &self.claims {
            if owner != current {
                self.release(nick, owner, reason, LeaveIntent::ForNow).await;
                continue;
            }
            match until_answered(|| services.registry.detach(nick, owner, terms)).await {
                Ok(DetachOutcome::Held) => services.claims.detach(owner, due, reason),
                Ok(DetachOutcome::TooNew) => self.release(nick, owner, reason, LeaveIntent::ForNow).await,
                // It was resumed elsewhere, or lost with the lease.
                Ok(DetachOutcome::NotOwned) | Err(_) => services.claims.release(owner),
            }
        }
    }

    async fn release(&self, nick: &Nick, owner: &Owner, reason: OfflineReason, leaving: LeaveIntent) {
        let registry = &self.services.registry;
        // Any error left after the retries is final: then the store holds nothing under this claim.
        let left = reason.left();
        if until_known(|| registry.release(nick, owner, ReleaseCause::Offline(reason))).await.unwrap_or(false) {
            for room in self.rooms.values() {
                let _ = until_answered(|| {
                    registry.leave(LeaveRequest { room, nick, owner, reason: left, intent: leaving })
                })
                .await;
            }
        }
        self.services.claims.release(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbye_and_kick_end_a_json_session() {
        use CloseCode::{Internal, Kicked, Normal, ProtocolError, Restart, Slow, TakenOver, Timeout, TooBig};
        use OfflineReason::Closed;
        for (ending, json, line) in [
            (ConnectionEnd::Goodbye, SessionFate::Ends(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(Normal), SessionFate::Ends(Closed), SessionFate::Ends(Closed)),
            (
                ConnectionEnd::Closed(Kicked),
                SessionFate::Ends(OfflineReason::Kicked),
                SessionFate::Ends(OfflineReason::Kicked),
            ),
            (
                ConnectionEnd::Closed(CloseCode::Banned),
                SessionFate::Ends(OfflineReason::Banned),
                SessionFate::Ends(OfflineReason::Banned),
            ),
            (ConnectionEnd::Closed(TakenOver), SessionFate::Elsewhere, SessionFate::Elsewhere),
            (
                ConnectionEnd::Closed(Timeout),
                SessionFate::Detaches(OfflineReason::Timeout),
                SessionFate::Ends(OfflineReason::Timeout),
            ),
            (
                ConnectionEnd::Closed(CloseCode::TokenExpired),
                SessionFate::Detaches(OfflineReason::TokenExpired),
                SessionFate::Ends(OfflineReason::TokenExpired),
            ),
            (ConnectionEnd::Gone, SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(Restart), SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(Slow), SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(ProtocolError), SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(TooBig), SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
            (ConnectionEnd::Closed(Internal), SessionFate::Detaches(Closed), SessionFate::Ends(Closed)),
        ] {
            assert_eq!(
                (session_fate(ending, Dialect::Json), session_fate(ending, Dialect::Line)),
                (json, line),
                "{ending:?}"
            );
        }
    }
}
