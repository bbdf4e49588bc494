//! What people say: the values that travel from a sender's door through the backplane to every receiver's door.
//!
//! Values only. Invariant: a [`ChatMessage`] holds nothing about who receives it, so it is encoded once per wire format.

use std::sync::Arc;

use presence::model::{Nick, RoomName};
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

    /// A plain text as a JSON string, for doors that know only text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let raw = serde_json::value::to_raw_value(text).expect("a string is always JSON");
        Self(raw.into())
    }

    /// The JSON text.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// The body for text doors: a JSON string without its quotes and escapes, anything else as compact JSON.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::from_str(self.json()).unwrap_or_else(|_| compact(self.json()))
    }
}

/// JSON without the white space between its tokens. Numbers stay as written, which reading them as values would not do.
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

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// To everybody in a room.
    Room(RoomName),
    /// To whoever has the nickname.
    Nick(Nick),
}

impl Target {
    /// The target as clients write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Room(room) => room.as_str(),
            Self::Nick(nick) => nick.as_str(),
        }
    }
}

/// One message as receivers see it, in a room or in their inbox. The fields are named as in `parley.v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// The room as it is shown, or the receiver's nickname.
    pub to: String,
    /// The sender's nickname as it is shown.
    pub from: String,
    /// Unique; the same for every receiver.
    pub msg_id: String,
    /// Position in the room or inbox, dense from 1.
    pub seq: u64,
    /// Unix milliseconds by the store's clock; never goes back within a room.
    pub time: u64,
    /// What was said.
    pub body: Body,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_reads_as_its_text_or_as_compact_json() {
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
    fn a_text_becomes_a_json_string_and_comes_back() {
        let text = "say \"hi\"\r\n\u{1b}[31m \\ \u{1f600}";
        assert_eq!(Body::from_text(text).text(), text);
    }
}
