//! Files of the pages: embedded in the program, with entity tags and a strict security policy.
//!
//! [`file`] is the handler of one file. Knows nothing about the contents of the files.

use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use sha2::{Digest, Sha256};

/// The headers of every file. The policy allows nothing from other servers and nothing inline. Browsers keep a file and
/// compare its tag before each use.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-cache"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// A file and its entity tag.
#[derive(Debug, Clone)]
pub(super) struct StaticFile {
    media_type: &'static str,
    text: &'static str,
    tag: HeaderValue,
}

impl StaticFile {
    pub(super) fn new(media_type: &'static str, text: &'static str) -> Self {
        let hash = Sha256::digest(text).iter().take(8).fold(0_u64, |tag, byte| (tag << 8) | u64::from(*byte));
        let tag = HeaderValue::from_str(&format!("\"{hash:016x}\"")).expect("hexadecimal digits are visible");
        Self { media_type, text, tag }
    }

    /// Returns the file, or 304 if the client has it.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let tag = [(header::ETAG, self.tag.clone())];
        if has_tag(request, &self.tag) {
            return (StatusCode::NOT_MODIFIED, headers, tag).into_response();
        }
        (headers, tag, [(header::CONTENT_TYPE, self.media_type)], self.text).into_response()
    }
}

/// Returns the handler of one file.
pub(super) fn file<S: Clone + Send + Sync + 'static>(media_type: &'static str, text: &'static str) -> MethodRouter<S> {
    let file = StaticFile::new(media_type, text);
    get(async move |headers: HeaderMap| file.answer(&headers))
}

/// Returns true if the client has the content with this tag. The comparison is weak (RFC 9110 section 13.1.2): proxies
/// that compress make tags weak.
fn has_tag(request: &HeaderMap, tag: &HeaderValue) -> bool {
    elements(request, header::IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// Returns the elements of a header that is a list.
pub(super) fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
