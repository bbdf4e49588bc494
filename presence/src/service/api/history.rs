//! The messages of a room: page by page from the newest one, and their deletion.

use std::num::NonZeroU64;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{RoomPath, bad, path, query, room_of};
use super::keys::{ApiKey, Moderate, Read};
use super::problem::{ChangeRefusals, RoomRefusals, SeqRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::RoomName;
use crate::model::codes::ErrorCode;
use crate::registry::{ListPage, RoomMessage};

/// Maximum number of messages of a page; each has at most 64 KiB.
const PAGE_MAX: usize = 100;
/// Messages of a page without a `limit`.
const PAGE_DEFAULT: usize = 50;

/// The query parameters, as they came.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// The maximum number of messages in the answer.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 100, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// The messages that are asked for.
pub(super) struct HistoryRange {
    before: Option<NonZeroU64>,
    limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for HistoryRange {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let HistoryQuery { limit, cursor } = query(parts, state).await?;
        let limit = match limit.as_deref().map(str::parse) {
            None => PAGE_DEFAULT,
            Some(Ok(limit @ 1..=PAGE_MAX)) => limit,
            Some(_) => return Err(bad("limit must be a whole number from 1 to 100")),
        };
        let before = match cursor.as_deref().map(seq_of) {
            Some(None) => return Err(bad("cursor must be an unchanged next_cursor of this listing")),
            before => before.flatten(),
        };
        Ok(Self { before, limit })
    }
}

/// Reads a seq. One of Redis has 63 bits.
fn seq_of(text: &str) -> Option<NonZeroU64> {
    text.parse().ok().filter(|seq: &NonZeroU64| seq.get() <= i64::MAX as u64)
}

/// The room and the seq in the path.
pub(super) struct MessagePath(RoomName, NonZeroU64);

impl<S: Send + Sync> FromRequestParts<S> for MessagePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (room, seq): (String, String) = path(parts, state).await?;
        let seq = seq_of(&seq).ok_or_else(|| bad("the seq must be a whole number from 1 on"))?;
        Ok(Self(room_of(&room)?, seq))
    }
}

/// A message of a room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryItem {
    /// The sender's name as clients see it.
    from: String,
    /// The sender's user, if a token named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_user: Option<String>,
    /// True for a message of an application.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    from_api: bool,
    /// The id that clients see.
    msg_id: String,
    /// Its position in the room.
    seq: u64,
    /// Unix milliseconds.
    time: u64,
    /// Any JSON value, as it was sent.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
}

/// The stored form, as the gateway's `backplane/envelope.rs` writes it.
#[derive(Deserialize)]
struct StoredFields {
    from: String,
    id: String,
    user: Option<String>,
    api: Option<IgnoredAny>,
    body: Box<RawValue>,
}

/// The messages of a room
///
/// The newest first. `next_cursor` leads to older ones, and is `null` once there are none.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/messages",
    tag = "messages",
    security(("key" = ["read"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        HistoryQuery,
    ),
    responses(
        (status = 200, description = "A page of messages.", body = ListPage<HistoryItem>, example = json!({
            "items": [
                {
                    "from": "app", "from_api": true, "msg_id": "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1c", "seq": 133,
                    "time": 1_795_252_200_000_u64, "body": { "goal": 1 },
                },
                {
                    "from": "ann", "msg_id": "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "seq": 132,
                    "time": 1_795_252_199_000_u64, "body": "hi",
                },
            ],
            "next_cursor": null,
        })),
        RoomRefusals,
    ),
)]
pub(super) async fn messages(
    _: ApiKey<Read>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    HistoryRange { before, limit }: HistoryRange,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<HistoryItem>>, Problem> {
    let messages = api.read(client, api.registry.room_messages(room.key(), before, limit)).await?;
    // Only an empty page needs a second read: it distinguishes an empty room from an unknown one.
    if messages.is_empty() && api.read(client, api.registry.room(room.key())).await?.is_none() {
        return Err(refused(ErrorCode::NoSuchRoom));
    }
    // A page may be short because its messages are large, so only an empty one is known to be the last.
    let next_cursor = messages.last().filter(|oldest| oldest.seq > 1).map(|oldest| oldest.seq.to_string());
    Ok(Json(ListPage { items: messages.iter().filter_map(item).collect(), next_cursor }))
}

/// Returns the seq of a message and its JSON with the room, for an event stream; `None` if its text is malformed.
pub(super) fn message_event(room: &str, message: &RoomMessage) -> Option<(u64, String)> {
    let item = serde_json::to_string(&item(message)?).ok()?;
    let room = serde_json::to_string(room).ok()?;
    Some((message.seq, format!("{{\"room\":{room},{}", item.strip_prefix('{')?)))
}

/// Decodes a message; `None` if its text is malformed.
fn item(RoomMessage { seq, time, payload }: &RoomMessage) -> Option<HistoryItem> {
    let StoredFields { from, id, user, api, body } = serde_json::from_str(payload).ok()?;
    Some(HistoryItem { from, from_user: user, from_api: api.is_some(), msg_id: id, seq: *seq, time: *time, body })
}

/// The answer to a deletion of all messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedMessages {
    /// The number of messages that were deleted.
    deleted: u64,
}

/// Delete all messages of a room
///
/// The room and its members stay. A client that replays deleted messages gets `gap`. One that has a message keeps it.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/messages",
    tag = "messages",
    security(("key" = ["moderate"])),
    params(("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby")),
    responses(
        (status = 200, description = "The messages are deleted.", body = DeletedMessages, example = json!({ "deleted": 3 })),
        ChangeRefusals,
    ),
)]
pub(super) async fn delete_all(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<DeletedMessages>, Problem> {
    let deleted = api.delete_messages(client, &room, None).await?;
    let (room, by) = (room.as_str(), key.name());
    tracing::info!(event = "rooms", action = "delete_messages", room, deleted, by, "room changed");
    Ok(Json(DeletedMessages { deleted }))
}

/// Delete one message of a room
///
/// A client that replays it gets `gap`. One that has it keeps it.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/messages/{seq}",
    tag = "messages",
    security(("key" = ["moderate"])),
    params(
        ("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby"),
        ("seq" = u64, Path, description = "The seq of the message.", example = 131),
    ),
    responses((status = 204, description = "The message is deleted."), SeqRefusals),
)]
pub(super) async fn delete_one(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    MessagePath(room, seq): MessagePath,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    if api.delete_messages(client, &room, Some(seq)).await? == 0 {
        return Err(refused_as(ErrorCode::NotFound, "the room has no message with this seq"));
    }
    let (room, by) = (room.as_str(), key.name());
    tracing::info!(event = "rooms", action = "delete_message", room, seq, by, "room changed");
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    async fn delete_messages(
        &self,
        client: ClientAddress,
        room: &RoomName,
        seq: Option<NonZeroU64>,
    ) -> Result<u64, Problem> {
        self.change_room(client, self.registry.delete_messages(room.key(), seq)).await
    }
}
