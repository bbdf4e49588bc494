//! A Parley gateway: terminates clients, publishes what they say, delivers what they should hear.
//!
//! One chat message, by module: [`listen`] reads a frame, [`wire`] decodes it, [`session`] decides and performs,
//! [`backplane`] puts it into the store and brings it to every interested gateway, [`hub`] finds the members, the
//! session's outbox holds it, and [`listen`] writes it. Local members take the same way as remote ones: one path, one
//! order. Modules in reading order:

pub mod message;
pub mod wire;
pub mod listen;
pub mod session;
pub mod outbound;
pub mod hub;
pub mod lease;
pub mod backplane;
pub mod config;
pub mod metrics;
pub mod trace;
pub mod admin;
pub mod server;
pub mod ctl;
