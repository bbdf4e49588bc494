//! The JSON dialect `parley.v1`.
use bytes::Bytes;

use super::{CorrelationId, Event, Refusal, Reply, Request};

/// Decodes one text frame.
///
/// # Errors
/// The refusal to answer with, and the request's id where one could be read.
pub fn decode(_text: &str) -> Result<Request, (CorrelationId, Refusal)> {
    todo!()
}

/// Encodes a reply as the text of one frame.
#[must_use]
pub fn encode_reply(_reply: &Reply) -> Bytes {
    todo!()
}

/// Encodes an event as the text of one frame.
#[must_use]
pub fn encode_event(_event: &Event) -> Bytes {
    todo!()
}
