//! [`AuthConfig`]: the settings `auth.*`, with the keys that they name already read and checked.
//!
//! A reload builds it again, so files with keys are read again on SIGHUP. A broken file keeps the settings in effect.
//! Only the set of a URL is fetched later.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use presence::host::settings::{Settings, SettingsError};
use tokio::sync::Notify;

use super::jwks::{JwksCache, JwksUrl, SET_BYTES_MAX, parse_set};
use super::keys::{KeyMaterial, KeySet, TokenAlgorithm, VerificationKey};
use super::mode::AuthMode;
use super::verifier::{TokenPolicy, TokenVerifier};

/// Maximum size of a file with a key, in bytes.
const KEY_FILE_BYTES: usize = 64 * 1024;
/// Permitted values of `auth.jwks_refresh_seconds`.
const JWKS_REFRESH_SECONDS: RangeInclusive<u64> = 30..=86_400;
/// Maximum length of issuer and audience, in bytes.
const CLAIM_BYTES: usize = 255;

/// The settings `auth.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// `auth.mode`.
    pub mode: AuthMode,
    /// `auth.issuer` and `auth.audience`.
    pub policy: TokenPolicy,
    /// `auth.secret`.
    secret: Option<KeyMaterial>,
    /// `auth.keys`: the words of the setting, with the contents of their files.
    keys: Vec<(String, KeyMaterial)>,
    /// `auth.jwks`.
    jwks: Option<JwksSource>,
    /// `auth.jwks_plain_http`.
    plain_http: bool,
    /// `auth.jwks_refresh_seconds`.
    pub jwks_refresh: Duration,
}

/// The place of a set of keys. The debug output of a file shows its path only.
#[derive(Clone, PartialEq, Eq)]
enum JwksSource {
    File { path: String, text: String },
    Url(JwksUrl),
}

impl JwksSource {
    fn shown(&self) -> &str {
        match self {
            Self::File { path, .. } => path,
            Self::Url(url) => url.as_str(),
        }
    }
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwksSource").field(&self.shown()).finish()
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        let policy = TokenPolicy { issuer: String::new(), audience: Vec::new() };
        let jwks_refresh = Duration::from_secs(300);
        Self {
            mode: AuthMode::Open,
            policy,
            secret: None,
            keys: Vec::new(),
            jwks: None,
            plain_http: false,
            jwks_refresh,
        }
    }
}

impl AuthConfig {
    /// Validates the settings and reads the files that they name.
    ///
    /// # Errors
    /// The first invalid key.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let mode = settings.required("auth.mode", mode)?;
        let audience = settings.list("auth.audience", claim)?;
        let policy = TokenPolicy { issuer: settings.optional("auth.issuer", claim)?.unwrap_or_default(), audience };
        let plain_http = settings.flag("auth.jwks_plain_http")?;
        let jwks_refresh = Duration::from_secs(settings.number(
            "auth.jwks_refresh_seconds",
            JWKS_REFRESH_SECONDS,
            "expected a whole number of seconds from 30 to 86400",
        )?);
        let secret = settings.optional("auth.secret", |text| {
            checked(KeyMaterial { algorithm: TokenAlgorithm::Hs256, id: None, text: text.to_owned() })
        })?;
        let keys = settings.list("auth.keys", key_file)?;
        let jwks = settings.optional("auth.jwks", |text| jwks(text, plain_http))?;
        let missing = |key, reason| Err(SettingsError::Missing { key, reason });
        if mode != AuthMode::Open {
            if policy.issuer.is_empty() {
                return missing("auth.issuer", "auth.mode needs the issuer of the tokens");
            }
            if policy.audience.is_empty() {
                return missing("auth.audience", "auth.mode needs the audience of the tokens");
            }
            if secret.is_none() && keys.is_empty() && jwks.is_none() {
                return missing("auth.secret", "auth.mode needs a key: auth.secret, auth.keys or auth.jwks");
            }
        }
        Ok(Self { mode, policy, secret, keys, jwks, plain_http, jwks_refresh })
    }

    /// Returns the verifier of these settings, with the cache of before if it has the same URL. A new one notifies
    /// after each set that it has fetched.
    pub(super) fn verifier(&self, before: Option<&Arc<JwksCache>>, fetched: &Arc<Notify>) -> TokenVerifier {
        let material = self.secret.iter().chain(self.keys.iter().map(|(_, material)| material));
        // Each was checked when it was read.
        let mut keys: Vec<VerificationKey> =
            material.filter_map(|key| VerificationKey::of_material(key).ok()).collect();
        let jwks = match &self.jwks {
            None => None,
            Some(JwksSource::File { text, .. }) => {
                keys.extend(parse_set(text, true).map(KeySet::into_keys).unwrap_or_default());
                None
            }
            Some(JwksSource::Url(url)) => {
                let kept = before.filter(|cache| cache.url() == url).cloned();
                Some(kept.unwrap_or_else(|| JwksCache::new(url.clone(), Arc::clone(fetched))))
            }
        };
        TokenVerifier::new(self.policy.clone(), KeySet::new(keys), jwks)
    }
}

