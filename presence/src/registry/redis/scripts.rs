//! The scripts of the registry, as they are sent to Redis: first line, shared parts, body.
//!
//! Each `.lua` file opens with what it is for, its KEYS, ARGV and replies. The first line (`#!lua flags=...`) must be the
//! very first bytes of a script, so the shared parts go behind it.

use std::sync::LazyLock;

use redis::Script;

use crate::host::failpoints;
use crate::store::redis::GENERATION;

/// Declares the scripts: a name, the shared parts it needs, its file.
macro_rules! scripts {
    ($($name:ident = [$($part:literal),*] $file:literal;)*) => { $(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            assemble(&[GENERATION, $(include_str!(concat!("../lua/", $part))),*], include_str!(concat!("../lua/", $file)))
        });
    )* };
}

scripts! {
    OPEN_LEASE = ["prelude.lua", "lease_table.lua"] "open_lease.lua";
    BEAT = ["prelude.lua", "lease_table.lua", "open_generation.lua"] "beat.lua";
    REASSERT = ["prelude.lua", "restore.lua"] "reassert.lua";
    AUDIT = ["prelude.lua"] "audit.lua";
    LEASES = ["prelude.lua", "lease_table.lua"] "leases.lua";
    SET_LEASE = ["prelude.lua"] "set_lease.lua";
    FENCE = ["prelude.lua"] "fence.lua";
    REAP = ["prelude.lua", "departures.lua"] "reap.lua";
    CLAIM = ["prelude.lua", "departures.lua", "claims.lua"] "claim.lua";
    RESUME = ["prelude.lua", "departures.lua", "claims.lua"] "resume.lua";
    CONFIRM = ["prelude.lua"] "confirm.lua";
    DETACH = ["prelude.lua"] "detach.lua";
    DEPART = ["prelude.lua", "departures.lua"] "depart.lua";
    READ = ["prelude.lua"] "read.lua";
    RELEASE = ["prelude.lua", "departures.lua"] "release.lua";
    JOIN = ["prelude.lua", "departures.lua", "log.lua"] "join.lua";
    LEAVE = ["prelude.lua", "departures.lua"] "leave.lua";
    STATUS = ["prelude.lua"] "status.lua";
    KICK = ["prelude.lua"] "kick.lua";
    DRAIN = ["prelude.lua"] "drain.lua";
    USERS = ["prelude.lua"] "users.lua";
    ROOMS = ["prelude.lua"] "rooms.lua";
}

fn assemble(parts: &[&str], script: &str) -> Script {
    let (shebang, body) = script.split_once('\n').unwrap_or((script, ""));
    Script::new(&failpoints::script(&[&[shebang], parts, &[body]].concat().join("\n")))
}

#[cfg(test)]
mod tests;
