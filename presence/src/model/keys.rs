//! Every Redis key and channel name, built in one place and typed by the unit of atomicity that it belongs to.
//!
//! [`Keys`] returns one builder per name: [`RoomKeys`], [`NickKeys`], [`SessionKeys`], [`NodeKeys`]. [`ScriptKeys`]
//! takes the keys of one builder and of the partition. A key of another name compiles only as [`ScriptKeys::crossing`],
//! so every script that cannot run on a Redis Cluster yet shows in its call. Invariant: a name holds only encoded
//! tokens of [`crate::model`], never a client's text. Scripts alone build four more names, hashes of the partition:
//! `idempotency:<n>` (5 minutes of clients' keys), `api-idempotency:<n>` (those of applications), `attempts:<n>` (30 s
//! of ids of direct messages without a client's key) and `repeats:<n>` (30 s of ids of such messages in rooms that
//! were repeated). Today there is one partition, `{0}`. The partition is chosen here; ARCHITECTURE.md lists what else
//! assumes a single one.

mod script_keys;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

pub use self::script_keys::{CallKeys, ScriptKeys};
use crate::model::{Incarnation, NickKey, RoomKey, SessionId, UserKey};

/// A unit of atomicity: keys of one unit always live in one partition.
pub trait Unit {
    /// The word for units of this type, in texts for operators.
    const PLURAL: &'static str;
}

macro_rules! units {
    ($($(#[$doc:meta])* $name:ident => $plural:literal)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {}
        impl Unit for $name {
            const PLURAL: &'static str = $plural;
        }
    )* };
}

units! {
    /// The keys that a partition has once.
    PartitionUnit => "partitions"
    /// The keys of one room.
    RoomUnit => "rooms"
    /// The keys of one nickname.
    NickUnit => "nicknames"
    /// The keys of one user.
    UserUnit => "users"
    /// The keys of one skeleton, which look-alike nicknames share.
    SkeletonUnit => "skeletons"
    /// The keys of one webhook.
    WebhookUnit => "webhooks"
    /// The keys of one session.
    SessionUnit => "sessions"
    /// The keys of one gateway incarnation.
    NodeUnit => "gateways"
}

/// A key or channel name of unit `U`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitKey<U: Unit> {
    name: String,
    unit: PhantomData<U>,
}

impl<U: Unit> UnitKey<U> {
    fn new(name: String) -> Self {
        Self { name, unit: PhantomData }
    }

