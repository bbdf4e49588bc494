//! Rows and pages of the listings, as the API shows them.

use crate::model::{SessionId, Status, UserId};

use super::super::LeaseState;

/// A user as the API shows them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = User)]
pub struct UserRow {
    /// The nickname as it is shown.
    pub nick: String,
    /// The id of the user that the nickname is bound to; absent after a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<UserId>,
    /// True if a live session owns the nickname.
    pub online: bool,
    /// The user's status; plain `online` while offline.
    #[serde(flatten)]
    pub status: Status,
    /// The start of the user's presence, in Unix milliseconds; `null` while offline.
    pub online_since: Option<u64>,
    /// The last activity, in Unix milliseconds.
    pub last_active: u64,
    /// The user's rooms as shown.
    pub rooms: Vec<String>,
    /// The incarnation of the user's gateway; `null` while offline. `/v1/gateways` has its node id, unless it ended and
    /// the session has not resumed yet.
    pub incarnation: Option<String>,
    /// The session that owns the nickname; `None` while offline.
    #[serde(skip)]
    pub session: Option<SessionId>,
}

/// Returns those rows that are bound to a user, by nickname.
pub(super) fn bound_rows(rows: impl Iterator<Item = UserRow>, user: &UserId) -> Vec<UserRow> {
    let mut rows: Vec<UserRow> = rows.filter(|row| row.user.as_ref() == Some(user)).collect();
    rows.sort_by(|one, other| one.nick.cmp(&other.nick));
    rows
}

/// Returns those of a user's rows that are online; `None` if there are no rows.
pub(super) fn online_rows(rows: Vec<UserRow>) -> Option<Vec<UserRow>> {
    (!rows.is_empty()).then(|| rows.into_iter().filter(|row| row.online).collect())
}

/// A room as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Room)]
pub struct RoomRow {
    /// The room as it is shown, with its `#`.
    pub room: String,
    /// The number of its members.
    pub member_count: u64,
    /// The number of its newest message, 0 before the first.
    pub seq: u64,
}

/// A gateway as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Gateway)]
pub struct GatewayRow {
    /// The configured node id.
    pub node: String,
    /// Its present incarnation.
    pub incarnation: String,
    /// The program's version.
    pub version: String,
    /// The state of its lease.
    pub state: LeaseState,
    /// Its beat counter.
    pub beat: u64,
    /// Nicknames online on it.
    pub users: u64,
}

/// Totals over the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Stats)]
pub struct ClusterStats {
    /// Nicknames online.
    pub users_online: u64,
    /// Rooms with members.
    pub rooms: u64,
    /// Gateways whose lease is live or draining.
    pub gateways: u64,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Page)]
pub struct ListPage<T> {
    /// The rows, in the order of their keys.
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// One entry of the bounded event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryEvent {
    /// Its position in the event log.
    pub id: String,
    /// online, offline, join, leave or rename.
    pub kind: String,
    /// The logged JSON object.
    pub data: String,
}

/// The ends of the bounded event log, as positions for [`Registry::events`](crate::registry::Registry::events).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLogEnds {
    /// Reading from here, or from anything newer, misses nothing; what is older may have been trimmed or lost.
    pub complete_from: String,
    /// True if nothing was trimmed, so reading from the beginning misses nothing.
    pub is_whole: bool,
    /// The newest event.
    pub newest: String,
}

/// Parses a position of the event log: `<Unix ms>-<count>` or `<Unix ms>`. Clients send it, so anything else is `None`,
/// which means "from now on".
pub(crate) fn event_position(text: &str) -> Option<(u64, u64)> {
    let (time, count) = text.split_once('-').unwrap_or((text, "0"));
    let number = |digits: &str| digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    Some((number(time)?, number(count)?))
}
