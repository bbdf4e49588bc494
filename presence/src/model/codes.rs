//! Error codes for refused requests ([`ErrorCode`]) and close codes for ended connections ([`CloseCode`]).
//!
//! Every dialect, the HTTP APIs, the metric labels and the protocol pages use these two tables, so a condition has one
//! name everywhere. Invariant: a client receives a row of these tables, never the text of an inner error.

/// Declares the error table: one row for each variant, with its slug, temporary flag, HTTP status and message.
macro_rules! error_table {
    ($($(#[$doc:meta])* $variant:ident, $slug:literal, $temporary:literal, $http:literal, $text:literal;)*) => {
        /// Reason for a refused request. The connection stays open.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All rows, in the order of the protocol page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the stable name that clients branch on.
            #[must_use]
            pub fn slug(self) -> &'static str { match self { $(Self::$variant => $slug,)* } }

            /// Returns true if the same request, unchanged, may succeed later.
            #[must_use]
            pub fn temporary(self) -> bool { match self { $(Self::$variant => $temporary,)* } }

            /// Returns the status code of an HTTP answer.
            #[must_use]
            pub fn http_status(self) -> u16 { match self { $(Self::$variant => $http,)* } }

            /// Returns a short sentence for people. It may change: programs use the slug.
            #[must_use]
            pub fn message(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

error_table! {
    /// The frame or request breaks the protocol.
    BadRequest, "bad_request", false, 400, "the request is malformed";
    /// A well-formed frame of an unknown type.
    UnknownType, "unknown_type", false, 400, "the request type is unknown";
    /// A frame, line or body over the size limit.
    TooLarge, "too_large", false, 413, "the message exceeds the size limit";
    /// The nickname breaks a rule for names.
    BadNick, "bad_nick", false, 400, "the nickname is not valid";
    /// The room's name breaks a rule for names.
    BadRoom, "bad_room", false, 400, "the room name is not valid";
    /// A request that needs a session came before `register`.
    NotRegistered, "not_registered", false, 403, "this connection has not registered a nickname";
    /// A second `register` on one connection.
    AlreadyRegistered, "already_registered", false, 409, "this connection has already registered a nickname";
    /// The gateway requires a token, and `register` brought none.
    TokenRequired, "token_required", false, 401, "a token is required";
    /// The token is malformed, its signature or one of its claims is not valid, or it belongs to another nickname.
    TokenInvalid, "token_invalid", false, 401, "the token is not valid";
    /// The token's `exp` has passed.
    TokenExpired, "token_expired", false, 401, "the token has expired";
    /// The token does not grant this.
    Forbidden, "forbidden", false, 403, "your token or key does not allow this";
    /// An HTTP API got no key that it knows.
    Unauthorized, "unauthorized", false, 401, "a valid API key is required";
    /// The client is banned from the cluster or from the room.
    Banned, "banned", false, 403, "you are banned";
    /// The client may not send messages, in the cluster or in the room.
    Muted, "muted", false, 403, "you are muted";
    /// Another session owns or holds the nickname.
    NickInUse, "nick_in_use", false, 409, "this nickname is in use";
    /// The nickname looks like one that another session owns or holds.
    NickConfusable, "nick_confusable", false, 409, "this nickname looks too similar to one in use";
    /// No session matches the resume token: the token was replaced, or the session has expired.
    ResumeFailed, "resume_failed", false, 403, "no session matches this token";
    /// The sender is not a member of the room.
    NotInRoom, "not_in_room", false, 403, "you are not in this room";
    /// The session has joined the maximum number of rooms.
    TooManyRooms, "too_many_rooms", false, 403, "you have joined the maximum number of rooms";
    /// The rules of the room do not allow this.
    NotAllowed, "not_allowed", false, 403, "the rules of the room do not allow this";
    /// The room admits invited users only.
    InviteOnly, "invite_only", false, 403, "this room is for invited users only";
    /// The room has its maximum number of members.
    RoomFull, "room_full", false, 409, "this room is full";
    /// The member has sent a message to the room a moment ago; nothing was done.
    SlowMode, "slow_mode", true, 429, "this room accepts messages of a member at intervals";
    /// The store has no record of the room.
    NoSuchRoom, "no_such_room", false, 404, "this room is not known";
    /// The store has no record of the nickname.
    NoSuchUser, "no_such_user", false, 404, "this nickname is not known";
    /// An HTTP API has no such path.
    NotFound, "not_found", false, 404, "nothing exists at this URL path";
    /// The path exists but does not support the method.
    MethodNotAllowed, "method_not_allowed", false, 405, "this URL path does not support the method";
    /// The origin of the web page is not in `listen.origins`.
    ForbiddenOrigin, "forbidden_origin", false, 403, "web pages of this origin are not allowed to connect";
    /// The client has reached a limit of its own; nothing was done.
    RateLimited, "rate_limited", true, 429, "this client has reached its limit";
    /// The server has reached a limit; nothing was done.
    Overloaded, "overloaded", true, 503, "the server is overloaded";
    /// The cluster cannot serve the request now; nothing was done.
    Unavailable, "unavailable", true, 503, "the service is temporarily unavailable";
    /// The application was to be asked about the request, and gave no usable answer; nothing was done.
    HookUnavailable, "hook_unavailable", true, 503, "the application that decides about this did not answer";
    /// The answer of the store was lost, so the request may or may not have taken effect.
    OutcomeUnknown, "outcome_unknown", true, 504, "the outcome of the request is unknown";
    /// This gateway is draining; another one can serve the request.
    GoingAway, "going_away", true, 503, "this gateway is shutting down";
    /// A defect or an unexpected failure of the server.
    Internal, "internal", true, 500, "the server failed internally";
}

/// Declares the close table: one row for each variant, with its number, slug and reconnect flag.
macro_rules! close_table {
    ($($(#[$doc:meta])* $variant:ident, $number:literal, $slug:literal, $reconnect:literal;)*) => {
        /// Reason for a connection closed by the server. Text lines print the slug, WebSocket frames carry the number
        /// (RFC 6455 section 7.4, the IANA registry for 1012, and 4000-4099 for our own).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CloseCode { $($(#[$doc])* $variant,)* }

        impl CloseCode {
            /// All rows, in the order of the protocol page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the WebSocket close code.
            #[must_use]
            pub fn number(self) -> u16 { match self { $(Self::$variant => $number,)* } }

            /// Returns the stable name.
            #[must_use]
            pub fn slug(self) -> &'static str { match self { $(Self::$variant => $slug,)* } }

            /// Returns true if a client should reconnect by itself.
            #[must_use]
            pub fn reconnect(self) -> bool { match self { $(Self::$variant => $reconnect,)* } }
        }
    };
}

close_table! {
    /// The client sent `bye` or `/quit`.
    Normal, 1000, "bye", false;
    /// Bytes that break the WebSocket framing.
    ProtocolError, 1002, "protocol_error", false;
    /// A binary frame, or binary data on the line port.
    Unsupported, 1003, "unsupported_data", false;
    /// Text that is not UTF-8.
    BadUtf8, 1007, "bad_utf8", false;
    /// The client did not wait after many `rate_limited` refusals.
    RateLimited, 1008, "rate_limited", false;
    /// A frame over the hard size limit.
    TooBig, 1009, "too_big", false;
    /// A defect or an unexpected failure of the server.
    Internal, 1011, "internal", true;
    /// The gateway restarts or lost its lease.
    Restart, 1012, "restart", true;
    /// The client was silent for too long.
    Timeout, 4000, "timeout", true;
    /// The client did not register in time.
    RegisterTimeout, 4001, "register_timeout", true;
    /// The client reads more slowly than its rooms produce.
    Slow, 4002, "slow_consumer", true;
    /// An operator ended the session.
    Kicked, 4003, "kicked", false;
    /// The session was resumed over another connection.
    TakenOver, 4004, "taken_over", false;
    /// The token of the user expired. The client may return with a new one.
    TokenExpired, 4005, "token_expired", true;
    /// The client was banned.
    Banned, 4006, "banned", false;
}
