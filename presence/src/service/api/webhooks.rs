//! The webhooks: their state, and the replay of dead letters.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::path;
use super::keys::{ApiKey, Moderate, Read};
use super::problem::{LiftRefusals, Refusals, refused};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::webhooks::{WebhookStates, replay_dead_letters};

/// The webhooks
///
/// Events that wait, dead letters, and the last deliveries.
#[utoipa::path(
    get,
    path = "/v1/webhooks",
    tag = "webhooks",
    security(("key" = ["read"])),
    responses(
        (status = 200, description = "Every webhook.", body = WebhookStates, example = json!({
            "leader": "presence-1", "webhooks": [{
                "webhook": "push", "waiting": 3, "dead": 2, "url": "https://app.example.org",
                "accepted": 1_795_252_200_000_u64, "failing_since": 1_795_252_260_000_u64, "failures": 4,
                "error": "status 500",
            }],
        })),
        Refusals,
    ),
)]
pub(super) async fn show(
    _: ApiKey<Read>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<WebhookStates>, Problem> {
    api.read(client, WebhookStates::read(&api.registry)).await.map(Json)
}

/// The name in the path.
pub(super) struct WebhookPath(String);

impl<S: Send + Sync> FromRequestParts<S> for WebhookPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state).await.map(Self)
    }
}

/// The dead letters that are sent again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayedLetters {
    /// The name of the webhook.
    webhook: String,
    /// Their number.
    replayed: u64,
}

/// Replay dead letters
///
/// Sends the dead letters of a webhook again, each with its old id.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{webhook}/replay",
    tag = "webhooks",
    security(("key" = ["moderate"])),
    params(("webhook" = String, Path, description = "Its name in the settings.", example = "push")),
    responses(
        (status = 200, description = "The number of dead letters.", body = ReplayedLetters, example = json!({
            "webhook": "push", "replayed": 2,
        })),
        LiftRefusals,
    ),
)]
pub(super) async fn replay(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    WebhookPath(webhook): WebhookPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ReplayedLetters>, Problem> {
    let replayed = api.change(client, replay_dead_letters(&api.registry, &webhook)).await?;
    let replayed = replayed.ok_or_else(|| refused(ErrorCode::NotFound))?;
    tracing::info!(event = "webhooks", action = "replay", webhook, replayed, by = key.name(), "dead letters replayed");
    Ok(Json(ReplayedLetters { webhook, replayed }))
}
