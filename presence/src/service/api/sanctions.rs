//! Sanctions: bans, mutes, kicks and revocations of tokens in the whole cluster.
//!
//! Every handler needs the scope `moderate`; the name of the key is the moderator. An order is one entry of the
//! registry's list, which gateways follow. There is one entry of a kind for a subject, so a request can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::extract::{IdPath, JsonBody, PageCursor, PageQuery, PageStart, bad};
use super::keys::{ApiKey, Moderate};
use super::problem::{LiftRefusals, ListRefusals, OrderRefusals, refused, refused_as};
use super::read_shares::ReadKind;
use super::{ASK_TIMEOUT, Api};
use crate::host::client_address::ClientAddress;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::{SANCTIONS_MAX, SanctionKind, SanctionOrder, SanctionSubject, SubjectFields, is_printable_text};
use crate::registry::{ListPage, RegistryError, SanctionRow};

/// Maximum length of an idempotency key, in bytes.
const KEY_BYTES: usize = 128;
/// Maximum duration: 136 years. Times stay exact in every reader.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// An order. It names exactly one of `nick`, `user` and `address`; a kick may name a `session` instead.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderRequest {
    /// A nickname, in any case.
    nick: Option<String>,
    /// A user id, the claim `sub` of tokens.
    user: Option<String>,
    /// An IP address or a network, such as `192.0.2.7`, `198.51.100.0/24` or `2001:db8::/48`.
    address: Option<String>,
    /// A session id.
    session: Option<String>,
    /// The reason, at most 500 bytes. The client sees it.
    reason: Option<String>,
    /// For how long, in seconds. Without it: for good. A kick has none.
    seconds: Option<u64>,
    /// Of a revocation: tokens issued before this time are refused, in Unix milliseconds. Without it: before now.
    before: Option<u64>,
    /// An idempotency key of the application, at most 128 bytes. While an order with this key is in force, the same
    /// order changes nothing.
    key: Option<String>,
    /// Bans or kicks also a network wider than /8 (IPv6: /16) or a trusted proxy, which is refused otherwise.
    #[serde(default)]
    force: bool,
}

