//! Leases: a gateway's right to write, its heartbeat, fencing, and the clean-up after gateways that ended.
//!
//! The lease table has a row for each incarnation of a gateway. Counters and fences decide, never clocks. After a loss of
//! data in the store each gateway reasserts its claims before the new generation opens.

mod audit;
mod memory;
mod reassert;
mod redis;
mod types;

use crate::model::{Incarnation, NickKey, Owner};

use super::RegistryError;

pub(super) use self::redis::{LeaseRow, lease_rows, lease_state};
pub use self::types::{
    Beat, Differences, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, LeaseTransition, LocalClaim,
    MailboxOrder, Phase, ReapedBatch, ReassertBatch, Surplus,
};

contract! {
    /// The lease table and everything that depends on a lease.
    Leases {
        /// Adds a new incarnation to the lease table.
        ///
        /// # Errors
        /// [`RegistryError`]; on `Unknown` call it again, it is idempotent.
        async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError>;

        /// Adds a new incarnation unless another one of its node is live that is not in `over`. A compare-and-set: of any
        /// number that start at the same moment one gets its lease. Returns the other incarnation, if there is one.
        ///
        /// # Errors
        /// As for [`Registry::open_lease`](super::Registry::open_lease).
        async fn open_first_lease(
            &self,
            incarnation: &Incarnation,
            info: &GatewayInfo,
            over: &[Incarnation],
        ) -> Result<Option<Incarnation>, RegistryError>;

        /// Sends one heartbeat: renews the lease and the TTL of its nick cache, collects the mailbox, publishes the counter
        /// on the gateway's own channel, stamps `active` nicks of this gateway as active now, and returns the lease table.
        /// One write, so it fails where a write would fail.
        ///
        /// # Errors
        /// `Fenced` when the lease is fenced or drained, or unknown to a generation that should know it.
        async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError>;

        /// Writes a gateway's claims again in a generation that does not have them yet: the store restores the missing parts
        /// of the lease and of the claims, and announces none of it. Returns the claims that a later claim has overtaken:
        /// their sessions have to be closed. Idempotent.
        ///
        /// # Errors
        /// `Fenced` when it comes too late, `Unavailable` also when another generation has begun.
        async fn reassert(&self, batch: ReassertBatch<'_>) -> Result<Vec<Owner>, RegistryError>;

        /// Compares the store with a gateway's own claims. A request in flight shows as a difference, and so does a change
        /// between two reads: only a difference that is found again is real.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn audit(&self, incarnation: &Incarnation, claims: &[LocalClaim]) -> Result<Differences, RegistryError>;

        /// Reads the lease table, for observers without a lease of their own.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn leases(&self) -> Result<LeaseTable, RegistryError>;

        /// Records that the gateway is draining, or has drained. The sessions of a drained gateway are held and shown as
        /// before until the hold ends; then the reapers announce their leave (`closed`).
        ///
        /// # Errors
        /// `Fenced` when it no longer matters.
        async fn set_lease(&self, incarnation: &Incarnation, transition: LeaseTransition) -> Result<(), RegistryError>;

        /// Fences an incarnation if its counter still is `counter` and it is live or draining: a compare-and-set, so any
        /// number of observers may try. Returns whether this call did it.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError>;

        /// Cleans up after an incarnation that is fenced, or drained and past its hold, at most `limit` nicks and memberships
        /// at a time. It frees, announces each leave once (`gateway_lost` or `closed`), keeps what a resume needs, and
        /// leaves newer claims alone. A live incarnation is left alone. An hour-old row with nothing left is deleted.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; idempotent, call it again.
        async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<ReapedBatch, RegistryError>;

        /// Orders a gateway, by its mailbox, to drain as on SIGTERM. Returns whether that gateway is live.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; a repeated order has no further effect.
        async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError>;
    }
}
