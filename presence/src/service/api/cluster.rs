//! The cluster itself: its gateways and its totals.

use axum::extract::State;
use axum::{Extension, Json};

use super::Api;
use super::keys::{ApiKey, Read};
use super::problem::Refusals;
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::registry::{ClusterStats, GatewayRow, ListPage};

/// The gateways
///
/// Lists the newest incarnation of each node on one page, without those that ended cleanly.
#[utoipa::path(
    get,
    path = "/v1/gateways",
    tag = "cluster",
    security(("key" = ["read"])),
    responses(
        (status = 200, description = "Every gateway.", body = ListPage<GatewayRow>, example = json!({
            "items": [{
                "node": "g1", "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4", "version": "0.1.0",
                "state": "live", "beat": 4711, "users": 2,
            }],
            "next_cursor": null,
        })),
        Refusals,
    ),
)]
pub(super) async fn gateways(
    _: ApiKey<Read>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<GatewayRow>>, Problem> {
    let items = api.read(client, api.registry.gateways()).await?;
    Ok(Json(ListPage { items, next_cursor: None }))
}

/// Totals over the cluster
#[utoipa::path(
    get,
    path = "/v1/stats",
    tag = "cluster",
    security(("key" = ["read"])),
    responses(
        (status = 200, description = "The totals.", body = ClusterStats, example = json!({
            "users_online": 2, "rooms": 1, "gateways": 1,
        })),
        Refusals,
    ),
)]
pub(super) async fn stats(
    _: ApiKey<Read>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ClusterStats>, Problem> {
    api.read(client, api.registry.stats()).await.map(Json)
}
