//! The types of packed messages: the number in front of a payload, and the name in JSON.
//!
//! One row for each request, reply and event, and for what only the connection uses. The numbers are in PROTOCOL.md and
//! never change; those between the ranges are free for further types.

/// The bit of a type that marks a compressed payload.
pub const COMPRESSED: u16 = 0x8000;

macro_rules! packed_types {
    ($($kind:ident = $number:literal $name:literal,)*) => {
        /// The type of a packed message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum PackedType { $(#[doc = concat!("`", $name, "`, number ", stringify!($number))] $kind = $number,)* }

        impl PackedType {
            /// All types, by number.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Returns the `type` in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$kind => $name,)* } }

            /// Returns the type of a number without the bit [`COMPRESSED`].
            #[must_use]
            pub const fn of_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)* _ => None }
            }
        }
    };
}

impl PackedType {
    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Returns true for a request of a client.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.number() < 256
    }
}

packed_types! {
    Register = 1 "register",
    Join = 2 "join",
    Leave = 3 "leave",
    Send = 4 "send",
    Nick = 5 "nick",
    Status = 6 "status",
    Members = 7 "members",
    Rooms = 8 "rooms",
    Whois = 9 "whois",
    History = 10 "history",
    Read = 11 "read",
    Typing = 12 "typing",
    Refresh = 13 "refresh",
    Ping = 14 "ping",
    Bye = 15 "bye",
    Options = 16 "options",
    Kick = 32 "kick",
    Ban = 33 "ban",
    Unban = 34 "unban",
    Mute = 35 "mute",
    Unmute = 36 "unmute",
    Op = 37 "op",
    Deop = 38 "deop",
    Invite = 39 "invite",
    Topic = 40 "topic",
    Registered = 257 "registered",
    JoinedReply = 258 "joined",
    LeftReply = 259 "left",
    Ack = 260 "ack",
    NickReply = 261 "nick",
    StatusReply = 262 "status",
    MembersReply = 263 "members",
    RoomsReply = 264 "rooms",
    WhoisReply = 265 "whois",
    HistoryReply = 266 "history",
    ReadReply = 267 "read",
    TypingReply = 268 "typing",
    Refreshed = 269 "refreshed",
    Pong = 270 "pong",
    OptionsReply = 272 "options",
    KickReply = 288 "kick",
    BanReply = 289 "ban",
    UnbanReply = 290 "unban",
    MuteReply = 291 "mute",
    UnmuteReply = 292 "unmute",
    OpReply = 293 "op",
    DeopReply = 294 "deop",
    InviteReply = 295 "invite",
    TopicReply = 296 "topic",
    Error = 511 "error",
    Message = 513 "message",
    Presence = 514 "presence",
    Gap = 515 "gap",
    Epoch = 516 "epoch",
    Rewound = 517 "rewound",
    TypingEvent = 518 "typing",
    Moderation = 519 "moderation",
    LeftEvent = 520 "left",
    Expiring = 521 "expiring",
    Announcement = 522 "announcement",
    GoingAway = 523 "going_away",
    Closing = 769 "closing",
    Heartbeat = 770 "heartbeat",
}
