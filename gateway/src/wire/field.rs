//! The fields of requests, replies and events: one name and one number for each.
//!
//! JSON writes [`Field::name`]; MessagePack and Protobuf write [`Field::number`]. The numbers are in PROTOCOL.md and in
//! `parley.proto`, and never change. Invariant: no two fields share a name or a number.

macro_rules! fields {
    ($($field:ident = $number:literal $name:literal,)*) => {
        /// A field of a request, a reply or an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field { $(#[doc = concat!("`", $name, "`")] $field = $number,)* }

        impl Field {
            /// All fields, by number.
            pub const ALL: &'static [Self] = &[$(Self::$field,)*];

            /// Returns the name in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$field => $name,)* } }

            /// Returns the field of a number.
            #[must_use]
            pub const fn of_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$field),)* _ => None }
            }
        }
    };
}

impl Field {
    /// Returns the number: from 1 to 127, so that MessagePack writes it in one byte.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

fields! {
    Id = 1 "id",
    To = 2 "to",
    From = 3 "from",
    Body = 4 "body",
    Seq = 5 "seq",
    Time = 6 "time",
    MsgId = 7 "msg_id",
    Room = 8 "room",
    Nick = 9 "nick",
    Key = 10 "key",
    Code = 11 "code",
    Epoch = 12 "epoch",
    User = 13 "user",
    FromUser = 14 "from_user",
    Text = 15 "text",
    Since = 16 "since",
    Resume = 17 "resume",
    Token = 18 "token",
    Session = 19 "session",
    Rooms = 20 "rooms",
    Inbox = 21 "inbox",
    HeartbeatMs = 22 "heartbeat_ms",
    Node = 23 "node",
    ExpiresInMs = 24 "expires_in_ms",
    MemberCount = 25 "member_count",
    Recovered = 26 "recovered",
    Topic = 27 "topic",
    Role = 28 "role",
    Delivered = 29 "delivered",
    Duplicate = 30 "duplicate",
    Status = 31 "status",
    Items = 32 "items",
    NextCursor = 33 "next_cursor",
    Online = 34 "online",
    More = 35 "more",
    Left = 36 "left",
    Joined = 37 "joined",
    Renamed = 38 "renamed",
    Resync = 39 "resync",
    FromSeq = 40 "from_seq",
    ToSeq = 41 "to_seq",
    Reason = 42 "reason",
    By = 43 "by",
    Until = 44 "until",
    Action = 45 "action",
    Seconds = 46 "seconds",
    Limit = 47 "limit",
    Cursor = 48 "cursor",
    Before = 49 "before",
    After = 50 "after",
    Message = 51 "message",
    RetryAfterMs = 52 "retry_after_ms",
    FromApi = 53 "from_api",
    Snappy = 54 "snappy",
    CloseCode = 55 "close_code",
}
