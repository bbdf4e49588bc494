//! [`Settings::retention`] and [`Settings::room_policies`]: the settings `history.*` and `rooms`, by which gateways and
//! the server API keep messages.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Settings, SettingsError};
use crate::model::{Retention, RoomPolicies};

/// Maximum value of `history.max_messages` and `history.inbox_messages`.
const HISTORY_MESSAGES_MAX: u64 = 1_000_000;
/// Values of `history.max_bytes` and `history.inbox_bytes`: at least one message of the maximum size.
const HISTORY_BYTES: RangeInclusive<u64> = 65_536..=1_073_741_824;
/// Maximum value of `history.max_age_hours`: a year.
const HISTORY_HOURS_MAX: u64 = 8760;
/// Maximum value of `history.quiet_room_hours`: the lifetime of other rooms and of sessions.
const QUIET_ROOM_HOURS_MAX: u64 = 72;

impl Settings {
    /// Returns `rooms`.
    ///
    /// # Errors
    /// `Invalid` with the first table and field that is wrong.
    pub fn room_policies(&self) -> Result<RoomPolicies, SettingsError> {
        Ok(self.optional("rooms", RoomPolicies::from_json)?.unwrap_or_default())
    }

    /// Returns `history.*`.
    ///
    /// # Errors
    /// `Invalid` for a number out of its bounds.
    pub fn retention(&self) -> Result<Retention, SettingsError> {
        let messages =
            self.number("history.max_messages", 1..=HISTORY_MESSAGES_MAX, "expected a whole number from 1 to 1000000")?;
        let hours = self.number(
            "history.max_age_hours",
            1..=HISTORY_HOURS_MAX,
            "expected a whole number of hours from 1 to 8760",
        )?;
        let inbox = self.number(
            "history.inbox_messages",
            1..=HISTORY_MESSAGES_MAX,
            "expected a whole number from 1 to 1000000",
        )?;
        let quiet = self.number(
            "history.quiet_room_hours",
            1..=QUIET_ROOM_HOURS_MAX,
            "expected a whole number of hours from 1 to 72",
        )?;
        let bytes = |key| self.number(key, HISTORY_BYTES, "expected a whole number from 65536 to 1073741824");
        Ok(Retention {
            messages: messages as usize,
            bytes: bytes("history.max_bytes")? as usize,
            age: Duration::from_secs(hours * 3600),
            inbox_messages: inbox as usize,
            inbox_bytes: bytes("history.inbox_bytes")? as usize,
            quiet: Duration::from_secs(quiet * 3600),
        })
    }
}

/// Returns `history.*` as lines of TOML, in the order of the settings table.
#[must_use]
pub fn retention_lines(retention: &Retention) -> String {
    let Retention { messages, bytes, age, inbox_messages, inbox_bytes, quiet } = retention;
    let hours = |time: &Duration| time.as_secs() / 3600;
    format!(
        "history.max_messages = {messages}\nhistory.max_bytes = {bytes}\nhistory.max_age_hours = {}\n\
         history.inbox_messages = {inbox_messages}\nhistory.inbox_bytes = {inbox_bytes}\n\
         history.quiet_room_hours = {}\n",
        hours(age),
        hours(quiet)
    )
}
