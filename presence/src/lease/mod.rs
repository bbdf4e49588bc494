//! Leases: the heartbeat, what a gateway knows of its own lease, reassertion, failure detection, and unique node ids.

pub mod beat;
mod reassert;
pub mod audit;
pub mod detector;
pub mod node_id;
