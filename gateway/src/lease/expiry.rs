//! Expiry of detached sessions that were not resumed in time.
//!
//! One task per gateway. A drain stops it: sessions then stay detached until another gateway resumes them or the
//! failure detectors reap them. A detached session costs one entry in [`super::local_claims`] and no more.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use presence::model::OfflineReason;
use presence::registry::retry::{until_answered, until_known};
use presence::registry::{LeaveIntent, LeaveRequest, LocalClaim};

use super::context::LeaseContext;

/// Sessions that expire concurrently.
const CONCURRENCY: usize = 16;

/// Expires due sessions for as long as it is polled. If the future is dropped, a session may have left only some of its
/// rooms; the end of the lease completes the leave.
pub async fn run(context: Arc<LeaseContext>) {
    loop {
        let due = stream::iter(context.claims.due().await);
        due.for_each_concurrent(CONCURRENCY, |(claim, reason)| expire_detached(&context, claim, reason)).await;
    }
}

async fn expire_detached(context: &LeaseContext, claim: LocalClaim, reason: OfflineReason) {
    let LocalClaim { nick, owner, rooms, .. } = claim;
    let registry = &context.registry;
    // An error here is final: the claim is no longer ours, so there is nothing to leave.
    if until_known(|| registry.expire_detached(&nick, &owner, reason)).await.unwrap_or(false) {
        for room in &rooms {
            let _ = until_answered(|| {
                registry.leave(LeaveRequest {
                    room,
                    nick: &nick,
                    owner: &owner,
                    reason: reason.left(),
                    intent: LeaveIntent::ForNow,
                })
            })
            .await;
        }
    }
    context.claims.release(&owner);
}
