//! Moderation of rooms: roles, topics, orders of moderators, and the notice of each to the room.
//!
//! Values in the form of the wire and of the store. Invariant: texts are one line and bounded. Nothing here decides who
//! may moderate: `registry/rooms/moderate.lua` and `registry/rooms/moderation/memory.rs` do.

use serde::{Deserialize, Serialize};

use super::user_id::is_printable;
use super::{Nick, RoomKey, SessionId, UserId};

/// Maximum length of a reason, in characters.
pub const REASON_CHARS: usize = 256;
/// Maximum length of a topic, in characters.
pub const TOPIC_CHARS: usize = 1024;
/// Maximum duration of a ban or a mute that ends, in seconds: ten years.
pub const MODERATION_SECONDS_MAX: u64 = 10 * 366 * 24 * 3600;

/// A role in a room. Plain members have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoomRole {
    /// May act on everybody.
    Owner,
    /// May act on everybody but owners.
    Moderator,
    /// May not send.
    Muted,
}

impl RoomRole {
    /// Returns the word used on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Moderator => "moderator",
            Self::Muted => "muted",
        }
    }

    /// Returns the role of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Owner, Self::Moderator, Self::Muted].into_iter().find(|role| role.as_str() == word)
    }
}

/// The topic of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomTopic {
    /// One line of text.
    pub text: String,
    /// The nickname that set it, or the name of an API key.
    pub by: String,
    /// Unix milliseconds.
    pub time: u64,
}

macro_rules! moderation_actions {
    ($($(#[$doc:meta])* $action:ident => $word:literal,)*) => {
        /// An action of a moderator.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum ModerationAction { $($(#[$doc])* $action,)* }

        impl ModerationAction {
            /// All actions.
            pub const ALL: &'static [Self] = &[$(Self::$action,)*];

            /// Returns the word used on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$action => $word,)* } }
        }
    };
}

impl ModerationAction {
    /// Returns the action of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == word)
    }

    /// Returns true if an order may name a user in place of a nickname.
    #[must_use]
    pub fn names_users(self) -> bool {
        matches!(self, Self::Ban | Self::Unban | Self::Mute | Self::Unmute | Self::Invite)
    }
}

moderation_actions! {
    /// Removes a member from the room.
    Kick => "kick",
    /// Removes a person from the room and refuses their joins.
    Ban => "ban",
    /// Lifts a ban.
    Unban => "unban",
    /// Refuses a person's messages.
    Mute => "mute",
    /// Lifts a mute.
    Unmute => "unmute",
    /// Makes a person moderator or owner.
    Op => "op",
    /// Makes an owner or moderator a plain member.
    Deop => "deop",
    /// Lets a person join a room that asks for an invite.
    Invite => "invite",
    /// Sets the topic.
    Topic => "topic",
}

/// The person that an action is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModerationTarget {
    /// The present or last bearer of a nickname.
    Nick(Nick),
    /// A user, online or not.
    User(UserId),
}

/// An order of a moderator. Fields that the action does not use are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModerationOrder {
    /// The action.
    pub action: ModerationAction,
    /// The person; `None` for a topic.
    pub target: Option<ModerationTarget>,
    /// The duration of a ban or mute in seconds; `None` until it is lifted.
    pub seconds: Option<u64>,
    /// The reason, or the topic. Empty for none.
    pub text: String,
    /// The role that `op` gives.
    pub role: RoomRole,
}

impl ModerationOrder {
    /// An order without reason, about one person.
    #[must_use]
    pub fn new(action: ModerationAction, target: Option<ModerationTarget>) -> Self {
        Self { action, target, seconds: None, text: String::new(), role: RoomRole::Moderator }
    }
}

/// An action that was carried out, as the room receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Moderation {
    /// The action.
    pub action: ModerationAction,
    /// The nickname of the person, if the order named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nick: Option<String>,
    /// The user id of the person, if the order named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub user: Option<UserId>,
    /// The nickname of the moderator, or the name of an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The end of a ban or mute, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The role that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoomRole>,
    /// The topic; empty if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Unix milliseconds.
    pub time: u64,
}

/// The reason for which a moderator removed a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalReason {
    /// May return at once.
    Kicked,
    /// May return once the ban ends.
    Banned,
}

impl RemovalReason {
    /// Returns the word used on the wire and on channels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Banned => "banned",
        }
    }
}

/// The removal of a session from a room by a moderator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRemoval {
    /// The session.
    pub session: SessionId,
    /// The room.
    pub room: RoomKey,
    /// Kicked or banned.
    pub reason: RemovalReason,
    /// The moderator, as the room saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason that the moderator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Tells the two ways of one order from a later order.
    pub number: String,
}

/// Returns true for free text of at most `chars` characters.
#[must_use]
pub fn is_one_line(text: &str, chars: usize) -> bool {
    text.chars().count() <= chars && is_free_text(text)
}

/// Returns true for one line that leaves the text around it as it is: no control characters, and no invisible ones such
/// as those that turn the direction of writing. Joiners are allowed, because scripts and emoji
/// need them. The rule for status texts, topics and reasons.
#[must_use]
pub fn is_free_text(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\u{200C}' | '\u{200D}') || is_printable(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_counted_in_characters() {
        assert!(is_one_line("", 0) && is_one_line(&"é".repeat(REASON_CHARS), REASON_CHARS));
        assert!(!is_one_line(&"é".repeat(REASON_CHARS + 1), REASON_CHARS));
        for broken in ["a\nb", "a\0", "\u{7F}", "\u{85}", "\u{2028}"] {
            assert!(!is_one_line(broken, REASON_CHARS), "{broken:?}");
        }
    }

    #[test]
    fn invisible_characters_are_no_plain_line() {
        for turned in [
            '\u{202E}',
            '\u{202A}',
            '\u{2066}',
            '\u{2069}',
            '\u{200F}',
            '\u{61C}',
            '\u{200B}',
            '\u{FEFF}',
            '\u{3164}',
            '\u{115F}',
            '\u{1160}',
            '\u{FFA0}',
            '\u{180E}',
            '\u{34F}',
            '\u{17B5}',
            '\u{E0041}',
            '\u{E0100}',
        ] {
            assert!(!is_one_line(&format!("tea{turned}"), REASON_CHARS), "{}", turned.escape_unicode());
        }
        for plain in [
            "\u{5E9}\u{5DC}\u{5D5}\u{5DD} tea",
            "\u{1F469}\u{200D}\u{1F4BB}",
            "\u{2764}\u{FE0F}\u{200D}\u{1F525}",
            "\u{645}\u{6CC}\u{200C}\u{62E}\u{648}\u{627}\u{647}\u{645}",
        ] {
            assert!(is_one_line(plain, REASON_CHARS), "{plain}");
        }
    }
}