    /// The name as Redis knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl<U: Unit> Deref for UnitKey<U> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}

impl<U: Unit> fmt::Display for UnitKey<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl<U: Unit> From<UnitKey<U>> for String {
    fn from(key: UnitKey<U>) -> Self {
        key.name
    }
}

/// A builder of the keys of one unit, such as one room.
pub trait KeyBuilder: Copy {
    /// The unit's type.
    type Unit: Unit;
}

/// A builder of the keys of one unit with a name, such as one room, of which there are many.
pub trait NamedKeyBuilder<'a>: KeyBuilder {
    /// Returns the builder whose keys are patterns of the keys of all such units.
    fn all(base: &'a str) -> Self;
}

/// A function of a builder that returns a key of its unit, such as [`RoomKeys::meta`].
pub type OwnKey<B> = fn(B) -> UnitKey<<B as KeyBuilder>::Unit>;

impl KeyBuilder for &Keys {
    type Unit = PartitionUnit;
}

/// The keys of one deployment: a prefix and the hash tag of the only partition.
#[derive(Debug, Clone)]
pub struct Keys {
    base: String,
}

macro_rules! partition_keys {
    ($($(#[$doc:meta])* $name:ident => $text:literal;)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> UnitKey<PartitionUnit> { UnitKey::new(format!("{}{}", self.base, $text)) }
    )* };
}

impl Keys {
    /// Keys below `prefix` (the configured `redis.prefix`).
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { base: format!("{prefix}:{{0}}:") }
    }

    /// The beginning of every key of the partition; scripts build the keys of names they read from it.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the pattern of a key of all units, such as all rooms, for a text about a call on many of them.
    #[must_use]
    pub fn pattern<'a, B: NamedKeyBuilder<'a>>(&'a self, key: OwnKey<B>) -> String {
        key(B::all(&self.base)).into()
    }

    /// Returns the part of a key's name that is the same for all keys of its kind; `None` for a key of another program.
    #[must_use]
    pub fn kind_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.base)?.split(':').next()
    }

    /// The keys of a room.
    #[must_use]
    pub fn room<'a>(&'a self, room: &'a RoomKey) -> RoomKeys<'a> {
        RoomKeys { base: &self.base, name: room.as_str() }
    }

    /// The keys of a nickname.
    #[must_use]
    pub fn nick<'a>(&'a self, nick: &'a NickKey) -> NickKeys<'a> {
        NickKeys { base: &self.base, name: nick.as_str() }
    }

    /// The keys of a user.
    #[must_use]
    pub fn user<'a>(&'a self, user: &'a UserKey) -> UserKeys<'a> {
        UserKeys { base: &self.base, name: user.as_str() }
    }

    /// The keys of a session.
    #[must_use]
    pub fn session<'a>(&'a self, session: &'a SessionId) -> SessionKeys<'a> {
        SessionKeys { base: &self.base, name: session.as_str() }
    }

    /// The keys of a gateway incarnation.
    #[must_use]
    pub fn node<'a>(&'a self, incarnation: &'a Incarnation) -> NodeKeys<'a> {
        NodeKeys { base: &self.base, name: incarnation.as_str() }
    }

    /// The keys of a webhook.
    #[must_use]
    pub fn webhook<'a>(&'a self, webhook: &'a str) -> WebhookKeys<'a> {
        WebhookKeys { base: &self.base, name: webhook }
    }

    /// String with a TTL: id and time of the announcement with a mark, which names its idempotency key.
    #[must_use]
    pub fn announced(&self, mark: &str) -> UnitKey<PartitionUnit> {
        UnitKey::new(format!("{}announced:{mark}", self.base))
    }

    /// The keys of a nickname's skeleton, which look-alike nicknames share.
    #[must_use]
    pub fn skeleton<'a>(&'a self, skeleton: &'a str) -> SkeletonKeys<'a> {
        SkeletonKeys { base: &self.base, name: skeleton }
    }

    partition_keys! {
        /// Hash: `replid` (the replication id seen), `generation` (its number, never used twice), `phase` (open or
        /// recovering), `since` (Unix ms of its start, or of the end of the last gap in the beats while it recovers),
        /// `seen` (Unix ms of the last beat then), `webhooks` (the events that webhooks want, as in webhook_log.lua).
        generation => "generation";
        /// Hash: incarnation -> beat counter.
        beats => "beats";
        /// Hash: incarnation -> lease state (live, draining, drained, fenced).
        leases => "leases";
        /// Hash: incarnation -> `<Unix ms of its opening> <JSON that the gateway reported about itself>`.
        gateways => "gateways";
        /// Hash: incarnation -> Unix ms of its newest beat, for people to read; the failure detector watches `beats`.
        beaten => "beaten";
        /// Hash: incarnation -> Unix ms when its lease was fenced, or when the hold of a drained one ends: until then
        /// its nicks and memberships stay. An hour later the row can be deleted.
        ended => "ended";
        /// Set: incarnations that have reasserted their claims since the generation began.
        asserted => "asserted";
        /// Counter: the fence of the newest claim.
        fence => "fence";
        /// Sorted set, all scores 0: rooms with members, for paging.
        rooms => "rooms";
        /// Sorted set: nicks online, for paging. The score of a nick is the list score of its session.
        online => "online";
        /// Stream, bounded: online, offline, join, leave, rename, moderation. Feeds the event API.
        events => "events";
        /// Sorted set, bounded: `#<room key>` and `@<session id>` of the largest streams, scored by the bytes of their
        /// payloads at their last mark.
        largest => "largest";
        /// Stream, of the last 10 s: incarnation -> what addresses and users have used of their limits on it since its
        /// report before. They are named by hashes. Expires 60 s after the last report.
        usage => "usage";
        /// String with a TTL: the presence process that sends webhooks.
        webhook_lead => "webhook-lead";
        /// Stream, bounded: the events that webhooks want, ids `<number>-0` without holes.
        webhook_events => "webhook-events";
        /// Hash: `count` and `bytes` (of all entries of that stream so far), `mark <n>` (the entry at which the bytes
        /// passed the nth part of their bound), `led` (Unix ms of the last renewal of the lead).
        webhook_log => "webhook-log";
        /// Hash: webhook -> the number of the last entry that it has acknowledged.
        webhook_cursors => "webhook-cursors";
        /// Hash: webhook -> JSON about its deliveries, for people to read.
        webhook_states => "webhook-states";
        /// Hash: the list of sanctions. `version` (of the newest change), `floor` (changes up to this version may have
        /// been forgotten), `count:<kind>`, and for each entry its id -> a line (see `SanctionChange`).
        sanctions => "sanctions";
        /// Sorted set: the ids of the list of sanctions, scored by the version of their newest change.
        sanction_order => "sanction-order";
        /// Sorted set: the ids of entries that end by themselves, scored by Unix ms.
        sanction_ends => "sanction-ends";
        /// Sorted set, bounded: the ids of lifted entries, scored by the version.
        sanctions_lifted => "sanctions-lifted";
    }
}

