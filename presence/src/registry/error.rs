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
    /// The store refused or could not be reached; nothing was done. The text is for logs only.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The command was sent and no answer arrived; it may have been done. The text is for logs only.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}
