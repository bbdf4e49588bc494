//! The shared vocabulary: names, claims, presence, streams, and the codes of errors and closes.
//!
//! All modules of both programs exchange these types, so a value is validated once, here. Nothing here reads a
//! clock or a socket.

pub mod codes;
pub mod json_value;
pub mod keys;
pub mod moderation;
pub mod stream;

mod announcement;
mod claims;
mod hex;
mod identity;
mod list_cursor;
mod sanctions;
mod names;
mod presence;
mod room_pattern;
mod room_entry;
mod room_policies;
mod room_rules;
mod token;
mod usage_key;
mod user_id;

use std::time::Duration;

pub use self::announcement::{ANNOUNCEMENT_TAGS_MAX, AnnouncementOrder, announcement_mark};
pub use self::claims::{Fence, Incarnation, Owner, SessionId, TokenHash};
pub(crate) use self::hex::hex;
pub use self::identity::Identity;
pub use self::list_cursor::{ListCursor, keep_newest};
pub use self::names::{
    KEY_BYTES, LookalikePolicy, NICK_BYTES, NICK_GRAPHEMES, NameError, Nick, NickKey, NickSkeletons, ROOM_BYTES,
    ROOM_GRAPHEMES, RoomKey, RoomName,
};
pub use self::presence::{
    Availability, LeftReason, MemberInfo, MemberLeft, OfflineReason, PresenceDelta, Rename, STATUS_BYTES, Status,
};
pub use self::room_entry::RoomEntryOrder;
pub use self::room_pattern::RoomPattern;
pub use self::room_policies::{RoomPolicies, RoomPolicy};
pub use self::room_rules::{EPHEMERAL_AGE, EPHEMERAL_MESSAGES, RoomCreation, RoomRules, RoomRulesError, SendRight};
pub use self::sanctions::{
    OrderError, SANCTIONS_MAX, SanctionChange, SanctionEntry, SanctionKind, SanctionOrder, SanctionSubject,
    SanctionedNetwork, SubjectError, SubjectFields,
};
pub use self::usage_key::UsageKey;
pub use self::user_id::{USER_ID_BYTES, UserId, UserKey, is_printable_text};

const MIB: usize = 1024 * 1024;

/// Limits of a stream. Messages beyond a limit are deleted at the next publish to the room or the inbox. A store that
/// trims in blocks may keep some more messages, and up to a sixteenth more bytes. The newest message always fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum number of messages of a room.
    pub messages: usize,
    /// Maximum number of payload bytes of a room.
    pub bytes: usize,
    /// Maximum age of the messages of a room.
    pub age: Duration,
    /// Maximum number of messages of an inbox.
    pub inbox_messages: usize,
    /// Maximum number of payload bytes of an inbox.
    pub inbox_bytes: usize,
    /// Lifetime of a room with fewer than three messages after its last member.
    pub quiet: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self {
            messages: 10_000,
            bytes: 16 * MIB,
            age: hours(72),
            inbox_messages: 1_000,
            inbox_bytes: 4 * MIB,
            quiet: hours(24),
        }
    }
}
