//! The scripts that append messages to rooms and inboxes. Gateways and the server API call the same ones.
//!
//! The files are in `registry/messages/`. The calls are in the gateway's `backplane/redis` and in
//! `registry/messages/redis.rs`.

use std::sync::LazyLock;

use redis::Script;

use super::{GENERATION, STREAM, WEBHOOK_LOG, script_source};
use crate::host::failpoints;

/// Script fragment that every script of messages begins with.
pub const PRELUDE: &str = include_str!("../../registry/messages/prelude.lua");
/// Script fragment that finds the gateway of a nick.
pub const WHEREABOUTS: &str = include_str!("../../registry/messages/whereabouts.lua");
/// Script fragment that reads roles, bans and mutes of a room.
pub const ROLES: &str = include_str!("../../registry/rooms/roles.lua");
/// Script fragment that reads the rules of a room.
pub const RULES: &str = include_str!("../../registry/rooms/rules.lua");
const NOTES: &str = include_str!("../../registry/messages/notes.lua");
const SIZES: &str = include_str!("../../registry/messages/sizes.lua");
const APPEND: &str = include_str!("../../registry/messages/append.lua");
const REPEATS: &str = include_str!("../../registry/messages/repeats.lua");
const RETENTION: &str = include_str!("../../registry/messages/retention.lua");
const SENDERS: &str = include_str!("../../registry/messages/senders.lua");

/// `publish.lua`, for the messages to rooms.
pub static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    let parts = [PRELUDE, NOTES, SIZES, APPEND, REPEATS, RETENTION, ROLES, RULES, SENDERS];
    assemble(&parts, include_str!("../../registry/messages/publish.lua"))
});

/// `direct.lua`, for the messages to nicknames.
pub static DIRECT: LazyLock<Script> = LazyLock::new(|| {
    assemble(&[PRELUDE, NOTES, SIZES, APPEND, WHEREABOUTS], include_str!("../../registry/messages/direct.lua"))
});

/// The kinds of keys in which `publish.lua` notes messages.
pub const PUBLISH_BUCKETS: [&str; 3] = ["idempotency", "api-idempotency", "repeats"];
/// The kinds of keys in which `direct.lua` notes messages.
pub const DIRECT_BUCKETS: [&str; 3] = ["idempotency", "api-idempotency", "attempts"];
/// Maximum number of messages remembered for one bucket, over all rooms and nicks of a partition. A bucket spans 5
/// minutes for messages with a client's key, 30 seconds for others.
pub const BUCKET_NOTES_MAX: usize = 1_000_000;
/// The lifetime of an inbox after its session: 72 hours.
pub const INBOX_RETENTION_SECONDS: usize = 72 * 60 * 60;

/// Assembles a script: its first line must be the very first bytes, so the shared parts follow it.
#[must_use]
pub fn assemble(shared: &[&str], text: &str) -> Script {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    script_source::script(&failpoints::script(
        &[&[first, GENERATION, WEBHOOK_LOG, STREAM], shared, &[body]].concat().join("\n"),
    ))
}