/// The version of the last entry of a page.
impl PageCursor for u64 {
    fn decode(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl OrderRequest {
    /// Refuses an order about a wide network or a trusted proxy, unless it is forced.
    fn check_reach(&self, api: &Api) -> Result<(), Problem> {
        let spared = if self.force { Ok(()) } else { api.admission.check_ban(&self.subject()?) };
        spared.map_err(|reason| refused_bad(&format!("{reason}; \"force\": true gives the order anyway")))
    }

    fn subject(&self) -> Result<SanctionSubject, Problem> {
        let Self { nick, user, address, session, .. } = self;
        let [nick, user, session, address] = [nick, user, session, address].map(Clone::clone);
        let fields = SubjectFields { nick, user, session, address };
        SanctionSubject::try_from(fields).map_err(|error| refused_bad(&error))
    }

    fn order(self, kind: SanctionKind, by: &str) -> Result<(SanctionOrder, Option<Duration>), Problem> {
        let subject = self.subject()?;
        let Self { reason, seconds, before, key, force, .. } = self;
        let meaningless = [
            ("seconds", seconds.is_some() && kind == SanctionKind::Kick),
            ("before", before.is_some() && kind != SanctionKind::Revocation),
            ("force", force && !matches!(kind, SanctionKind::Ban | SanctionKind::Kick)),
        ];
        if let Some((field, _)) = meaningless.iter().find(|(_, is_given)| *is_given) {
            return Err(refused_bad(&format!("{field} has no meaning for a {}", kind.as_str())));
        }
        let reason = reason.unwrap_or_default();
        let order = SanctionOrder::new(kind, subject, by, &reason).map_err(|error| refused_bad(&error))?;
        if key.as_ref().is_some_and(|key| !is_printable_text(key, KEY_BYTES)) {
            return Err(bad("key must be 1 to 128 bytes of printable text"));
        }
        if seconds.is_some_and(|seconds| !(1..=SECONDS_MAX).contains(&seconds)) {
            return Err(bad("seconds must be a whole number from 1 to 4294967295"));
        }
        Ok((SanctionOrder { before, key, ..order }, seconds.map(Duration::from_secs)))
    }
}

fn refused_bad(error: &impl ToString) -> Problem {
    refused_as(ErrorCode::BadRequest, error.to_string())
}

impl Api {
    /// Waits for a change, in a place of its client. A lost answer is told from a refusal.
    pub(super) async fn change<T>(
        &self,
        client: ClientAddress,
        change: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Problem> {
        let _place = self.place(ReadKind::Single, client).await?;
        match timeout(ASK_TIMEOUT, change).await {
            Ok(Err(RegistryError::Unknown(_))) | Err(_) => Err(refused(ErrorCode::OutcomeUnknown)),
            Ok(answer) => self.answered(answer),
        }
    }

    async fn sanction(
        &self,
        client: ClientAddress,
        (order, lasts): (SanctionOrder, Option<Duration>),
    ) -> Result<Json<SanctionRow>, Problem> {
        let entry = self.change(client, self.registry.sanction_person(&order, lasts)).await?;
        let full = || {
            let way_out = match order.kind {
                SanctionKind::Kick => "each ends after a minute: repeat the order then",
                SanctionKind::Ban | SanctionKind::Mute | SanctionKind::Revocation => "lift some of them",
            };
            refused_as(ErrorCode::Overloaded, format!("the list has {SANCTIONS_MAX} entries of this kind: {way_out}"))
        };
        let entry = entry.ok_or_else(full)?;
        // The id instead of the subject, which may be an address.
        let (action, id, by) = (order.kind.as_str(), entry.id.as_str(), order.by.as_str());
        tracing::info!(event = "sanctions", action, id, by, until = entry.until, "order given");
        Ok(Json(entry.into()))
    }

    async fn sanction_page(
        &self,
        client: ClientAddress,
        kind: SanctionKind,
        page: PageStart<u64>,
    ) -> Result<Json<ListPage<SanctionRow>>, Problem> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut entries = self.list(client, self.registry.sanction_entries(kind, now)).await?;
        entries.retain(|entry| page.cursor.is_none_or(|after| entry.version > after));
        let more = entries.len() > page.limit;
        entries.truncate(page.limit);
        let next_cursor = entries.last().filter(|_| more).map(|entry| entry.version.to_string());
        Ok(Json(ListPage { items: entries.into_iter().map(SanctionRow::from).collect(), next_cursor }))
    }

    async fn lift(
        &self,
        client: ClientAddress,
        (kind, id): (SanctionKind, &str),
        by: &str,
    ) -> Result<StatusCode, Problem> {
        if !self.change(client, self.registry.lift(kind, id)).await? {
            return Err(refused_as(ErrorCode::NotFound, "nothing with this id is in force"));
        }
        tracing::info!(event = "sanctions", action = "lift", kind = kind.as_str(), id, by, "order lifted");
        Ok(StatusCode::NO_CONTENT)
    }
}

/// Ban a nickname, a user, an address or a network
///
/// In effect on every gateway within 2 s. Replaces an earlier ban of the same subject. An IPv6 address stands for its
/// /64. If the session that had a nickname has another one now, that is banned too, as an entry of its own; so it is
/// with mutes and kicks.
#[utoipa::path(
    post,
    path = "/v1/bans",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    request_body(content = OrderRequest, example = json!({
        "address": "198.51.100.0/24", "seconds": 3600, "reason": "flood",
    })),
    responses(
        (status = 200, description = "The entry in force.", body = SanctionRow, example = json!({
            "id": "83c5226154b494dd", "address": "198.51.100.0/24", "reason": "flood", "by": "backend",
            "time": 1_795_252_200_000_u64, "until": 1_795_255_800_000_u64,
        })),
        OrderRefusals,
    ),
)]
pub(super) async fn ban(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<Json<SanctionRow>, Problem> {
    request.check_reach(&api)?;
    let order = request.order(SanctionKind::Ban, key.name())?;
    api.sanction(client, order).await
}

/// The bans in force
///
/// The oldest first. One that is replaced meanwhile comes again, as its newer version.
#[utoipa::path(
    get,
    path = "/v1/bans",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of entries.", body = ListPage<SanctionRow>, example = json!({
            "items": [{
            "id": "83c5226154b494dd", "address": "198.51.100.0/24", "reason": "flood", "by": "backend",
            "time": 1_795_252_200_000_u64, "until": 1_795_255_800_000_u64,
        }], "next_cursor": null,
        })),
        ListRefusals,
    ),
)]
pub(super) async fn bans(
    _: ApiKey<Moderate>,
    State(api): State<Api>,
    page: PageStart<u64>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<SanctionRow>>, Problem> {
    api.sanction_page(client, SanctionKind::Ban, page).await
}

/// Lift a ban
#[utoipa::path(
    delete,
    path = "/v1/bans/{id}",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(("id" = String, Path, description = "The `id` of the entry.", example = "83c5226154b494dd")),
    responses((status = 204, description = "It is no longer in force."), LiftRefusals),
)]
pub(super) async fn unban(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    IdPath(id): IdPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    api.lift(client, (SanctionKind::Ban, &id), key.name()).await
}

