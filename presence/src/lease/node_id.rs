//! Keeps a second live gateway from starting under a node id that is in use.
//!
//! A gateway asks once, before it opens its first lease. What is in the lease table proves nothing: after a crash the row
//! of the last life is still there. Only a counter that moves between two looks shows a process that lives, so a restart
//! after `kill -9` costs one pause and is never refused. The first lease is then opened only if no row has come beside those
//! that stood still: of several that start in the same moment one stays. One that starts while the store is away asks when
//! it is back. Fences nobody. A twin that stands still is let be: the failure detector deals with it.

use std::time::Duration;

use crate::lease::beat;
use crate::model::Incarnation;
use crate::registry::{GatewayInfo, Lease, Registry, RegistryError};

/// From the first look to the second: longer than from one beat to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(1500);
/// The same after an outage: until one that lived through it beats again.
const LOOK_AGAIN_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// Another process with the same node id is alive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node.id {node:?} is in use: another gateway lives under it (incarnation {incarnation}); give each its own")]
pub struct NodeIdConflict {
    /// The name that both have.
    pub node: String,
    /// The life of the other one.
    pub incarnation: Incarnation,
}

/// Whether this process is the only one of its node id. Not known while the store does not answer.
type Verdict<T> = Result<Result<T, NodeIdConflict>, RegistryError>;

/// Looks whether another gateway lives under this node id: at once when there is no row of it, else within 1.5 s. Returns
/// the former lives, which stand still.
///
/// # Errors
/// The store does not answer, which is no reason not to start: [`wait_alone`] asks later.
pub async fn refuse_second(registry: &Registry, node: &str) -> Verdict<Vec<Incarnation>> {
    look_twice(registry, node, LOOK_AGAIN).await
}

/// Opens the first lease of a process, unless another one was faster since the former lives (`over`) were looked at.
///
/// # Errors
/// The store does not answer. When it has opened the lease nevertheless, a second call says so.
pub async fn open_alone(
    registry: &Registry,
    incarnation: &Incarnation,
    info: &GatewayInfo,
    over: &[Incarnation],
) -> Verdict<()> {
    let other = registry.open_first_lease(incarnation, info, over).await?;
    Ok(other.map_or(Ok(()), |incarnation| Err(NodeIdConflict { node: info.node.clone(), incarnation })))
}

/// Looks, and opens the first lease, when the store is back; waits for as long as it is away. Dropping the future may leave
/// the row behind, as with [`beat::open`].
///
/// # Errors
/// Another gateway lives under this node id, or was faster.
pub async fn wait_alone(
    registry: &Registry,
    incarnation: &Incarnation,
    info: &GatewayInfo,
) -> Result<(), NodeIdConflict> {
    let attempt = || async {
        match look_twice(registry, &info.node, LOOK_AGAIN_AFTER_OUTAGE).await? {
            Ok(over) => open_alone(registry, incarnation, info, &over).await,
            Err(twin) => Ok(Err(twin)),
        }
    };
    // A lease that was lost before it was used is replaced like any other.
    beat::patiently(incarnation, attempt).await.unwrap_or(Ok(()))
}

async fn look_twice(registry: &Registry, node: &str, pause: Duration) -> Verdict<Vec<Incarnation>> {
    let before = serving(registry, node).await?;
    if before.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    tokio::time::sleep(pause).await;
    let after = serving(registry, node).await?;
    Ok(match moved(&before, after) {
        Some(lease) => Err(NodeIdConflict { node: lease.node, incarnation: lease.incarnation }),
        None => Ok(before.into_iter().map(|lease| lease.incarnation).collect()),
    })
}

async fn serving(registry: &Registry, node: &str) -> Result<Vec<Lease>, RegistryError> {
    let table = registry.leases().await?;
    Ok(table.leases.into_iter().filter(|lease| lease.node == node && lease.state.serves()).collect())
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
    use crate::registry::{LeaseTransition, MemoryRegistry};
    use crate::store::memory::Store;

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
    ) -> Verdict<Vec<Incarnation>> {
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
        assert_eq!(refused, Ok(Err(NodeIdConflict { node: "g1".to_owned(), incarnation: incarnation.clone() })));
        assert_eq!(
            ask_beside_a_beat(&registry, &incarnation, "g2").await,
            Ok(Ok(Vec::new())),
            "another name is nobody's business"
        );
    }

    #[tokio::test]
    async fn a_row_that_stands_still_is_the_last_life() {
        let (registry, incarnation) = with_lease("g1").await;
        assert_eq!(refuse_second(&registry, "g1").await, Ok(Ok(vec![incarnation])));
    }

    #[tokio::test]
    async fn one_that_has_ended_is_not_waited_for() {
        let (registry, incarnation) = with_lease("g1").await;
        registry.set_lease(&incarnation, LeaseTransition::Drained { hold: Duration::ZERO }).await.unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(refuse_second(&registry, "g1").await, Ok(Ok(Vec::new())));
        assert!(asked.elapsed() < LOOK_AGAIN);
    }

    #[tokio::test]
    async fn of_those_that_start_in_the_same_moment_after_a_crash_one_stays() {
        let (registry, crashed) = with_lease("g1").await;
        let over = refuse_second(&registry, "g1").await.unwrap().unwrap();
        assert_eq!(over, [crashed]);
        let [first, second] = [Incarnation::random(), Incarnation::random()];
        assert_eq!(open_alone(&registry, &first, &told("g1"), &over).await, Ok(Ok(())));
        assert_eq!(open_alone(&registry, &first, &told("g1"), &over).await, Ok(Ok(())), "it is no twin of itself");
        let refused = open_alone(&registry, &second, &told("g1"), &over).await;
        assert_eq!(refused, Ok(Err(NodeIdConflict { node: "g1".to_owned(), incarnation: first })));
        assert_eq!(open_alone(&registry, &second, &told("g2"), &[]).await, Ok(Ok(())), "another name");
    }
}
