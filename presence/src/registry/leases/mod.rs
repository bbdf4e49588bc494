//! Leases: a gateway's right to write, its heartbeat, fencing, and the clean-up after gateways that ended.
//!
//! The lease table has a row for each incarnation of a gateway. Counters and fences decide, never clocks. After a loss
//! of data in the store each gateway reasserts its claims before the new generation opens.

mod audit;
mod memory;
mod reassert;
mod redis;
mod types;

use crate::model::{Incarnation, NickKey, Owner};

use super::RegistryError;

pub(super) use self::redis::{LeaseRow, lease_rows};
pub use self::types::{
    Beat, BeatReport, CarriedOut, Differences, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, LeaseTransition,
    LocalClaim, MailboxOrder, Phase, ReapedBatch, ReassertBatch, Surplus, UsageReport,
};

impl super::Registry {
    /// Sends one heartbeat without usage of limits, which takes the orders out of the mailbox; see
    /// [`Registry::send_beat`](super::Registry::send_beat).
    ///
    /// # Errors
    /// Those of [`Registry::send_beat`](super::Registry::send_beat).
    pub async fn beat(&self, incarnation: &Incarnation, active: &[NickKey]) -> Result<Beat, RegistryError> {
        self.send_beat(incarnation, BeatReport { active, ..BeatReport::default() }).await
    }
}

contract! {
    /// The lease table and everything that depends on a lease.
    Leases {
        /// Adds a new incarnation to the lease table.
        ///
        /// # Errors
        /// [`RegistryError`]; on `Unknown` call it again, it is idempotent.
        async fn open_lease(&self, incarnation: &Incarnation, info: &GatewayInfo) -> Result<(), RegistryError>;

        /// Adds a new incarnation unless another one of its node serves that is not in `ended`: a compare-and-set. Of
        /// several simultaneous starts exactly one succeeds. Returns the other incarnation, if there is one.
        ///
        /// # Errors
        /// As for [`Registry::open_lease`](super::Registry::open_lease).
        async fn open_first_lease(
            &self,
            incarnation: &Incarnation,
            info: &GatewayInfo,
            ended: &[Incarnation],
        ) -> Result<Option<Incarnation>, RegistryError>;

        /// Sends one heartbeat. It renews the lease and the TTL of its nick cache, collects the mailbox, and stamps the
        /// `active` nicks of this gateway as active now. It publishes the counter on the gateway's own channel. It
        /// exchanges the usage of limits with the other gateways. It returns the lease table. One write, so it fails
        /// where a write would fail.
        ///
        /// # Errors
        /// `Fenced` if the lease is fenced or drained, or unknown to a generation that should know it.
        async fn send_beat(&self, incarnation: &Incarnation, report: BeatReport<'_>) -> Result<Beat, RegistryError>;

        /// Restores the lease and the claims of a gateway that a generation lacks. Announces nothing. Returns
        /// superseded claims, whose sessions must be closed. Idempotent.
        ///
        /// # Errors
        /// `Fenced` if it comes too late, `Unavailable` also if another generation has begun.
        async fn reassert(&self, batch: ReassertBatch<'_>) -> Result<Vec<Owner>, RegistryError>;

        /// Compares the store with a gateway's own claims. A request in flight, or a change between two reads, shows as
        /// a difference. Only a difference that a second audit finds again is real.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn audit(&self, incarnation: &Incarnation, claims: &[LocalClaim]) -> Result<Differences, RegistryError>;

        /// Reads the lease table, for listings.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn leases(&self) -> Result<LeaseTable, RegistryError>;

        /// Reads the lease table while the store accepts beats, for judging unchanged counters.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; also while the store would refuse a beat.
        async fn observe(&self) -> Result<LeaseTable, RegistryError>;

        /// Records that the gateway is draining, or has drained. The sessions of a drained gateway are held and shown
        /// as before until the hold ends; then the reapers announce their leave (`closed`).
        ///
        /// # Errors
        /// `Fenced` if the lease has ended.
        async fn set_lease(&self, incarnation: &Incarnation, transition: LeaseTransition) -> Result<(), RegistryError>;

        /// Fences an incarnation if its counter equals `counter` and its lease is live or draining. A compare-and-set,
        /// so any number of observers may try. Returns true if this call fenced it.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn fence(&self, incarnation: &Incarnation, counter: u64) -> Result<bool, RegistryError>;

        /// Cleans up after an incarnation that is fenced, or drained and past its hold: at most `limit` nicks and
        /// memberships in one call. Frees the nicks, announces each leave once (`gateway_lost` or `closed`), and keeps
        /// the records that a resume needs. Newer claims and live incarnations are not changed. The row of an empty
        /// lease is deleted an hour after its end.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; idempotent, call it again.
        async fn reap(&self, incarnation: &Incarnation, limit: usize) -> Result<ReapedBatch, RegistryError>;

        /// Orders a gateway, by its mailbox, to drain as on SIGTERM. Returns true if its lease is live or draining.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; a repeated order has no further effect.
        async fn drain(&self, incarnation: &Incarnation) -> Result<bool, RegistryError>;
    }
}
