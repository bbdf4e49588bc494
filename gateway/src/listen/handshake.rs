//! The rules of the WebSocket handshake, and [`HandshakeRefusal`]: the table of all refusals of the WebSocket port.
//!
//! [`accept`] checks a request for a WebSocket. The table under "Connecting" in PROTOCOL.md has the same rows.
//! Invariant: a request that two readers could understand in two ways is refused. Pure: it reads headers and writes no
//! socket.

use hyper::body::Body;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{HeaderMap, Request, Response, StatusCode};
use presence::host::entity_tag::list_elements;
use presence::host::host_header::names_one_host;
use presence::host::problem::Problem;
use presence::model::codes::ErrorCode;
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::create_response_with_body;

use crate::metrics::SeatLimit;
use crate::wire::{Dialect, PackedCarrier, PackedDialect, PackedFormat, Token};

use super::origins::AllowedOrigins;

/// The only path of a WebSocket.
const PATH: &str = "/ws";
/// The subprotocols and their dialects. A client that offers none uses the first.
const SUBPROTOCOLS: [(&str, Dialect); 3] = [
    ("parley.v1", Dialect::Json),
    ("parley.v1.msgpack", packed(PackedFormat::MessagePack)),
    ("parley.v1.protobuf", packed(PackedFormat::Protobuf)),
];

const fn packed(format: PackedFormat) -> Dialect {
    Dialect::Packed(PackedDialect { format, carrier: PackedCarrier::WebSocket, compresses: false })
}
/// Text for a person that opens the address in a browser.
const NOT_A_PAGE: &str = "this is a WebSocket address: connect to it with a WebSocket client (RFC 6455, version 13)";

