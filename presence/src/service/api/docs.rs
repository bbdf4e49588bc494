//! The documentation page at `/docs`: static files that render `/openapi.json` and load nothing from other servers.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

/// Content security policy of the page: no external and no inline resources.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'",
);

/// Returns the routes of the page and its two files, and of `/`, which redirects to it.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/docs")))
        .route("/docs", get(async || file("text/html; charset=utf-8", include_str!("../../../assets/docs.html"))))
        .route(
            "/docs/docs.css",
            get(async || file("text/css; charset=utf-8", include_str!("../../../assets/docs.css"))),
        )
        .route(
            "/docs/docs.js",
            get(async || file("text/javascript; charset=utf-8", include_str!("../../../assets/docs.js"))),
        )
}

fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 2] =
        [(header::CONTENT_TYPE, HeaderValue::from_static(media_type)), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, text)
}
