//! The settings of webhooks: [`WebhookSettings`] of each, [`WebhookRules`] of all.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::host::callback::{CallbackUrl, signature};
use crate::model::{RoomKey, RoomPattern};
use crate::registry::EventLogBounds;

use super::event::EventKind;

/// Maximum number of webhooks.
const WEBHOOKS_MAX: usize = 16;
/// Maximum length of a name, in bytes.
const NAME_BYTES: usize = 64;

/// A webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Its name, unique. Its position in the log is stored under this name.
    pub name: String,
    /// The receiver.
    pub url: CallbackUrl,
    /// The secrets that sign, the present one first: two during a rotation.
    pub secrets: Vec<String>,
    /// The kinds of events.
    pub events: Vec<EventKind>,
    /// The rooms whose events are sent; empty for all rooms.
    pub rooms: Vec<RoomPattern>,
}

/// Shows no secret.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// Limits of all webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRules {
    /// Time limit of a delivery.
    pub deadline: Duration,
    /// Age at which an event that was not accepted becomes a dead letter.
    pub dead_after: Duration,
    /// Bounds of the log.
    pub log: EventLogBounds,
    /// Send to loopback and link-local addresses too.
    pub allow_private: bool,
}

/// The defaults of the settings.
impl Default for WebhookRules {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            dead_after: Duration::from_secs(86_400),
            log: EventLogBounds { events: 100_000, bytes: 256 * 1024 * 1024 },
            allow_private: false,
        }
    }
}

/// A webhook as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWebhook {
    name: Option<String>,
    url: String,
    secret: String,
    previous_secret: Option<String>,
    events: Vec<String>,
    #[serde(default)]
    rooms: Vec<String>,
}

/// Returns the reason of the parser if it names a field, else only the place: a value may be a secret.
fn reason_without_value(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    if ["unknown field", "missing field", "duplicate field"].iter().any(|start| reason.starts_with(start)) {
        return reason;
    }
    format!("expected tables whose fields are texts or lists of texts: column {}", error.column())
}

impl WebhookSettings {
    /// Parses the list of all webhooks from JSON.
    ///
    /// # Errors
    /// The reason of the refusal, without a secret.
    pub fn parse_list(json: &str) -> Result<Vec<Self>, String> {
        let written: Vec<WrittenWebhook> = serde_json::from_str(json).map_err(|error| reason_without_value(&error))?;
        if written.len() > WEBHOOKS_MAX {
            return Err(format!("at most {WEBHOOKS_MAX} webhooks"));
        }
        let webhooks = written.into_iter().map(Self::checked).collect::<Result<Vec<_>, _>>()?;
        for (at, webhook) in webhooks.iter().enumerate() {
            if webhooks[..at].iter().any(|earlier| earlier.name == webhook.name) {
                return Err(format!("two webhooks are named {}: give each its own name", webhook.name));
            }
        }
        Ok(webhooks)
    }

