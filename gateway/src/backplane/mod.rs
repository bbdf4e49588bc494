//! The backplane between nodes: publishing into rooms and inboxes, and receiving what was published.
//!
//! [`Backplane`] is an enum over two arms, like the registry. `contract` declares its methods and the rules that both
//! arms keep. Deliveries arrive through one callback given at the start. Knows no wire format and no session.

mod contract;
mod delivery;
pub mod envelope;
mod key_shares;
mod link;
mod malformed;
mod memory;
mod redis;

pub use presence::model::stream::{PageLimit, StreamId};

pub use self::contract::{
    HistoryPage, PriorPosition, PublishAttempt, PublishError, PublishRequest, Published, ReplayPage,
};
pub use self::delivery::{Delivery, DeliverySink, ReceiveDeliveries};
pub use self::link::{LinkState, SubscriptionStatus};
pub use self::memory::MemoryBackplane;
pub use self::redis::{RedisBackplane, RedisBackplaneSettings};
pub use crate::wire::command::Range;

/// The backplane: one of two stores behind one set of calls. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// Between the processes of a cluster.
    Redis(RedisBackplane),
    /// Between the nodes of one process.
    Memory(MemoryBackplane),
}
