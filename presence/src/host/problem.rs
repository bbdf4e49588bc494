//! [`Problem`]: a refusal over HTTP, as a problem document (RFC 9457). Both programs build every HTTP refusal here.
//!
//! The admin ports and the WebSocket port send a document without a link. The API explains its codes on a page, so its
//! documents link there and always have a detail. Invariant: a detail is a text of this program, never the text of an
//! inner error. The answer of `/readyz` is a report, not a refusal.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::host::security_headers::add_security_headers;
use crate::model::codes::ErrorCode;

/// Media type of RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Requested pause before a retry after a temporary refusal: one second, because a balancer tries another process at
/// once.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refusal: a row of the code table, with the detail, the status and the headers of this case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: ErrorCode,
    status: StatusCode,
    detail: Option<Cow<'static, str>>,
    /// URL path of the page that explains the codes.
    page: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Creates a refusal with the status of the code table. A temporary one has `Retry-After`.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = code.temporary().then_some((header::RETRY_AFTER, RETRY_AFTER));
        Self { code, status, detail: None, page: None, headers: retry.into_iter().collect() }
    }

    /// Adds a detail for this client, which must not be the text of an inner error.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Replaces the status of the code table.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Links the explanation of the code on `page`. Such a document always has a detail.
    #[must_use]
    pub fn explained_at(self, page: &'static str) -> Self {
        let detail = self.detail.unwrap_or(Cow::Borrowed(self.code.message()));
        Self { detail: Some(detail), page: Some(page), ..self }
    }

    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the detail of this case.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Returns the document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": self.page.map_or("about:blank".to_owned(), |page| format!("{page}#{}", self.code.slug())),
            "title": self.code.message(),
            "status": self.status.as_u16(),
            "code": self.code.slug(),
        });
        if let Some(detail) = &self.detail {
            document["detail"] = detail.as_ref().into();
        }
        document
    }

    /// Returns the answer with a body of any server.
    #[must_use]
    pub fn into_http<B: From<String>>(self) -> Response<B> {
        let mut answer = Response::new(B::from(self.document().to_string()));
        *answer.status_mut() = self.status;
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        answer.headers_mut().extend(self.headers);
        add_security_headers(answer.headers_mut());
        answer
    }

    /// Returns the answer as the bytes of HTTP/1.1, for a connection that no HTTP server reads.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        let answer = self.into_http::<String>();
        let status = answer.status();
        let mut bytes = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
        for (name, value) in answer.headers() {
            bytes.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        bytes.push_str(&format!("content-length: {}\r\n\r\n{}", answer.body().len(), answer.body()));
        bytes.into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        self.into_http()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_code_has_one_answer_in_both_shapes() {
        for &code in ErrorCode::ALL {
            for (problem, link, detail) in [
                (Problem::new(code), "about:blank".to_owned(), None),
                (Problem::new(code).explained_at("/docs"), format!("/docs#{}", code.slug()), Some(code.message())),
                (Problem::new(code).with_detail("too odd"), "about:blank".to_owned(), Some("too odd")),
            ] {
                let document = problem.document();
                assert_eq!(document["type"], link, "{code:?}");
                assert_eq!(document.get("detail").and_then(Value::as_str), detail, "{code:?}");
                let (head, body) = (problem.clone().into_bytes(), problem.into_http::<String>());
                assert_eq!(body.status().as_u16(), code.http_status());
                assert_eq!(serde_json::from_str::<Value>(body.body()).unwrap(), document);
                assert_eq!((&document["code"], &document["status"]), (&json!(code.slug()), &json!(code.http_status())));
                assert_eq!(body.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
                assert_eq!(body.headers().contains_key(header::RETRY_AFTER), code.temporary(), "{code:?}");
                let head = String::from_utf8(head.to_vec()).unwrap();
                assert!(head.starts_with(&format!("HTTP/1.1 {} ", code.http_status())), "{head}");
                assert!(head.ends_with(&format!("content-length: {}\r\n\r\n{document}", document.to_string().len())));
                assert_eq!(head.contains("\r\nretry-after: 1\r\n"), code.temporary(), "{head}");
            }
        }
    }

    #[test]
    fn head_and_document_show_the_same_status() {
        let problem = Problem::new(ErrorCode::BadRequest).with_status(StatusCode::UPGRADE_REQUIRED);
        let problem = problem.with_header(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert_eq!(problem.document()["status"], 426);
        let head = String::from_utf8(problem.into_bytes().to_vec()).unwrap();
        assert!(
            head.starts_with("HTTP/1.1 426 Upgrade Required\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
    }
}
