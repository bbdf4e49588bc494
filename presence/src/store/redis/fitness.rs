//! Requirements on the Redis server: version 7.0 or newer, no eviction, a primary, and the rights of its user.
//!
//! Both programs call [`RedisStore::is_fit`] at the start and refuse to start on an [`Unfit`] server that no failover
//! heals, with the reason in one line. `watch` checks all requirements again while the program runs. It reads INFO,
//! which managed services allow where CONFIG is forbidden, and never changes the configuration of the server.

use super::{CallKind, RedisStore};
use crate::registry::RegistryError;

/// Oldest version that supports the `#!lua` line of the scripts.
const NEEDED: (u32, u32) = (7, 0);
/// The only policy that never evicts keys.
pub(super) const NO_EVICTION: &str = "noeviction";

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
    /// It is a copy of another server.
    #[error("redis is a replica of {primary}: connect Parley to the primary")]
    Replica {
        /// Address of its primary.
        primary: String,
    },
    /// Its user lacks rights.
    #[error("redis user may not run {}", commands.join(", "))]
    MayNotRun {
        /// The commands, in capitals.
        commands: Vec<String>,
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
                self.check_handshake().await;
                Ok(false)
            }
        }
    }

    pub(super) async fn info(&self) -> Result<String, RegistryError> {
        let mut connection = self.query().await?;
        // Three commands: before 7.0, which must be detected here, INFO accepts one section only.
        let mut questions = redis::pipe();
        questions.cmd("INFO").arg("server").cmd("INFO").arg("memory").cmd("INFO").arg("replication");
        let answer = questions.query_async::<(String, String, String)>(&mut connection);
        let (server, memory, replication) = self.timed(CallKind::Read, answer).await?;
        Ok(server + &memory + &replication)
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

/// Checks all requirements of a running program. `refused` are the commands that the user may not run.
pub(super) fn judge_running(info: &str, refused: &[String]) -> Vec<Unfit> {
    let mut unfit: Vec<Unfit> = judge(info).err().into_iter().collect();
    if field(info, "role") == Some("slave") {
        let part = |name| field(info, name).unwrap_or("?");
        unfit.push(Unfit::Replica { primary: format!("{}:{}", part("master_host"), part("master_port")) });
    }
    if !refused.is_empty() {
        unfit.push(Unfit::MayNotRun { commands: refused.to_vec() });
    }
    unfit
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

    #[test]
    fn replicas_and_missing_rights_are_named() {
        let replica = info("7.4.0", "noeviction") + "# Replication\r\nrole:slave\r\nmaster_host:h\r\nmaster_port:1\r\n";
        let refused = ["XADD", "SUBSCRIBE", "PUBLISH"].map(str::to_owned);
        let reasons: Vec<String> = judge_running(&replica, &refused).iter().map(ToString::to_string).collect();
        let expected = [
            "redis is a replica of h:1: connect Parley to the primary",
            "redis user may not run XADD, SUBSCRIBE, PUBLISH",
        ];
        assert_eq!(reasons, expected);
        assert_eq!(judge_running(&info("7.4.0", "noeviction"), &[]), []);
        assert!(judge_running(&info("6.2.1", "allkeys-lru"), &[]).len() == 1);
    }
}
