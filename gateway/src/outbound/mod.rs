//! Everything on its way to a client: the outbox of a connection and the batch that a fan-out writes into many of them.

pub mod batch;
pub mod outbox;

pub use self::outbox::Outbox;
