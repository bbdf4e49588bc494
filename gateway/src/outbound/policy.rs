//! Limits for clients that read too slowly.
//!
//! [`SLOW_READER`] holds every limit; outboxes, join buffers, replay and the listeners enforce them. Its drop policy
//! marks the events that may be dropped. Invariant: a message is never dropped; its reader is closed with
//! [`CloseCode::Slow`](presence::model::codes::CloseCode::Slow) instead. The gateway's own backlog is bounded
//! elsewhere.

use std::time::Duration;

use crate::wire::Event;

/// Limits for one slow reader.
#[derive(Debug, Clone, Copy)]
pub struct SlowReaderPolicy {
    /// Queued bytes above which an outbox drops presence and typing events, and replay waits for the reader.
    pub droppable_bytes_max: usize,
    /// Bytes that may be queued in an outbox for longer than `overdue_after`; one more closes the connection. The
    /// largest queued reply is not counted: the client requested it.
    pub queue_bytes_max: usize,
    /// Time in which a reader may drain a burst: until then only `burst_bytes_max` applies.
    pub overdue_after: Duration,
    /// Bytes that may be queued in an outbox at any time; one more closes the connection.
    pub burst_bytes_max: usize,
    /// Member changes that one presence event may hold. More, as after the loss of a gateway, become a `resync`: their
    /// list would fill every member's outbox.
    pub presence_changes_max: usize,
    /// Bytes kept for one member that is joining. The oldest are released first, because replay can read them. Together
    /// with `droppable_bytes_max` they fit into the outbox.
    pub join_buffer_bytes_max: usize,
    /// Payload bytes of one page of a replay; a larger message is a page of its own.
    pub replay_page_bytes_max: usize,
    /// Maximum number of messages by which a stream may grow during one replay; beyond it the connection is closed.
    pub replay_lag_messages_max: u64,
    /// Bytes that the kernel queues for one socket; the kernel doubles this value. Its own default is megabytes for
    /// each stalled reader.
    pub socket_send_buffer_bytes: usize,
    /// Maximum time without an acknowledgement of written bytes, before the kernel ends the connection.
    pub unacknowledged_max: Duration,
    /// Time in which a transport must write everything it took from the outbox; after it the connection is closed.
    /// Default of the configuration key `limits.write_stall_seconds`.
    pub write_stall: Duration,
}

/// The limits of every connection.
pub const SLOW_READER: SlowReaderPolicy = SlowReaderPolicy {
    droppable_bytes_max: 64 * 1024,
    queue_bytes_max: 256 * 1024,
    overdue_after: Duration::from_secs(1),
    burst_bytes_max: 4 * 1024 * 1024,
    presence_changes_max: 256,
    join_buffer_bytes_max: 96 * 1024,
    replay_page_bytes_max: 128 * 1024,
    replay_lag_messages_max: 10_000,
    socket_send_buffer_bytes: 256 * 1024,
    unacknowledged_max: Duration::from_secs(90),
    write_stall: Duration::from_secs(30),
};

/// Permission to drop an event for a reader that falls behind.
#[derive(Debug, Clone, Copy)]
pub(super) enum DropPolicy<'a> {
    /// Dropped without a trace.
    Silently,
    /// Dropped; once the reader has caught up it receives a `resync` of this room.
    WithResync(&'a str),
    /// Never dropped.
    Never,
}

impl<'a> DropPolicy<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        match event {
            Event::Typing { .. } => Self::Silently,
            Event::Presence { room, .. } | Event::Moderation { room, .. } => Self::WithResync(room),
            Event::Message(_)
            | Event::Gap { .. }
            | Event::Epoch { .. }
            | Event::Rewound { .. }
            | Event::Left { .. }
            | Event::Expiring { .. }
            | Event::Announcement { .. }
            | Event::GoingAway { .. } => Self::Never,
        }
    }
}
