//! The failures that every registry call shares.

/// A registry call that did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The caller's lease is not live: its sessions have lost their claims, or will.
    #[error("the lease is not live")]
    Fenced,
    /// Too many reads are under way in this process; nothing was read.
    #[error("too many reads are under way")]
    Overloaded,
    /// The room does not exist, and the caller may not create it; nothing was done.
    #[error("the room does not exist")]
    NoSuchRoom,
    /// The caller is banned from the room; nothing was done.
    #[error("the caller is banned from the room")]
    Banned,
    /// The rules of the room do not let the caller create it; nothing was done.
    #[error("the rules of the room do not allow it")]
    NotAllowed,
    /// The room has its maximum number of members; nothing was done.
    #[error("the room is full")]
    RoomFull,
    /// The room admits invited users only; nothing was done.
    #[error("the room is for invited users")]
    InviteOnly,
    /// The store refused or could not be reached; nothing was done. The text is for logs only.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The command was sent and no answer arrived; it may have been done. The text is for logs only.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

impl RegistryError {
    /// Returns true if the rules of a room refused a join.
    #[must_use]
    pub fn is_by_rules(&self) -> bool {
        matches!(self, Self::Banned | Self::NotAllowed | Self::RoomFull | Self::InviteOnly)
    }
}
