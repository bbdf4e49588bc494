//! Users: one user, all users online, many users in one call.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{JsonBody, NickPath, PageQuery, PageStart, UserPath, bad, query};
use super::keys::{ApiKey, Read};
use super::problem::{ListRefusals, LookupRefusals, NickRefusals, UserRefusals, refused, refused_as};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{ListCursor, NameError, Nick};
use crate::registry::{ListPage, UserRow};

/// Maximum number of nicknames of one lookup.
const LOOKUP_LIMIT: usize = 1000;

/// One user
///
/// Finds online users, and offline users for 72 hours after they were last seen.
#[utoipa::path(
    get,
    path = "/v1/users/{nick}",
    tag = "users",
    security(("key" = ["read"])),
    params(("nick" = String, Path, description = "The nickname, percent-encoded.", example = "ann")),
    responses(
        (status = 200, description = "The user, online or offline.", body = UserRow, example = json!({
            "nick": "ann", "online": true, "status": "away", "text": "back at two",
            "online_since": 1_795_252_200_000_u64, "last_active": 1_795_252_260_000_u64, "rooms": ["#lobby"],
            "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4",
        })),
        NickRefusals,
    ),
)]
pub(super) async fn user(
    _: ApiKey<Read>,
    State(api): State<Api>,
    NickPath(nick): NickPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<UserRow>, Problem> {
    let user = api.read(client, api.registry.user(nick.key())).await?;
    user.map(Json).ok_or(refused(ErrorCode::NoSuchUser))
}

/// The nicknames of one user id
///
/// Lists the nicknames of a user of tokens that are online, at most eight. A user whose nicknames are offline has an
/// empty list, for 72 hours after the last one was seen.
#[utoipa::path(
    get,
    path = "/v1/users/id/{user}",
    tag = "users",
    security(("key" = ["read"])),
    params(("user" = String, Path, description = "The claim `sub` of the user's tokens, percent-encoded.", example = "user:1")),
    responses(
        (status = 200, description = "The user's nicknames.", body = ListPage<UserRow>, example = json!({
            "items": [{
                "nick": "ann", "user": "user:1", "online": true, "status": "online",
                "online_since": 1_795_252_200_000_u64, "last_active": 1_795_252_260_000_u64, "rooms": ["#lobby"],
                "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4",
            }],
            "next_cursor": null,
        })),
        UserRefusals,
    ),
)]
pub(super) async fn of_user(
    _: ApiKey<Read>,
    State(api): State<Api>,
    UserPath(user): UserPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<UserRow>>, Problem> {
    let items = api.list(client, api.registry.of_user(&user)).await?;
    let unknown = || refused_as(ErrorCode::NoSuchUser, "no nickname of this user is known");
    Ok(Json(ListPage { items: items.ok_or_else(unknown)?, next_cursor: None }))
}

/// Handles `GET /v1/users/lookup`: a valid nickname, which the path of the lookup hides from the handler above.
pub(super) async fn user_called_lookup(
    key: ApiKey<Read>,
    api: State<Api>,
    client: Extension<ClientAddress>,
) -> Result<Json<UserRow>, Problem> {
    let nick = Nick::parse("lookup").map_err(|_| refused(ErrorCode::Internal))?;
    user(key, api, NickPath(nick), client).await
}

/// The filter that a listing of users must have.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OnlineQuery {
    /// Must be `true`: only online users can be listed.
    #[param(value_type = bool, required = true, example = true)]
    online: Option<String>,
}

/// Proof that the query contains `online=true`.
pub(super) struct OnlineOnly;

impl<S: Send + Sync> FromRequestParts<S> for OnlineOnly {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let OnlineQuery { online } = query(parts, state).await?;
        match online.as_deref() {
            Some("true") => Ok(Self),
            _ => Err(bad("online=true is required: offline users cannot be listed")),
        }
    }
}

