//! The crowd: members that send all the time, reconnect whenever they are cut off, and record what they receive.
//!
//! The run starts them, and they connect through nginx. Some speak the protocol themselves, others are programs on the
//! client libraries. They behave as PROTOCOL.md requires of clients, and judge nothing.

mod connection;
mod library;
mod member;

pub use self::connection::MemberAddress;
pub use self::library::{ClientLibrary, LIBRARIES, LINE_FAULTS, LibraryMember, LibraryScript};
pub use self::member::{CrowdMember, CrowdMode, MemberScript};
