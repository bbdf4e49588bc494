//! The checks that all dialects share: names, targets, statuses and the ranges of numbers.
//!
//! Called by the decoders only. Each check fails with a coded refusal, so all dialects share the error texts.

use std::ops::RangeInclusive;

use presence::model::codes::ErrorCode;
use presence::model::moderation::{REASON_CHARS, TOPIC_CHARS, is_free_text, is_one_line};
use presence::model::{Availability, Nick, RoomName, STATUS_BYTES, Status, UserId};

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

pub(super) fn user(text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).ok_or_else(|| bad_request("`user` must be 1 to 255 bytes of printable text"))
}

pub(super) fn reason(text: &str) -> Result<String, Refusal> {
    one_line("reason", text, REASON_CHARS)
}

pub(super) fn topic(text: &str) -> Result<String, Refusal> {
    one_line("text", text, TOPIC_CHARS)
}

fn one_line(name: &str, text: &str, chars: usize) -> Result<String, Refusal> {
    let detail =
        || format!("`{name}` must be one line of at most {chars} characters, without control and invisible characters");
    if is_one_line(text, chars) { Ok(text.to_owned()) } else { Err(bad_request(detail())) }
}

pub(super) fn status(status: Availability, text: &str) -> Result<Status, Refusal> {
    if text.len() > STATUS_BYTES {
        return Err(bad_request(format!("`text` must be at most {STATUS_BYTES} bytes")));
    }
    if !is_free_text(text) {
        return Err(bad_request("`text` must not contain control and invisible characters"));
    }
    Ok(Status { status, text: text.to_owned() })
}
