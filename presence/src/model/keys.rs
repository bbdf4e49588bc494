//! Every Redis key and channel name, built in one place.
//!
//! All names of one unit of atomicity carry one hash tag, so every script touches one cluster slot. Today there is one
//! partition; a partition is chosen by the key of the room or nick, so more of them change this file only.
//! Invariant: what goes into a name is one of the encoded tokens of [`crate::model`], never a client's text.

use crate::model::{Incarnation, NickKey, RoomKey, SessionId};

/// The keys of one deployment: a prefix and the hash tag of the only partition.
#[derive(Debug, Clone)]
pub struct Keys {
    base: String,
}

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> String { format!("{}{}", self.base, $text) }
    )* };
}

macro_rules! of {
    ($($(#[$doc:meta])* $name:ident($what:ty) => $text:literal;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self, of: &$what) -> String { format!("{}{}:{}", self.base, $text, of) }
    )* };
}

impl Keys {
    /// Keys below `prefix` (the configured `redis.prefix`).
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { base: format!("{prefix}:{{0}}:") }
    }

    /// What every key of the partition begins with; scripts build the keys of names they read from it.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    plain! {
        /// Hash: `replid` (the replication id seen), `generation` (its number, never used twice), `phase` (open or
        /// recovering), `since` (Unix ms of its begin, or of the end of the last break in the beats while it recovers), `seen`
        /// (Unix ms of the last beat then).
        generation => "generation";
        /// Hash: incarnation -> beat counter.
        beats => "beats";
        /// Hash: incarnation -> lease state (live, draining, drained, fenced).
        leases => "leases";
        /// Hash: incarnation -> `<Unix ms of its opening> <JSON of what the gateway told about itself>`.
        gateways => "gateways";
        /// Hash: incarnation -> Unix ms of its newest beat, for people to read; the failure detector watches `beats`.
        beaten => "beaten";
        /// Hash: incarnation -> Unix ms when its lease was fenced, or when the hold of a drained one is over: until then
        /// what it owns is left alone. An hour later the row can go.
        ended => "ended";
        /// Set: incarnations that have said what they hold since the generation began.
        asserted => "asserted";
        /// Counter: the fencing number of the newest claim.
        fence => "fence";
        /// Sorted set, all scores 0: rooms with members, for paging.
        rooms => "rooms";
        /// Sorted set, all scores 0: nicks online, for paging.
        online => "online";
        /// Stream, bounded: online, offline, join, leave, rename. Feeds the event API.
        events => "events";
    }

    of! {
        /// Hash: who has the nick, or had it last. `owner` (the token; absent while nobody owns it), `session` (of the
        /// newest owner), `display`, `skeleton`, `since`, `last_active` (both Unix ms), `status` (JSON, absent when plain
        /// online). While the owner has no connection `detached` (Unix ms since when) and `held_until` (Unix ms); when it has
        /// lost the nick so, `held` (the session it is kept for) and `held_until`. No TTL while owned, 72 h afterwards.
        nick(NickKey) => "nick";
        /// Set: the rooms of this partition that the nick is in.
        nick_rooms(NickKey) => "nick-rooms";
        /// Sorted set: the owned and held nick keys that share a skeleton, scored 0 when shown with other than ASCII, else
        /// 1. No TTL while one of them is owned.
        skeleton(str) => "skeleton";
        /// Set with a TTL refreshed by the beat: the nicks online on a gateway, a cache for listings.
        gateway_nicks(Incarnation) => "gateway-nicks";
        /// Set without TTL: the nicks that a gateway owns, for clean-up.
        owned_nicks(Incarnation) => "owned-nicks";
        /// Set without TTL: `<room key> <nick key>` of every membership that a gateway owns, for clean-up.
        owned_members(Incarnation) => "owned-members";
        /// List: commands (JSON) that wait for a gateway's next beat.
        mailbox(Incarnation) => "mailbox";
        /// Hash: `display`, `version` (of the members), and the meta of its log: `epoch`, `generation` (that it began in),
        /// `seq` and `time` (of the newest message), `forks` (`<epoch>:<seq> ..`), `oldest` (no message is older than that
        /// time). No TTL while there are members, 73 h without.
        room(RoomKey) => "room";
        /// Stream: the room's messages, ids `<seq>-0`. No TTL while there are members, 72 h without.
        room_log(RoomKey) => "log";
        /// Hash: nick key -> `<owner token> <JSON of the member info>`.
        members(RoomKey) => "members";
        /// Sorted set, all scores 0: the nick keys of `members`, for paging.
        member_list(RoomKey) => "member-list";
        /// Hash: `nick` (the session's nick key), `token` (the hash of what its client resumes it with); between a resume and
        /// its confirmation `previous` (the hash presented) and `was` (the owner token and nick before, or empty). Of its inbox
        /// the meta, as a room has one of its log, and `read` (how far the client has read). No TTL while it owns the nick,
        /// 72 h afterwards; the same for its inbox and its rooms.
        session(SessionId) => "session";
        /// Set: the keys of the rooms that the session is in, or was in when it ended against its will.
        session_rooms(SessionId) => "session-rooms";
        /// Stream: direct messages to the session, ids `<seq>-0`.
        inbox(SessionId) => "inbox";
        /// Hash: clients' idempotency keys of one 5-minute bucket.
        idempotency(u64) => "idempotency";
        /// Hash: ids of messages without such a key, of one 30-second bucket.
        attempts(u64) => "attempts";
        /// Channel: what happens in a room.
        room_channel(RoomKey) => "ch:room";
        /// Channel: what is meant for one gateway: direct messages, kicks, the echo of its own beat.
        gateway_channel(Incarnation) => "ch:gw";
    }
}
