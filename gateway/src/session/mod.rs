//! One connected user: the pure core decides, the driver performs, the outbox holds what is to be written.
//!
//! ```text
//! connected --register--> registered --(join, send, nick, ...)--> registered --bye, end, silence--> over
//!     \---- no register in time, end ---------------------------------------------------------->/
//! ```
//! A connection is one socket with its door and outbox, a session the identity that owns a nickname, its rooms and its
//! inbox. A connection has one session; a session has one connection at a time, or none for a while: a client that lost
//! its connection goes on over another one, on any gateway.

mod claims;
pub mod core;
pub mod driver;
mod ending;
pub mod liveness;
mod replay;
pub(crate) mod retry;
mod small_map;
mod token;

pub use self::driver::{Driver, Services};
pub use self::ending::Ending;
