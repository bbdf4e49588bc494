//! Announcements of applications, in the form in which they reach gateways.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::hex;

/// Maximum number of tags of an announcement.
pub const ANNOUNCEMENT_TAGS_MAX: usize = 16;

/// An announcement to the sessions that are online, as an order to a gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnnouncementOrder {
    /// The id. A gateway drops the second copy of an announcement by it.
    pub id: String,
    /// The tags of which a session's token needs one. Empty for every session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Any JSON value, as the application wrote it.
    pub body: Box<RawValue>,
    /// Unix milliseconds.
    pub time: u64,
}

impl PartialEq for AnnouncementOrder {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.tags, self.time) == (&other.id, &other.tags, other.time) && self.body.get() == other.body.get()
    }
}

impl Eq for AnnouncementOrder {}

/// Returns the name under which an idempotency key of an application is remembered.
#[must_use]
pub fn announcement_mark(application: &str, key: &str) -> String {
    // The name of an application contains no space.
    hex(&Sha256::digest(format!("{application} {key}"))[..16])
}
