//! The crowd: members that send all the time, reconnect whenever they are cut off, and record what they receive.
//!
//! Started by the bench through nginx's doors. They behave as PROTOCOL.md asks of clients, and judge nothing.

mod connection;
mod member;

pub use self::connection::MemberAddress;
pub use self::member::{CrowdMember, CrowdMode, MemberScript};
