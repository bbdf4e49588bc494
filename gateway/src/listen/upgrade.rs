//! The HTTP side of the WebSocket port: one request, answered with an upgrade or with a problem document.
//!
//! Only `/ws` exists. The connection runs on a task of its own that owns the bare socket, so no HTTP state stays in
//! memory for a WebSocket.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use presence::host::problem;
use presence::model::codes::ErrorCode;
use tokio::net::TcpStream;
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::create_response_with_body;

use super::connection::ConnectionSession;
use super::permits::ConnectionPermit;
use super::{ConnectionContext, ws};

/// The only subprotocol; a client that offers none uses it too.
const SUBPROTOCOL: &str = "parley.v1";
/// Maximum number of header lines in a request.
const HEADERS_MAX: usize = 64;
/// Maximum size of a request header in bytes.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// The seconds after which a refused client may retry: one, because a balancer tries other gateways at once.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

type UpgradeAnswer = Response<Full<Bytes>>;

/// Answers the one request of a new connection.
pub(super) async fn serve<S: ConnectionSession>(
    tcp: TcpStream,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) {
    let permit = Arc::new(permit);
    let service = service_fn(|request| {
        let answer = answer(request, &context, &permit);
        async { Ok::<_, Infallible>(answer) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits.get().header_wait)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(tcp), service)
        .with_upgrades();
    tokio::select! {
        // Broken HTTP, an endless header or a client that closed: the socket is closed without a session.
        _ = http => {}
        () = context.closing.cancelled() => {}
    }
}

/// Upgrades the connection, or refuses.
fn answer<S: ConnectionSession>(
    mut request: Request<Incoming>,
    context: &Arc<ConnectionContext<S>>,
    permit: &Arc<ConnectionPermit>,
) -> UpgradeAnswer {
    if request.uri().path() != "/ws" {
        return refusal(ErrorCode::NotFound);
    }
    if let Some(code) = context.admission.refusal() {
        return with(refusal(code), RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if !is_unambiguous(request.headers()) {
        return refusal(ErrorCode::BadRequest);
    }
    join_lists(request.headers_mut());
    if !may_connect(request.headers(), &context.limits.get().origins) {
        return refusal(ErrorCode::ForbiddenOrigin);
    }
    let mut response = match create_response_with_body(&request, Full::default) {
        Ok(response) => response,
        Err(error) => return handshake_refusal(&error),
    };
    // Bytes of a body would be read as frames.
    if !request.body().is_end_stream() {
        return refusal(ErrorCode::BadRequest);
    }
    if offers_subprotocol(request.headers()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    context.tasks.spawn(ws::serve(upgrade, Arc::clone(context), Arc::clone(permit)));
    response
}

/// Returns true if the request names one valid host, and no header twice that has one value. Proxies could otherwise
/// read the request in another way.
fn is_unambiguous(headers: &HeaderMap) -> bool {
    let is_single = |name| headers.get_all(name).iter().nth(1).is_none();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| !host.as_str().contains('@'))
        && [HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION].into_iter().all(is_single)
}

/// Rewrites the headers that are lists (RFC 9110 sections 7.6.1 and 7.8) to the form that the handshake's check reads.
fn join_lists(headers: &mut HeaderMap) {
    for (name, wanted) in [(CONNECTION, "upgrade"), (UPGRADE, "websocket")] {
        let lines = headers.get_all(&name).iter().filter_map(|line| line.to_str().ok());
        if lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted)) {
            headers.insert(name, HeaderValue::from_static(wanted));
        }
    }
}

/// Returns true if the request's origin is allowed. Browsers send the origin of a page and no page can change it. A
/// client without an origin is not a page; two origins are refused.
fn may_connect(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut sent_origins = headers.get_all(ORIGIN).iter();
    match (sent_origins.next(), sent_origins.next()) {
        _ if origins.is_empty() => true,
        (None, _) => true,
        (Some(origin), None) => origins.iter().any(|known| known.as_bytes() == origin.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|offer| offer.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).any(|name| name.trim() == SUBPROTOCOL)
}

fn handshake_refusal(error: &Error) -> UpgradeAnswer {
    let Error::Protocol(error) = error else { return refusal(ErrorCode::BadRequest) };
    match error {
        ProtocolError::WrongHttpMethod => {
            with(refusal(ErrorCode::MethodNotAllowed), ALLOW, HeaderValue::from_static("GET"))
        }
        ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader => {
            let answer = with(upgrade_required(), UPGRADE, HeaderValue::from_static("websocket"));
            with(answer, CONNECTION, HeaderValue::from_static("upgrade, close"))
        }
        ProtocolError::MissingSecWebSocketVersionHeader => {
            with(upgrade_required(), SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
        }
        _ => refusal(ErrorCode::BadRequest),
    }
}

fn upgrade_required() -> UpgradeAnswer {
    let detail = "this is a WebSocket address: connect to it with a WebSocket client (RFC 6455, version 13)";
    let document = problem::with_status(ErrorCode::BadRequest, StatusCode::UPGRADE_REQUIRED.as_u16(), detail);
    problem_answer(StatusCode::UPGRADE_REQUIRED, document.to_string())
}

fn refusal(code: ErrorCode) -> UpgradeAnswer {
    let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    problem_answer(status, problem::document(code).to_string())
}

fn problem_answer(status: StatusCode, document: String) -> UpgradeAnswer {
    let mut answer = Response::new(Full::from(document));
    *answer.status_mut() = status;
    let answer = with(answer, CONNECTION, HeaderValue::from_static("close"));
    with(answer, CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE))
}

fn with(mut answer: UpgradeAnswer, name: HeaderName, value: HeaderValue) -> UpgradeAnswer {
    answer.headers_mut().insert(name, value);
    answer
}

/// Returns the refusal as bytes, for a connection without a permit and so without HTTP.
pub(super) fn raw_refusal(code: ErrorCode) -> Bytes {
    let body = problem::document(code).to_string();
    let length = body.len();
    let status = code.http_status();
    Bytes::from(format!(
        "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}",
        title = code.slug(),
    ))
}
