//! Problem documents (RFC 9457): the one shape of every HTTP refusal of both programs.
//!
//! Used by the admin port, by the gateway's WebSocket port and by the API, which adds a detail to each refusal. Pure:
//! no function here does I/O, and no text of an inner error enters a document.

use serde_json::{Value, json};

use crate::model::codes::ErrorCode;

/// Media type of RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Returns the document for a row of the error table.
#[must_use]
pub fn document(code: ErrorCode) -> Value {
    json!({
        "type": "about:blank",
        "title": code.message(),
        "status": code.http_status(),
        "code": code.slug(),
    })
}

/// Returns the document for a row of the error table in an answer with another HTTP status, with a detail for people.
#[must_use]
pub fn with_status(code: ErrorCode, status: u16, detail: &str) -> Value {
    let mut document = document(code);
    document["status"] = status.into();
    document["detail"] = detail.into();
    document
}
