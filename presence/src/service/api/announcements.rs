//! Announcements of an application to the sessions that are online.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::extract::{JsonBody, bad};
use super::keys::{ApiKey, Publish};
use super::messages::{check_body, check_key};
use super::problem::{AnnouncementRefusals, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{ANNOUNCEMENT_TAGS_MAX, is_printable_text};
use crate::registry::AnnouncementRequest;

/// Maximum length of a tag, in bytes.
const TAG_BYTES_MAX: usize = 255;

/// An announcement to the sessions that are online.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAnnouncement {
    /// Any JSON value of at most 64 KiB; passed through untouched.
    #[schema(value_type = Object)]
    body: Box<RawValue>,
    /// 1 to 16 tags: only sessions whose token has one of them. If it is absent, every session that is online.
    tags: Option<Vec<String>>,
    /// Idempotency key, 1 to 128 bytes: a second announcement with it is not sent, for 5 minutes.
    key: Option<String>,
}

/// The answer to an announcement that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnnouncementAnswer {
    /// The id that clients see.
    msg_id: String,
    /// True if an earlier announcement with this key was sent; then the id is its id.
    duplicate: bool,
}

/// Announce something to everybody online
///
/// Or to those whose token has one of the tags. Every session that is online gets it once, on every gateway within 2 s.
/// It is not stored, so offline sessions miss it.
#[utoipa::path(
    post,
    path = "/v1/announcements",
    tag = "messages",
    security(("key" = ["publish"])),
    request_body(content = NewAnnouncement, example = json!({
        "body": "maintenance at noon", "tags": ["beta"], "key": "maintenance-7",
    })),
    responses(
        (status = 200, description = "The announcement is on its way.", body = AnnouncementAnswer, example = json!({
            "msg_id": "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b", "duplicate": false,
        })),
        AnnouncementRefusals,
    ),
)]
pub(super) async fn announce(
    api_key: ApiKey<Publish>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(NewAnnouncement { body, tags, key }): JsonBody<NewAnnouncement>,
) -> Result<Json<AnnouncementAnswer>, Problem> {
    check_body(&body)?;
    key.as_deref().map_or(Ok(()), check_key)?;
    let is_counted = |tags: &[String]| (1..=ANNOUNCEMENT_TAGS_MAX).contains(&tags.len());
    let is_text = |tags: &[String]| tags.iter().all(|tag| is_printable_text(tag, TAG_BYTES_MAX));
    if !tags.as_deref().is_none_or(|tags| is_counted(tags) && is_text(tags)) {
        return Err(bad(
            "tags must be 1 to 16 texts of 1 to 255 bytes of printable text; leave it out for every session",
        ));
    }
    let tags = tags.unwrap_or_default();
    let (application, id) = (api_key.name().to_owned(), uuid::Uuid::now_v7().to_string());
    let request = AnnouncementRequest { application, key, id, tags, body };
    let sent = api.change(client, api.registry.announce(&request)).await?;
    let full = || refused_as(ErrorCode::Overloaded, "a gateway has too many orders waiting: try again in a second");
    let sent = sent.ok_or_else(full)?;
    if !sent.duplicate {
        let tags = request.tags.len();
        tracing::info!(event = "announcement", id = sent.id, by = request.application, tags, "announcement sent");
    }
    Ok(Json(AnnouncementAnswer { msg_id: sent.id, duplicate: sent.duplicate }))
}
