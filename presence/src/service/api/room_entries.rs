//! The order of an application to let a user enter a room, and the wait until it is carried out.

use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::Serialize;
use tokio::time::sleep;
use utoipa::ToSchema;

use super::Api;
use super::extract::{path, room_of};
use super::keys::{ApiKey, Moderate};
use super::problem::{MemberRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{Nick, RoomName};

/// Longest wait until an order is carried out.
const ENTRY_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks at the members.
const ENTRY_PAUSE: Duration = Duration::from_millis(50);

/// The room and the nickname in the path.
pub(super) struct MemberPath(RoomName, Nick);

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (room, nick): (String, String) = path(parts, state).await?;
        let nick = Nick::parse(&nick).map_err(|error| refused_as(ErrorCode::BadNick, error.to_string()))?;
        Ok(Self(room_of(&room)?, nick))
    }
}

/// The answer to an order to enter a room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderedEntry {
    /// The room, as it was sent.
    room: String,
    /// The nickname, as it was sent.
    nick: String,
    /// True if the user is a member now.
    joined: bool,
}

/// Let a user enter a room
///
/// The gateway of the session joins the room for it, normally at once. The client receives `joined`, and the members
/// see the user join. The session needs no invite, no right of its token and no right to create the room. Bans and
/// `members_max` hold. A member stays as it is, so the request may be repeated.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/members/{nick}",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        ("nick" = String, Path, description = "The nickname of a connected user, in any case.", example = "ann"),
    ),
    responses(
        (status = 200, description = "The user is a member.", body = OrderedEntry, example = json!({
            "room": "#lobby", "nick": "ann", "joined": true,
        })),
        (status = 202, description = "The user is no member after 2 s.",
            body = OrderedEntry, example = json!({ "room": "#lobby", "nick": "ann", "joined": false })),
        MemberRefusals,
    ),
)]
pub(super) async fn enter(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    MemberPath(room, nick): MemberPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<(StatusCode, Json<OrderedEntry>), Problem> {
    let until = Instant::now() + ENTRY_WAIT;
    let mut joined = api.is_member(client, &room, &nick).await?;
    // Also for a member: its connection may have ended before it learned of the room.
    if api.change(client, api.registry.order_entry(nick.key(), &room)).await? {
        tracing::info!(event = "rooms", action = "enter", room = room.as_str(), by = key.name(), "room changed");
    } else if !joined {
        return Err(refused(ErrorCode::NoSuchUser));
    }
    while !joined && Instant::now() < until {
        sleep(ENTRY_PAUSE).await;
        joined = api.is_member(client, &room, &nick).await?;
    }
    let entry = OrderedEntry { room: room.as_str().to_owned(), nick: nick.as_str().to_owned(), joined };
    Ok((if joined { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(entry)))
}

impl Api {
    /// Returns true if the user, who may have another nickname now, is online and in the room.
    async fn is_member(&self, client: ClientAddress, room: &RoomName, nick: &Nick) -> Result<bool, Problem> {
        let present = self.read(client, self.registry.renamed(nick.key())).await?;
        let user = self.read(client, self.registry.user(present.as_ref().unwrap_or(nick).key())).await?;
        let is_room = |shown: &String| RoomName::parse(shown).is_ok_and(|shown| shown.key() == room.key());
        Ok(user.is_some_and(|user| user.online && user.rooms.iter().any(is_room)))
    }
}
