//! Once a minute a gateway compares what it holds with what the store has of it, and both agree again.
//!
//! For what no generation tells: a key that was lost alone, a leave that was acked and then lost with the last second. Runs
//! beside the beat in every gateway. A difference may be no more than a request under way, so only what two looks in a row
//! saw is acted on: what the store lacks is put back, or its session closed when a later claim has it; what the store has
//! beside is given back. Costs O(own), in small steps.

use std::time::Duration;

use crate::lease::beat::LeaseHealth;
use crate::model::{Incarnation, LeftReason, Owner};
use crate::registry::{
    Differences, GatewayInfo, LeaveIntent, LeaveRequest, LocalClaim, ReassertBatch, Registry, RegistryError, Surplus,
};

/// How often a gateway looks.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one look to the next when all is well.
    pub every: Duration,
    /// And when it is not: longer than any request takes, or a request under way is undone.
    pub again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(60), again: Duration::from_secs(10) }
    }
}

/// Holdings that one call puts back.
const STEP: usize = 50;

/// The gateway whose holdings are compared.
#[derive(Debug)]
pub struct Audited<'a> {
    /// The store.
    pub registry: &'a Registry,
    /// What is known of the lease.
    pub tenure: &'a LeaseHealth,
    /// Whose lease.
    pub incarnation: &'a Incarnation,
    /// What the gateway tells about itself.
    pub info: &'a GatewayInfo,
}

/// Compares for as long as it is polled. `holdings` is everything that the gateway's sessions hold, `overtaken` hears of
/// claims that a later one has overtaken. Dropping the future leaves nothing half done.
pub async fn run(gateway: Audited<'_>, pace: Pace, holdings: impl Fn() -> Vec<LocalClaim>, overtaken: impl Fn(&Owner)) {
    let mut generations = gateway.tenure.generations();
    let mut before = Differences::default();
    loop {
        let pause = if before == Differences::default() { pace.every } else { pace.again };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A generation that has just opened is looked at at once.
            Ok(()) = generations.changed() => {}
        }
        if !generations.borrow_and_update().is_open() {
            before = Differences::default();
            continue;
        }
        let mut held = holdings();
        held.retain(|holding| holding.owner.incarnation == *gateway.incarnation);
        let found = match gateway.registry.audit(gateway.incarnation, &held).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "not compared with the store");
                continue;
            }
        };
        // What is held by now was on its way in, and what is not any more on its way out.
        let now = holdings();
        match settle(&gateway, found.in_both(&before), &now).await {
            Ok(lost) => lost.iter().for_each(&overtaken),
            Err(error) => tracing::debug!(%error, "a difference from the store stays"),
        }
        before = found;
    }
}

/// Puts back what is missing and gives back what is too much. Returns the claims that a later one has overtaken.
async fn settle(
    gateway: &Audited<'_>,
    Differences { missing, surplus }: Differences,
    held: &[LocalClaim],
) -> Result<Vec<Owner>, RegistryError> {
    let Audited { registry, tenure, incarnation, info } = gateway;
    let missing: Vec<LocalClaim> = held.iter().filter(|holding| missing.contains(&holding.owner)).cloned().collect();
    let mut overtaken = Vec::new();
    for step in missing.chunks(STEP) {
        tracing::warn!(sessions = step.len(), "the store lacks what we hold, putting it back");
        let generation = tenure.generation();
        let batch = ReassertBatch { incarnation, info, generation, claims: step, last: false };
        overtaken.extend(registry.reassert(batch).await?);
    }
    for surplus in surplus {
        let given_back = match &surplus {
            Surplus::Nick(nick, owner) if !holds_nick(held, owner) => registry.release(nick, owner, None).await?,
            Surplus::Member(room, nick, owner) if !holds_room(held, owner, room) => {
                let (reason, intent) = (LeftReason::Closed, LeaveIntent::ForGood);
                registry.leave(LeaveRequest { room, nick, owner, reason, intent }).await?
            }
            _ => false,
        };
        if given_back {
            tracing::warn!(?surplus, "the store had what nobody here holds, given back");
        }
    }
    Ok(overtaken)
}

fn holds_nick(held: &[LocalClaim], owner: &Owner) -> bool {
    held.iter().any(|holding| holding.owner == *owner)
}

fn holds_room(held: &[LocalClaim], owner: &Owner, room: &crate::model::RoomName) -> bool {
    let is_it = |holding: &&LocalClaim| holding.owner == *owner;
    held.iter().find(is_it).is_some_and(|holding| holding.rooms.iter().any(|known| known.key() == room.key()))
}
