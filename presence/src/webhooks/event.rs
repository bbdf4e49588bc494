//! [`EventKind`], and the JSON of an event for receivers.
//!
//! Pure. Invariant: the id of an event is the same in every delivery, so a receiver can drop repetitions.

use std::ops::Not;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{RoomKey, RoomName};
use crate::registry::LoggedEvent;

/// The kind of an event that a webhook can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A user is online.
    Online,
    /// A user is offline.
    Offline,
    /// A user has joined a room.
    Join,
    /// A user has left a room.
    Leave,
    /// A user has another nickname.
    Rename,
    /// A message in a room.
    Message,
    /// A direct message to a user that is offline.
    DirectOffline,
    /// A moderator's act in a room.
    Moderation,
}

/// Kind of the event that reports dropped events. Every webhook gets it.
const GAP: &str = "gap";

impl EventKind {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::Online, "online"),
        (Self::Offline, "offline"),
        (Self::Join, "join"),
        (Self::Leave, "leave"),
        (Self::Rename, "rename"),
        (Self::Message, "message"),
        (Self::DirectOffline, "direct_offline"),
        (Self::Moderation, "moderation"),
    ];

    /// Parses the name of a kind.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

/// An event as a receiver gets it.
#[derive(Debug, Clone)]
pub(super) struct OutgoingEvent {
    /// Its kind; `None` for a gap.
    pub(super) kind: Option<EventKind>,
    /// The room that it is about.
    pub(super) room: Option<RoomKey>,
    /// Its JSON.
    pub(super) json: Box<RawValue>,
}

/// The stored form of a message.
#[derive(Deserialize)]
struct StoredPayload<'a> {
    to: String,
    from: String,
    id: String,
    user: Option<String>,
    /// Of a message of the server API: the name of its key.
    api: Option<IgnoredAny>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The JSON of a message in a room.
#[derive(Serialize)]
struct RoomMessageJson<'a> {
    id: &'a str,
    r#type: &'static str,
    time: u64,
    room: &'a str,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Not::not")]
    from_api: bool,
    epoch: &'a str,
    seq: u64,
    body: &'a RawValue,
}

/// The JSON of a direct message to a user that is offline.
#[derive(Serialize)]
struct DirectMessageJson<'a> {
    id: &'a str,
    r#type: &'static str,
    time: u64,
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_user: Option<&'a str>,
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Not::not")]
    from_api: bool,
    body: &'a RawValue,
}

/// The room of an event that is logged as JSON.
#[derive(Deserialize)]
struct EventRoom {
    room: Option<String>,
}

