//! The admin port of both programs: `/livez`, `/readyz`, `/metrics` and further JSON documents.
//!
//! It has its own listener, so a flood of clients cannot block health checks, and clients cannot read the metrics. Each
//! `server.rs` calls [`serve`] with its [`AdminRoutes`]. It decides nothing: closures supply readiness and every value.
//! Invariant: its connections fit into the reserve of [`crate::host::descriptors`], so idle ones block no health check.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::accept_failures::AcceptFailures;
use crate::host::host_header::names_one_host;
use crate::host::metrics::Pulled;
use crate::host::problem::Problem;
use crate::host::security_headers::add_security_headers;
use crate::model::codes::ErrorCode;

/// Time for open requests to finish after the shutdown began.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Maximum number of connections; one more closes the oldest.
const CONNECTIONS_MAX: usize = 24;
/// Time for the head of a request, and for an idle connection. Longer than the usual interval of scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size of the head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Readiness of a program to do its work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Reasons against it, for operators; empty means ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Adds reasons.
    #[must_use]
    pub fn with(mut self, reasons: impl IntoIterator<Item = String>) -> Self {
        self.reasons.extend(reasons);
        self
    }
}

/// Source of the readiness. Called at every check; must not block.
pub type ReadyCheck = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Asynchronous step before every scrape, for values that only the store knows. It must end within about a second, even
/// while the store does not answer.
pub type BeforeScrape = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Source of a JSON document. Called at every request; must not block.
pub type AdminDocument = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Contents of the admin port, in addition to `/livez`.
pub struct AdminRoutes {
    /// Metrics of `/metrics`.
    pub metrics: Registry,
    /// Answer of `/readyz`.
    pub ready: ReadyCheck,
    /// Step before every scrape.
    pub before_scrape: Option<BeforeScrape>,
    /// Further paths with their documents.
    pub documents: Vec<(&'static str, AdminDocument)>,
}

impl std::fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<&str> = self.documents.iter().map(|(path, _)| *path).collect();
        f.debug_struct("AdminRoutes").field("ready", &(self.ready)()).field("documents", &paths).finish_non_exhaustive()
    }
}

/// Serves until `cancel`, then waits up to one second for open requests. A failed connection ends alone, and a failed
/// accept is repeated. Dropping the future closes the listener; open connections end with their clients.
pub async fn serve(listener: TcpListener, answers: AdminRoutes, cancel: CancellationToken) {
    show_readiness(&answers.metrics, &answers.ready);
    let router = TowerToHyperService::new(router(answers));
    let (connections, mut failures) = (TaskTracker::new(), AcceptFailures::new("admin"));
    let mut open: VecDeque<CancellationToken> = VecDeque::new();
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                failures.record_failed(&error).await;
                continue;
            }
        };
        failures.record_accepted();
        open.retain(|connection| !connection.is_cancelled());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.cancel();
        }
        let connection = CancellationToken::new();
        open.push_back(connection.clone());
        connections.spawn(serve_connection(stream, router.clone(), connection, cancel.clone()));
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(LAST_ANSWERS, connections.wait()).await;
    open.iter().for_each(CancellationToken::cancel);
}

/// Serves one connection until `connection` is cancelled, and cancels it at its end.
async fn serve_connection(
    stream: TcpStream,
    router: TowerToHyperService<Router>,
    connection: CancellationToken,
    closing: CancellationToken,
) {
    let _ended = connection.clone().drop_guard();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), router));
    // A connection that its client has broken is no event for operators.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = connection.cancelled() => {}
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                _ = serving => {}
                () = connection.cancelled() => {}
            }
        }
    }
}

/// Registers the readiness as a metric, for alerts.
fn show_readiness(metrics: &Registry, ready: &ReadyCheck) {
    let ready = Arc::clone(ready);
    let shown = move || Some(f64::from(u8::from(ready().reasons.is_empty())));
    Pulled::gauge(metrics, "parley_ready", "1 while this program is ready, as reported by /readyz.", shown);
}

fn router(AdminRoutes { metrics, ready, before_scrape, documents }: AdminRoutes) -> Router {
    let show = async |State(document): State<AdminDocument>| Json(document()).into_response();
    let documents = documents
        .into_iter()
        .fold(Router::new(), |router, (path, document)| router.route(path, get(show).with_state(document)));
    documents
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(scrape).with_state((metrics, before_scrape)))
        .fallback(async || Problem::new(ErrorCode::NotFound))
        .method_not_allowed_fallback(async || Problem::new(ErrorCode::MethodNotAllowed))
        .layer(from_fn(require_host))
        .layer(map_response(async |mut response: Response| {
            add_security_headers(response.headers_mut());
            response
        }))
}

async fn require_host(request: Request, next: Next) -> Response {
    if names_one_host(&request) { next.run(request).await } else { Problem::new(ErrorCode::BadRequest).into_response() }
}

/// Always succeeds: a gateway that cannot publish must lose its clients, but a restart would not help.
async fn livez() -> Response {
    Json(serde_json::json!({ "live": true })).into_response()
}

#[derive(Serialize)]
struct ReadyAnswer {
    ready: bool,
    reasons: Vec<String>,
}

async fn readyz(State(ready): State<ReadyCheck>) -> Response {
    let Readiness { reasons } = ready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyAnswer { ready: reasons.is_empty(), reasons })).into_response()
}

async fn scrape(State((metrics, before_scrape)): State<(Registry, Option<BeforeScrape>)>) -> Response {
    if let Some(look_up) = before_scrape {
        look_up().await;
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&metrics.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics not encoded");
            Problem::new(ErrorCode::Internal).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
