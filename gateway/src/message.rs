//! Messages between users, from the sender's gateway through the backplane to every recipient.
//!
//! Values only: [`ChatMessage`], its [`Body`] and its [`Target`]. Invariant: a room's [`ChatMessage`] holds nothing
//! about a recipient, so it is encoded once per dialect. Knows no dialect and no store.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use presence::model::{Nick, RoomName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The body of a message: any JSON value, passed through byte for byte. Cheap to clone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(Arc<RawValue>);

impl Body {
    /// Wraps a JSON value as the client wrote it.
    #[must_use]
    pub fn from_raw(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    /// Makes a JSON string of a plain text, for dialects that have only text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let raw = serde_json::value::to_raw_value(text).expect("a string is always JSON");
        Self(raw.into())
    }

    /// Returns the JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Returns the body as text: a JSON string without its quotes and escapes, any other value as compact JSON.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::from_str(self.json()).unwrap_or_else(|_| compact(self.json()))
    }
}

/// Removes the white space between JSON tokens. Numbers stay as written, which a parsed value would not preserve.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let between_tokens = !in_string;
            if escaped {
                escaped = false;
            } else if c == '"' {
                in_string = !in_string;
            } else {
                escaped = in_string && c == '\\';
            }
            !(between_tokens && c.is_ascii_whitespace())
        })
        .collect()
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

/// The time at which the sender's gateway accepted a message: Unix microseconds by the clock of that machine. It
/// travels with the message, so the delivering gateway can measure the latency; clocks that differ add their
/// difference. Replayed messages have none: their latency measures nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Accepted(Option<NonZeroU64>);

impl Accepted {
    /// Accepted at this time.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self(NonZeroU64::new(micros(now)))
    }

    /// Returns the time since then. A time in the future, by a clock that is ahead of this one, counts as now.
    #[must_use]
    pub fn age(self, now: SystemTime) -> Option<Duration> {
        self.0.map(|at| Duration::from_micros(micros(now).saturating_sub(at.get())))
    }

    /// Returns the earlier time; an unknown one is ignored.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// Returns true if the time is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.0.is_none()
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The target of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The members of a room.
    Room(RoomName),
    /// The session that has the nickname, or had it last.
    Nick(Nick),
}

impl Target {
    /// Returns the target as clients write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Room(room) => room.as_str(),
            Self::Nick(nick) => nick.as_str(),
        }
    }
}

/// A message as its recipients see it, in a room or in their inbox. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// The room as its members see it, or the recipient's nickname.
    pub to: String,
    /// The sender's nickname as others see it.
    pub from: String,
    /// The sender's user, if a token named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user: Option<UserId>,
    /// True if an application sent it by the server API: then `from` is a name and no user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub from_api: bool,
    /// Unique, and the same for every recipient.
    pub msg_id: String,
    /// Position in the room or inbox, dense from 1.
    pub seq: u64,
    /// Unix milliseconds by the store's clock; never goes back within a room.
    pub time: u64,
    /// The body.
    pub body: Body,
    /// The time of its acceptance, unless it was replayed. Not sent to clients.
    #[serde(skip)]
    pub accepted: Accepted,
}

impl ChatMessage {
    /// Returns the bytes of the names: of the target, the sender and its user.
    #[must_use]
    pub fn name_bytes(&self) -> usize {
        let user = self.from_user.as_ref().map_or(0, |user| user.as_str().len());
        self.to.len() + self.from.len() + user
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn body_text_is_plain_or_compact_json() {
        for (json, text) in [
            (r#""hi""#, "hi"),
            (r#""a\nb \u00e9 \"q\"""#, "a\nb \u{e9} \"q\""),
            ("null", "null"),
            ("1e400", "1e400"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("{ \"a b\" :\n [ 1 , \"x \\\" y\\\\\" , {} ] }", r#"{"a b":[1,"x \" y\\",{}]}"#),
        ] {
            let body = Body::from_raw(RawValue::from_string(json.to_owned()).unwrap());
            assert_eq!((body.json(), body.text().as_str()), (json, text));
        }
    }

    #[test]
    fn unknown_times_have_no_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (early, late) =
            (Accepted::at(now - Duration::from_micros(250)), Accepted::at(now + Duration::from_secs(1)));
        assert_eq!(early.age(now), Some(Duration::from_micros(250)));
        assert_eq!(late.age(now), Some(Duration::ZERO));
        let unknown = Accepted::default();
        assert_eq!((unknown.age(now), unknown.is_unknown()), (None, true));
        assert_eq!((late.earlier(early), unknown.earlier(late), late.earlier(unknown)), (early, late, late));
    }

    #[test]
    fn text_survives_as_a_json_string() {
        let text = "say \"hi\"\r\n\u{1b}[31m \\ \u{1f600}";
        assert_eq!(Body::from_text(text).text(), text);
    }
}
