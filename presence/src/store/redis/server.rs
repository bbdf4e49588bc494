//! [`ServerInfo`]: the description of the Redis server, for operators.
//!
//! It is read from INFO. It decides nothing: `fitness` checks the requirements.

use super::RedisStore;
use super::fitness::field;
use crate::registry::RegistryError;

/// Description of a Redis server, as reported by itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// `master` or `replica`.
    pub role: String,
    /// Number of connected replicas.
    pub replicas: u64,
    /// Uptime in seconds.
    pub uptime_seconds: u64,
    /// Used memory in bytes.
    pub memory_bytes: u64,
    /// Memory limit in bytes; 0 means no limit.
    pub memory_limit_bytes: u64,
    /// True if it writes an append-only file.
    pub append_only: bool,
}

impl RedisStore {
    /// Reads the description.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`.
    pub async fn server(&self) -> Result<ServerInfo, RegistryError> {
        let mut connection = self.query().await?;
        let mut question = redis::cmd("INFO");
        question.arg(&["server", "replication", "memory", "persistence"]);
        let info: String = self.asked("", question.query_async(&mut connection)).await?;
        Ok(described(&info))
    }
}

/// Parses INFO. A missing value is 0 or empty: some servers compatible with Redis omit lines.
fn described(info: &str) -> ServerInfo {
    let number = |name| field(info, name).and_then(|text| text.parse().ok()).unwrap_or_default();
    let role = match field(info, "role") {
        Some("slave") => "replica",
        role => role.unwrap_or_default(),
    };
    ServerInfo {
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
    fn info_is_parsed_and_missing_lines_are_empty() {
        let info = "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:61\r\n# Memory\r\nused_memory:1024\r\n\
                    maxmemory:0\r\n# Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:slave\r\nconnected_slaves:2\r\n";
        let expected = ServerInfo {
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
