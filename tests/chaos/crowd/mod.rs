//! The crowd: members who talk all the time, come back whenever they are cut off, and write down what they are told.
//!
//! Started by the bench through nginx's doors. They behave as PROTOCOL.md asks of clients, and judge nothing.

mod connection;
mod member;

pub use self::connection::MemberAddress;
pub use self::member::{CrowdMember, CrowdMode, MemberScript};
