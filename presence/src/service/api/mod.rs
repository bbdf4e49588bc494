//! The HTTP API: who is online, who is in which room, which gateways there are, and what changes, as it happens.
//!
//! Read-only and stateless: every answer is read from the registry when it is asked for, so it is never stale, and with
//! the store away it is a refusal. The presence process serves [`router`]; tests serve it over a memory registry.
//! Nothing here knows a key or a Redis command, and nothing here writes.
//!
//! A handler takes checked values (`extract`), asks the registry through `Api::ask` and answers JSON or a
//! `problem::Problem`. Its annotation is its documentation: `/openapi.json` and the page at `/docs` are made of it.

mod cluster;
mod docs;
mod events;
mod extract;
mod feed;
mod problem;
mod rooms;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::extract::cursor_out;
use self::feed::Feed;
use self::problem::{Problem, ProblemSchema};
use crate::host::metrics::Metrics;
use crate::model::codes::ErrorCode;
use crate::registry::{ListPage, Registry, RegistryError};

/// How long the registry may take. Under the 3 s in which a client hears that the store is away.
const ASK_TIMEOUT: Duration = Duration::from_millis(2500);
/// Largest request body.
const BODY_BYTES: usize = 256 * 1024;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Parley presence",
        description = "Who is online in a Parley cluster, who is in which room, and what changes, as it happens.\n\n\
            Times are integer Unix milliseconds. Lists come in pages: `limit` is 1 to 1000 and 100 by default, \
            `next_cursor` is `null` on the last page. Every refusal is a problem document (RFC 9457) whose `code` is \
            stable; a temporary one carries `Retry-After`. Answers are read when they are asked for: while the store is \
            away they are `unavailable`, never stale.",
    ),
    components(schemas(ProblemSchema)),
    tags(
        (name = "users", description = "Who is online"),
        (name = "rooms", description = "Who is where"),
        (name = "cluster", description = "What serves them"),
        (name = "events", description = "What changes"),
    ),
)]
struct ApiDocument;

/// The whole HTTP API over `registry`. Cancelling `stop` ends its event streams; other requests are answered to the end.
///
/// Must be served inside a tokio runtime.
pub fn router(registry: Registry, metrics: Metrics, stop: CancellationToken) -> Router {
    let (router, mut openapi) = routes().split_for_parts();
    openapi.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let openapi = Arc::new(openapi);
    router
        // Hidden from the handler of `/v1/users/{nick}` by the address of the lookup.
        .route("/v1/users/lookup", get(users::user_called_lookup))
        .route("/openapi.json", get(async move || Json(openapi)))
        .merge(docs::router())
        .fallback(async || Problem::new(ErrorCode::NotFound))
        .method_not_allowed_fallback(async || Problem::new(ErrorCode::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(metrics, count))
        .layer(map_response(async |mut response: Response| {
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }))
        .with_state(Api::new(registry, stop))
}

/// Counts an answer under its route's pattern, so that no client decides how many series there are.
async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    metrics.api_request(
        route.as_ref().map_or("none", MatchedPath::as_str),
        response.status().as_u16(),
        began.elapsed(),
    );
    response
}

/// The documented routes. Whatever is added here is in the OpenAPI document too.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(ApiDocument::openapi())
        .routes(routes!(users::user))
        .routes(routes!(users::online))
        .routes(routes!(users::lookup))
        .routes(routes!(rooms::list))
        .routes(routes!(rooms::room))
        .routes(routes!(rooms::members))
        .routes(routes!(cluster::gateways))
        .routes(routes!(cluster::stats))
        .routes(routes!(events::events))
}

/// What handlers share.
#[derive(Debug, Clone)]
struct Api {
    registry: Registry,
    feed: Feed,
    /// Whether the last ask failed, so that an outage is logged when it begins and ends, not with each request.
    away: Arc<AtomicBool>,
}

impl Api {
    fn new(registry: Registry, stop: CancellationToken) -> Self {
        Self { feed: Feed::new(registry.clone(), stop), registry, away: Arc::default() }
    }

    /// Waits for an answer of the registry, but not for long. A read that failed was not done, whatever the reason.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, RegistryError>>) -> Result<T, Problem> {
        let failure = match tokio::time::timeout(ASK_TIMEOUT, answer).await {
            Ok(Ok(answer)) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("registry answers again");
                }
                return Ok(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = failure, "registry does not answer, requests are refused");
        }
        Err(Problem::new(ErrorCode::Unavailable))
    }

    /// Asks for a page and makes its cursor fit for a URL.
    async fn page<T>(
        &self,
        answer: impl Future<Output = Result<ListPage<T>, RegistryError>>,
    ) -> Result<Json<ListPage<T>>, Problem> {
        let ListPage { items, next_cursor } = self.ask(answer).await?;
        Ok(Json(ListPage { items, next_cursor: next_cursor.as_deref().map(cursor_out) }))
    }
}

#[cfg(test)]
mod tests;
