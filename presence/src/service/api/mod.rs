//! The HTTP API: users, rooms, members, gateways, and a stream of changes.
//!
//! Stateless: every request reads or writes the registry, nothing is cached, and without the store the answer is
//! a refusal. The presence process serves [`router`]; tests serve it over a memory registry. Nothing here uses a key
//! of the store or a Redis command. Each handler begins with the guard of its scope (`keys`).
//!
//! A handler takes validated values (`extract`), calls the registry through `Api::read` or `Api::list` and returns JSON
//! or a `Problem`. Its annotation is its documentation: `/openapi.json` and the page at `/docs` are built from it. The
//! page at `/` is a client of the API.

mod admission;
mod announcements;
mod body_fault;
mod cluster;
mod cors;
mod counts;
mod docs;
mod event_filter;
mod events;
mod extract;
mod feed;
mod feed_log;
mod history;
mod keys;
mod sanctions;
mod messages;
mod page;
mod prefix;
mod problem;
mod read_shares;
mod refusal_log;
mod room_changes;
mod room_feeds;
mod room_entries;
mod room_moderation;
mod rooms;
mod seats;
mod sessions;
mod static_file;
mod users;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::admission::PeerAddress;
use self::admission::{ApiAdmission, admit};
use self::counts::ApiCounts;
use self::extract::cursor_out;
use self::feed::{EventFeed, FeedLimits};
use self::feed_log::FeedLog;
use self::keys::KeyGuard;
pub(super) use self::prefix::with_prefix;
use self::problem::{ProblemSchema, refused};
use self::read_shares::ReadKind;
use self::refusal_log::RefusalLog;
use self::room_feeds::RoomFeeds;
use crate::host::client_address::{ClientAddress, TrustedProxies};
use crate::host::metrics::ApiMetrics;
use crate::host::problem::Problem;
use crate::host::reloadable::Reloadable;
use crate::host::security_headers::add_security_headers;
use crate::model::codes::ErrorCode;
use crate::registry::{ListPage, Registry, RegistryError};
use crate::service::access::ApiAccess;

/// Timeout of a read of the registry and of the wait for its place, except listings. Below 3 s, in which a client gets
/// a refusal while the store is silent.
const ASK_TIMEOUT: Duration = Duration::from_millis(2500);

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Parley presence",
        description = "Users, rooms and gateways of a Parley cluster, and a stream of changes.\n\n\
            Times are integer Unix milliseconds. Lists come in pages: `limit` is 1 to 1000, default 100, and \
            `next_cursor` is `null` on the last page. Every refusal is a problem document (RFC 9457) with a stable \
            `code`; a temporary one has `Retry-After`. Every answer is read at the time of the request. While the store \
            is away, event streams wait and requests are refused as `unavailable`.",
    ),
    components(schemas(ProblemSchema)),
    servers((url = "/"), (url = "/api", description = "Through nginx")),
    tags(
        (name = "users", description = "Online users"),
        (name = "rooms", description = "Rooms and their members"),
        (name = "cluster", description = "Gateways and totals"),
        (name = "events", description = "Changes as they happen"),
        (name = "sanctions", description = "Bans, mutes, kicks and revocations of tokens"),
        (name = "messages", description = "Messages of applications"),
        (name = "webhooks", description = "Deliveries of events to applications"),
    ),
)]
struct ApiDocument;

/// The clients that the API serves.
#[derive(Debug)]
pub struct ApiClients {
    /// Proxies that may name the address of a client.
    pub proxies: TrustedProxies,
    /// Maximum number of connections; fewer than usual make every share smaller.
    pub connections: usize,
    /// True if the log names the addresses of refused clients.
    pub log_addresses: bool,
    /// Keys and origins.
    pub access: Reloadable<Arc<ApiAccess>>,
}

/// Returns the HTTP API over `registry`, with a share of its seats for each of its `clients`. Cancelling `stop` ends
/// its event streams; other requests are completed.
///
/// Must be served inside a tokio runtime.
pub fn router(registry: Registry, metrics: ApiMetrics, clients: ApiClients, stop: CancellationToken) -> Router {
    let (router, mut openapi) = routes().split_for_parts();
    openapi.info.version = env!("CARGO_PKG_VERSION").to_owned();
    keys::document(&mut openapi);
    let openapi = Arc::new(openapi);
    let access = clients.access.clone();
    let refusals = RefusalLog::new(clients.log_addresses);
    let guard = KeyGuard::new(access.clone(), refusals.clone(), &metrics);
    let counts = ApiCounts::new(&metrics);
    let admission = ApiAdmission::new(clients, refusals);
    router
        // The path of the lookup hides this nickname from the handler of `/v1/users/{nick}`.
        .route("/v1/users/lookup", get(users::user_called_lookup))
        .route("/openapi.json", get(async move || Json(openapi)))
        .merge(docs::router())
        .merge(page::router())
        .fallback(async || refused(ErrorCode::NotFound))
        .method_not_allowed_fallback(async || refused(ErrorCode::MethodNotAllowed))
        // The admission limits bodies.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(admission.clone(), admit))
        .layer(from_fn_with_state(access, cors::share))
        .layer(from_fn_with_state(metrics, count))
        .layer(map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            // A file of a page has a tag, which browsers compare. axum lets event streams be stored.
            if !headers.contains_key(header::ETAG) {
                headers.remove(header::CACHE_CONTROL);
            }
            add_security_headers(headers);
            response
        }))
        .with_state(Api::new(registry, admission, (guard, counts), stop))
}

