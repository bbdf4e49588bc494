//! Everything on its way to a client.
//!
//! [`Outbox`] is the bounded queue of one connection, [`FanOutBatch`](batch::FanOutBatch) one buffer that is written to
//! many connections, [`SlowReaderPolicy`](policy::SlowReaderPolicy) every limit for one slow reader,
//! [`ReplyBudget`](reply_budget::ReplyBudget) the limit for all of them together. Invariant: queueing never blocks.
//! Knows no session, no hub and no store.

pub mod batch;
pub mod outbox;
mod outbox_id;
mod outgoing;
pub mod policy;
pub mod reply_budget;

pub use self::outbox::Outbox;