macro_rules! unit_keys {
    ($(#[$type_doc:meta])* $keys:ident: $unit:ident { $($(#[$doc:meta])* $name:ident => $text:literal;)* }) => {
        $(#[$type_doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $keys<'a> {
            base: &'a str,
            name: &'a str,
        }

        impl KeyBuilder for $keys<'_> {
            type Unit = $unit;
        }

        impl<'a> NamedKeyBuilder<'a> for $keys<'a> {
            fn all(base: &'a str) -> Self {
                Self { base, name: "*" }
            }
        }

        impl $keys<'_> { $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self) -> UnitKey<$unit> { UnitKey::new(format!("{}{}:{}", self.base, $text, self.name)) }
        )* }
    };
}

unit_keys! {
    /// The keys of one room.
    RoomKeys: RoomUnit {
        /// Hash: `display`, `version` (of the members), and the meta of the room's stream: `epoch`, `generation` (in
        /// which the epoch began), `seq` and `time` (of the newest message), `forks` (`<epoch>:<seq> ..`), `oldest` (no
        /// message is older than that time), `bytes` (of all payloads so far), `marks` (`<seq>:<bytes> ..`), `quiet`
        /// (seconds that the room outlives its last member if it had fewer than three messages). Of moderation:
        /// `moderated` (1 once the room has had a topic, role, ban or invite) and `topic` (JSON of `text`, `by`,
        /// `time`). Of its rules: `rules` (JSON, if the API has written them), `keep` (1 for a room that the API has
        /// created) and `fleeting` (1 while its stream expires after each message). `guard`: 1 if a publish has to
        /// read the rules or the sender's role. No TTL while there are members. Without members a room with `keep`
        /// stays. One without messages, `keep` and `moderated` is deleted; others live an hour longer than the stream.
        meta => "room";
        /// Stream: the room's messages, ids `<seq>-0`. No TTL while there are members; without, 72 h or the time in
        /// `quiet`.
        stream => "log";
        /// Hash: nick key -> `<owner token> <JSON of the member info>`.
        members => "members";
        /// Sorted set: the nick keys of `members`, for paging. The score of a nick is the list score of its session.
        member_list => "member-list";
        /// Channel: the room's messages and presence events.
        channel => "ch:room";
    }
}