/// Counts a response under the pattern of its route, so clients cannot add series.
async fn count(State(metrics): State<ApiMetrics>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    metrics.request(route.as_ref().map_or("none", MatchedPath::as_str), response.status().as_u16(), began.elapsed());
    response
}

/// Returns the documented routes. All of them are in the OpenAPI document.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(ApiDocument::openapi())
        .routes(routes!(users::user))
        .routes(routes!(users::of_user))
        .routes(routes!(users::online))
        .routes(routes!(users::lookup))
        .routes(routes!(sessions::sessions))
        .routes(routes!(rooms::list))
        .routes(routes!(rooms::room, room_changes::write_rules, room_changes::delete))
        .routes(routes!(rooms::members))
        .routes(routes!(room_entries::enter, room_moderation::remove))
        .routes(routes!(room_moderation::moderate))
        .routes(routes!(cluster::gateways))
        .routes(routes!(cluster::stats))
        .routes(routes!(events::events))
        .routes(routes!(sanctions::ban, sanctions::bans))
        .routes(routes!(sanctions::unban))
        .routes(routes!(sanctions::mute, sanctions::mutes))
        .routes(routes!(sanctions::unmute))
        .routes(routes!(sanctions::revoke, sanctions::revocations))
        .routes(routes!(sanctions::restore))
        .routes(routes!(sanctions::kick))
        .routes(routes!(messages::publish))
        .routes(routes!(messages::batch))
        .routes(routes!(announcements::announce))
        .routes(routes!(history::messages, history::delete_all))
        .routes(routes!(history::delete_one))
        .routes(routes!(webhooks::show))
        .routes(routes!(webhooks::replay))
}

/// State shared by all handlers.
#[derive(Debug, Clone)]
struct Api {
    registry: Registry,
    admission: ApiAdmission,
    guard: KeyGuard,
    counts: ApiCounts,
    feed: EventFeed,
    room_feeds: RoomFeeds,
    /// Ends the event streams.
    stop: CancellationToken,
    /// True after a failed call, so an outage is logged at its start and its end, not with each request.
    is_store_away: Arc<AtomicBool>,
}

impl Api {
    fn new(
        registry: Registry,
        admission: ApiAdmission,
        (guard, counts): (KeyGuard, ApiCounts),
        stop: CancellationToken,
    ) -> Self {
        let (limits, is_store_away) = (FeedLimits::default(), Arc::default());
        let feed = EventFeed::of(registry.clone(), FeedLog::Changes, limits.clone());
        let room_feeds = RoomFeeds::new(registry.clone(), limits);
        Self { registry, admission, guard, counts, feed, room_feeds, stop, is_store_away }
    }

    /// Waits for a single read in a place of its client, up to a timeout.
    async fn read<T>(
        &self,
        client: ClientAddress,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Problem> {
        let began = Instant::now();
        let _place = self.place(ReadKind::Single, client).await?;
        self.ask(began, answer).await
    }

    /// Waits for a listing or lookup in a place of its client. The registry bounds each of its steps, so one that
    /// progresses is never cut.
    async fn list<T>(
        &self,
        client: ClientAddress,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Problem> {
        let _place = self.place(ReadKind::Listing, client).await?;
        self.answered(answer.await)
    }

    /// Waits for a place of a client. Refuses the read if none is free in time.
    async fn place(&self, kind: ReadKind, client: ClientAddress) -> Result<OwnedSemaphorePermit, Problem> {
        match self.admission.read_place(kind, client).await {
            Some(place) => Ok(place),
            None if self.registry.is_answering() => Err(self.admission.refuse_place(kind, client)),
            None => self.answered(Err(RegistryError::Unavailable("earlier reads are not answered".to_owned()))),
        }
    }

    /// Waits for the registry, up to a timeout that runs from `began`.
    async fn ask<T>(
        &self,
        began: Instant,
        answer: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, Problem> {
        let answer = match timeout_at((began + ASK_TIMEOUT).into(), answer).await {
            Ok(answer) => answer,
            Err(_) if self.registry.is_answering() => Err(RegistryError::Overloaded),
            Err(_) => Err(RegistryError::Unavailable("no answer in time".to_owned())),
        };
        self.answered(answer)
    }

    /// Reads a page and encodes its cursor for a URL.
    async fn page<T>(
        &self,
        client: ClientAddress,
        answer: impl Future<Output = Result<ListPage<T>, RegistryError>>,
    ) -> Result<Json<ListPage<T>>, Problem> {
        let ListPage { items, next_cursor } = self.list(client, answer).await?;
        Ok(Json(ListPage { items, next_cursor: next_cursor.as_deref().map(cursor_out) }))
    }

    /// Logs begin and end of an outage. A failed read has no effect, so every failure of the store is `unavailable`.
    fn answered<T>(&self, answer: Result<T, RegistryError>) -> Result<T, Problem> {
        let error = match answer {
            Ok(answer) => {
                if self.is_store_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("registry restored");
                }
                return Ok(answer);
            }
            Err(RegistryError::Overloaded) => return Err(self.admission.refuse_read()),
            Err(error) => error,
        };
        // A refusal of the store is logged by the store.
        if !self.registry.is_refused() && !self.is_store_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "registry not answering, requests refused");
        }
        Err(refused(ErrorCode::Unavailable))
    }
}

#[cfg(test)]
mod tests;
