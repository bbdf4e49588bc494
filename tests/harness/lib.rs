//! The cluster under test: real programs, a real Redis, a real nginx, and clients that speak like people.
//!
//! A test reads as a story: a [`Cluster`] is a value, ann and bob connect, ann sends, bob receives. Everything that
//! runs ends with the value that started it. Waiting is [`eventually()`] or a client's expectation with a deadline,
//! never a fixed sleep. Nothing here knows the inside of Parley: programs are driven through flags, environment,
//! sockets and signals, as in production. Modules in reading order:

#![allow(clippy::print_stderr)] // What a failed test has to show, it shows there.

pub mod client;
pub mod cluster;
pub mod eventually;
pub mod fault_proxy;
pub mod http;
pub mod log;
pub mod metrics;
pub mod nginx;
pub mod node;
pub mod pattern;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod protocol_doc;
pub mod redis;

use std::path::{Path, PathBuf};

pub use self::client::{LineClient, RawWs, WsClient};
pub use self::cluster::Cluster;
pub use self::eventually::{eventually, stays, within};
pub use self::fault_proxy::FaultProxy;
pub use self::nginx::Nginx;
pub use self::node::Node;
pub use self::process::{ChildProgram, ExitedProcess, Process};
pub use self::prometheus::Prometheus;
pub use self::redis::Redis;

/// The root of the repository: where `deploy/` and the documents are.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are one level below the root").to_path_buf()
}
