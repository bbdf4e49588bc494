//! The presence page at `/`: static files that show the lists and the event stream of this API as they change.

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::static_file::{StaticFile, file};
use crate::host::entity_tag::list_elements;

/// Returns the routes of the page and its files. A client that accepts JSON but no HTML is redirected from `/` to
/// `/docs`.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let index = StaticFile::new("text/html; charset=utf-8", include_str!("../../../page/index.html"));
    Router::new()
        .route("/", get(async move |headers: HeaderMap| root(&index, &headers)))
        .route("/page/page.js", file(SCRIPT, include_str!("../../../page/page.js")))
        .route("/page/source.js", file(SCRIPT, include_str!("../../../page/source.js")))
        .route("/page/state.js", file(SCRIPT, include_str!("../../../page/state.js")))
        .route("/page/words.js", file(SCRIPT, include_str!("../../../page/words.js")))
        .route("/page/style.css", file("text/css; charset=utf-8", include_str!("../../../page/style.css")))
        .route("/page/icon.svg", file("image/svg+xml", include_str!("../../../page/icon.svg")))
}

fn root(index: &StaticFile, request: &HeaderMap) -> Response {
    let answer = if wants_json(request) { Redirect::temporary("/docs").into_response() } else { index.answer(request) };
    ([(header::VARY, "accept")], answer).into_response()
}

/// Returns true if the client accepts JSON and no HTML. Browsers accept HTML, and programs accept anything by default.
fn wants_json(request: &HeaderMap) -> bool {
    let media_types =
        || list_elements(request, &header::ACCEPT).map(|range| range.split(';').next().unwrap_or(range).trim());
    let accepts = |wanted: &str| media_types().any(|found| found.eq_ignore_ascii_case(wanted));
    accepts("application/json") && !accepts("text/html")
}
