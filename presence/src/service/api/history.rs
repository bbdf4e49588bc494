//! The messages of a room, page by page from the newest one.

use std::num::NonZeroU64;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{RoomPath, bad, query};
use super::keys::{ApiKey, Read};
use super::problem::{RoomRefusals, refused};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
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
        // A seq of Redis has 63 bits.
        let seq = |text: &str| text.parse().ok().filter(|seq: &NonZeroU64| seq.get() <= i64::MAX as u64);
        let before = match cursor.as_deref().map(seq) {
            Some(None) => return Err(bad("cursor must be an unchanged next_cursor of this listing")),
            before => before.flatten(),
        };
        Ok(Self { before, limit })
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

/// Decodes a message; `None` if its text is malformed.
fn item(RoomMessage { seq, time, payload }: &RoomMessage) -> Option<HistoryItem> {
    let StoredFields { from, id, user, api, body } = serde_json::from_str(payload).ok()?;
    Some(HistoryItem { from, from_user: user, from_api: api.is_some(), msg_id: id, seq: *seq, time: *time, body })
}
