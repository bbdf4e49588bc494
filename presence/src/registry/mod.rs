//! The registry of a cluster: names, leases and memberships.
//!
//! [`Registry`] is an enum over two arms: `Redis` for a cluster, `Memory` for one node without dependencies and for
//! fast tests. Gateways write through it, the HTTP API reads from it, heartbeat and reaper run on it. Each topic is a
//! folder that declares its part of the contract once. The folder holds both arms: the Lua script with its call, and
//! the same rule on the tables of [`crate::store::memory`]. One contract suite (`tests/it/contracts/registry.rs`) runs
//! on both.
//!
//! # Contract
//! - Every write names the writer's lease. Under a lease that is not live it changes nothing and returns
//!   [`RegistryError::Fenced`].
//! - Every change of ownership compares incarnation, session and fence; without a match it changes nothing.
//! - Writes are idempotent by session: the same call again returns the same answer and announces nothing twice.
//! - A session ends in this order: [`Registry::release`] or [`Registry::expire_detached`] first; only after `true` does
//!   its gateway leave the rooms. A session that was resumed meanwhile stays in its rooms, and no leave is announced.
//! - [`RegistryError::Unavailable`] means that nothing was done, [`RegistryError::Unknown`] that the outcome is
//!   unknown. A dropped future may leave its command done or not, like `Unknown`.
//! - Ownership ends by release or by a fence, never by a clock. A clock ends only the hold of a nickname.

/// Declares one topic of the contract: the trait that both arms implement, and the same methods on [`Registry`], which
/// forward to the arm in use.
macro_rules! contract {
    ($(#[$trait_doc:meta])* $topic:ident { $(
        $(#[$doc:meta])*
        async fn $name:ident(&self $(, $arg:ident: $type:ty)* $(,)?) -> $output:ty;
    )* }) => {
        $(#[$trait_doc])*
        pub(super) trait $topic {
            $( async fn $name(&self $(, $arg: $type)*) -> $output; )*
        }

        impl $crate::registry::Registry { $(
            $(#[$doc])*
            pub async fn $name(&self $(, $arg: $type)*) -> $output {
                match self {
                    Self::Redis(redis) => $topic::$name(redis $(, $arg)*).await,
                    Self::Memory(memory) => $topic::$name(memory $(, $arg)*).await,
                }
            }
        )* }
    };
}

mod announcements;
mod error;
mod leases;
mod listing;
mod memory;
mod sanctions;
mod messages;
mod names;
mod redis;
mod reply;
pub mod retry;
mod rooms;
mod script;
mod sessions;
mod webhooks;

pub use self::announcements::{AnnouncementRequest, SentAnnouncement};
pub use self::error::RegistryError;
pub use self::leases::{
    Beat, BeatReport, CarriedOut, Differences, GatewayInfo, Generation, Lease, LeaseState, LeaseTable, LeaseTransition,
    LocalClaim, MailboxOrder, Phase, ReapedBatch, ReassertBatch, Surplus, UsageReport,
};
pub(crate) use self::listing::event_position;
pub use self::listing::{
    ClusterStats, EventLogEnds, GatewayRow, HeldSession, Inventory, LargestStreams, LeaseSummary, ListPage,
    ListedBytes, Membership, PAGE_LIMIT, RegistryEvent, RoomRow, StreamOwner, StreamSize, UserRow,
};
pub use self::memory::MemoryRegistry;
pub use self::messages::{
    ApiPost, PayloadFields, PostError, PostTarget, PostedMessage, RoomMessage, RoomTail, payload,
};
pub use self::names::{ClaimError, ClaimRequest, ReleaseCause};
pub use self::redis::RedisRegistry;
pub use self::rooms::{
    JoinEntry, JoinRequest, JoinedAt, LeaveIntent, LeaveRequest, ModerationCaller, ModerationError, ModerationRequest,
    RuledRoom,
};
pub use self::sanctions::{SANCTION_PAGE, SanctionCursor, SanctionPage, SanctionRow};
pub use self::sessions::{
    DetachOutcome, HoldTerms, InboxState, RestoredMembership, ResumeError, ResumeTicket, ResumedSession,
};
pub use self::webhooks::{
    EventLogBounds, LoggedEvent, TakenEvents, WebhookLead, WebhookLogTail, WebhookRow, WebhookRows, WebhookSettlement,
};

/// The registry: one of two stores behind one set of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Registry {
    /// Shared by every process of the cluster.
    Redis(RedisRegistry),
    /// Shared by the tasks of one process.
    Memory(MemoryRegistry),
}

impl Registry {
    /// Returns true while the store refuses calls or is unfit. The store has logged it, so callers need not.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Redis(redis) => redis.is_refused(),
            Self::Memory(_) => false,
        }
    }

    /// Returns true if the store has answered a call of this process within the last 1.5 s. A read that took too long
    /// is then a matter of this process and not of the store.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        match self {
            Self::Redis(redis) => redis.redis.is_answering(),
            Self::Memory(_) => true,
        }
    }
}
