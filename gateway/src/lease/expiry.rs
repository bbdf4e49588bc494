//! Sends off the sessions that lost their connection and did not come back in time.
//!
//! One task per node, started by the server and ended before a drain: then they stay where they are, silently, until they
//! come back somewhere else or the reapers find that they do not. A session that waits costs an entry in
//! [`LocalClaims`](crate::lease::local_claims::Holdings) and nothing else.

use futures_util::stream::{self, StreamExt};
use presence::model::LeftReason;
use presence::registry::{Leaving, LocalClaim};

use crate::session::Services;
use crate::session::retry::{until_answered, until_known};

/// Sessions that are sent off at a time.
const AT_ONCE: usize = 16;

/// Sends off whoever is due, for as long as it is polled. A session in the middle of it when the future is dropped has
/// left some of its rooms; the end of the lease does the rest.
pub async fn run(services: &Services) {
    loop {
        let due = stream::iter(services.holdings.due().await);
        due.for_each_concurrent(AT_ONCE, |(holding, reason)| depart(services, holding, reason)).await;
    }
}

async fn depart(services: &Services, LocalClaim { nick, owner, rooms, .. }: LocalClaim, reason: LeftReason) {
    let registry = &services.registry;
    // An error that is left is a refusal for good: then there is nothing of ours to take away.
    if until_known(|| registry.depart(&nick, &owner, reason)).await.unwrap_or(false) {
        for room in &rooms {
            let _ = until_answered(|| registry.leave(room, &nick, &owner, reason, Leaving::ForNow)).await;
        }
    }
    services.holdings.release(&owner);
}
