//! Changes of rooms by an application: their rules, and their end.

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::body_fault::BodyFault;
use super::extract::{RoomPath, body_text};
use super::keys::{ApiKey, Moderate};
use super::problem::{ChangeRefusals, RuleRefusals, refused};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{RoomRules, RoomRulesError};
use crate::registry::{RegistryError, RuledRoom};

/// The rules in the body.
pub(super) struct RulesBody(RoomRules);

impl<S: Send + Sync> FromRequest<S> for RulesBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let text = body_text(request, state).await?;
        let fault = |error: RoomRulesError| BodyFault::find::<RoomRules>(&text, &error.to_string());
        RoomRules::from_json(&text).map(Self).map_err(|error| fault(error).refusal("the body"))
    }
}

/// The answer to rules that were written.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WrittenRules {
    /// The room as its members see it.
    room: String,
    /// True if this request created the room.
    created: bool,
}

impl Api {
    /// Waits for the change of a room that must exist.
    pub(super) async fn change_room<T>(
        &self,
        client: ClientAddress,
        change: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Problem> {
        let found = async {
            match change.await {
                Err(RegistryError::NoSuchRoom) => Ok(None),
                outcome => outcome.map(Some),
            }
        };
        self.change(client, found).await?.ok_or(refused(ErrorCode::NoSuchRoom))
    }
}

/// Write the rules of a room
///
/// In place of those of the configuration and of earlier ones; `{}` is an open room. Creates the room if there is none.
/// It then exists until it is deleted, also without members. Members stay, whatever the rules are.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby")),
    request_body(content = RoomRules, example = json!({ "members_max": 200, "slow_mode_seconds": 5 })),
    responses(
        (status = 200, description = "The rules are in force.", body = WrittenRules, example = json!({
            "room": "#lobby", "created": false,
        })),
        RuleRefusals,
    ),
)]
pub(super) async fn write_rules(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    Extension(client): Extension<ClientAddress>,
    RulesBody(rules): RulesBody,
) -> Result<Json<WrittenRules>, Problem> {
    let RuledRoom { room, is_new } = api.change(client, api.registry.set_room_rules(&room, &rules)).await?;
    tracing::info!(event = "rooms", action = "rules", room = room.as_str(), by = key.name(), "room changed");
    Ok(Json(WrittenRules { room: room.as_str().to_owned(), created: is_new }))
}

/// Delete a room
///
/// Removes its members, then the room with its messages, rules, roles, bans and invites. Members see each other leave
/// as `kicked`. Clients may create the room again, if the configuration lets them.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}",
    tag = "rooms",
    security(("key" = ["moderate"])),
    params(("room" = String, Path, description = "The room; write `#` as `%23` or leave it out.", example = "lobby")),
    responses((status = 204, description = "The room is deleted."), ChangeRefusals),
)]
pub(super) async fn delete(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    RoomPath(room): RoomPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    if !api.change(client, api.registry.end_room(&room)).await? {
        return Err(refused(ErrorCode::NoSuchRoom));
    }
    tracing::info!(event = "rooms", action = "delete", room = room.as_str(), by = key.name(), "room changed");
    Ok(StatusCode::NO_CONTENT)
}
