//! Requirements on the Redis server: version 7.0 or newer, and no eviction.
//!
//! Both programs call [`RedisStore::is_fit`] at the start and refuse to start on an [`Unfit`] server, with the reason
//! in one line. An unreachable Redis is checked once it answers; then an unfit one is logged as an error. It reads INFO
//! only, which managed services allow where CONFIG is forbidden, and it never changes the configuration of the server.

use std::time::Duration;

use super::{RedisStore, classify};
use crate::registry::RegistryError;

/// Oldest version that supports the `#!lua` line of the scripts.
const NEEDED: (u32, u32) = (7, 0);
/// The only policy that never evicts keys.
pub(super) const NO_EVICTION: &str = "noeviction";
/// Pause between two checks while Redis does not answer.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

/// Reason why Parley cannot use a Redis server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It cannot run the scripts.
    #[error("redis {found} is too old: Parley needs {}.{} or newer", NEEDED.0, NEEDED.1)]
    TooOld {
        /// Its reported version.
        found: String,
    },
    /// It deletes keys when its memory is full: a nickname could get a second owner, and a room could lose messages.
    #[error(
        "redis has maxmemory-policy {policy}, which evicts nicknames and messages when memory is full: set it to noeviction"
    )]
    Evicts {
        /// Its policy.
        policy: String,
    },
}

impl RedisStore {
    /// Checks the requirements once. Returns `Ok(false)` if Redis does not answer within about 2 s.
    ///
    /// # Errors
    /// The server does not meet them.
    pub async fn is_fit(&self) -> Result<bool, Unfit> {
        match self.info().await {
            Ok(info) => judge(&info).map(|()| true),
            Err(error) => {
                tracing::debug!(%error, "redis not checked");
                Ok(false)
            }
        }
    }

    /// Checks a Redis that did not answer at the start, until it answers. Logs an error if it is unfit. Dropping the
    /// future stops the checks.
    pub async fn report_when_unfit(self) {
        loop {
            tokio::time::sleep(RECHECK_PAUSE).await;
            match self.is_fit().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(reason) => return tracing::error!(%reason, "redis is unfit"),
            }
        }
    }

    async fn info(&self) -> Result<String, RegistryError> {
        let mut connection = self.query().await?;
        // Two commands: before 7.0, which must be detected here, INFO accepts one section only.
        let mut questions = redis::pipe();
        questions.cmd("INFO").arg("server").cmd("INFO").arg("memory");
        let answered = questions.query_async::<(String, String)>(&mut connection).await;
        let (server, memory) = answered.map_err(|error| classify(&error))?;
        Ok(server + &memory)
    }
}

/// Checks the requirements against INFO. A missing line is accepted: some servers compatible with Redis omit it.
fn judge(info: &str) -> Result<(), Unfit> {
    if let Some(found) = field(info, "redis_version")
        && version(found).is_some_and(|version| version < NEEDED)
    {
        return Err(Unfit::TooOld { found: found.to_owned() });
    }
    match field(info, "maxmemory_policy") {
        Some(policy) if policy != NO_EVICTION => Err(Unfit::Evicts { policy: policy.to_owned() }),
        _ => Ok(()),
    }
}

/// Returns the value of a line of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, policy: &str) -> String {
        format!(
            "# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n# Memory\r\nmaxmemory_policy:{policy}\r\n"
        )
    }

    #[test]
    fn versions_before_7_0_are_refused() {
        for (found, fits) in [
            ("7.0.0", true),
            ("7.0.15", true),
            ("7.4", true),
            ("8.2.1", true),
            ("10.0.0", true),
            ("255.255.255", true),
            ("6.2.14", false),
            ("2.8.0", false),
            ("unstable", true),
        ] {
            let expected = if fits { Ok(()) } else { Err(Unfit::TooOld { found: found.to_owned() }) };
            assert_eq!(judge(&info(found, "noeviction")), expected);
        }
        let words = Unfit::TooOld { found: "6.2.14".to_owned() }.to_string();
        assert_eq!(words, "redis 6.2.14 is too old: Parley needs 7.0 or newer");
    }

    #[test]
    fn every_evicting_policy_is_refused() {
        for policy in ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"] {
            assert_eq!(judge(&info("7.0.15", policy)), Err(Unfit::Evicts { policy: policy.to_owned() }));
        }
    }

    #[test]
    fn missing_lines_of_info_are_accepted() {
        assert_eq!(judge(""), Ok(()));
        assert_eq!(judge("# Server\r\nredis_version_full:1.0\r\n"), Ok(()));
    }
}