impl OutgoingEvent {
    /// Builds the event of an entry of the log; `None` if it is malformed or of an unknown kind.
    pub(super) fn of(logged: &LoggedEvent) -> Option<Self> {
        let LoggedEvent { kind, time, at, data, .. } = logged;
        if kind == GAP {
            return Some(Self { kind: None, room: None, json: tagged(logged)? });
        }
        let kind = EventKind::parse(kind)?;
        let (room, json) = match kind {
            EventKind::Message => {
                let StoredPayload { to, from, id, user, api, body } = serde_json::from_str(data).ok()?;
                let mut words = at.split(' ');
                let (epoch, seq) = (words.next()?, words.next()?.parse().ok()?);
                // The sender's spelling stands in for the shown name, which an older version does not log.
                let room = words.next().filter(|shown| !shown.is_empty()).unwrap_or(&to);
                let (user, from_api) = (user.as_deref(), api.is_some());
                let (id, from, r#type) = (&id, &from, kind.name());
                let event = RoomMessageJson { id, r#type, time: *time, room, from, user, from_api, epoch, seq, body };
                (Some(to.clone()), serde_json::value::to_raw_value(&event).ok()?)
            }
            EventKind::DirectOffline => {
                let StoredPayload { to, from, id, user, api, body } = serde_json::from_str(data).ok()?;
                let (user, to_user) = (user.as_deref(), Some(at.as_str()).filter(|user| !user.is_empty()));
                let (id, to, from, from_api, r#type) = (&id, &to, &from, api.is_some(), kind.name());
                let event = DirectMessageJson { id, r#type, time: *time, to, to_user, from, user, from_api, body };
                (None, serde_json::value::to_raw_value(&event).ok()?)
            }
            _ => (serde_json::from_str::<EventRoom>(data).ok()?.room, tagged(logged)?),
        };
        let room = room.and_then(|room| RoomName::parse(&room).ok()).map(|room| room.key().clone());
        Some(Self { kind: Some(kind), room, json })
    }
}

/// Returns an event that is logged as JSON with its id and type.
fn tagged(LoggedEvent { original, kind, time, data, .. }: &LoggedEvent) -> Option<Box<RawValue>> {
    let fields = data.strip_prefix('{')?;
    RawValue::from_string(format!(r#"{{"id":"{kind}-{original}-{time}","type":"{kind}",{fields}"#)).ok()
}

/// Returns the event that reports dropped ones: those after the cursor and before the first present one. It stands in
/// the place of the last of them.
pub(super) fn gap(cursor: u64, first: u64, time: u64) -> Option<LoggedEvent> {
    let dropped = first.checked_sub(cursor + 1).filter(|dropped| *dropped > 0)?;
    let data = format!(r#"{{"dropped":{dropped},"time":{time}}}"#);
    let (kind, at) = (GAP.to_owned(), String::new());
    let number = first - 1;
    Some(LoggedEvent { number, original: number, kind, time, logged: time, at, data, only: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn logged(kind: &str, at: &str, data: &str) -> LoggedEvent {
        let (kind, at, data) = (kind.to_owned(), at.to_owned(), data.to_owned());
        LoggedEvent { number: 7, original: 5, kind, time: 99, logged: 99, at, data, only: None }
    }

    fn json(event: &LoggedEvent) -> serde_json::Value {
        serde_json::from_str(OutgoingEvent::of(event).unwrap().json.get()).unwrap()
    }

    #[test]
    fn names_stand_in_the_order_of_kinds() {
        for (kind, name) in EventKind::NAMES {
            assert_eq!((kind.name(), EventKind::parse(name)), (name, Some(kind)));
        }
        assert_eq!(EventKind::parse("gap"), None);
    }

    #[test]
    fn message_event_has_its_id_and_body() {
        let payload = r##"{"to":"#Lobby","from":"ann","id":"m1","fence":3,"at":5,"user":"u1","body":{"b": [1,2]}}"##;
        let event = logged("message", "e1 12", payload);
        let expected = serde_json::json!({"id": "m1", "type": "message", "time": 99, "room": "#Lobby", "from": "ann",
            "user": "u1", "epoch": "e1", "seq": 12, "body": {"b": [1, 2]}});
        assert_eq!(json(&event), expected);
        assert_eq!(OutgoingEvent::of(&event).unwrap().room.unwrap().as_str(), "lobby");
        let event = logged("direct_offline", "u2", &payload.replace("#Lobby", "bob"));
        let expected = serde_json::json!({"id": "m1", "type": "direct_offline", "time": 99, "to": "bob",
            "to_user": "u2", "from": "ann", "user": "u1", "body": {"b": [1, 2]}});
        assert_eq!(json(&event), expected);
    }

    #[test]
    fn message_event_has_shown_name_of_room() {
        let payload = r##"{"to":"#LOBBY","from":"ann","id":"m1","at":5,"body":1}"##;
        for (at, shown) in [("e1 12 #Lobby", "#Lobby"), ("e1 12 ", "#LOBBY"), ("e1 12", "#LOBBY")] {
            let event = json(&logged("message", at, payload));
            assert_eq!((event["room"].as_str(), event["seq"].as_u64()), (Some(shown), Some(12)));
        }
    }

    #[test]
    fn message_of_the_api_has_its_mark() {
        let payload = r##"{"to":"#l","from":"ann","id":"m1","at":5,"api":"app","body":1}"##;
        for (kind, at) in [("message", "e1 12"), ("direct_offline", "")] {
            assert_eq!(json(&logged(kind, at, payload))["from_api"], true, "{kind}");
        }
    }

    #[test]
    fn presence_event_keeps_its_fields_and_id() {
        let event = logged("join", "", r##"{"room":"#lobby","nick":"ann","time":99}"##);
        let expected =
            serde_json::json!({"id": "join-5-99", "type": "join", "room": "#lobby", "nick": "ann", "time": 99});
        assert_eq!(json(&event), expected);
    }

    #[test]
    fn gap_counts_what_is_missing() {
        assert_eq!(gap(4, 5, 1), None);
        let dropped = gap(4, 8, 1).unwrap();
        assert_eq!(json(&dropped), serde_json::json!({"id": "gap-7-1", "type": "gap", "dropped": 3, "time": 1}));
    }

    #[test]
    fn malformed_entries_are_no_events() {
        for event in [
            logged("message", "e1 12", "{}"),
            logged("message", "e1", r##"{"to":"#l","from":"a","id":"m","body":1}"##),
            logged("join", "", "null"),
            logged("unheard_of", "", "{}"),
        ] {
            assert!(OutgoingEvent::of(&event).is_none(), "{event:?}");
        }
    }
}
