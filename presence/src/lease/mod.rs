//! Leases: heartbeat, health, reassertion and audit of the own lease; failure detection; unique node ids.
//!
//! Gateways use all of it through [`OwnLease`] and [`LeaseHealth`]; a presence process runs only the [`detector`].
//! Clocks of other machines are never compared: every decision uses counters and this process's own time. No file here
//! knows sessions, sockets or Redis commands.

pub mod health;
pub mod beat;
pub mod reassert;
pub mod audit;
pub mod detector;
pub mod node_id;

pub use self::beat::{BeatOutcome, Heartbeat, LeaseSample, OwnLease};
pub use self::health::{LeaseHealth, NotReady, StoreReasons};
