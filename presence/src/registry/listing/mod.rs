//! Listings: users, rooms, members, gateways, totals and the event log, for the HTTP API and for operators.
//!
//! Reads only, in steps of bounded cost with one under way, so that a listing never delays a message. A row shows
//! the state at one of the moments of the read. Sessions of a dead gateway are not shown as online, even before they
//! are reaped.

mod events;
mod inspect;
mod inventory;
mod largest;
mod memory;
mod redis;
mod sessions;
mod types;
mod user_rows;

use crate::model::{ListCursor, MemberInfo, NickKey, RoomKey, UserId};

use super::RegistryError;

pub(super) use self::events::EventReader;
pub use self::inspect::LeaseSummary;
pub use self::inventory::{HeldSession, Inventory, Membership};
pub use self::largest::{LargestStreams, ListedBytes, StreamOwner, StreamSize};
pub(crate) use self::types::event_position;
pub use self::types::{ClusterStats, EventLogEnds, GatewayRow, ListPage, RegistryEvent, RoomRow, UserRow};

/// Maximum number of rows in one page.
pub const PAGE_LIMIT: usize = 1000;

contract! {
    /// Reads for the API and for observers.
    Listing {
        /// Reads one user; `None` if the nick was never claimed.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`, as for every other read.
        async fn user(&self, nick: &NickKey) -> Result<Option<UserRow>, RegistryError>;

        /// Reads several users, in the order of `nicks`.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`; `Overloaded` if other listings are ahead for too long, as for every list below.
        async fn lookup(&self, nicks: &[NickKey]) -> Result<Vec<Option<UserRow>>, RegistryError>;

        /// Lists the nicknames of a user that are online, at most eight, by nickname; `None` without a nickname that is
        /// bound to the user.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn of_user(&self, user: &UserId) -> Result<Option<Vec<UserRow>>, RegistryError>;

        /// Lists the nicknames that are bound to a user, online or not, at most eight, by nickname.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn bound_to(&self, user: &UserId) -> Result<Vec<UserRow>, RegistryError>;

        /// Lists the online users in the order of their sessions, which a rename does not change; a page is sorted by
        /// nick key. `limit` is 1 to [`PAGE_LIMIT`].
        ///
        /// A user that is online from the first page to the last is listed exactly once.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn users(&self, cursor: Option<ListCursor>, limit: usize) -> Result<ListPage<UserRow>, RegistryError>;

        /// Lists the rooms with members by room key.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn rooms(&self, cursor: Option<&str>, limit: usize) -> Result<ListPage<RoomRow>, RegistryError>;

        /// Reads one room; `None` if it never had a member or message.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn room(&self, room: &RoomKey) -> Result<Option<RoomRow>, RegistryError>;

        /// Lists the members of a room in the same way, without those of fenced gateways.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn members(
            &self,
            room: &RoomKey,
            cursor: Option<ListCursor>,
            limit: usize,
        ) -> Result<ListPage<MemberInfo>, RegistryError>;

        /// Lists the gateways of the lease table: the newest incarnation of each node, without drained ones.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn gateways(&self) -> Result<Vec<GatewayRow>, RegistryError>;

        /// Counts users, rooms and gateways.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn stats(&self) -> Result<ClusterStats, RegistryError>;

        /// Waits until there are events after `after` (`None`: from now on), for at most 5 s. Returns at most `limit`
        /// of them with the position to continue from. Uses a connection of its own.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn events(
            &self,
            after: Option<&str>,
            limit: usize,
        ) -> Result<(Vec<RegistryEvent>, Option<String>), RegistryError>;

        /// Reads the ends of the event log, without waiting.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn event_log_ends(&self) -> Result<EventLogEnds, RegistryError>;
    }
}
