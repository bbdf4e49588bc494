//! The sessions that are online: of a nickname, of a user, or page by page.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{PageQuery, PageStart, bad, nick_of, query, user_of};
use super::keys::{ApiKey, Read};
use super::problem::SessionRefusals;
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::{ListCursor, Nick, UserId};
use crate::registry::{ListPage, UserRow};

/// The query parameters, as they came.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionQuery {
    /// Only the session that owns this nickname.
    #[param(example = "ann")]
    nick: Option<String>,
    /// Only the sessions of this user, the claim `sub` of its tokens.
    user: Option<String>,
}

/// The sessions that are asked for.
pub(super) enum SessionFilter {
    All,
    Nick(Nick),
    User(UserId),
}

impl<S: Send + Sync> FromRequestParts<S> for SessionFilter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match query(parts, state).await? {
            SessionQuery { nick: None, user: None } => Ok(Self::All),
            SessionQuery { nick: Some(nick), user: None } => nick_of(&nick).map(Self::Nick),
            SessionQuery { nick: None, user: Some(user) } => user_of(&user).map(Self::User),
            SessionQuery { nick: Some(_), user: Some(_) } => Err(bad("nick and user exclude each other")),
        }
    }
}

/// A session that is online.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionRow {
    /// Its id, as `POST /v1/kicks` takes it.
    session: String,
    #[serde(flatten)]
    user: UserRow,
}

/// Returns the session of a user that is online.
fn session_row(user: UserRow) -> Option<SessionRow> {
    Some(SessionRow { session: user.session.as_ref()?.as_str().to_owned(), user })
}

/// Sessions that are online
///
/// Of a nickname, of a user, or all in the order of `/v1/users`. Without any the list is empty.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    tag = "users",
    security(("key" = ["read"])),
    params(SessionQuery, PageQuery),
    responses(
        (status = 200, description = "A page of sessions.", body = ListPage<SessionRow>, example = json!({
            "items": [{
                "session": "0193a1b27c3d7e4f8a5b6c7d8e9f0a1b", "nick": "ann", "online": true, "status": "online",
                "online_since": 1_795_252_200_000_u64, "last_active": 1_795_252_260_000_u64, "rooms": ["#lobby"],
                "incarnation": "6f1c2f0e8a4b4c55b0a3d6a2c9b1e7f4",
            }],
            "next_cursor": null,
        })),
        SessionRefusals,
    ),
)]
pub(super) async fn sessions(
    _: ApiKey<Read>,
    State(api): State<Api>,
    filter: SessionFilter,
    page: PageStart<ListCursor>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<SessionRow>>, Problem> {
    let ListPage { items, next_cursor } = match filter {
        SessionFilter::All => api.page(client, api.registry.users(page.cursor, page.limit)).await?.0,
        SessionFilter::Nick(nick) => {
            let user = api.read(client, api.registry.user(nick.key())).await?;
            ListPage { items: user.into_iter().collect(), next_cursor: None }
        }
        SessionFilter::User(user) => {
            let users = api.list(client, api.registry.of_user(&user)).await?;
            ListPage { items: users.unwrap_or_default(), next_cursor: None }
        }
    };
    Ok(Json(ListPage { items: items.into_iter().filter_map(session_row).collect(), next_cursor }))
}
