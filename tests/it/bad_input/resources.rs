//! [`ProcessResources`]: memory, threads, descriptors and clients of a program, before and after bad input.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use harness::{Node, eventually};

/// Longest time until a program has released what its clients used.
const RELEASE_MAX: Duration = Duration::from_secs(40);
/// Memory that a program may keep: buffers of the allocator and of pools.
const KEPT_BYTES_MAX: u64 = 6 << 20;

/// The memory, threads and descriptors of a program. Its connections to Redis do not count: their number is bounded by
/// the pool, which fills under load and stays full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessResources {
    memory: u64,
    threads: usize,
    descriptors: usize,
    /// Connections, sessions and rooms; 0 for presence.
    clients: [u64; 3],
}

impl ProcessResources {
    pub(super) async fn of(node: &Node, pid: u32, redis: SocketAddr) -> Self {
        let metrics = node.metrics().await;
        let number = |name| metrics.get(name, &[]).unwrap_or_default() as u64;
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        Self {
            memory: statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096,
            threads: fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(),
            descriptors: descriptors_except_to(pid, redis),
            clients: [number("parley_connections"), number("parley_sessions"), number("parley_rooms")],
        }
    }

    /// Waits until the program uses no more than before. Returns what it uses then.
    pub(super) async fn until_released(self, node: &Node, pid: u32, redis: SocketAddr) -> Self {
        eventually(RELEASE_MAX, &format!("{} uses what it used: {self:?}", node.name()), async || {
            let now = Self::of(node, pid, redis).await;
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

/// Returns the number of open descriptors of a program, without connections to `server`.
fn descriptors_except_to(pid: u32, server: SocketAddr) -> usize {
    let connections = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let remote_port = format!(":{:04X}", server.port());
    let fields = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let excluded: HashSet<String> = fields
        .filter(|fields| fields[2].ends_with(&remote_port))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    open.filter(|link| !excluded.contains(&*link.to_string_lossy())).count()
}
