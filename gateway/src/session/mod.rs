//! The session of one connected user: the pure core decides, the driver performs, the outbox holds the output.
//!
//! ```text
//! connected --register--> registered --(join, send, nick, ...)--> registered --bye, end, silence--> over
//!     \---- no register in time, end ---------------------------------------------------------->/
//! ```
//! A connection is one socket with its dialect and outbox; a session owns a nickname, its rooms and its inbox. A
//! connection has one session, a session at most one connection at a time. A client that lost its connection resumes
//! its session over another one, on any gateway. Each request type is one file in `verbs`.

pub mod core;
pub mod driver;
mod ending;
pub mod liveness;
mod own_messages;
mod performer;
mod questions;
mod rate_meter;
mod refusal;
pub mod removed_keys;
mod replay;
pub(crate) mod retry;
mod room_orders;
mod send_rates;
mod sends_in_flight;
mod services;
mod session_limits;
mod settling;
mod small_map;
pub mod state;
pub mod stream_entry;
mod token;
pub mod token_expiry;
mod typing_limiter;
pub mod verbs;

pub use self::driver::{DecodedRequest, Driver};
pub use self::ending::ConnectionEnd;
pub use self::send_rates::SendRates;
pub use self::services::Services;
pub use self::session_limits::{RefusalReport, SessionLimits};
