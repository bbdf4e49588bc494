//! The settings that result from an environment in a file of `deploy/`, as the program's `--check` prints them.
//!
//! A wrong key, a wrong value or a changed default fails here, without a second list of settings.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::ChildProgram;
use presence::host::settings::Key;

const SOON: Duration = Duration::from_secs(10);
/// Stands in for the URL that comes from a secret.
const REDIS_URL: &str = "redis://parley:secret@redis:6379/";

/// The settings in effect, by dotted key.
#[derive(Debug)]
pub(super) struct EffectiveSettings {
    values: BTreeMap<String, String>,
}

impl EffectiveSettings {
    /// Returns the settings of `binary` with these variables.
    pub(super) async fn of<'a>(binary: &str, environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut program = ChildProgram::parley(binary, binary).args(["--check"]);
        for (key, value) in environment.into_iter().filter(|(key, _)| key.starts_with("PARLEY_")) {
            // `KEY_FILE` names a file with the value of KEY, which is not on this machine.
            program = match key.strip_suffix("_FILE") {
                Some(inner) => {
                    assert!(value.starts_with('/') || value.starts_with("%d/"), "{key}={value}: not a path");
                    assert!(is_known(binary, inner), "{binary} does not know {key}");
                    let value = match inner {
                        "PARLEY__REDIS__URL" => REDIS_URL.to_owned(),
                        "PARLEY__API__KEYS" => {
                            format!("app:read=sha256:{}", "0".repeat(64))
                        }
                        _ => panic!("{inner} is no secret"),
                    };
                    program.env(inner, &value)
                }
                None => program.env(key, value),
            };
        }
        let checked = program.run(SOON).await;
        assert_eq!(checked.code, Some(0), "{binary} --check: {checked:?}");
        let values = checked.stdout.lines().filter_map(|line| line.split_once(" = "));
        Self { values: values.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect() }
    }

    /// Returns `true` when the program has this setting.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Returns the port of an address that must be reachable from outside.
    pub(super) fn port(&self, key: &str) -> u64 {
        let address = &self.values[key];
        let (host, port) = address.rsplit_once(':').unwrap();
        assert_eq!(host, "0.0.0.0", "{key} = {address} is not reachable from outside");
        port.parse().unwrap()
    }

    /// Returns the grace period of a drain in seconds.
    pub(super) fn grace(&self) -> u64 {
        self.values["drain.grace_seconds"].parse().unwrap()
    }

    /// Checks that the program is a cluster member with the expected Redis.
    pub(super) fn assert_is_member(&self) {
        assert_eq!(self.values.get("redis.url").map(String::as_str), Some("redis://***@redis:6379/"), "{self:?}");
    }
}

fn is_known(binary: &str, variable: &str) -> bool {
    let keys: &[Key] = if binary == "gateway" { gateway::config::KEYS } else { presence::service::config::KEYS };
    keys.iter().any(|key| variable == format!("PARLEY__{}", key.name.to_uppercase().replace('.', "__")))
}
