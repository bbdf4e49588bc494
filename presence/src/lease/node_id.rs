//! Unique node ids: a second live gateway under a node id in use is refused.
//!
//! [`check_node_id`] runs before the first lease is opened. A row in the lease table proves nothing, since a crash
//! leaves one behind. Only a counter that changes between two reads proves a live process. [`open_first`] then succeeds
//! only if no new row has appeared, so exactly one of several simultaneous starts succeeds. A restart after `kill -9`
//! costs one pause and is never refused. Stalled rows are left to the failure detectors.

use std::time::Duration;

use crate::lease::beat::{OwnLease, retry_until_answered};
use crate::model::Incarnation;
use crate::registry::{Lease, Registry, RegistryError};

/// Pause between the two reads; longer than the interval between two beats.
const RECHECK_AFTER: Duration = Duration::from_millis(1500);
/// The same after an outage of the store, when a live gateway needs longer until its next beat.
const RECHECK_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// Another live gateway has the same node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node.id {node:?} is in use by another gateway (incarnation {incarnation}): use a different id for each gateway"
)]
pub struct NodeIdConflict {
    /// The node id of both.
    pub node: String,
    /// The incarnation of the other gateway.
    pub incarnation: Incarnation,
}

/// Result of a node id check; the outer error means that the store did not answer.
type NodeIdCheck<T> = Result<Result<T, NodeIdConflict>, RegistryError>;

/// Checks for another live gateway with this node id: at once if the lease table has no row of it, else within 1.5 s.
/// Returns the former incarnations of the node, whose counters are unchanged.
///
/// # Errors
/// The store did not answer. The gateway may start all the same: [`open_first_when_answered`] checks later.
pub async fn check_node_id(registry: &Registry, node: &str) -> NodeIdCheck<Vec<Incarnation>> {
    read_twice(registry, node, RECHECK_AFTER).await
}

/// Opens the first lease of a process, unless the lease table has a live row of this node other than the `former`
/// incarnations.
///
/// # Errors
/// The store did not answer. If it opened the lease nevertheless, a second call succeeds.
pub async fn open_first(lease: &OwnLease, former: &[Incarnation]) -> NodeIdCheck<()> {
    let OwnLease { registry, incarnation, info, .. } = lease;
    let other = registry.open_first_lease(incarnation, info, former).await?;
    Ok(other.map_or(Ok(()), |incarnation| Err(NodeIdConflict { node: info.node.clone(), incarnation })))
}

/// Waits until the store answers, checks the node id, and opens the first lease. Dropping the future may leave a row in
/// the lease table, as with [`OwnLease::open`].
///
/// # Errors
/// Another live gateway has this node id.
pub async fn open_first_when_answered(lease: &OwnLease) -> Result<(), NodeIdConflict> {
    let attempt = || async {
        match read_twice(&lease.registry, &lease.info.node, RECHECK_AFTER_OUTAGE).await? {
            Ok(former) => open_first(lease, &former).await,
            Err(conflict) => Ok(Err(conflict)),
        }
    };
    // A lease that was lost before its first beat is replaced like any other.
    retry_until_answered(&lease.incarnation, attempt).await.unwrap_or(Ok(()))
}

async fn read_twice(registry: &Registry, node: &str, pause: Duration) -> NodeIdCheck<Vec<Incarnation>> {
    let before = serving_leases(registry, node).await?;
    if before.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    tokio::time::sleep(pause).await;
    let after = serving_leases(registry, node).await?;
    Ok(match find_moved(&before, after) {
        Some(lease) => Err(NodeIdConflict { node: lease.node, incarnation: lease.incarnation }),
        None => Ok(before.into_iter().map(|lease| lease.incarnation).collect()),
    })
}

async fn serving_leases(registry: &Registry, node: &str) -> Result<Vec<Lease>, RegistryError> {
    let table = registry.observe().await?;
    Ok(table.leases.into_iter().filter(|lease| lease.node == node && lease.state.serves()).collect())
}

/// Returns a lease whose counter has moved between the two reads.
fn find_moved(before: &[Lease], after: Vec<Lease>) -> Option<Lease> {
    let has_moved =
        |lease: &Lease| before.iter().any(|old| old.incarnation == lease.incarnation && old.counter < lease.counter);
    after.into_iter().find(has_moved)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::registry::{GatewayInfo, LeaseTransition, MemoryRegistry};
    use crate::store::memory::Store;

    fn new_lease(registry: &Registry, node: &str) -> OwnLease {
        let empty = String::new;
        let info = GatewayInfo { node: node.into(), version: "1".into(), ws: empty(), tcp: empty(), admin: empty() };
        OwnLease::new(registry.clone(), std::sync::Arc::default(), info)
    }

    /// Returns a lease that was opened and has beaten once.
    async fn open_lease(node: &str) -> OwnLease {
        let lease = new_lease(&Registry::Memory(MemoryRegistry::new(Store::default())), node);
        lease.registry.open_lease(&lease.incarnation, &lease.info).await.unwrap();
        lease.registry.beat(&lease.incarnation, &[]).await.unwrap();
        lease
    }

    /// Checks `node` while `lease` keeps beating.
    async fn check_during_beats(lease: &OwnLease, node: &str) -> NodeIdCheck<Vec<Incarnation>> {
        let beats = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                lease.registry.beat(&lease.incarnation, &[]).await.unwrap();
            }
        };
        tokio::select! {
            answer = check_node_id(&lease.registry, node) => answer,
            () = beats => unreachable!("beats never end"),
        }
    }

    #[tokio::test]
    async fn beating_gateway_is_a_node_id_conflict() {
        let lease = open_lease("g1").await;
        let conflict = NodeIdConflict { node: "g1".to_owned(), incarnation: lease.incarnation.clone() };
        assert_eq!(check_during_beats(&lease, "g1").await, Ok(Err(conflict)));
        assert_eq!(check_during_beats(&lease, "g2").await, Ok(Ok(Vec::new())), "a different node id");
    }

    #[tokio::test]
    async fn stalled_row_is_a_former_incarnation() {
        let lease = open_lease("g1").await;
        assert_eq!(check_node_id(&lease.registry, "g1").await, Ok(Ok(vec![lease.incarnation])));
    }

    #[tokio::test]
    async fn drained_lease_needs_no_second_read() {
        let lease = open_lease("g1").await;
        let drained = LeaseTransition::Drained { hold: Duration::ZERO };
        lease.registry.set_lease(&lease.incarnation, drained).await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(check_node_id(&lease.registry, "g1").await, Ok(Ok(Vec::new())));
        assert!(start.elapsed() < RECHECK_AFTER);
    }

    #[tokio::test]
    async fn one_of_simultaneous_starts_wins() {
        let crashed = open_lease("g1").await;
        let registry = &crashed.registry;
        let former = check_node_id(registry, "g1").await.unwrap().unwrap();
        assert_eq!(former, std::slice::from_ref(&crashed.incarnation));
        let [first, second] = [(); 2].map(|()| new_lease(registry, "g1"));
        assert_eq!(open_first(&first, &former).await, Ok(Ok(())));
        assert_eq!(open_first(&first, &former).await, Ok(Ok(())), "a repeated call is no conflict");
        let conflict = NodeIdConflict { node: "g1".to_owned(), incarnation: first.incarnation };
        assert_eq!(open_first(&second, &former).await, Ok(Err(conflict)));
        assert_eq!(open_first(&new_lease(registry, "g2"), &[]).await, Ok(Ok(())), "a different node id");
    }
}
