//! The scripts of the registry as sent to Redis: first line, shared parts, body.
//!
//! Each `.lua` file opens with its purpose, KEYS, ARGV and replies. The first line (`#!lua flags=...`) must be the very
//! first bytes of a script, so the shared parts follow it.

use std::sync::LazyLock;

use redis::Script;

use crate::host::failpoints;
use crate::store::redis::{GENERATION, WEBHOOK_LOG, script_source};

/// Declares the scripts: name, shared parts, file.
macro_rules! scripts {
    ($($name:ident = [$($part:literal),*] $file:literal;)*) => { $(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            assemble(&[GENERATION, WEBHOOK_LOG, $(include_str!(concat!("script/", $part))),*], include_str!($file))
        });
    )* };
}

scripts! {
    OPEN_LEASE = ["prelude.lua", "../leases/lease_table.lua"] "leases/open_lease.lua";
    BEAT = ["prelude.lua", "../leases/lease_table.lua", "../leases/open_generation.lua"] "leases/beat.lua";
    REASSERT = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../leases/restore.lua"] "leases/reassert.lua";
    AUDIT = ["prelude.lua", "../names/user_nicks.lua"] "leases/audit.lua";
    LEASES = ["prelude.lua", "../leases/lease_table.lua"] "leases/leases.lua";
    OBSERVE = ["prelude.lua", "../leases/lease_table.lua"] "leases/observe.lua";
    SET_LEASE = ["prelude.lua"] "leases/set_lease.lua";
    FENCE = ["prelude.lua"] "leases/fence.lua";
    REAP = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../rooms/drop_member.lua", "../rooms/end_room.lua"] "leases/reap.lua";
    CLAIM = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../rooms/drop_member.lua", "../rooms/end_room.lua", "../names/take_over.lua", "../names/assign_nick.lua"] "names/claim.lua";
    RESUME = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../rooms/drop_member.lua", "../rooms/end_room.lua", "../names/take_over.lua", "../names/assign_nick.lua"] "sessions/resume.lua";
    CONFIRM = ["prelude.lua"] "sessions/confirm.lua";
    DETACH = ["prelude.lua"] "sessions/detach.lua";
    EXPIRE_DETACHED = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../names/order_kick.lua", "../names/end_session.lua"] "sessions/expire_detached.lua";
    READ = ["prelude.lua"] "sessions/read.lua";
    RELEASE = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/free_nick.lua", "../names/order_kick.lua", "../names/end_session.lua"] "names/release.lua";
    JOIN = ["prelude.lua", "owners.lua", "../rooms/drop_member.lua", "../rooms/roles.lua", "../rooms/rules.lua", "stream.lua"] "rooms/join.lua";
    DELETE_ROOM = ["prelude.lua", "owners.lua", "../rooms/drop_member.lua", "../rooms/order_removal.lua"] "rooms/delete_room.lua";
    SET_RULES = ["prelude.lua", "stream.lua"] "rooms/set_rules.lua";
    DELETE_MESSAGES = ["prelude.lua"] "rooms/delete_messages.lua";
    LEAVE = ["prelude.lua", "owners.lua", "../rooms/drop_member.lua", "../rooms/end_room.lua"] "rooms/leave.lua";
    MODERATE = ["prelude.lua", "owners.lua", "../names/user_nicks.lua", "../names/present_nick.lua", "../rooms/drop_member.lua", "../rooms/end_room.lua", "../rooms/order_removal.lua", "../rooms/roles.lua", "../rooms/rules.lua"] "rooms/moderate.lua";
    STATUS = ["prelude.lua"] "names/status.lua";
    KICK = ["prelude.lua", "owners.lua", "../names/present_nick.lua", "../names/order_kick.lua", "../names/end_session.lua"] "names/kick.lua";
    ORDER_ENTRY = ["prelude.lua", "owners.lua", "../names/present_nick.lua"] "names/order_entry.lua";
    RENAMED = ["prelude.lua", "owners.lua", "../names/present_nick.lua"] "names/renamed.lua";
    DRAIN = ["prelude.lua"] "leases/drain.lua";
    USERS = ["prelude.lua", "../listing/user_rows.lua"] "listing/users.lua";
    ONLINE = ["prelude.lua", "../listing/user_rows.lua"] "listing/online.lua";
    MEMBERS = ["prelude.lua"] "listing/members.lua";
    ROOMS = ["prelude.lua"] "listing/rooms.lua";
    SANCTION = ["prelude.lua", "../sanctions/sanction_list.lua"] "sanctions/sanction.lua";
    LIFT = ["prelude.lua", "../sanctions/sanction_list.lua"] "sanctions/lift.lua";
    SANCTIONS = ["prelude.lua"] "sanctions/sanctions.lua";
    RESTORE_SANCTIONS = ["prelude.lua", "../sanctions/sanction_list.lua"] "sanctions/restore_sanctions.lua";
    ANNOUNCE = ["prelude.lua"] "announcements/announce.lua";
    LARGEST = ["prelude.lua"] "listing/largest.lua";
    LEAD_WEBHOOKS = ["prelude.lua"] "webhooks/lead_webhooks.lua";
    RESIGN_WEBHOOKS = ["prelude.lua"] "webhooks/resign_webhooks.lua";
    FORGET_WEBHOOKS = ["prelude.lua"] "webhooks/forget_webhooks.lua";
    TAKE_WEBHOOK_EVENTS = ["prelude.lua"] "webhooks/take_webhook_events.lua";
    SETTLE_WEBHOOK = ["prelude.lua"] "webhooks/settle_webhook.lua";
    REPLAY_WEBHOOK = ["prelude.lua"] "webhooks/replay_webhook.lua";
    SHOW_WEBHOOKS = ["prelude.lua"] "webhooks/show_webhooks.lua";
}

fn assemble(parts: &[&str], script: &str) -> Script {
    let (shebang, body) = script.split_once('\n').unwrap_or((script, ""));
    script_source::script(&failpoints::script(&[&[shebang], parts, &[body]].concat().join("\n")))
}

#[cfg(test)]
mod tests;
