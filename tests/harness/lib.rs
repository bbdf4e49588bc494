//! The cluster under test: real programs, a real Redis, a real nginx, and clients.
//!
//! A test starts a [`Cluster`], connects clients, sends messages and expects them elsewhere. Invariant: every process
//! ends with the value that started it. Waits use [`eventually()`] or a client's expectation with a deadline, never a
//! fixed sleep. The harness knows no internals of Parley: it uses flags, environment, sockets and signals, as in
//! production. Modules:

#![allow(clippy::print_stderr)] // Failed tests print their logs to stderr.

pub mod authority;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod eventually;
pub mod fault_proxy;
pub mod hook_application;
pub mod http;
pub mod log;
pub mod metrics;
pub mod nginx;
pub mod node;
pub mod packed;
pub mod pattern;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod protocol_doc;
pub mod redis;
pub mod webhook_receiver;

use std::path::{Path, PathBuf};

pub use self::authority::{Authority, Validity};
pub use self::browser::Browser;
pub use self::client::{LineClient, Person, RawWs, WsClient};
pub use self::cluster::Cluster;
pub use self::eventually::{eventually, stays, within};
pub use self::fault_proxy::FaultProxy;
pub use self::hook_application::{HookApplication, HookReply};
pub use self::nginx::Nginx;
pub use self::node::Node;
pub use self::packed::PackedWire;
pub use self::process::{ChildProgram, ExitedProcess, Process};
pub use self::prometheus::Prometheus;
pub use self::redis::Redis;
pub use self::webhook_receiver::{ReceivedEvent, ReceiverMode, WebhookReceiver};

/// Returns the root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are one level below the root").to_path_buf()
}
