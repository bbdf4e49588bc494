//! The two tables that say what went wrong: [`ErrorCode`] for a request, [`CloseCode`] for a connection.
//!
//! Every door, the HTTP APIs, metric labels and the protocol pages read these tables, so a condition has one name
//! everywhere. Invariant: a client never sees the text of an inner error, only a row of these tables.

/// Declares the error table: one row each for variant, slug, temporary, HTTP status and the words for people.
macro_rules! error_table {
    ($($(#[$doc:meta])* $variant:ident, $slug:literal, $temporary:literal, $http:literal, $text:literal;)*) => {
        /// Why a request was refused. The connection lives on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// The whole table, in the order of the protocol page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name that clients branch on.
            #[must_use]
            pub fn slug(self) -> &'static str { match self { $(Self::$variant => $slug,)* } }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub fn temporary(self) -> bool { match self { $(Self::$variant => $temporary,)* } }

            /// The status an HTTP API answers with.
            #[must_use]
            pub fn http_status(self) -> u16 { match self { $(Self::$variant => $http,)* } }

            /// A short sentence for people. Not stable: programs use the slug.
            #[must_use]
            pub fn message(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

error_table! {
    /// The frame or request is not what the protocol says.
    BadRequest, "bad_request", false, 400, "the request is malformed";
    /// A well-formed frame of a type that this server does not know.
    UnknownType, "unknown_type", false, 400, "there is no such request type";
    /// Frame, line or body over the limit.
    TooLarge, "too_large", false, 413, "the message is over the size limit";
    /// The nickname breaks a rule for names.
    BadNick, "bad_nick", false, 400, "this is not a valid nickname";
    /// The room's name breaks a rule for names.
    BadRoom, "bad_room", false, 400, "this is not a valid room name";
    /// Something was asked before `register`.
    NotRegistered, "not_registered", false, 403, "register a nickname first";
    /// A second `register`.
    AlreadyRegistered, "already_registered", false, 409, "this connection has a nickname already";
    /// Somebody else has the nickname.
    NickInUse, "nick_in_use", false, 409, "this nickname is in use";
    /// The nickname looks like one that somebody else has.
    NickConfusable, "nick_confusable", false, 409, "this nickname looks too much like one in use";
    /// The session to go on with is not known under this token: it was used up, or it is too long ago.
    ResumeFailed, "resume_failed", false, 403, "there is no session with this token";
    /// The room is not one of the sender's.
    NotInRoom, "not_in_room", false, 403, "you are not in this room";
    /// The session is in as many rooms as allowed.
    TooManyRooms, "too_many_rooms", false, 403, "you are in as many rooms as allowed";
    /// Nobody was ever seen in that room.
    NoSuchRoom, "no_such_room", false, 404, "there is no such room";
    /// Nobody was ever seen under that nickname.
    NoSuchUser, "no_such_user", false, 404, "nobody was seen under this nickname";
    /// No such page of an HTTP API.
    NotFound, "not_found", false, 404, "there is nothing at this address";
    /// The page exists, the method does not.
    MethodNotAllowed, "method_not_allowed", false, 405, "this address does not take that method";
    /// A web page that may not connect here.
    ForbiddenOrigin, "forbidden_origin", false, 403, "web pages of this origin may not connect";
    /// More work than this server takes on; nothing was done.
    Overloaded, "overloaded", true, 503, "the server has too much to do";
    /// The cluster cannot do this right now; nothing was done.
    Unavailable, "unavailable", true, 503, "the service is not available right now";
    /// It may have been done or not: the answer was lost on the way.
    OutcomeUnknown, "outcome_unknown", true, 504, "it is not known whether this was done";
    /// This gateway is leaving; another one will do it.
    GoingAway, "going_away", true, 503, "this gateway is going away";
    /// Our fault.
    Internal, "internal", true, 500, "something went wrong on our side";
}

/// Declares the close table: one row each for variant, number, slug and whether a client should reconnect.
macro_rules! close_table {
    ($($(#[$doc:meta])* $variant:ident, $number:literal, $slug:literal, $reconnect:literal;)*) => {
        /// Why a connection was ended by us. Text doors print the slug, WebSocket carries the number (RFC 6455
        /// section 7.4, the IANA registry for 1012, and 4000-4099 for our own).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CloseCode { $($(#[$doc])* $variant,)* }

        impl CloseCode {
            /// The whole table, in the order of the protocol page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The WebSocket close code.
            #[must_use]
            pub fn number(self) -> u16 { match self { $(Self::$variant => $number,)* } }

            /// The stable name.
            #[must_use]
            pub fn slug(self) -> &'static str { match self { $(Self::$variant => $slug,)* } }

            /// Whether a client should connect again by itself.
            #[must_use]
            pub fn reconnect(self) -> bool { match self { $(Self::$variant => $reconnect,)* } }
        }
    };
}

close_table! {
    /// The client said goodbye.
    Normal, 1000, "bye", false;
    /// Bytes that break the framing itself.
    ProtocolError, 1002, "protocol_error", false;
    /// A binary frame, which this door does not take.
    Unsupported, 1003, "unsupported_data", false;
    /// Text that is not UTF-8.
    BadUtf8, 1007, "bad_utf8", false;
    /// A message over the hard limit.
    TooBig, 1009, "too_big", false;
    /// Our fault.
    Internal, 1011, "internal", true;
    /// The gateway restarts or lost its lease.
    Restart, 1012, "restart", true;
    /// Nothing was heard for too long.
    Timeout, 4000, "timeout", true;
    /// No `register` came in time.
    RegisterTimeout, 4001, "register_timeout", false;
    /// The client reads slower than its rooms talk.
    Slow, 4002, "slow_consumer", true;
    /// An operator ended the session.
    Kicked, 4003, "kicked", false;
    /// The session goes on over another connection.
    TakenOver, 4004, "taken_over", false;
}
