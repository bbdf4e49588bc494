//! What kind of server Redis is at the moment: for operators, who want to see at a glance whether it is the one they mean.
//! Reads INFO only. Decides nothing: whether Parley can work on it is asked in `fitness`.

use super::fitness::field;
use super::{Redis, classify};
use crate::registry::RegistryError;

/// A Redis as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// `master` or `replica`.
    pub role: String,
    /// How many replicas follow it.
    pub replicas: u64,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// How much it holds, in bytes.
    pub memory_bytes: u64,
    /// How much it may hold, in bytes; 0 is no limit.
    pub memory_limit_bytes: u64,
    /// Whether it writes an append-only file.
    pub append_only: bool,
}

impl Redis {
    /// Asks it.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn server(&self) -> Result<Server, RegistryError> {
        let mut connection = self.query().await?;
        let mut question = redis::cmd("INFO");
        question.arg(&["server", "replication", "memory", "persistence"]);
        let info: String = question.query_async(&mut connection).await.map_err(|error| classify(&error))?;
        Ok(described(&info))
    }
}

/// What is not told is 0 or empty: some look-alikes of Redis tell less.
fn described(info: &str) -> Server {
    let number = |name| field(info, name).and_then(|text| text.parse().ok()).unwrap_or_default();
    let role = match field(info, "role") {
        Some("slave") => "replica",
        role => role.unwrap_or_default(),
    };
    Server {
        version: field(info, "redis_version").unwrap_or_default().to_owned(),
        role: role.to_owned(),
        replicas: number("connected_slaves"),
        uptime_seconds: number("uptime_in_seconds"),
        memory_bytes: number("used_memory"),
        memory_limit_bytes: number("maxmemory"),
        append_only: number("aof_enabled") == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_redis_says_of_itself_and_misses_nothing_that_it_does_not() {
        let info = "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:61\r\n# Memory\r\nused_memory:1024\r\n\
                    maxmemory:0\r\n# Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:slave\r\nconnected_slaves:2\r\n";
        let expected = Server {
            version: "7.0.15".to_owned(),
            role: "replica".to_owned(),
            replicas: 2,
            uptime_seconds: 61,
            memory_bytes: 1024,
            memory_limit_bytes: 0,
            append_only: true,
        };
        assert_eq!(described(info), expected);
        assert_eq!(described("role:master\r\n").role, "master");
        assert_eq!(described("").version, "");
    }
}
