//! [`ProcessResources`]: memory, threads, descriptors and clients of a program, before and after bad input.

use std::fs;
use std::time::Duration;

use harness::{Node, eventually};

/// Longest time until a program has released what its clients used.
const RELEASE_MAX: Duration = Duration::from_secs(40);
/// Memory that a program may keep: buffers of the allocator and of pools.
const KEPT_BYTES_MAX: u64 = 6 << 20;

/// The memory, threads and descriptors of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessResources {
    memory: u64,
    threads: usize,
    descriptors: usize,
    /// Connections, sessions and rooms; 0 for presence.
    clients: [u64; 3],
}

impl ProcessResources {
    pub(super) async fn of(node: &Node, pid: u32) -> Self {
        let metrics = node.metrics().await;
        let number = |name| metrics.get(name, &[]).unwrap_or_default() as u64;
        let count = |folder| fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count();
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        Self {
            memory: statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096,
            threads: count("task"),
            descriptors: count("fd"),
            clients: [number("parley_connections"), number("parley_sessions"), number("parley_rooms")],
        }
    }

    /// Waits until the program uses no more than before. Returns what it uses then.
    pub(super) async fn until_released(self, node: &Node, pid: u32) -> Self {
        eventually(RELEASE_MAX, &format!("{} uses what it used: {self:?}", node.name()), async || {
            let now = Self::of(node, pid).await;
            let is_released = now.memory <= self.memory + KEPT_BYTES_MAX
                && now.threads <= self.threads
                && now.descriptors <= self.descriptors
                && now.clients == self.clients;
            if is_released { Ok(now) } else { Err(now) }
        })
        .await
    }

    /// Returns the memory in KiB.
    pub(super) fn memory_kib(self) -> u64 {
        self.memory / 1024
    }
}
