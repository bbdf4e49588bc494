//! [`WebhookConfig`]: the validated settings of all webhooks, and their keys.

use std::fmt;
use std::time::Duration;

use crate::host::callback::refusal_warning;
use crate::host::settings::{Key, Settings, SettingsError};
use crate::registry::EventLogBounds;

use super::settings::{WebhookRules, WebhookSettings};

/// Bytes of a MiB.
const MIB: u64 = 1024 * 1024;

/// `webhooks`.
pub const WEBHOOKS: Key = Key::tables("webhooks")
    .sample(concat!(
        r##"[{"url":"https://app.example.org/parley","secret":"at-least-16-characters","##,
        r##""events":["message"],"rooms":["#team-*"]}]"##
    ))
    .in_file()
    .meaning(
        "Addresses that get events, the same in every presence process; of a gateway only without redis.url. Each has \
         url, secret, events and, if wanted, name, previous_secret and rooms; docs/WEBHOOKS.md describes them. The file \
         of webhooks_file has them as JSON.",
    );
/// `webhook.deadline_seconds`.
pub const DEADLINE: Key = Key::number("webhook.deadline_seconds")
    .default("10")
    .meaning("Time limit of a delivery to a webhook in seconds, from the name lookup to the answer, 1 to 60.");
/// `webhook.dead_letter_seconds`.
pub const DEAD_LETTERS: Key = Key::number("webhook.dead_letter_seconds")
    .default("86400")
    .meaning("Age in seconds at which an event that its webhook has not accepted becomes a dead letter, 1 to 604800.");
/// `webhook.log_events`.
pub const LOG_EVENTS: Key = Key::number("webhook.log_events")
    .default("100000")
    .meaning("Maximum number of events that wait for webhooks, 1000 to 10000000. The oldest are dropped first.");
/// `webhook.log_mib`.
pub const LOG_MIB: Key = Key::number("webhook.log_mib")
    .default("256")
    .meaning("Maximum size of these events in MiB, 1 to 65536. The oldest are dropped first.");
/// `callbacks.allow_private`.
pub const ALLOW_PRIVATE: Key = Key::flag("callbacks.allow_private").default("false").meaning(
    "Send webhooks and questions of hooks to loopback and link-local addresses too. Addresses of other private networks \
     are always allowed.",
);

/// The settings of all webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookConfig {
    /// `webhooks`.
    pub webhooks: Vec<WebhookSettings>,
    /// The other settings.
    pub rules: WebhookRules,
    /// `webhooks` as TOML, without secrets.
    pub shown: String,
}

impl WebhookConfig {
    /// Validates the settings.
    ///
    /// # Errors
    /// The first invalid key.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let dead_after = settings.number(DEAD_LETTERS.name, 1..=604_800, "expected 1 to 604800")?;
        let deadline = settings.number(DEADLINE.name, 1..=60, "expected 1 to 60")?;
        let log = EventLogBounds {
            events: settings.number(LOG_EVENTS.name, 1000..=10_000_000, "expected 1000 to 10000000")?,
            bytes: settings.number(LOG_MIB.name, 1..=65_536, "expected 1 to 65536")? * MIB,
        };
        Ok(Self {
            webhooks: settings.optional(WEBHOOKS.name, WebhookSettings::parse_list)?.unwrap_or_default(),
            rules: WebhookRules {
                deadline: Duration::from_secs(deadline),
                dead_after: Duration::from_secs(dead_after),
                log,
                allow_private: settings.flag(ALLOW_PRIVATE.name)?,
            },
            shown: settings.shown_tables(WEBHOOKS.name),
        })
    }

    /// Returns a warning for each webhook to which nothing can be sent.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let allow_private = self.rules.allow_private;
        let warning = |webhook: &WebhookSettings| {
            refusal_warning(&format!("webhook {}", webhook.name), &webhook.url, allow_private)
        };
        self.webhooks.iter().filter_map(warning).collect()
    }
}

/// Settings in effect as TOML, without `callbacks.allow_private`, which is not of webhooks alone.
impl fmt::Display for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebhookRules { deadline, dead_after, log, allow_private: _ } = &self.rules;
        writeln!(f, "webhooks = {}", if self.shown.is_empty() { "[]" } else { &self.shown })?;
        writeln!(f, "webhook.deadline_seconds = {}", deadline.as_secs())?;
        writeln!(f, "webhook.dead_letter_seconds = {}", dead_after.as_secs())?;
        writeln!(f, "webhook.log_events = {}", log.events)?;
        writeln!(f, "webhook.log_mib = {}", log.bytes / MIB)
    }
}
