//! The order of an application to let a session enter a room, in the form in which it reaches the session's gateway.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RoomName, SessionId};

/// An order to let a session enter a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomEntryOrder {
    /// The session.
    pub session: SessionId,
    /// The room.
    #[serde(serialize_with = "write_room", deserialize_with = "read_room")]
    pub room: RoomName,
    /// Tells the two ways of one order from a later order.
    pub number: String,
}

fn write_room<S: Serializer>(room: &RoomName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(room.as_str())
}

fn read_room<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoomName, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    RoomName::parse(&text).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn order_is_read_as_it_was_written() {
        let order = RoomEntryOrder {
            session: SessionId::from_store("s"),
            room: RoomName::parse("#Lobby").unwrap(),
            number: "1".to_owned(),
        };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(text, r##"{"session":"s","room":"#Lobby","number":"1"}"##);
        assert_eq!(serde_json::from_str::<RoomEntryOrder>(&text).unwrap(), order);
        assert!(serde_json::from_str::<RoomEntryOrder>(&text.replace("#Lobby", "Lobby")).is_err());
    }
}