impl RoomKeys<'_> {
    /// Hash, bounded: identity -> `owner`, `moderator` or `muted <Unix ms of the end or 0> <reason>`. Lives as long as
    /// the meta, like bans and invites.
    #[must_use]
    pub fn roles(self) -> UnitKey<RoomUnit> {
        UnitKey::new(format!("{}room:{}:roles", self.base, self.name))
    }

    /// Hash, bounded: identity -> JSON of `until` (Unix ms or 0), `by`, `reason` and `time`.
    #[must_use]
    pub fn bans(self) -> UnitKey<RoomUnit> {
        UnitKey::new(format!("{}room:{}:bans", self.base, self.name))
    }

    /// Hash, bounded: identity -> Unix ms of the invite.
    #[must_use]
    pub fn invites(self) -> UnitKey<RoomUnit> {
        UnitKey::new(format!("{}room:{}:invites", self.base, self.name))
    }

    /// Sorted set: identities of members that the slow mode makes wait, scored by the Unix ms of their last message.
    /// Only scripts name it. Expires when the last of them may send.
    #[must_use]
    pub fn slow(self) -> UnitKey<RoomUnit> {
        UnitKey::new(format!("{}room:{}:slow", self.base, self.name))
    }
}

unit_keys! {
    /// The keys of one nickname.
    NickKeys: NickUnit {
        /// Hash: the nick's owner, or its last one. `owner` (the token; absent while the nick has no owner), `session`
        /// (of the newest owner), `display`, `skeleton` (one or two, separated by a space), `since`, `last_active`
        /// (both Unix ms), `status` (JSON, absent when plain online). While the owner has no connection `detached`
        /// (Unix ms since when) and `held_until` (Unix ms); once the nick was lost that way, `held` (the session it is
        /// held for) and `held_until`. `user` (the id of the only user that may claim it, absent after a guest). No TTL
        /// while owned, 72 h afterwards.
        record => "nick";
        /// Set: the rooms of this partition that the nick is in.
        rooms => "nick-rooms";
    }
}

unit_keys! {
    /// The keys of one user.
    UserKeys: UserUnit {
        /// Sorted set, at most eight: the nick keys that are bound to the user, scored by the Unix ms of their claim.
        /// A nick is bound if its record says so. No TTL while one of them is owned, 72 h afterwards.
        nicks => "user-nicks";
    }
}

unit_keys! {
    /// The keys of one skeleton (UTS 39).
    SkeletonKeys: SkeletonUnit {
        /// Sorted set: the owned and held nick keys that share the skeleton, scored 0 if shown with characters other
        /// than ASCII, else 1. No TTL while one of them is owned.
        nicks => "skeleton";
    }
}

unit_keys! {
    /// The keys of one webhook.
    WebhookKeys: WebhookUnit {
        /// Stream, bounded: the events that its receiver has not accepted in time.
        dead_letters => "webhook-dead";
    }
}

unit_keys! {
    /// The keys of one session.
    SessionKeys: SessionUnit {
        /// Hash: `nick` (the session's nick key), `token` (the hash of its resume token; empty for a text client, which
        /// has none); between a resume and its confirmation `previous` (the hash presented) and `was` (the owner token
        /// and nick before, or empty). Of its inbox the meta, as a room has one of its stream, and `read` (the client's
        /// read position). No TTL while the session owns its nick, 72 h afterwards; the same for its inbox and its
        /// rooms.
        record => "session";
        /// Set: the keys of the rooms that the session is in, or was in when it ended without `bye` or leave.
        rooms => "session-rooms";
        /// Stream: direct messages to the session, ids `<seq>-0`.
        inbox => "inbox";
    }
}

unit_keys! {
    /// The keys of one gateway incarnation.
    NodeKeys: NodeUnit {
        /// Set without TTL: the nicks that the gateway owns, for clean-up and for counts.
        owned_nicks => "owned-nicks";
        /// Set without TTL: `<room key> <nick key>` of every membership that the gateway owns, for clean-up.
        owned_members => "owned-members";
        /// List: orders (JSON) that wait for the gateway's next beat.
        mailbox => "mailbox";
        /// Channel of the gateway: direct messages, kicks, the echo of its own beat.
        channel => "ch:gw";
    }
}

#[cfg(test)]
mod tests;
