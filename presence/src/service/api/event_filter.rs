//! [`EventFilter`]: the events of one room or nickname, for a stream that asks for no others.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{bad, nick_of, query, room_of};
use crate::host::problem::Problem;
use crate::model::{Nick, NickKey, RoomKey, RoomName};
use crate::registry::RegistryEvent;

/// The query parameters, as they came.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only events of this room; write `#` as `%23` or leave it out.
    #[param(example = "lobby")]
    room: Option<String>,
    /// Only events about this nickname, a rename from it or to it included.
    #[param(example = "ann")]
    nick: Option<String>,
    /// `true`: the messages of the room instead of other events. Needs `room`.
    #[param(value_type = Option<bool>)]
    messages: Option<String>,
}

/// The events that a stream has. With a room and a nickname: those about both.
#[derive(Debug, Default)]
pub(super) struct EventFilter {
    room: Option<RoomKey>,
    nick: Option<NickKey>,
    has_messages: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for EventFilter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let EventQuery { room, nick, messages } = query(parts, state).await?;
        let nick = nick.map(|nick| nick_of(&nick)).transpose()?;
        let room = room.map(|room| room_of(&room)).transpose()?;
        let has_messages = match messages.as_deref() {
            None | Some("false") => false,
            Some("true") if room.is_some() => true,
            Some("true") => return Err(bad("messages=true needs a room")),
            Some(_) => return Err(bad("messages must be true or false")),
        };
        let (room, nick) = (room.map(|room| room.key().clone()), nick.map(|nick| nick.key().clone()));
        Ok(Self { room, nick, has_messages })
    }
}

/// The names in an event.
#[derive(Deserialize)]
struct EventNames {
    room: Option<String>,
    nick: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

impl EventFilter {
    /// Returns the room whose messages the stream has.
    pub(super) fn messages_of(&self) -> Option<&RoomKey> {
        self.room.as_ref().filter(|_| self.has_messages)
    }

    /// Returns true if the stream has this event.
    pub(super) fn admits(&self, event: &RegistryEvent) -> bool {
        if self.room.is_none() && self.nick.is_none() {
            return true;
        }
        let Ok(EventNames { room, nick, from, to }) = serde_json::from_str(&event.data) else { return false };
        let is_room = |wanted: &RoomKey| {
            let room = room.as_deref().and_then(|room| RoomName::parse(room).ok());
            room.is_some_and(|room| room.key() == wanted)
        };
        let is_nick = |wanted: &NickKey| {
            let nicks = [&nick, &from, &to].into_iter().flatten().filter_map(|nick| Nick::parse(nick).ok());
            nicks.into_iter().any(|nick| nick.key() == wanted)
        };
        self.room.as_ref().is_none_or(is_room) && self.nick.as_ref().is_none_or(is_nick)
    }
}
