//! The operators' door of both programs: `/livez`, `/readyz`, `/metrics`, and what else a program tells, on a listener of
//! its own.
//!
//! Apart from the clients' doors, so that a flood of clients does not turn health checks away and nobody outside reads
//! our numbers. Started by each `server.rs`. Decides nothing: readiness is asked of the closure it was given, and
//! every number is read at the scrape.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::host::metrics::{Pulled, Rises};
use crate::host::problem;
use crate::model::codes::ErrorCode;

/// How long answers that are under way may take after the end was asked for.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Whether a program can do its work right now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Everything that stands against it, in words for operators; empty means ready.
    pub reasons: Vec<String>,
}

/// Answers whether the program is ready. Asked at every check; must not block.
pub type ReadyCheck = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Looks up what the next scrape shows and no closure can ask for, such as what only the store knows. Waited for at every
/// scrape: it has to end in about a second, whatever the store does.
pub type BeforeScrape = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A JSON document. Asked at every request; must not block.
pub type Document = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the door answers with, beside that the process lives.
pub struct Answers {
    /// `/metrics`.
    pub metrics: Registry,
    /// `/readyz`.
    pub ready: ReadyCheck,
    /// What is looked up before every scrape, if anything is.
    pub before_scrape: Option<BeforeScrape>,
    /// Further paths.
    pub documents: Vec<(&'static str, Document)>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<&str> = self.documents.iter().map(|(path, _)| *path).collect();
        f.debug_struct("Answers").field("ready", &(self.ready)()).field("documents", &paths).finish_non_exhaustive()
    }
}

/// Serves until `cancel`, then gives answers under way one second. Dropping the future ends it at once.
///
/// # Errors
/// The listener broke; a connection that fails is no error.
pub async fn serve(listener: TcpListener, answers: Answers, cancel: CancellationToken) -> std::io::Result<()> {
    show_readiness(&answers.metrics, &answers.ready);
    let serving = axum::serve(listener, router(answers)).with_graceful_shutdown(cancel.clone().cancelled_owned());
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        ended = serving.into_future() => ended,
        () = overdue => Ok(()),
    }
}

/// What `/readyz` answers, as a number: alerts go by it, also when nobody routes by readiness.
fn show_readiness(metrics: &Registry, ready: &ReadyCheck) {
    let ready = Arc::clone(ready);
    let shown = move || Some(f64::from(u8::from(ready().reasons.is_empty())));
    Pulled::register(
        metrics,
        Rises::No,
        "parley_ready",
        "1 while this program is ready, as reported by /readyz.",
        shown,
    );
}

fn router(Answers { metrics, ready, before_scrape, documents }: Answers) -> Router {
    let tell = async |State(document): State<Document>| Json(document()).into_response();
    let documents = documents
        .into_iter()
        .fold(Router::new(), |router, (path, document)| router.route(path, get(tell).with_state(document)));
    documents
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(scrape).with_state((metrics, before_scrape)))
        .fallback(async || refuse(ErrorCode::NotFound))
        .method_not_allowed_fallback(async || refuse(ErrorCode::MethodNotAllowed))
}

/// That it answers is the answer: whoever cannot publish must lose its clients, not be restarted.
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
            tracing::error!(%error, "metrics could not be written");
            refuse(ErrorCode::Internal)
        }
    }
}

fn refuse(code: ErrorCode) -> Response {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, problem::MEDIA_TYPE)], Json(problem::document(code))).into_response()
}

#[cfg(test)]
mod tests;
