//! Keeps a second live gateway from starting under a node id that is in use.
//!
//! A gateway asks once, before it opens its first lease. What is in the lease table proves nothing: after a crash the row
//! of the last life is still there. Only a counter that moves between two looks shows a process that lives, so a restart
//! after `kill -9` costs one pause and is never refused. The first lease is then opened only if no row has come beside those
//! that stood still: of several that start in the same moment one stays. Fences nobody. A twin that stands still is let be
//! (the failure detector deals with it), and so are twins that started while the store was away.

use std::time::Duration;

use crate::model::Incarnation;
use crate::registry::{GatewayInfo, Lease, Registry};

/// From the first look to the second: longer than from one beat to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(1500);

/// Another process with the same node id is alive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node.id {node:?} is in use: another gateway lives under it (incarnation {incarnation}); give each its own")]
pub struct Twin {
    /// The name that both have.
    pub node: String,
    /// The life of the other one.
    pub incarnation: Incarnation,
}

/// Looks whether another gateway lives under this node id: at once when there is no row of it, else within 1.5 s. A store
/// that does not answer proves nothing, and is no reason not to start. Returns the former lives, which stand still.
///
/// # Errors
/// It does.
pub async fn refuse_second(registry: &Registry, node: &str) -> Result<Vec<Incarnation>, Twin> {
    let before = serving(registry, node).await.unwrap_or_default();
    if before.is_empty() {
        return Ok(Vec::new());
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    let after = serving(registry, node).await.unwrap_or_default();
    match moved(&before, after) {
        Some(lease) => Err(Twin { node: lease.node, incarnation: lease.incarnation }),
        None => Ok(before.into_iter().map(|lease| lease.incarnation).collect()),
    }
}

/// Opens the first lease of a process, unless another one was faster since the former lives (`over`) were looked at. A store
/// that does not answer is no reason not to start: the lease is then opened later.
///
/// # Errors
/// Another one was.
pub async fn open_alone(
    registry: &Registry,
    incarnation: &Incarnation,
    info: &GatewayInfo,
    over: &[Incarnation],
) -> Result<(), Twin> {
    match registry.open_first_lease(incarnation, info, over).await {
        Ok(None) => Ok(()),
        Ok(Some(incarnation)) => Err(Twin { node: info.node.clone(), incarnation }),
        Err(error) => {
            tracing::debug!(%error, "the first lease was not opened at once");
            Ok(())
        }
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
    use crate::registry::{Farewell, MemoryRegistry};

    fn told(node: &str) -> GatewayInfo {
        let empty = String::new;
        GatewayInfo { node: node.into(), version: "1".into(), ws: empty(), tcp: empty(), admin: empty() }
    }

    async fn with_lease(node: &str) -> (Registry, Incarnation) {
        let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
        let incarnation = Incarnation::random();
        registry.open_lease(&incarnation, &told(node)).await.unwrap();
        registry.beat(&incarnation, &[]).await.unwrap();
        (registry, incarnation)
    }

    /// Beats while a second one asks.
    async fn ask_beside_a_beat(
        registry: &Registry,
        incarnation: &Incarnation,
        node: &str,
    ) -> Result<Vec<Incarnation>, Twin> {
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
        assert_eq!(
            ask_beside_a_beat(&registry, &incarnation, "g2").await,
            Ok(Vec::new()),
            "another name is nobody's business"
        );
    }

    #[tokio::test]
    async fn a_row_that_stands_still_is_the_last_life() {
        let (registry, incarnation) = with_lease("g1").await;
        assert_eq!(refuse_second(&registry, "g1").await, Ok(vec![incarnation]));
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_waited_for() {
        let (registry, incarnation) = with_lease("g1").await;
        registry.set_lease(&incarnation, Farewell::Drained { hold: Duration::ZERO }).await.unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(refuse_second(&registry, "g1").await, Ok(Vec::new()));
        assert!(asked.elapsed() < LOOK_AGAIN);
    }

    #[tokio::test]
    async fn of_those_that_start_in_the_same_moment_after_a_crash_one_stays() {
        let (registry, crashed) = with_lease("g1").await;
        let over = refuse_second(&registry, "g1").await.unwrap();
        assert_eq!(over, [crashed]);
        let [first, second] = [Incarnation::random(), Incarnation::random()];
        assert_eq!(open_alone(&registry, &first, &told("g1"), &over).await, Ok(()));
        assert_eq!(open_alone(&registry, &first, &told("g1"), &over).await, Ok(()), "it is no twin of itself");
        let refused = open_alone(&registry, &second, &told("g1"), &over).await;
        assert_eq!(refused, Err(Twin { node: "g1".to_owned(), incarnation: first }));
        assert_eq!(open_alone(&registry, &second, &told("g2"), &[]).await, Ok(()), "another name");
    }
}