    fn checked(written: WrittenWebhook) -> Result<Self, String> {
        let url: CallbackUrl = written.url.parse().map_err(|reason: &str| format!("url: {reason}"))?;
        let name = written.name.unwrap_or_else(|| url.host().to_owned());
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte));
        if !(1..=NAME_BYTES).contains(&name.len()) || !is_plain(&name) {
            return Err("name: expected 1 to 64 of the characters A-Z a-z 0-9 . : _ -".to_owned());
        }
        let secrets: Vec<String> = [written.secret].into_iter().chain(written.previous_secret).collect();
        if !secrets.iter().all(|secret| signature::is_secret(secret)) {
            return Err(format!("{name}: a secret has {}", signature::SECRET_RULE));
        }
        let kind = |word: &String| EventKind::parse(word).ok_or_else(|| format!("{name}: no event is named {word:?}"));
        let events = written.events.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            return Err(format!("{name}: events is empty"));
        }
        let room = |text: &String| RoomPattern::parse(text).map_err(|error| format!("{name}: room {text:?}: {error}"));
        let rooms = written.rooms.iter().map(room).collect::<Result<_, _>>()?;
        Ok(Self { name, url, secrets, events, rooms })
    }

    /// Returns true if the webhook gets an event of a kind, in a room if it has one.
    #[must_use]
    pub fn wants(&self, kind: EventKind, room: Option<&RoomKey>) -> bool {
        let has_room = |room| self.rooms.is_empty() || self.rooms.iter().any(|pattern| pattern.matches(room));
        self.events.contains(&kind) && room.is_none_or(has_room)
    }

    /// Returns the events that these webhooks want together, for the scripts that log them (`webhook_log.lua`). The
    /// beginnings of room keys select more than the patterns.
    #[must_use]
    pub fn wanted(webhooks: &[Self], log: EventLogBounds) -> String {
        let mut words: Vec<String> = Vec::new();
        for webhook in webhooks {
            for kind in &webhook.events {
                match (kind, &webhook.rooms[..]) {
                    (EventKind::Message, []) => words.push("message:".to_owned()),
                    (EventKind::Message, rooms) => {
                        words.extend(rooms.iter().map(|room| format!("message:{}", room.key_beginning())));
                    }
                    (kind, _) => words.push(kind.name().to_owned()),
                }
            }
        }
        words.sort();
        words.dedup();
        format!("{} {} {} ", log.events, log.bytes, words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::model::RoomName;

    fn parse(value: &serde_json::Value) -> Result<Vec<WebhookSettings>, String> {
        WebhookSettings::parse_list(&value.to_string())
    }

    #[test]
    fn webhooks_select_events_by_kind_and_room() {
        let webhooks = parse(&json!([
            {"url": "https://app.example/h", "secret": "0123456789abcdef", "events": ["message", "join"],
             "rooms": ["#Team-*", "#ö"]},
            {"name": "push", "url": "https://app.example/p", "secret": "0123456789abcdef",
             "previous_secret": "fedcba9876543210", "events": ["direct_offline", "online"]},
        ]));
        let webhooks = webhooks.unwrap();
        let key = |name: &str| RoomName::parse(name).unwrap().key().clone();
        assert_eq!((webhooks[0].name.as_str(), webhooks[1].secrets.len()), ("app.example", 2));
        assert!(webhooks[0].wants(EventKind::Message, Some(&key("#team-a"))));
        assert!(!webhooks[0].wants(EventKind::Message, Some(&key("#lobby"))));
        assert!(!webhooks[0].wants(EventKind::Leave, Some(&key("#team-a"))));
        assert!(webhooks[1].wants(EventKind::Online, None));
        let wanted = WebhookSettings::wanted(&webhooks, EventLogBounds { events: 10, bytes: 20 });
        assert_eq!(wanted, "10 20 direct_offline join message:%C3%B6 message:team- online ");
        assert!(!format!("{webhooks:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn unusable_webhooks_are_refused_without_their_secret() {
        let good = json!({"url": "https://a.example/", "secret": "0123456789abcdef", "events": ["join"]});
        assert!(parse(&json!([good])).is_ok());
        for (field, value, reason) in [
            ("url", json!("ftp://a.example/"), "url"),
            ("secret", json!("short-one"), "16 to 256"),
            ("secret", json!("0123456789 abcdef"), "16 to 256"),
            ("events", json!([]), "empty"),
            ("events", json!(["joins"]), "joins"),
            ("rooms", json!(["team"]), "team"),
            ("name", json!("a b"), "name"),
            ("color", json!("red"), "color"),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            let refusal = parse(&json!([bad])).unwrap_err();
            assert!(refusal.contains(reason) && !refusal.contains("0123456789"), "{refusal}");
        }
        assert!(parse(&json!([good, good])).unwrap_err().contains("two webhooks"));
        assert!(parse(&json!({})).is_err());
        for hidden in [json!("0123456789abcdef"), json!(["0123456789abcdef"]), json!([{"secret": 1234567890}])] {
            let refusal = parse(&hidden).unwrap_err();
            assert!(!refusal.contains("123456789"), "{refusal}");
        }
    }
}
