//! [`EmbeddedApiConfig`]: the settings of the server API and of the webhooks of a gateway without Redis.
//!
//! They are those of the presence program, with its parsing. With Redis they are refused: then the presence service has
//! both, for every gateway of the cluster.

use std::fmt;
use std::net::SocketAddr;

use presence::host::settings::{Key, Settings, SettingsError};
use presence::service::access::ApiAccess;
use presence::service::config::{API_KEYS, API_OPEN_READS, API_ORIGINS};
use presence::webhooks::{self, WebhookConfig};

/// `api.addr`.
pub(super) const ADDRESS: Key = Key::address("api.addr").sample("127.0.0.1:8090").meaning(
    "IP:PORT or NAME:PORT of the server API (presence/API.md). Only without redis.url: in a cluster the presence \
     service has it. Not served unless it is set. Port 0 selects a free port.",
);

/// The settings that a gateway with Redis refuses. `callbacks.allow_private` may stay: it allows nothing by itself.
const WITHOUT_REDIS: [Key; 9] = [
    ADDRESS,
    API_KEYS,
    API_OPEN_READS,
    API_ORIGINS,
    webhooks::WEBHOOKS,
    webhooks::DEADLINE,
    webhooks::DEAD_LETTERS,
    webhooks::LOG_EVENTS,
    webhooks::LOG_MIB,
];

/// The server API and the webhooks of a gateway without Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EmbeddedApiConfig {
    /// `api.addr`; `None` serves no API.
    pub address: Option<SocketAddr>,
    /// `api.keys`, `api.open_reads` and `api.origins`.
    pub access: ApiAccess,
    /// `webhooks`, `webhook.*` and `callbacks.*`.
    pub webhooks: WebhookConfig,
}

impl EmbeddedApiConfig {
    pub(super) fn read(settings: &Settings, has_redis: bool) -> Result<Self, SettingsError> {
        if has_redis {
            refuse_all(settings)?;
        }
        let is_set = settings.optional(ADDRESS.name, |_| Ok::<_, &str>(()))?.is_some();
        let address = is_set.then(|| settings.address(ADDRESS.name)).transpose()?;
        let access = match address {
            Some(address) => ApiAccess::read(settings, address)?,
            None => no_access(settings)?,
        };
        Ok(Self { address, access, webhooks: WebhookConfig::new(settings)? })
    }

    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => writeln!(f, "api.addr = \"{address}\"\n{}", self.access)?,
            None => writeln!(f, "# api.addr is not set: this gateway has no server API")?,
        }
        write!(f, "{}", self.webhooks)
    }
}

/// Refuses every setting that differs from its default.
fn refuse_all(settings: &Settings) -> Result<(), SettingsError> {
    let reason = "redis.url is set, so the presence service has the server API and the webhooks: set it there";
    WITHOUT_REDIS.iter().try_for_each(|key| refuse(settings, key, reason))
}

/// Refuses the access settings of an API that is not served.
fn no_access(settings: &Settings) -> Result<ApiAccess, SettingsError> {
    let refuse = |key| refuse(settings, key, "api.addr is not set: set it, or remove this setting");
    [API_KEYS, API_OPEN_READS, API_ORIGINS].iter().try_for_each(refuse).map(|()| ApiAccess::default())
}

