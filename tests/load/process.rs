//! Kernel figures of a process and of this machine: CPU, memory, descriptors, congestion control.

use std::fs;
use std::str::FromStr;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

/// CPU clock ticks per second of the kernel's process times (`USER_HZ`), 100 on every supported architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Process of the system under test, with the name under which it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("`{pid}` is not a process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// Resource usage of a process at one moment; all zero if there is no such process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    /// CPU seconds so far.
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) rss_kib: u64,
    /// Peak memory.
    pub(crate) peak_kib: u64,
}

impl ProcessUsage {
    /// Reads the usage from /proc.
    pub(crate) fn of(pid: u32) -> Self {
        Self::read(pid).unwrap_or_default()
    }

    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The program name, in parentheses, may contain any character; the third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        let (rss_kib, peak_kib) = (kib("VmRSS:").unwrap_or_default(), kib("VmHWM:").unwrap_or_default());
        Some(Self { user: seconds(14)?, system: seconds(15)?, rss_kib, peak_kib })
    }

    /// Returns the CPU seconds so far, in user code and in the kernel.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// Raises the descriptor limit of this process and its children to the maximum, and returns it.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the descriptor limit")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the descriptor limit")?;
    Ok(hard)
}

/// Returns the facts about the machine that a reader needs to judge the figures.
pub(crate) fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "netdev_max_backlog": read("/proc/sys/net/core/netdev_max_backlog"),
        "descriptors": getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn usage_parser_accepts_parentheses_in_program_names() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 10 0 0 0 250 125 0 0 20 0 4 0 1 1 1";
        let sample = ProcessUsage::parse(stat, "Name:\tx\nVmHWM:\t  900 kB\nVmRSS:\t  800 kB\n").unwrap();
        assert_eq!(sample, ProcessUsage { user: 2.5, system: 1.25, rss_kib: 800, peak_kib: 900 });
        assert!(ProcessUsage::of(std::process::id()).rss_kib > 0);
        assert_eq!(ProcessUsage::of(u32::MAX), ProcessUsage::default());
    }

    #[test]
    fn watched_process_needs_name_and_number() {
        assert_eq!("g1=42".parse(), Ok(Watched { name: "g1".to_owned(), pid: 42 }));
        assert!("g1".parse::<Watched>().is_err() && "g1=x".parse::<Watched>().is_err());
    }
}
