//! The settings of the API, of the presence program and of a gateway without Redis: their keys, the rule for keys of
//! applications, and their display.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::host::settings::key::Key;
use crate::host::settings::{Settings, SettingsError};
use crate::service::access::{ApiAccess, ApiOrigin, KnownKey};

/// `api.keys`.
pub const API_KEYS: Key = Key::list("api.keys").sample(SAMPLE_KEY).live().in_file().meaning(
    "Keys of the programs that use the API, NAME:SCOPES=sha256:HEX with the scopes read, publish and moderate joined \
         by +, and the SHA-256 of the key. gateway ctl key draws one. Required if api.addr is not a loopback address. \
         Without keys the API answers reads only.",
);
/// `api.open_reads`.
pub const API_OPEN_READS: Key = Key::flag("api.open_reads")
    .default("false")
    .live()
    .meaning("Answer reads without a key although there are keys. Only if api.addr is a loopback address.");
/// `api.origins`.
pub const API_ORIGINS: Key = Key::list("api.origins")
    .sample("https://app.example.org")
    .live()
    .meaning("Origins of the web pages that may use the API from a browser (CORS). * admits every page. Empty: none.");

/// The example of a key. Its hash is that of an empty text, which is never accepted as a key.
pub(super) const SAMPLE_KEY: &str =
    "app:read+publish=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl ApiAccess {
    /// Reads the access rules of an API at this address.
    ///
    /// # Errors
    /// The first invalid key; `Missing` if there are no keys and the address is not a loopback address.
    pub fn read(settings: &Settings, address: SocketAddr) -> Result<Self, SettingsError> {
        let is_local = address.ip().to_canonical().is_loopback();
        let keys = settings.list(API_KEYS.name, KnownKey::from_str)?;
        if keys.is_empty() && !is_local {
            return Err(SettingsError::Missing {
                key: API_KEYS.name,
                reason: "api.addr is not a loopback address, so the API needs keys: gateway ctl key draws one",
            });
        }
        let open_reads = settings.required(API_OPEN_READS.name, |text| match text {
            "false" => Ok(false),
            "true" if is_local => Ok(true),
            "true" => Err("expected false: api.addr is not a loopback address"),
            _ => Err("expected true or false"),
        })?;
        Ok(Self { keys, open_reads, origins: settings.list(API_ORIGINS.name, ApiOrigin::from_str)? })
    }
}

/// Settings in effect as TOML, with the hashes of the keys.
impl fmt::Display for ApiAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "api.keys = {:?}", self.keys.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        writeln!(f, "api.open_reads = {}", self.open_reads)?;
        let origins: Vec<&str> = self.origins.iter().map(ApiOrigin::as_str).collect();
        writeln!(f, "api.origins = {origins:?}")
    }
}
