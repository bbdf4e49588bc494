//! What a gateway does for a store that has lost something: it says again what it holds.
//!
//! Driven by the beat ([`crate::lease::beat::keep`]), whose answers tell that a generation has not heard us yet. The store does the
//! rest: it puts back what it lacks, lets later claims win, and opens when everybody has spoken. The last word is held back
//! until what the gateway acked is there as well: nothing new comes before it. Decides nothing itself.

use std::time::{Duration, Instant};

use crate::lease::beat::Keeper;
use crate::model::Incarnation;
use crate::registry::{GatewayInfo, LocalClaim, ReassertBatch, Registry};

/// Nicks and memberships that one call puts back, so that no script holds the store up.
const SAID_AT_ONCE: usize = 200;
/// How long to go on between two beats.
const PORTION: Duration = Duration::from_millis(750);

/// What one generation is being told. Lives as long as the lease.
#[derive(Debug, Default)]
pub(crate) struct Reassertion {
    generation: u64,
    holdings: Vec<LocalClaim>,
    /// How many of them were said.
    said: usize,
}

impl Reassertion {
    /// Says what is held, or goes on with it, for less than the time to the next beat. An answer that is lost is asked for
    /// again with the next beat.
    pub(crate) async fn go_on(
        &mut self,
        registry: &Registry,
        (incarnation, info): (&Incarnation, &GatewayInfo),
        generation: u64,
        keeper: &mut impl Keeper,
    ) {
        let until = Instant::now() + PORTION;
        if self.generation != generation {
            *self = Self { generation, holdings: keeper.holdings(), said: 0 };
            self.holdings.retain(|holding| holding.owner.incarnation == *incarnation);
            tracing::info!(
                generation,
                sessions = self.holdings.len(),
                "the store is recovering, telling it what we hold"
            );
        }
        while Instant::now() < until {
            let rest = &self.holdings[self.said..];
            let batch = &rest[..portion(rest)];
            let is_all = batch.len() == rest.len();
            let last = is_all && keeper.is_whole(generation);
            match registry.reassert(ReassertBatch { incarnation, info, generation, claims: batch, last }).await {
                Ok(overtaken) => overtaken.iter().for_each(|owner| keeper.overtaken(owner)),
                Err(error) => {
                    tracing::debug!(%error, "not heard by the store");
                    return;
                }
            }
            self.said += batch.len();
            if last {
                // Asked once more, by a store that overruled one of our claims, we say everything once more.
                *self = Self::default();
            }
            if is_all {
                return;
            }
        }
    }
}

/// How many of these holdings go into one call.
fn portion(holdings: &[LocalClaim]) -> usize {
    let mut entries = 0;
    let fitting = holdings.iter().take_while(|holding| {
        entries += 1 + holding.rooms.len();
        entries <= SAID_AT_ONCE
    });
    fitting.count().max(1).min(holdings.len())
}
