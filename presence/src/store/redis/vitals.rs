//! [`Vitals`]: the health of Redis as far as Parley depends on it: memory, eviction, persistence.
//!
//! The presence process reads INFO at each scrape of its metrics, so a cluster needs no separate exporter for Redis.
//! It judges nothing; alerts do.

use super::{CallKind, RedisStore};
use crate::registry::RegistryError;

/// Values of INFO at one moment; `None` for a missing one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vitals {
    /// Used memory in bytes.
    pub memory_used: Option<f64>,
    /// Memory limit in bytes (`maxmemory`), or the memory of the machine without a limit.
    pub memory_limit: Option<f64>,
    /// 1 if its `maxmemory-policy` evicts keys.
    pub evicts: Option<f64>,
    /// Keys evicted since it started.
    pub evicted_keys: Option<f64>,
    /// 1 while the append-only file is enabled and its last write succeeded.
    pub append_only_ok: Option<f64>,
    /// Number of connected clients.
    pub clients: Option<f64>,
    /// Commands processed since it started.
    pub commands: Option<f64>,
    /// Seconds since it started.
    pub uptime: Option<f64>,
}

impl RedisStore {
    /// Reads the health of Redis.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn vitals(&self) -> Result<Vitals, RegistryError> {
        let mut connection = self.query().await?;
        let mut question = redis::cmd("INFO");
        ["server", "clients", "memory", "persistence", "stats"].into_iter().for_each(|section| {
            question.arg(section);
        });
        let info: String = self.timed(CallKind::Read, question.query_async(&mut connection)).await?;
        Ok(read(&info))
    }
}

fn read(info: &str) -> Vitals {
    let number = |name: &str| super::fitness::field(info, name)?.parse::<f64>().ok();
    let is =
        |name: &str, value: &str| super::fitness::field(info, name).map(|found| f64::from(u8::from(found == value)));
    let append_only = is("aof_enabled", "1").zip(is("aof_last_write_status", "ok"));
    Vitals {
        memory_used: number("used_memory"),
        memory_limit: number("maxmemory").filter(|limit| *limit > 0.0).or_else(|| number("total_system_memory")),
        evicts: is("maxmemory_policy", super::fitness::NO_EVICTION).map(|keeps| 1.0 - keeps),
        evicted_keys: number("evicted_keys"),
        append_only_ok: append_only.map(|(enabled, ok)| enabled * ok),
        clients: number("connected_clients"),
        commands: number("total_commands_processed"),
        uptime: number("uptime_in_seconds"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_parsed_and_missing_lines_are_none() {
        let info = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:0\r\n\
            total_system_memory:8589934592\r\nmaxmemory_policy:allkeys-lru\r\n# Persistence\r\naof_enabled:1\r\n\
            aof_last_write_status:err\r\n# Stats\r\nevicted_keys:7\r\n";
        let vitals = read(info);
        assert_eq!((vitals.memory_used, vitals.memory_limit), (Some(1_048_576.0), Some(8_589_934_592.0)));
        assert_eq!((vitals.evicts, vitals.evicted_keys, vitals.append_only_ok), (Some(1.0), Some(7.0), Some(0.0)));
        assert_eq!(vitals.clients, None);
        let fit = read("maxmemory:1000\r\ntotal_system_memory:5\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!((fit.memory_limit, fit.evicts, fit.append_only_ok), (Some(1000.0), Some(0.0), None));
        assert_eq!(read(""), Vitals::default());
    }
}