/// All online users
///
/// In an order that a new nickname does not change; each page is sorted by nickname.
#[utoipa::path(
    get,
    path = "/v1/users",
    tag = "users",
    security(("key" = ["read"])),
    params(OnlineQuery, PageQuery),
    responses(
        (status = 200, description = "A page of users.", body = ListPage<UserRow>, example = json!({
            "items": [{
                "nick": "ann", "online": true, "status": "online",
                "online_since": 1_795_252_200_000_u64, "last_active": 1_795_252_260_000_u64, "rooms": ["#lobby"],
                "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4",
            }],
            "next_cursor": "146338493213431",
        })),
        ListRefusals,
    ),
)]
pub(super) async fn online(
    _: ApiKey<Read>,
    State(api): State<Api>,
    _: OnlineOnly,
    page: PageStart<ListCursor>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<UserRow>>, Problem> {
    api.page(client, api.registry.users(page.cursor, page.limit)).await
}

/// Nicknames to look up.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct LookupRequest {
    /// Nicknames, at most 1000, in any case and order.
    #[schema(max_items = 1000)]
    nicks: Vec<String>,
}

/// Result of a lookup.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LookupAnswer {
    /// One item for each requested nickname, in the same order.
    items: Vec<LookupItem>,
}

/// One nickname of a lookup: a user, or the reason why there is none.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LookupItem {
    /// The nickname as it was requested.
    asked: String,
    /// The user, online or offline; `null` if the nickname is not known.
    user: Option<UserRow>,
    /// The reason if `user` is `null`: `no_such_user`, or `bad_nick` for an invalid nickname. Otherwise `null`.
    code: Option<&'static str>,
    /// For `bad_nick`, the broken rule in words. Otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Many users in one call
///
/// Made for contact lists. An unknown or malformed nickname affects only its own item.
#[utoipa::path(
    post,
    path = "/v1/users/lookup",
    tag = "users",
    security(("key" = ["read"])),
    request_body(content = LookupRequest, description = "At most 512 KiB.", example = json!({ "nicks": ["ann", "nobody"] })),
    responses(
        (status = 200, description = "One item for each requested nickname.", body = LookupAnswer, example = json!({
            "items": [
                {
                    "asked": "ann",
                    "user": {
                        "nick": "ann", "online": true, "status": "online",
                        "online_since": 1_795_252_200_000_u64, "last_active": 1_795_252_260_000_u64, "rooms": ["#lobby"],
                        "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4",
                    },
                    "code": null,
                },
                { "asked": "nobody", "user": null, "code": "no_such_user" },
            ],
        })),
        LookupRefusals,
    ),
)]
pub(super) async fn lookup(
    _: ApiKey<Read>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(LookupRequest { nicks }): JsonBody<LookupRequest>,
) -> Result<Json<LookupAnswer>, Problem> {
    if nicks.len() > LOOKUP_LIMIT {
        return Err(bad("nicks exceeds 1000 nicknames"));
    }
    let parsed: Vec<Result<Nick, NameError>> = nicks.iter().map(|asked| Nick::parse(asked)).collect();
    let keys: Vec<_> = parsed.iter().flatten().map(|nick| nick.key().clone()).collect();
    let mut found =
        if keys.is_empty() { Vec::new() } else { api.list(client, api.registry.lookup(&keys)).await? }.into_iter();
    let item = |(asked, nick): (String, Result<Nick, NameError>)| match nick {
        Ok(_) => {
            let user = found.next().flatten();
            let code = user.is_none().then(|| ErrorCode::NoSuchUser.slug());
            LookupItem { asked, user, code, detail: None }
        }
        Err(error) => {
            LookupItem { asked, user: None, code: Some(ErrorCode::BadNick.slug()), detail: Some(error.to_string()) }
        }
    };
    Ok(Json(LookupAnswer { items: nicks.into_iter().zip(parsed).map(item).collect() }))
}
