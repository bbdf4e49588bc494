//! How Redis itself is doing, as far as Parley depends on it: memory, eviction, persistence. Read from INFO.
//!
//! The presence process asks at each scrape of its metrics, so a cluster needs no exporter of its own for Redis.

use super::{Call, Redis};
use crate::registry::RegistryError;

/// What INFO told at one moment. What it did not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vitals {
    /// Bytes that it uses.
    pub memory_used: Option<f64>,
    /// Bytes that it may use (`maxmemory`), or all that the machine has when no limit is set.
    pub memory_limit: Option<f64>,
    /// 1 when its `maxmemory-policy` takes keys away.
    pub evicts: Option<f64>,
    /// Keys that it took away since it started.
    pub evicted_keys: Option<f64>,
    /// 1 while the append-only file is on and its last write went well.
    pub append_only_ok: Option<f64>,
    /// Connections to it.
    pub clients: Option<f64>,
    /// Commands that it processed since it started.
    pub commands: Option<f64>,
    /// Seconds since it started.
    pub uptime: Option<f64>,
}

impl Redis {
    /// Asks how Redis is doing.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn vitals(&self) -> Result<Vitals, RegistryError> {
        let mut connection = self.query().await?;
        let mut question = redis::cmd("INFO");
        ["server", "clients", "memory", "persistence", "stats"].into_iter().for_each(|section| {
            question.arg(section);
        });
        let info: String = self.timed(Call::Read, question.query_async(&mut connection)).await?;
        Ok(read(&info))
    }
}

fn read(info: &str) -> Vitals {
    let number = |name: &str| super::fitness::field(info, name)?.parse::<f64>().ok();
    let is = |name: &str, value: &str| super::fitness::field(info, name).map(|told| f64::from(u8::from(told == value)));
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
    fn reads_what_redis_tells_and_nothing_else() {
        let told = "# Memory\r\nused_memory:1048576\r\nused_memory_human:1.00M\r\nmaxmemory:0\r\n\
            total_system_memory:8589934592\r\nmaxmemory_policy:allkeys-lru\r\n# Persistence\r\naof_enabled:1\r\n\
            aof_last_write_status:err\r\n# Stats\r\nevicted_keys:7\r\n";
        let vitals = read(told);
        assert_eq!((vitals.memory_used, vitals.memory_limit), (Some(1_048_576.0), Some(8_589_934_592.0)));
        assert_eq!((vitals.evicts, vitals.evicted_keys, vitals.append_only_ok), (Some(1.0), Some(7.0), Some(0.0)));
        assert_eq!(vitals.clients, None);
        let fit = read("maxmemory:1000\r\ntotal_system_memory:5\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!((fit.memory_limit, fit.evicts, fit.append_only_ok), (Some(1000.0), Some(0.0), None));
        assert_eq!(read(""), Vitals::default());
    }
}
