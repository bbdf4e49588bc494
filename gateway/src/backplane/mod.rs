//! The backplane between nodes: publishing into rooms and inboxes, and receiving what was published.
//!
//! [`Backplane`] is an enum over two arms, like the registry; one contract suite (`tests/it/contracts/backplane.rs`)
//! runs on both. Deliveries arrive through one callback given at the start. Knows no wire format and no session.
//!
//! # Contract
//! - A publish is acknowledged only once the store has it, in one step: lease live, member record equal to the sender's
//!   owner, key unseen; then it gets a seq (dense from 1 per room), is appended, and is sent to the room's channel.
//! - A direct message goes into the inbox of the session that has the nickname or had it last, online or not, and in
//!   the same step to the session's gateway if it is online.
//! - Deliveries of one stream (a room or an inbox) arrive in the order of their seqs, by the same path for local and
//!   remote members. While the subscription is down nothing arrives; [`Delivery::Resumed`] reports that something may
//!   be missing.
//! - A store that restarts may lack messages acknowledged here in the last seconds. They are republished before
//!   anything new: once each, under their id and in their old order.
//! - After [`Backplane::subscribe`] has returned, everything published later arrives. Unsubscribing lingers.
//! - The callback must not block: it runs on the task that reads from the store.

mod contract;
mod delivery;
pub mod envelope;
mod link;
mod malformed;
mod memory;
mod redis;

pub use presence::model::stream::StreamId;

pub use self::contract::{HistoryPage, PublishError, PublishRequest, Published, ReplayPage};
pub use self::delivery::{Delivery, DeliverySink};
pub use self::link::{LinkState, SubscriptionStatus};
pub use self::memory::MemoryBackplane;
pub use self::redis::RedisBackplane;
pub use crate::wire::command::Range;

/// The backplane: one of two stores behind one set of calls. Cheap to clone; the subscription ends with the last clone.
#[derive(Debug, Clone)]
pub enum Backplane {
    /// Between the processes of a cluster.
    Redis(RedisBackplane),
    /// Between the nodes of one process.
    Memory(MemoryBackplane),
}
