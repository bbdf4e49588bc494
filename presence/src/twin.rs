//! Keeps a second live gateway from starting under a node id that is in use.
//!
//! A gateway asks once, before it opens its first lease. What is in the lease table proves nothing: after a crash the row
//! of the last life is still there. Only a counter that moves between two looks shows a process that lives, so a restart
//! after `kill -9` costs one pause and is never refused. Fences nobody. A twin that stands still is let be (the
//! failure detector deals with it), and two that start in the same moment do not see each other.

use std::time::Duration;

use crate::model::Incarnation;
use crate::registry::{Lease, Registry};

/// From the first look to the second: longer than from one beat to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(1500);

/// Another process with the same node id is alive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node.id {node:?} is in use: another gateway beats under it (incarnation {incarnation}); give each its own")]
pub struct Twin {
    /// The name that both have.
    pub node: String,
    /// The life of the other one.
    pub incarnation: Incarnation,
}

/// Looks whether another gateway lives under this node id: at once when there is no row of it, else within 1.5 s. A store
/// that does not answer proves nothing, and is no reason not to start.
///
/// # Errors
/// It does.
pub async fn refuse_second(registry: &Registry, node: &str) -> Result<(), Twin> {
    let Some(before) = serving(registry, node).await.filter(|leases| !leases.is_empty()) else { return Ok(()) };
    tokio::time::sleep(LOOK_AGAIN).await;
    let after = serving(registry, node).await.unwrap_or_default();
    match moved(&before, after) {
        Some(lease) => Err(Twin { node: lease.node, incarnation: lease.incarnation }),
        None => Ok(()),
    }
}

async fn serving(registry: &Registry, node: &str) -> Option<Vec<Lease>> {
    match registry.leases().await {
        Ok(leases) => {
            Some(leases.leases.into_iter().filter(|lease| lease.node == node && lease.state.serves()).collect())
        }
        Err(error) => {
            tracing::debug!(%error, "the lease table was not read");
            None
        }
    }
}

/// A lease that has beaten from the one look to the other.
fn moved(before: &[Lease], after: Vec<Lease>) -> Option<Lease> {
    let has_moved =
        |lease: &Lease| before.iter().any(|old| old.incarnation == lease.incarnation && old.counter < lease.counter);
    after.into_iter().find(has_moved)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::Store;
    use crate::registry::{Farewell, GatewayInfo, MemoryRegistry};

    async fn with_lease(node: &str) -> (Registry, Incarnation) {
        let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
        let incarnation = Incarnation::random();
        let info = GatewayInfo { node: node.into(), version: "1".into(), ws: String::new(), tcp: String::new() };
        registry.open_lease(&incarnation, &info).await.unwrap();
        registry.beat(&incarnation, &[]).await.unwrap();
        (registry, incarnation)
    }

    /// Beats while a second one asks.
    async fn ask_beside_a_beat(registry: &Registry, incarnation: &Incarnation, node: &str) -> Result<(), Twin> {
        let beats = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                registry.beat(incarnation, &[]).await.unwrap();
            }
        };
        tokio::select! {
            answer = refuse_second(registry, node) => answer,
            () = beats => unreachable!("it beats on"),
        }
    }

    #[tokio::test]
    async fn one_that_beats_is_a_twin() {
        let (registry, incarnation) = with_lease("g1").await;
        let refused = ask_beside_a_beat(&registry, &incarnation, "g1").await;
        assert_eq!(refused, Err(Twin { node: "g1".to_owned(), incarnation: incarnation.clone() }));
        assert_eq!(ask_beside_a_beat(&registry, &incarnation, "g2").await, Ok(()), "another name is nobody's business");
    }

    #[tokio::test]
    async fn a_row_that_stands_still_is_the_last_life() {
        let (registry, _) = with_lease("g1").await;
        assert_eq!(refuse_second(&registry, "g1").await, Ok(()));
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_waited_for() {
        let (registry, incarnation) = with_lease("g1").await;
        registry.set_lease(&incarnation, Farewell::Drained { hold: Duration::ZERO }).await.unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(refuse_second(&registry, "g1").await, Ok(()));
        assert!(asked.elapsed() < LOOK_AGAIN);
    }
}
