//! File descriptors: [`DescriptorLimit`] of the process, and the [`ConnectionBudget`] that it leaves for clients.
//!
//! A program that runs out of descriptors cannot answer health checks or reconnect to Redis. So [`raise`] is called at
//! the start, and both `server.rs` admit no more clients than the budget. Invariant: the budget keeps a reserve for
//! everything else. Counts no open descriptors.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors kept for Redis, listeners, log files, health checks and scrapes.
const RESERVED: u64 = 64;
/// Maximum number of simultaneous refusals.
const REFUSALS_MAX: u64 = 256;

/// The limit on open descriptors of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The limit in effect.
    pub soft: u64,
    /// The maximum of the soft limit.
    pub hard: u64,
}

/// Maximum numbers of sockets of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBudget {
    /// Connections that are served.
    pub connections: usize,
    /// Connections that are being refused with a code.
    pub refusals: usize,
}

impl DescriptorLimit {
    /// Returns the limit of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
        Self { soft, hard }
    }

    /// Returns the part of the limit that clients may use.
    #[must_use]
    pub fn budget(self) -> ConnectionBudget {
        let reserved = RESERVED.min(self.soft / 2);
        let refusals = REFUSALS_MAX.min(self.soft / 8);
        let connections = (self.soft - reserved - refusals).max(1);
        ConnectionBudget {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            refusals: usize::try_from(refusals).unwrap_or(usize::MAX),
        }
    }

    /// Returns the maximum number of connections, `configured` or fewer, and logs it with the limit.
    #[must_use]
    pub fn connections(self, configured: usize) -> usize {
        let (Self { soft, hard }, connections) = (self, self.budget().connections.min(configured));
        if connections < configured {
            tracing::warn!(soft, hard, configured, connections, "connection limit lowered");
        } else {
            tracing::info!(soft, hard, connections, "connection limit set");
        }
        connections
    }
}

/// Raises the soft limit of this process to its hard limit.
///
/// # Errors
/// The system refuses the change; the limit stays as it is.
pub fn raise() -> io::Result<()> {
    let DescriptorLimit { soft, hard } = DescriptorLimit::of_process();
    if soft < hard { Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_keeps_a_reserve_at_every_limit() {
        for (soft, connections, refusals) in
            [(256, 160, 32), (1024, 832, 128), (20_000, 19_680, 256), (64, 24, 8), (1, 1, 0), (0, 1, 0)]
        {
            let budget = DescriptorLimit { soft, hard: soft }.budget();
            assert_eq!(budget, ConnectionBudget { connections, refusals }, "{soft}");
        }
        let endless = DescriptorLimit { soft: u64::MAX, hard: u64::MAX };
        assert_eq!(endless.connections(16_384), 16_384);
        assert_eq!(DescriptorLimit { soft: 1024, hard: 1024 }.connections(16_384), 832);
    }
}