fn mode(text: &str) -> Result<AuthMode, &'static str> {
    let modes = [AuthMode::Open, AuthMode::Token, AuthMode::Mixed];
    modes.into_iter().find(|mode| mode.name() == text).ok_or("expected open, token or mixed")
}

fn claim(text: &str) -> Result<String, &'static str> {
    let is_plain = (1..=CLAIM_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| text.to_owned()).ok_or("expected 1 to 255 printable ASCII characters without spaces")
}

fn checked(material: KeyMaterial) -> Result<KeyMaterial, &'static str> {
    VerificationKey::of_material(&material).map(|_| material)
}

/// Reads `ALGORITHM=FILE` or `ALGORITHM/KEY_ID=FILE`.
fn key_file(word: &str) -> Result<(String, KeyMaterial), String> {
    let (name, path) = word.split_once('=').ok_or("expected ALGORITHM=FILE or ALGORITHM/KEY_ID=FILE")?;
    let (algorithm, id) = name.split_once('/').map_or((name, None), |(algorithm, id)| (algorithm, Some(id.to_owned())));
    let text = read_file(path, KEY_FILE_BYTES)?.trim_end_matches(['\r', '\n']).to_owned();
    let material = checked(KeyMaterial { algorithm: algorithm.parse()?, id, text })?;
    Ok((word.to_owned(), material))
}

fn jwks(text: &str, plain_http: bool) -> Result<JwksSource, String> {
    if text.contains("://") {
        return Ok(JwksSource::Url(JwksUrl::parse(text, plain_http)?));
    }
    let set = read_file(text, SET_BYTES_MAX)?;
    parse_set(&set, true)?;
    Ok(JwksSource::File { path: text.to_owned(), text: set })
}

/// Returns the content of a file. An error never contains the content.
fn read_file(path: &str, bytes: usize) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
    let read = file.take(bytes as u64 + 1).read_to_string(&mut text).map_err(|error| format!("{path}: {error}"))?;
    if read > bytes { Err(format!("{path}: the file is larger than {} KiB", bytes / 1024)) } else { Ok(text) }
}

/// Prints the settings as TOML, without the secret.
impl fmt::Display for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "auth.mode = \"{}\"", self.mode)?;
        if !self.policy.issuer.is_empty() {
            writeln!(f, "auth.issuer = {:?}", self.policy.issuer)?;
        }
        writeln!(f, "auth.audience = {:?}", self.policy.audience)?;
        if self.secret.is_some() {
            writeln!(f, "auth.secret = \"***\"")?;
        }
        writeln!(f, "auth.keys = {:?}", self.keys.iter().map(|(word, _)| word).collect::<Vec<_>>())?;
        if let Some(jwks) = &self.jwks {
            writeln!(f, "auth.jwks = {:?}", jwks.shown())?;
        }
        writeln!(f, "auth.jwks_refresh_seconds = {}", self.jwks_refresh.as_secs())?;
        writeln!(f, "auth.jwks_plain_http = {}", self.plain_http)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl AuthConfig {
    pub(crate) fn full() -> Self {
        let policy = TokenPolicy { issuer: "i".to_owned(), audience: vec!["a".to_owned()] };
        let secret = KeyMaterial { algorithm: TokenAlgorithm::Hs256, id: None, text: "hunter2".repeat(5) };
        Self {
            jwks: Some(JwksSource::Url(JwksUrl::parse("https://i/keys", false).unwrap())),
            ..Self::of_secret(AuthMode::Token, policy, secret)
        }
    }

    pub(super) fn of_secret(mode: AuthMode, policy: TokenPolicy, secret: KeyMaterial) -> Self {
        Self { mode, policy, secret: Some(secret), ..Self::default() }
    }
}
