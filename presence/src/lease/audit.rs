//! The audit of claims: once a minute a gateway compares its claims with the store's records of it, and repairs both.
//!
//! [`ClaimAudit`] finds losses that start no new generation: one lost key, or a leave that was acknowledged and then
//! lost. It acts only on differences that two audits in a row have seen, since one may be a request in flight. Missing
//! claims are reasserted; surplus ones are released. The cost grows with this gateway's claims only. Closing sessions
//! is the caller's job.

use std::time::Duration;

use tokio::sync::watch;

use crate::lease::beat::OwnLease;
use crate::model::{LeftReason, Owner, RoomName};
use crate::registry::{
    Differences, Generation, LeaveIntent, LeaveRequest, LocalClaim, ReassertBatch, RegistryError, ReleaseCause, Surplus,
};

/// Pauses between audits.
#[derive(Debug, Clone, Copy)]
pub struct AuditIntervals {
    /// After an audit without differences.
    pub clean: Duration,
    /// After an audit with differences. Must exceed the duration of any request, or a request in flight would be
    /// undone.
    pub recheck: Duration,
}

impl Default for AuditIntervals {
    fn default() -> Self {
        Self { clean: Duration::from_secs(60), recheck: Duration::from_secs(10) }
    }
}

/// Maximum number of claims that one call reasserts.
const REASSERT_CLAIMS_MAX: usize = 50;

/// The repeated comparison of one lease's claims with the store.
#[derive(Debug)]
pub struct ClaimAudit<'a> {
    lease: &'a OwnLease,
    intervals: AuditIntervals,
    generations: watch::Receiver<Generation>,
    /// Differences that the last audit found.
    suspected: Differences,
}

impl<'a> ClaimAudit<'a> {
    /// Creates the audit of an open lease.
    #[must_use]
    pub fn new(lease: &'a OwnLease, intervals: AuditIntervals) -> Self {
        Self { lease, intervals, generations: lease.health.generations(), suspected: Differences::default() }
    }

    /// Waits until an audit is due, compares, and repairs confirmed differences. Returns the claims that later claims
    /// have superseded; their sessions must be closed. `claims` returns every local claim.
    ///
    /// Dropping the future leaves no repair half done.
    pub async fn next(&mut self, claims: impl Fn() -> Vec<LocalClaim>) -> Vec<Owner> {
        self.due().await;
        if !self.generations.borrow_and_update().is_open() {
            self.suspected = Differences::default();
            return Vec::new();
        }
        let OwnLease { registry, incarnation, .. } = self.lease;
        let mut own = claims();
        own.retain(|claim| claim.owner.incarnation == *incarnation);
        let found = match registry.audit(incarnation, &own).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "claim audit failed");
                return Vec::new();
            }
        };
        // Claims may have changed during the call; only differences that also hold for the present claims are repaired.
        let present = claims();
        let repaired = self.repair(found.in_both(&self.suspected), &present).await;
        self.suspected = found;
        repaired.unwrap_or_else(|error| {
            tracing::debug!(%error, "claim repair failed");
            Vec::new()
        })
    }

    async fn due(&mut self) {
        let is_clean = self.suspected == Differences::default();
        let pause = if is_clean { self.intervals.clean } else { self.intervals.recheck };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A generation that has just opened is audited at once.
            Ok(()) = self.generations.changed() => {}
        }
    }

    /// Reasserts missing claims and releases surplus ones. Returns the superseded claims.
    async fn repair(
        &self,
        Differences { missing, surplus }: Differences,
        claims: &[LocalClaim],
    ) -> Result<Vec<Owner>, RegistryError> {
        let OwnLease { registry, health, incarnation, info } = self.lease;
        let missing: Vec<LocalClaim> = claims.iter().filter(|claim| missing.contains(&claim.owner)).cloned().collect();
        let mut superseded = Vec::new();
        for batch in missing.chunks(REASSERT_CLAIMS_MAX) {
            tracing::warn!(sessions = batch.len(), "claims missing in the store, reasserting");
            let generation = health.generation();
            let batch = ReassertBatch { incarnation, info, generation, claims: batch, last: false };
            superseded.extend(registry.reassert(batch).await?);
        }
        for surplus in surplus {
            let released = match &surplus {
                Surplus::Nick(nick, owner) if !has_claim(claims, owner) => {
                    registry.release(nick, owner, ReleaseCause::CLOSED).await?
                }
                Surplus::Member(room, nick, owner) if !has_room(claims, owner, room) => {
                    let (reason, intent) = (LeftReason::Closed, LeaveIntent::ForGood);
                    registry.leave(LeaveRequest { room, nick, owner, reason, intent }).await?
                }
                _ => false,
            };
            if released {
                let (nick, room) = match &surplus {
                    Surplus::Nick(nick, _) => (nick, None),
                    Surplus::Member(room, nick, _) => (nick, Some(room.as_str())),
                };
                tracing::warn!(nick = nick.as_str(), room, "surplus claim released in the store");
            }
        }
        Ok(superseded)
    }
}

fn has_claim(claims: &[LocalClaim], owner: &Owner) -> bool {
    claims.iter().any(|claim| claim.owner == *owner)
}

fn has_room(claims: &[LocalClaim], owner: &Owner, room: &RoomName) -> bool {
    let claim = claims.iter().find(|claim| claim.owner == *owner);
    claim.is_some_and(|claim| claim.rooms.iter().any(|known| known.key() == room.key()))
}
