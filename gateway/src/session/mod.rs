//! One connected user: the pure core decides, the driver performs, the outbox holds what is to be written.
//!
//! ```text
//! connected --register--> registered --(join, send, nick, ...)--> registered --bye, end, silence--> over
//!     \---- no register in time, end ---------------------------------------------------------->/
//! ```
//! A connection is one socket with its door and outbox, a session the identity that owns a nickname and its rooms.
//! Today a session lives as long as its connection.

pub mod broadcast;
mod catch_up;
pub mod core;
pub mod driver;
pub mod liveness;
pub mod outbox;
mod retry;

pub use self::driver::{Driver, Services};
pub use self::outbox::Outbox;
