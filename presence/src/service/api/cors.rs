//! CORS: web pages of `api.origins` may send requests with a key and read the answers.
//!
//! Cookies play no part, so nothing here permits credentials. Without origins no answer has a CORS header.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::host::reloadable::Reloadable;
use crate::service::access::ApiAccess;

/// Methods and request headers that a page may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, last-event-id");
/// Seconds for which a browser may keep the answer to a preflight request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers preflight requests of permitted origins, and permits them to read the other answers.
pub(super) async fn share(State(access): State<Reloadable<Arc<ApiAccess>>>, request: Request, next: Next) -> Response {
    let access = access.get();
    if access.origins.is_empty() {
        return next.run(request).await;
    }
    let origin = origin(request.headers()).filter(|origin| origin.to_str().is_ok_and(|text| access.admits(text)));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if is_preflight => {
            let permitted = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            ];
            (StatusCode::NO_CONTENT, permitted).into_response()
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::ORIGIN).cloned()
}
