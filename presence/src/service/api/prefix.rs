//! The prefix under which a proxy carries the API: `/api/v1/rooms` is `/v1/rooms`.
//!
//! The path behind the prefix stays as it is, percent-encoding included, so a proxy needs no rule to rewrite it. The
//! pages are not carried: their links begin at the root of the host, which belongs to the gateways there.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::middleware::map_request;

/// Prefix of the path.
const PREFIX: &str = "/api";
/// The paths that are carried.
const CARRIED: [&str; 2] = ["/v1/", "/openapi.json"];

/// Serves the API with and without the prefix. The prefix is removed before the routes are matched.
pub(in crate::service) fn with_prefix(api: Router) -> Router {
    Router::new().fallback_service(api).layer(map_request(without_prefix))
}

/// Removes the prefix from the path of a request.
async fn without_prefix(mut request: Request) -> Request {
    if let Some(uri) = carried(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn carried(uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(PREFIX)?;
    if !CARRIED.iter().any(|path| rest.starts_with(path)) {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(rest).ok()?);
    Uri::from_parts(parts).ok()
}
