//! The order of an application to let a user enter a room.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::{path, room_of};
use super::keys::{ApiKey, Moderate};
use super::problem::{MemberRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{Nick, RoomName};

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

/// The answer to an order that is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderedEntry {
    /// The room, as it was sent.
    room: String,
    /// The nickname, as it was sent.
    nick: String,
}

/// Let a user enter a room
///
/// The order reaches the gateway of the session within 2 s, which joins the room for it. The client receives `joined`,
/// the members see the user join, and a webhook or the event stream reports it. The session needs no invite, no right of
/// its token and no right to create the room. Bans and `members_max` hold: then nothing happens. A member stays as it is.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/members/{nick}",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        ("nick" = String, Path, description = "The nickname of a user that is online, in any case.", example = "ann"),
    ),
    responses(
        (status = 202, description = "The order is on its way.", body = OrderedEntry, example = json!({
            "room": "#lobby", "nick": "ann",
        })),
        MemberRefusals,
    ),
)]
pub(super) async fn enter(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    MemberPath(room, nick): MemberPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<(StatusCode, Json<OrderedEntry>), Problem> {
    if !api.change(client, api.registry.order_entry(nick.key(), &room)).await? {
        return Err(refused(ErrorCode::NoSuchUser));
    }
    tracing::info!(event = "rooms", action = "enter", room = room.as_str(), by = key.name(), "room changed");
    let entry = OrderedEntry { room: room.as_str().to_owned(), nick: nick.as_str().to_owned() };
    Ok((StatusCode::ACCEPTED, Json(entry)))
}
