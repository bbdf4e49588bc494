//! Rooms and their members.

use axum::extract::State;
use axum::{Extension, Json};

use super::Api;
use super::extract::{PageQuery, PageStart, RoomPath};
use super::keys::{ApiKey, Read};
use super::problem::{ListRefusals, RoomRefusals, refused};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{ListCursor, MemberInfo};
use crate::registry::{ListPage, RoomRow};

/// Rooms with members
///
/// Sorted by the keys of the room names.
#[utoipa::path(
    get,
    path = "/v1/rooms",
    tag = "rooms",
    security(("key" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of rooms.", body = ListPage<RoomRow>, example = json!({
            "items": [{ "room": "#lobby", "member_count": 2, "seq": 131 }], "next_cursor": null,
        })),
        ListRefusals,
    ),
)]
pub(super) async fn list(
    _: ApiKey<Read>,
    State(api): State<Api>,
    page: PageStart<String>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<RoomRow>>, Problem> {
    api.page(client, api.registry.rooms(page.cursor.as_deref(), page.limit)).await
}

/// One room
///
/// Finds rooms with members, and empty rooms for about 72 hours.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}",
    tag = "rooms",
    security(("key" = ["read"])),
    params(("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby")),
    responses(
        (status = 200, description = "The room.", body = RoomRow, example = json!({
            "room": "#lobby", "member_count": 2, "seq": 131,
        })),
        RoomRefusals,
    ),
)]
pub(super) async fn room(
    _: ApiKey<Read>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<RoomRow>, Problem> {
    let found = api.read(client, api.registry.room(room.key())).await?;
    found.map(Json).ok_or(refused(ErrorCode::NoSuchRoom))
}

/// The members of a room
///
/// Sorted by the keys of the nicknames.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/members",
    tag = "rooms",
    security(("key" = ["read"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        PageQuery,
    ),
    responses(
        (status = 200, description = "A page of members.", body = ListPage<MemberInfo>, example = json!({
            "items": [{ "nick": "ann", "status": "online" }, { "nick": "bob", "status": "away", "text": "lunch" }],
            "next_cursor": null,
        })),
        RoomRefusals,
    ),
)]
pub(super) async fn members(
    _: ApiKey<Read>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    page: PageStart<ListCursor>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<MemberInfo>>, Problem> {
    let members = api.page(client, api.registry.members(room.key(), page.cursor, page.limit)).await?;
    // Only an empty page needs a second read: it distinguishes an empty room from an unknown one.
    if members.items.is_empty() && api.read(client, api.registry.room(room.key())).await?.is_none() {
        return Err(refused(ErrorCode::NoSuchRoom));
    }
    Ok(members)
}
