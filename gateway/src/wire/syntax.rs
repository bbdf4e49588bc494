//! The checks that all dialects share: names, targets, statuses and the ranges of numbers.
//!
//! Called by the decoders only. Each check fails with a coded refusal, so all dialects share the error texts.

use std::ops::RangeInclusive;

use presence::model::codes::ErrorCode;
use presence::model::{Availability, Nick, RoomName, STATUS_BYTES, Status};

use crate::message::Target;

use super::event::Refusal;

/// Number of rows that a client may ask for in a page of members or rooms.
pub(super) const PAGE_ROWS: RangeInclusive<u64> = 1..=1000;
/// Number of rows for a client that names no limit.
pub(super) const DEFAULT_PAGE_ROWS: usize = 100;
/// Number of messages that a client may ask for in a page of history.
pub(super) const HISTORY_ROWS: RangeInclusive<u64> = 1..=200;

/// Returns the refusal of a malformed request.
pub(super) fn bad_request(detail: impl Into<String>) -> Refusal {
    Refusal::from(ErrorCode::BadRequest).with_detail(detail)
}

pub(super) fn nick(text: &str) -> Result<Nick, Refusal> {
    Nick::parse(text).map_err(|error| Refusal::from(ErrorCode::BadNick).with_detail(error.to_string()))
}

pub(super) fn room(text: &str) -> Result<RoomName, Refusal> {
    RoomName::parse(text).map_err(|error| Refusal::from(ErrorCode::BadRoom).with_detail(error.to_string()))
}

/// Reads a room if the text begins with `#`, else a nickname.
pub(super) fn target(text: &str) -> Result<Target, Refusal> {
    if text.starts_with('#') { room(text).map(Target::Room) } else { nick(text).map(Target::Nick) }
}

pub(super) fn status(status: Availability, text: &str) -> Result<Status, Refusal> {
    if text.len() > STATUS_BYTES {
        return Err(bad_request(format!("`text` must be at most {STATUS_BYTES} bytes")));
    }
    if text.contains(char::is_control) {
        return Err(bad_request("`text` must not contain control characters"));
    }
    Ok(Status { status, text: text.to_owned() })
}
