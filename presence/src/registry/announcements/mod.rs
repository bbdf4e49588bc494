//! Announcements: one message to every session that is online, or to those with a tag.
//!
//! An announcement travels like an order: over the channel of each gateway, and by its mailbox, so it arrives with the
//! next beat if the channel message is lost. It is stored nowhere else. Gateways choose the sessions and deliver it
//! once.

mod memory;
mod redis;

use std::time::Duration;

use serde_json::value::RawValue;

use super::RegistryError;

/// The time for which an idempotency key is remembered.
pub(crate) const ANNOUNCED_FOR: Duration = Duration::from_secs(300);
/// Maximum number of orders in the mailbox of a gateway before an announcement is refused. A live gateway empties its
/// mailbox once a second. With the bound of a body it bounds the bytes of a mailbox.
pub(crate) const MAILBOX_ORDERS_MAX: usize = 128;

/// An announcement to send.
#[derive(Debug, Clone)]
pub struct AnnouncementRequest {
    /// The application, by the name of its key.
    pub application: String,
    /// The idempotency key, if there is one: unique per application.
    pub key: Option<String>,
    /// The id, unless the key is known.
    pub id: String,
    /// The tags of which a session needs one. Empty for every session.
    pub tags: Vec<String>,
    /// Any JSON value.
    pub body: Box<RawValue>,
}

impl AnnouncementRequest {
    /// Returns the name under which it is remembered. Without a key it is remembered by its id, for its own repeats.
    pub(crate) fn mark(&self) -> String {
        crate::model::announcement_mark(&self.application, self.key.as_ref().unwrap_or(&self.id))
    }
}

/// An announcement that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentAnnouncement {
    /// The id of the first announcement with this key.
    pub id: String,
    /// Its time, in Unix milliseconds.
    pub time: u64,
    /// True if the key was known, so nothing was sent.
    pub duplicate: bool,
}

contract! {
    /// Announcements to the sessions of all gateways.
    Announcements {
        /// Sends an announcement to every gateway that serves. A known key sends nothing, for 5 minutes. Returns `None`
        /// if the mailbox of a gateway has no space. While a lost answer leaves the outcome unknown, the call is
        /// repeated for a few seconds.
        ///
        /// # Errors
        /// `Unavailable`, also while a generation recovers, or `Unknown`.
        async fn announce(&self, request: &AnnouncementRequest) -> Result<Option<SentAnnouncement>, RegistryError>;
    }
}