/// Mute a nickname or a user
///
/// Its messages are refused as `muted` on every gateway within 2 s. Replaces an earlier mute of the same subject.
#[utoipa::path(
    post,
    path = "/v1/mutes",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    request_body(content = OrderRequest, example = json!({ "user": "user:7" })),
    responses(
        (status = 200, description = "The entry in force.", body = SanctionRow, example = json!({
            "id": "5ae7a4515cedb5f9", "user": "user:7", "by": "backend", "time": 1_795_252_200_000_u64, "until": null,
        })),
        OrderRefusals,
    ),
)]
pub(super) async fn mute(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<Json<SanctionRow>, Problem> {
    let order = request.order(SanctionKind::Mute, key.name())?;
    api.sanction(client, order).await
}

/// The mutes in force
///
/// The oldest first. One that is replaced meanwhile comes again, as its newer version.
#[utoipa::path(
    get,
    path = "/v1/mutes",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of entries.", body = ListPage<SanctionRow>, example = json!({
            "items": [{
            "id": "5ae7a4515cedb5f9", "user": "user:7", "by": "backend", "time": 1_795_252_200_000_u64, "until": null,
        }], "next_cursor": null,
        })),
        ListRefusals,
    ),
)]
pub(super) async fn mutes(
    _: ApiKey<Moderate>,
    State(api): State<Api>,
    page: PageStart<u64>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<SanctionRow>>, Problem> {
    api.sanction_page(client, SanctionKind::Mute, page).await
}

/// Lift a mute
#[utoipa::path(
    delete,
    path = "/v1/mutes/{id}",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(("id" = String, Path, description = "The `id` of the entry.", example = "5ae7a4515cedb5f9")),
    responses((status = 204, description = "It is no longer in force."), LiftRefusals),
)]
pub(super) async fn unmute(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    IdPath(id): IdPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    api.lift(client, (SanctionKind::Mute, &id), key.name()).await
}

/// Revoke the tokens of a user
///
/// Tokens issued before `before` are refused, and sessions with such a token end within 2 s.
#[utoipa::path(
    post,
    path = "/v1/revocations",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    request_body(content = OrderRequest, example = json!({ "user": "user:7" })),
    responses(
        (status = 200, description = "The entry in force.", body = SanctionRow, example = json!({
            "id": "ca45d7ae49148b4d", "user": "user:7", "by": "backend", "time": 1_795_252_200_000_u64, "until": null,
            "before": 1_795_252_200_000_u64,
        })),
        OrderRefusals,
    ),
)]
pub(super) async fn revoke(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<Json<SanctionRow>, Problem> {
    let order = request.order(SanctionKind::Revocation, key.name())?;
    api.sanction(client, order).await
}

/// The revocations in force
///
/// The oldest first. One that is replaced meanwhile comes again, as its newer version.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of entries.", body = ListPage<SanctionRow>, example = json!({
            "items": [{
            "id": "ca45d7ae49148b4d", "user": "user:7", "by": "backend", "time": 1_795_252_200_000_u64, "until": null,
            "before": 1_795_252_200_000_u64,
        }], "next_cursor": null,
        })),
        ListRefusals,
    ),
)]
pub(super) async fn revocations(
    _: ApiKey<Moderate>,
    State(api): State<Api>,
    page: PageStart<u64>,
    Extension(client): Extension<ClientAddress>,
) -> Result<Json<ListPage<SanctionRow>>, Problem> {
    api.sanction_page(client, SanctionKind::Revocation, page).await
}

/// Lift a revocation
#[utoipa::path(
    delete,
    path = "/v1/revocations/{id}",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    params(("id" = String, Path, description = "The `id` of the entry.", example = "ca45d7ae49148b4d")),
    responses((status = 204, description = "It is no longer in force."), LiftRefusals),
)]
pub(super) async fn restore(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    IdPath(id): IdPath,
    Extension(client): Extension<ClientAddress>,
) -> Result<StatusCode, Problem> {
    api.lift(client, (SanctionKind::Revocation, &id), key.name()).await
}

/// An order that was given once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KickAnswer {
    /// The id of the order.
    id: String,
    /// The time of the order, in Unix milliseconds.
    time: u64,
}

/// End the sessions of a nickname, a user, a session or an address
///
/// On every gateway within 2 s, with the close code 4003. The clients may return.
#[utoipa::path(
    post,
    path = "/v1/kicks",
    tag = "sanctions",
    security(("key" = ["moderate"])),
    request_body(content = OrderRequest, example = json!({ "nick": "eve", "reason": "flood" })),
    responses(
        (status = 200, description = "The order is given.", body = KickAnswer, example = json!({
            "id": "a9dcc5518ab3aab2", "time": 1_795_252_200_000_u64,
        })),
        OrderRefusals,
    ),
)]
pub(super) async fn kick(
    key: ApiKey<Moderate>,
    State(api): State<Api>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<Json<KickAnswer>, Problem> {
    request.check_reach(&api)?;
    let (order, _) = request.order(SanctionKind::Kick, key.name())?;
    let Json(SanctionRow { id, time, .. }) = api.sanction(client, (order, Some(SanctionKind::KICK_LASTS))).await?;
    Ok(Json(KickAnswer { id, time }))
}
