//! [`HookSettings`]: the settings `hooks.*`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use presence::host::callback::{CallbackUrl, refusal_warning, signature};
use presence::host::settings::{Settings, SettingsError};
use presence::webhooks::ALLOW_PRIVATE;

use super::HookKind;

/// Permitted values of `hooks.timeout_ms`.
const TIMEOUT_MS: RangeInclusive<u64> = 50..=5000;
/// Permitted values of `hooks.cache_seconds`.
const CACHE_SECONDS: RangeInclusive<u64> = 0..=3600;

/// The rule for a question without a usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailureRule {
    /// The request is refused as `hook_unavailable`.
    Closed,
    /// The request is performed.
    Open,
}

/// The settings `hooks.*`.
#[derive(Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// `hooks.register`.
    pub register: Option<CallbackUrl>,
    /// `hooks.join`.
    pub join: Option<CallbackUrl>,
    /// `hooks.send`.
    pub send: Option<CallbackUrl>,
    /// `hooks.secret`.
    pub(super) secret: Option<String>,
    /// `hooks.timeout_ms`: the time limit of a question, its wait for a place included.
    pub timeout: Duration,
    /// `hooks.fail`.
    pub on_failure: HookFailureRule,
    /// `hooks.cache_seconds`: the time for which an answer is remembered that states none.
    pub valid_for: Duration,
    /// `callbacks.allow_private`.
    pub allow_private: bool,
}

/// The defaults.
impl Default for HookSettings {
    fn default() -> Self {
        Self {
            register: None,
            join: None,
            send: None,
            secret: None,
            timeout: Duration::from_secs(1),
            on_failure: HookFailureRule::Closed,
            valid_for: Duration::ZERO,
            allow_private: false,
        }
    }
}

/// Shows no secret.
impl fmt::Debug for HookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { register, join, send, timeout, on_failure, valid_for, .. } = self;
        f.debug_struct("HookSettings")
            .field("register", register)
            .field("join", join)
            .field("send", send)
            .field("timeout", timeout)
            .field("on_failure", on_failure)
            .field("valid_for", valid_for)
            .finish_non_exhaustive()
    }
}

impl HookSettings {
    /// Validates the settings.
    ///
    /// # Errors
    /// The first invalid key, or the secret if it is missing.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let url = |key| settings.optional(key, str::parse::<CallbackUrl>);
        let timeout = settings.number(
            "hooks.timeout_ms",
            TIMEOUT_MS,
            "expected a whole number of milliseconds from 50 to 5000",
        )?;
        let valid_for = settings.number(
            "hooks.cache_seconds",
            CACHE_SECONDS,
            "expected a whole number of seconds from 0 to 3600",
        )?;
        let hooks = Self {
            register: url("hooks.register")?,
            join: url("hooks.join")?,
            send: url("hooks.send")?,
            secret: settings.optional("hooks.secret", secret)?,
            timeout: Duration::from_millis(timeout),
            on_failure: settings.required("hooks.fail", failure_rule)?,
            valid_for: Duration::from_secs(valid_for),
            allow_private: settings.flag(ALLOW_PRIVATE.name)?,
        };
        if hooks.secret.is_none() && hooks.is_set() {
            let reason = "hooks.register, hooks.join and hooks.send need it";
            return Err(SettingsError::Missing { key: "hooks.secret", reason });
        }
        Ok(hooks)
    }

    /// Returns the address that is asked at a point.
    #[must_use]
    pub fn url(&self, kind: HookKind) -> Option<&CallbackUrl> {
        match kind {
            HookKind::Register => self.register.as_ref(),
            HookKind::Join => self.join.as_ref(),
            HookKind::Send => self.send.as_ref(),
        }
    }

    /// Returns a warning for each question that cannot be asked.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let urls = [("register", &self.register), ("join", &self.join), ("send", &self.send)];
        let warning = |(kind, url): (&str, &Option<CallbackUrl>)| {
            refusal_warning(&format!("hooks.{kind}"), url.as_ref()?, self.allow_private)
        };
        urls.into_iter().filter_map(warning).collect()
    }

    /// Returns true if the application is asked at any point.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.register.is_some() || self.join.is_some() || self.send.is_some()
    }
}

fn secret(text: &str) -> Result<String, String> {
    if signature::is_secret(text) { Ok(text.to_owned()) } else { Err(format!("expected {}", signature::SECRET_RULE)) }
}

fn failure_rule(text: &str) -> Result<HookFailureRule, &'static str> {
    match text {
        "closed" => Ok(HookFailureRule::Closed),
        "open" => Ok(HookFailureRule::Open),
        _ => Err("expected closed or open"),
    }
}

/// Prints the settings as TOML, without the secret.
impl fmt::Display for HookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, url) in [("register", &self.register), ("join", &self.join), ("send", &self.send)] {
            if let Some(url) = url {
                writeln!(f, "hooks.{key} = \"{url}\"")?;
            }
        }
        if self.secret.is_some() {
            writeln!(f, "hooks.secret = \"***\"")?;
        }
        let on_failure = match self.on_failure {
            HookFailureRule::Closed => "closed",
            HookFailureRule::Open => "open",
        };
        writeln!(f, "hooks.timeout_ms = {}", self.timeout.as_millis())?;
        writeln!(f, "hooks.fail = \"{on_failure}\"")?;
        writeln!(f, "hooks.cache_seconds = {}", self.valid_for.as_secs())?;
        writeln!(f, "{} = {}", ALLOW_PRIVATE.name, self.allow_private)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl HookSettings {
    pub(crate) fn full() -> Self {
        let url = || Some("https://app.example/hook?key=hunter2".parse().unwrap());
        let secret = Some("hunter2hunter2hunter2".to_owned());
        Self { register: url(), join: url(), send: url(), secret, ..Self::default() }
    }
}