/// Declares the table: one row for each variant, with its code, cause and header.
macro_rules! handshake_refusals {
    ($($(#[$doc:meta])* $variant:ident, $code:ident, $header:expr, $cause:literal;)*) => {
        /// Reason for a refusal over HTTP.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum HandshakeRefusal { $($(#[$doc])* $variant,)* }

        impl HandshakeRefusal {
            /// All rows, in the order of the checks.
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn code(self) -> ErrorCode { match self { $(Self::$variant => ErrorCode::$code,)* } }

            /// Returns the header that this answer has in addition to those of every refusal.
            fn header(self) -> Option<(HeaderName, &'static str)> { match self { $(Self::$variant => $header,)* } }

            /// Returns the cause, as in PROTOCOL.md.
            pub(super) fn cause(self) -> &'static str { match self { $(Self::$variant => $cause,)* } }
        }
    };
}

handshake_refusals! {
    /// Every permit is taken.
    Full, Overloaded, None, "the gateway has reached its number of connections, or of those that have not registered";
    /// The address has all its permits.
    AddressFull, RateLimited, None, "the address has reached its number of connections";
    /// The address is banned.
    Banned, Banned, None, "the address is banned";
    /// No such path.
    UnknownPath, NotFound, None, "the path is neither `/ws` nor a file of the chat page";
    /// A file of the page is only read.
    PageMethod, MethodNotAllowed, Some((ALLOW, "GET, HEAD")),
        "a file of the chat page is requested with another method";
    /// The gateway drains.
    Draining, GoingAway, None, "the gateway is shutting down";
    /// The gateway cannot serve a client now.
    NotReady, Unavailable, None, "the gateway is not ready";
    /// No host, several, or a malformed one.
    BadHost, BadRequest, None, "`Host` is missing, sent twice or not a host";
    /// Two headers that have one value.
    RepeatedHeader, BadRequest, None, "`Sec-WebSocket-Key` or `Sec-WebSocket-Version` is sent twice";
    /// The page may not connect.
    WrongOrigin, ForbiddenOrigin, None, "`listen.origins` does not allow the `Origin`, or two are sent";
    /// Not a GET.
    WrongMethod, MethodNotAllowed, Some((ALLOW, "GET")), "the method is not `GET`";
    /// A version without upgrades.
    OldHttp, BadRequest, None, "the request is HTTP/1.0";
    /// A plain request for a page.
    NoUpgrade, BadRequest, Some((UPGRADE, "websocket")), "`Connection` or `Upgrade` does not ask for a WebSocket";
    /// Another version of the protocol.
    WrongVersion, BadRequest, Some((SEC_WEBSOCKET_VERSION, "13")), "`Sec-WebSocket-Version` is missing or not 13";
    /// No key, or a malformed one.
    BadKey, BadRequest, None, "`Sec-WebSocket-Key` is missing or not 16 bytes in base64";
    /// A body, whose bytes would be read as frames.
    HasBody, BadRequest, None, "the request has a body";
    /// Plain HTTP on a port with TLS.
    NotTls, BadRequest, None, "the port uses TLS, and the request is plain HTTP";
}

impl From<SeatLimit> for HandshakeRefusal {
    fn from(limit: SeatLimit) -> Self {
        match limit {
            SeatLimit::Gateway | SeatLimit::Unregistered => Self::Full,
            SeatLimit::Address => Self::AddressFull,
        }
    }
}

impl HandshakeRefusal {
    /// Returns the status of the answer.
    fn status(self) -> StatusCode {
        match self {
            Self::NoUpgrade | Self::WrongVersion => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::from_u16(self.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn of_admission(code: ErrorCode) -> Self {
        if code == ErrorCode::GoingAway { Self::Draining } else { Self::NotReady }
    }

    /// Returns the answer. It always closes the connection.
    pub(super) fn problem(self) -> Problem {
        let mut problem = Problem::new(self.code()).with_status(self.status());
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            problem = problem.with_detail(NOT_A_PAGE);
        }
        if self == Self::NotTls {
            problem = problem.with_detail("this port uses TLS: connect with https: or wss:");
        }
        if let Some((name, value)) = self.header() {
            problem = problem.with_header(name, HeaderValue::from_static(value));
        }
        let closes = if self == Self::NoUpgrade { "upgrade, close" } else { "close" };
        problem.with_header(CONNECTION, HeaderValue::from_static(closes))
    }

    fn of_error(error: &Error) -> Self {
        let Error::Protocol(error) = error else { return Self::BadKey };
        match error {
            ProtocolError::WrongHttpMethod => Self::WrongMethod,
            ProtocolError::WrongHttpVersion => Self::OldHttp,
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader => {
                Self::NoUpgrade
            }
            ProtocolError::MissingSecWebSocketVersionHeader => Self::WrongVersion,
            _ => Self::BadKey,
        }
    }
}

/// Checks a request; `admission` is the code with which the gateway admits no client, and `scheme` that of the client's
/// URL if a trusted proxy has named it. Returns the response that upgrades the request.
pub(super) fn accept<B: Body, R>(
    request: &mut Request<B>,
    admission: Option<ErrorCode>,
    (origins, scheme): (&AllowedOrigins, Option<&'static str>),
    body: fn() -> R,
) -> Result<Response<R>, HandshakeRefusal> {
    if request.uri().path() != PATH {
        return Err(HandshakeRefusal::UnknownPath);
    }
    if let Some(code) = admission {
        return Err(HandshakeRefusal::of_admission(code));
    }
    check_host(request)?;
    if is_repeated(request.headers(), SEC_WEBSOCKET_KEY) || is_repeated(request.headers(), SEC_WEBSOCKET_VERSION) {
        return Err(HandshakeRefusal::RepeatedHeader);
    }
    join_lists(request.headers_mut());
    if !origins.admit(request.headers(), scheme) {
        return Err(HandshakeRefusal::WrongOrigin);
    }
    let mut response = create_response_with_body(request, body).map_err(|error| HandshakeRefusal::of_error(&error))?;
    if !request.body().is_end_stream() {
        return Err(HandshakeRefusal::HasBody);
    }
    if let Some((name, _)) = selected_subprotocol(request.headers()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(response)
}

/// Checks that the request names one valid host. Proxies could otherwise read the request in another way.
pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), HandshakeRefusal> {
    if names_one_host(request) { Ok(()) } else { Err(HandshakeRefusal::BadHost) }
}

/// Returns true if a header that has one value is sent twice. A proxy could choose the other one.
fn is_repeated(headers: &HeaderMap, name: HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

/// Rewrites the headers that are lists (RFC 9110 sections 7.6.1 and 7.8) to the form that the handshake's check reads.
fn join_lists(headers: &mut HeaderMap) {
    for (name, wanted) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
        if list_elements(headers, &name).any(|word| word.eq_ignore_ascii_case(wanted)) {
            headers.insert(name, HeaderValue::from_static(wanted));
        }
    }
}

/// Returns the token of an `Authorization: Bearer` header. Other schemes and two headers count as none.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Token> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (sent.next(), sent.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(token.trim()))
}

/// Returns the dialect of a WebSocket: that of the selected subprotocol, or JSON.
pub(super) fn dialect(headers: &HeaderMap) -> Dialect {
    selected_subprotocol(headers).map_or(Dialect::Json, |(_, dialect)| dialect)
}

/// Returns the first subprotocol of the client's list that the gateway has.
fn selected_subprotocol(headers: &HeaderMap) -> Option<(&'static str, Dialect)> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offer| offer.to_str().ok());
    let known = |offer: &str| SUBPROTOCOLS.into_iter().find(|(name, _)| *name == offer.trim());
    offers.flat_map(|offer| offer.split(',')).find_map(known)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::ConnectionLimits;
    use super::super::upgrade::{HEADER_BYTES_MAX, HEADERS_MAX, IDLE_WAIT, REQUESTS_MAX};
    use super::*;

    const PAGE: &str = include_str!("../../PROTOCOL.md");

    /// Returns the rows of the table in PROTOCOL.md, in its order.
    pub(in super::super) fn page_rows() -> Vec<&'static str> {
        let (_, section) = PAGE.split_once("\n| status | code | header | cause |\n|---|---|---|---|\n").expect("table");
        section.lines().take_while(|line| line.starts_with('|')).collect()
    }

    #[test]
    fn bearer_is_read_from_one_header() {
        for (values, expected) in [
            (vec!["Bearer a.b.c"], Some("a.b.c")),
            (vec!["bearer  a.b.c "], Some("a.b.c")),
            (vec!["Basic YTpi"], None),
            (vec!["Bearer"], None),
            (vec!["a.b.c"], None),
            (vec!["Bearer a", "Bearer b"], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(bearer(&headers).as_ref().map(Token::reveal), expected, "{values:?}");
        }
    }

    #[test]
    fn handshake_table_matches_the_protocol_page() {
        let row = |refusal: &HandshakeRefusal| {
            let header = refusal.header().map(|(name, value)| format!("`{name}: {value}` "));
            let retry = refusal.code().temporary().then(|| "`retry-after: 1` ".to_owned());
            let header = header.or(retry).unwrap_or_default();
            let (status, code) = (refusal.status().as_u16(), refusal.code().slug());
            format!("| {status} | `{code}` | {header}| {} |", refusal.cause())
        };
        assert_eq!(page_rows(), HandshakeRefusal::ALL.iter().map(row).collect::<Vec<_>>());
        let (kib, seconds) = (HEADER_BYTES_MAX / 1024, ConnectionLimits::default().header_wait.as_secs());
        let page = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in [
            format!("431 if the head has over {kib} KiB or over {HEADERS_MAX} lines"),
            format!("a close without an answer if the head is incomplete after {seconds} s."),
            format!("at most {REQUESTS_MAX} requests, each begun within {} s of the answer", IDLE_WAIT.as_secs()),
        ] {
            assert!(page.contains(&words), "not in PROTOCOL.md: {words}");
        }
    }
}
