//! A Parley gateway: terminates client connections, publishes their messages, and delivers the messages of their rooms.
//!
//! One chat message, by module: [`listen`] reads a frame, [`wire`] decodes it, and [`session`] performs it.
//! Then [`backplane`] appends it to the store and delivers it to every subscribed gateway, [`hub`] finds the members,
//! [`outbound`] queues it, and [`listen`] writes it. Local members take the same path as remote ones, so there is one
//! order.
//!
//! One heartbeat, by module: `presence::lease` sends it, [`lease`] acts on its answer, and the echo returns
//! through [`backplane`] to [`lease`].
//!
//! Modules in reading order:

pub mod message;
pub mod wire;
pub mod listen;
pub mod identity;
pub mod quota;
pub mod sanctions;
pub mod hooks;
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
