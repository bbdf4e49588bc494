//! Reassertion: writing a gateway's claims again into a store that has lost data.
//!
//! The gateway's lease loop runs it after a beat whose generation lacks the claims of this gateway. [`Reassertion`]
//! keeps the progress within one generation. The store restores what it lacks, lets later claims win, and opens after
//! the last batch of every gateway. The last batch is held back until the generation also has every message that this
//! gateway acknowledged.

use std::time::{Duration, Instant};

use crate::lease::beat::OwnLease;
use crate::model::Owner;
use crate::registry::{LocalClaim, ReassertBatch};

/// Maximum number of nicknames and memberships in one call, so that the script does not block the store.
const BATCH_ENTRIES_MAX: usize = 200;
/// Time to reassert between two beats.
const REASSERT_BUDGET: Duration = Duration::from_millis(750);

/// Progress of one lease's reassertion in one generation.
#[derive(Debug, Default)]
pub struct Reassertion {
    generation: u64,
    claims: Vec<LocalClaim>,
    /// Number of claims that were sent.
    sent: usize,
    /// End of the present pass; `None` once the pass is over.
    pass_ends: Option<Instant>,
}

impl Reassertion {
    /// Starts a pass between two beats. It continues in the same generation, else it starts again with the present
    /// claims.
    pub fn start_pass(&mut self, lease: &OwnLease, generation: u64, claims: impl FnOnce() -> Vec<LocalClaim>) {
        if self.generation != generation {
            *self = Self { generation, claims: claims(), ..Self::default() };
            self.claims.retain(|claim| claim.owner.incarnation == lease.incarnation);
            tracing::info!(generation, sessions = self.claims.len(), "store is recovering, claim reassertion started");
        }
        self.pass_ends = Some(Instant::now() + REASSERT_BUDGET);
    }

    /// Sends the next batch. Returns the claims that later claims have superseded, or `None` when the pass is over.
    ///
    /// `is_republished`: the generation has every message that this gateway acknowledged. A lost answer ends the pass,
    /// and the next pass repeats the batch.
    pub async fn send_batch(&mut self, lease: &OwnLease, is_republished: bool) -> Option<Vec<Owner>> {
        if self.pass_ends.is_none_or(|end| end <= Instant::now()) {
            return None;
        }
        let OwnLease { registry, incarnation, info, .. } = lease;
        let rest = &self.claims[self.sent..];
        let batch = &rest[..batch_len(rest)];
        let sends_all = batch.len() == rest.len();
        let is_last = sends_all && is_republished;
        let generation = self.generation;
        let reassertion = ReassertBatch { incarnation, info, generation, claims: batch, last: is_last };
        match registry.reassert(reassertion).await {
            Ok(superseded) => {
                self.sent += batch.len();
                if sends_all {
                    self.pass_ends = None;
                }
                if is_last {
                    // The store may request another reassertion; it starts from the first claim.
                    *self = Self::default();
                }
                Some(superseded)
            }
            Err(error) => {
                tracing::debug!(%error, "claims not reasserted, retrying after the next beat");
                self.pass_ends = None;
                None
            }
        }
    }
}

/// Returns the number of leading claims that fit into one call: at least one, if there is any.
fn batch_len(claims: &[LocalClaim]) -> usize {
    let mut entries = 0;
    let fitting = claims.iter().take_while(|claim| {
        entries += 1 + claim.rooms.len();
        entries <= BATCH_ENTRIES_MAX
    });
    fitting.count().max(1).min(claims.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::model::{Fence, Incarnation, Nick, RoomName, SessionId, Status, TokenHash};
    use crate::registry::{GatewayInfo, MemoryRegistry, Registry};
    use crate::store::memory::Store;

    fn new_lease() -> OwnLease {
        let empty = String::new;
        let info = GatewayInfo { node: "g1".into(), version: "1".into(), ws: empty(), tcp: empty(), admin: empty() };
        OwnLease::new(Registry::Memory(MemoryRegistry::new(Store::default())), Arc::default(), info)
    }

    fn claim(incarnation: &Incarnation, nick: &str, rooms: usize) -> LocalClaim {
        let (incarnation, session) = (incarnation.clone(), SessionId::random());
        LocalClaim {
            nick: Nick::parse(nick).unwrap(),
            owner: Owner { incarnation, session, fence: Fence(1) },
            user: None,
            status: Status::default(),
            rooms: vec![RoomName::parse("#lobby").unwrap(); rooms],
            token: TokenHash::of(b"secret"),
            detached: false,
        }
    }

    #[tokio::test]
    async fn last_batch_waits_for_republished_messages() {
        let (lease, mut reassertion) = (new_lease(), Reassertion::default());
        assert!(lease.open().await);
        let lost = claim(&Incarnation::random(), "carl", 0);
        let claims = [claim(&lease.incarnation, "ann", 150), claim(&lease.incarnation, "bob", 150), lost];
        reassertion.start_pass(&lease, 7, || claims.to_vec());
        for sent in [1, 2] {
            assert_eq!(reassertion.send_batch(&lease, false).await, Some(Vec::new()));
            assert_eq!((reassertion.sent, reassertion.claims.len()), (sent, 2), "claims of a lost lease are left out");
        }
        assert_eq!(reassertion.send_batch(&lease, true).await, None, "the pass is over");
        reassertion.start_pass(&lease, 7, || unreachable!("the generation is the same"));
        assert_eq!(reassertion.send_batch(&lease, true).await, Some(Vec::new()), "the last batch is empty");
        assert_eq!(reassertion.send_batch(&lease, true).await, None);
        reassertion.start_pass(&lease, 7, || claims.to_vec());
        assert_eq!(reassertion.claims.len(), 2, "asked again, it sends everything again");
    }

    #[tokio::test]
    async fn failed_batch_is_repeated_in_the_next_pass() {
        let (lease, mut reassertion) = (new_lease(), Reassertion::default());
        reassertion.start_pass(&lease, 7, || vec![claim(&lease.incarnation, "ann", 0)]);
        assert_eq!(reassertion.send_batch(&lease, true).await, None, "the lease is not open");
        assert!(lease.open().await);
        reassertion.start_pass(&lease, 7, || unreachable!("the generation is the same"));
        assert_eq!(reassertion.send_batch(&lease, true).await, Some(Vec::new()));
    }
}
