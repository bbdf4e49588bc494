//! The documentation page at `/docs`: static files that render `/openapi.json` and load nothing from other servers.

use axum::Router;

use super::static_file::file;

/// Returns the routes of the page and its two files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/docs", file("text/html; charset=utf-8", include_str!("../../../assets/docs.html")))
        .route("/docs/docs.css", file("text/css; charset=utf-8", include_str!("../../../assets/docs.css")))
        .route("/docs/docs.js", file("text/javascript; charset=utf-8", include_str!("../../../assets/docs.js")))
}
