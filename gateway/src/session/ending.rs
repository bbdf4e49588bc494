//! The end of a connection, and what it means for its session: over for good, or waiting to be resumed.
//!
//! Runs as the last thing of a driver, on its connection's task. Everything here compares the claim, so it cannot disturb
//! the session where it goes on: on this gateway or on another, before or after.

use std::time::{Duration, Instant};

use presence::host::failpoints::{self, Failpoint};
use presence::model::codes::CloseCode;
use presence::model::{LeftReason, Nick, Owner};
use presence::registry::{LeaveIntent, LeaveRequest};

use crate::wire::Dialect;

use super::driver::Driver;
use super::retry::{until_answered, until_known};
use crate::lease::expiry::LEAVE_AFTER;

/// How a connection ended, as its door saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The other side is gone, without a word or with one that promises nothing.
    Gone,
    /// The other side said goodbye in the words of its framing.
    Goodbye,
    /// We ended it.
    Closed(CloseCode),
}

/// What becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It leaves at once; others are told why.
    Over(LeftReason),
    /// It may come back; if it does not, others are told why.
    Waits(LeftReason),
    /// It is not ours any more.
    Elsewhere,
}

fn fate(ending: Ending, door: Dialect) -> Fate {
    let reason = match ending {
        Ending::Closed(CloseCode::TakenOver) => return Fate::Elsewhere,
        Ending::Closed(CloseCode::Kicked) => return Fate::Over(LeftReason::Kicked),
        Ending::Goodbye | Ending::Closed(CloseCode::Normal) => return Fate::Over(LeftReason::Closed),
        Ending::Closed(CloseCode::Timeout | CloseCode::RegisterTimeout) => LeftReason::Timeout,
        Ending::Gone | Ending::Closed(_) => LeftReason::Closed,
    };
    match door {
        // Nobody there has a token to come back with.
        Dialect::Line => Fate::Over(reason),
        Dialect::Json => Fate::Waits(reason),
    }
}

impl Driver {
    /// The connection is over: leaves every room and gives the nickname back, or leaves the session for its client to
    /// resume, until the store has answered. Must be run to its end; nobody is kept waiting by it.
    pub async fn end(mut self, ending: Ending) {
        self.fall_silent_everywhere();
        self.claim_doubtful().await;
        let Some(me) = self.core.identity().cloned() else {
            return self.let_go(LeftReason::Closed).await;
        };
        let holds_lease = self.services.tenure.incarnation().as_ref() == Some(&me.owner.incarnation);
        match fate(ending, self.door) {
            Fate::Elsewhere => self.services.holdings.release(&me.owner),
            // A client that never heard of its session would find its nickname in use by itself.
            Fate::Waits(reason) if !self.core.is_known() => self.let_go(reason).await,
            // The lost lease took the session with it; the reapers tell the others.
            Fate::Waits(_) if !holds_lease => self.services.holdings.release(&me.owner),
            Fate::Waits(reason) => self.wait(&me.owner, reason).await,
            Fate::Over(reason) => self.let_go(reason).await,
        }
    }

    async fn let_go(&self, reason: LeftReason) {
        for (nick, owner) in &self.names {
            self.give_back(nick, owner, reason, LeaveIntent::ForGood).await;
        }
    }

    /// A second name, of a change that stopped half-way, is given back all the same.
    async fn wait(&self, current: &Owner, reason: LeftReason) {
        let after = if failpoints::takes(Failpoint::Stillness) { Duration::ZERO } else { LEAVE_AFTER };
        let due = Instant::now() + after;
        let services = &self.services;
        for (nick, owner) in &self.names {
            if owner != current {
                self.give_back(nick, owner, reason, LeaveIntent::ForNow).await;
                continue;
            }
            match until_answered(|| services.registry.detach(nick, owner, services.hold)).await {
                Ok(true) => services.holdings.detach(owner, due, reason),
                // It goes on elsewhere, or was lost with the lease.
                Ok(false) | Err(_) => services.holdings.release(owner),
            }
        }
    }

    async fn give_back(&self, nick: &Nick, owner: &Owner, reason: LeftReason, leaving: LeaveIntent) {
        let registry = &self.services.registry;
        // An error that is left is a refusal for good: then there is nothing of ours to take away.
        if until_known(|| registry.release(nick, owner, None)).await.unwrap_or(false) {
            for room in self.rooms.values() {
                let _ = until_answered(|| registry.leave(LeaveRequest { room, nick, owner, reason, intent: leaving }))
                    .await;
            }
        }
        self.services.holdings.release(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_goodbye_frees_at_once_what_a_client_may_come_back_to() {
        use CloseCode::{Internal, Kicked, Normal, ProtocolError, Restart, Slow, TakenOver, Timeout, TooBig};
        use LeftReason::Closed;
        for (ending, json, line) in [
            (Ending::Goodbye, Fate::Over(Closed), Fate::Over(Closed)),
            (Ending::Closed(Normal), Fate::Over(Closed), Fate::Over(Closed)),
            (Ending::Closed(Kicked), Fate::Over(LeftReason::Kicked), Fate::Over(LeftReason::Kicked)),
            (Ending::Closed(TakenOver), Fate::Elsewhere, Fate::Elsewhere),
            (Ending::Closed(Timeout), Fate::Waits(LeftReason::Timeout), Fate::Over(LeftReason::Timeout)),
            (Ending::Gone, Fate::Waits(Closed), Fate::Over(Closed)),
            (Ending::Closed(Restart), Fate::Waits(Closed), Fate::Over(Closed)),
            (Ending::Closed(Slow), Fate::Waits(Closed), Fate::Over(Closed)),
            (Ending::Closed(ProtocolError), Fate::Waits(Closed), Fate::Over(Closed)),
            (Ending::Closed(TooBig), Fate::Waits(Closed), Fate::Over(Closed)),
            (Ending::Closed(Internal), Fate::Waits(Closed), Fate::Over(Closed)),
        ] {
            assert_eq!((fate(ending, Dialect::Json), fate(ending, Dialect::Line)), (json, line), "{ending:?}");
        }
    }
}
