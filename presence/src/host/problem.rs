//! The problem document (RFC 9457) of a refusal over HTTP, so that all HTTP doors of both programs answer in one shape.
//!
//! Pure: used by the operators' door, the API (which adds what is wrong this time) and the gateway's WebSocket port.

use serde_json::{Value, json};

use crate::model::codes::ErrorCode;

/// The media type of RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The document for a row of the error table.
#[must_use]
pub fn document(code: ErrorCode) -> Value {
    json!({
        "type": "about:blank",
        "title": code.message(),
        "status": code.http_status(),
        "code": code.slug(),
    })
}
