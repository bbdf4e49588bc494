//! Files of the pages: embedded in the program, with entity tags and a strict security policy.
//!
//! [`file`] is the handler of one file. Knows nothing about the contents of the files.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use crate::host::entity_tag::{entity_tag, has_tag};
use crate::host::security_headers::PAGE_POLICY;

/// A file and its entity tag.
#[derive(Debug, Clone)]
pub(super) struct StaticFile {
    media_type: &'static str,
    text: &'static str,
    tag: HeaderValue,
}

impl StaticFile {
    pub(super) fn new(media_type: &'static str, text: &'static str) -> Self {
        Self { media_type, text, tag: entity_tag(text.as_bytes()) }
    }

    /// Returns the file, or 304 if the client has it.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        // Browsers keep a file and compare its tag before each use.
        let headers = [
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        ];
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
