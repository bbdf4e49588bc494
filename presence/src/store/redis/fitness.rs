//! Whether a Redis is one that Parley can keep its promises on: new enough, and one that never evicts.
//!
//! Both programs ask when they start and do not start on one that is unfit, with the reason in one line. A Redis that is
//! away is no reason: it is asked once it answers, and an unfit one is then an error in the log. Reads INFO only, which
//! managed services allow where CONFIG is forbidden.

use std::time::Duration;

use super::{Redis, classify};
use crate::registry::RegistryError;

/// The oldest version that reads the `#!lua` line of our scripts.
const NEEDED: (u32, u32) = (7, 0);
/// The only eviction policy that takes nothing away.
pub(super) const NO_EVICTION: &str = "noeviction";
/// From one question to the next while Redis is away.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why Parley does not work on a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It cannot run our scripts.
    #[error("redis {found} is too old: Parley needs {}.{} or newer", NEEDED.0, NEEDED.1)]
    TooOld {
        /// Its version as it tells it.
        found: String,
    },
    /// It deletes keys when its memory is full: a nickname would have two owners, a room would forget its messages.
    #[error(
        "redis has maxmemory-policy {policy}, which evicts nicknames and messages when memory is full: set it to noeviction"
    )]
    Evicts {
        /// Its policy.
        policy: String,
    },
}

impl Redis {
    /// Asks once. `Ok(false)` when Redis is away or does not tell, within about 2 s.
    ///
    /// # Errors
    /// It is not one that Parley can work on.
    pub async fn is_fit(&self) -> Result<bool, Unfit> {
        match self.info().await {
            Ok(info) => judge(&info).map(|()| true),
            Err(error) => {
                tracing::debug!(%error, "redis has not told what it is");
                Ok(false)
            }
        }
    }

    /// For a Redis that was away at the start: asks until it answers, and logs an error when it is unfit. Dropping the
    /// future stops asking.
    pub async fn complain_when_unfit(self) {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            match self.is_fit().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(reason) => return tracing::error!(%reason, "this redis is unfit"),
            }
        }
    }

    async fn info(&self) -> Result<String, RegistryError> {
        let mut connection = self.query().await?;
        // Two questions: before 7.0 one INFO takes one section only, and that is a case to be told apart.
        let mut questions = redis::pipe();
        questions.cmd("INFO").arg("server").cmd("INFO").arg("memory");
        let answered = questions.query_async::<(String, String)>(&mut connection).await;
        let (server, memory) = answered.map_err(|error| classify(&error))?;
        Ok(server + &memory)
    }
}

/// What is not told is not held against it: some look-alikes of Redis have no such line.
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

/// A line of INFO.
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
    fn versions_from_7_0_on_are_new_enough() {
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
    fn any_policy_that_evicts_is_refused() {
        for policy in ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"] {
            assert_eq!(judge(&info("7.0.15", policy)), Err(Unfit::Evicts { policy: policy.to_owned() }));
        }
    }

    #[test]
    fn what_is_not_told_is_no_reason() {
        assert_eq!(judge(""), Ok(()));
        assert_eq!(judge("# Server\r\nredis_version_full:1.0\r\n"), Ok(()));
    }
}