/// Refuses a setting with another value than its default. An empty list is the default of a list.
fn refuse(settings: &Settings, key: &Key, reason: &'static str) -> Result<(), SettingsError> {
    let is_default = |text: &str| match key.default {
        Some(default) => text == default,
        None => text.is_empty() || text == "[]",
    };
    settings.optional(key.name, |text| is_default(text).then_some(()).ok_or(reason)).map(|_| ())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsString;

    use presence::host::settings::Sources;

    use super::super::{GatewayConfig, KEYS};
    use super::*;

    const KEY: &str = "app:read=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const WEBHOOKS: &str =
        r#"[{"url":"https://app.example.org/parley","secret":"at-least-16-characters","events":["message"]}]"#;

    fn load(variables: &[(&str, &str)]) -> Result<GatewayConfig, String> {
        let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        let sources = Sources { environment, ..Sources::default() };
        let settings = Settings::load(KEYS, &sources).map_err(|report| report.to_string())?;
        GatewayConfig::new(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn gateway_alone_takes_api_and_webhooks() {
        assert_eq!(load(&[]).unwrap().api.address, None);
        let config = load(&[
            ("PARLEY__API__ADDR", "0.0.0.0:8090"),
            ("PARLEY__API__KEYS", KEY),
            ("PARLEY__API__ORIGINS", "*"),
            ("PARLEY__WEBHOOKS", WEBHOOKS),
        ]);
        let config = config.unwrap();
        assert_eq!(config.api.address, Some("0.0.0.0:8090".parse().unwrap()));
        assert_eq!((config.api.access.keys.len(), config.api.webhooks.webhooks.len()), (1, 1));
        let shown = config.to_string();
        for line in ["api.addr = \"0.0.0.0:8090\"\n", "api.origins = [\"*\"]\n", "webhook.log_mib = 256\n"] {
            assert!(shown.contains(line), "{shown}");
        }
        assert!(!shown.contains("at-least-16"), "{shown}");
    }

    #[test]
    fn printed_api_is_read_again() {
        let config = load(&[
            ("PARLEY__NODE__ID", "g1"),
            ("PARLEY__API__ADDR", "[::]:8090"),
            ("PARLEY__API__KEYS", KEY),
            ("PARLEY__API__ORIGINS", "https://app.example.org"),
            ("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true"),
        ]);
        let (config, file) = (config.unwrap(), tempfile::NamedTempFile::new().unwrap());
        std::fs::write(file.path(), config.to_string()).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let settings = Settings::load(KEYS, &sources).unwrap();
        assert_eq!(GatewayConfig::new(&settings).unwrap(), config);
    }

    #[test]
    fn api_beyond_loopback_needs_keys() {
        let error = load(&[("PARLEY__API__ADDR", "0.0.0.0:8090")]).unwrap_err();
        let expected = "api.keys is not set: api.addr is not a loopback address, so the API needs keys: \
                        gateway ctl key draws one";
        assert_eq!(error, expected);
        assert!(load(&[("PARLEY__API__ADDR", "127.0.0.1:8090")]).is_ok());
    }

    #[test]
    fn keys_without_an_address_are_refused() {
        let error = load(&[("PARLEY__API__KEYS", KEY)]).unwrap_err();
        assert!(error.ends_with("api.addr is not set: set it, or remove this setting"), "{error}");
    }

    #[test]
    fn gateway_with_redis_refuses_every_setting() {
        let redis = ("PARLEY__REDIS__URL", "redis://h");
        for setting in [
            ("PARLEY__API__ADDR", "127.0.0.1:8090"),
            ("PARLEY__API__KEYS", KEY),
            ("PARLEY__API__OPEN_READS", "true"),
            ("PARLEY__API__ORIGINS", "*"),
            ("PARLEY__WEBHOOKS", WEBHOOKS),
            ("PARLEY__WEBHOOK__DEADLINE_SECONDS", "3"),
            ("PARLEY__WEBHOOK__DEAD_LETTER_SECONDS", "3"),
            ("PARLEY__WEBHOOK__LOG_EVENTS", "1000"),
            ("PARLEY__WEBHOOK__LOG_MIB", "1"),
        ] {
            let error = load(&[redis, setting]).unwrap_err();
            assert!(error.contains("the presence service has the server API and the webhooks"), "{error}");
            assert!(!error.contains("at-least-16"), "{error}");
        }
        let config = load(&[redis]).unwrap();
        assert!(!config.to_string().contains("webhook"), "{config}");
    }
}
