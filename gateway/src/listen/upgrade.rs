//! The HTTP side of the WebSocket port: files of the chat page, and one upgrade or refusal, which ends the HTTP.
//!
//! `page` and `handshake` decide. An upgraded connection runs on a task of its own that owns the bare socket, so no
//! HTTP state stays in memory for a WebSocket. A client may load files and then upgrade over the same connection, as
//! proxies do.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use presence::host::client_address::TrustedProxies;
use tokio::time::timeout;
use tracing::debug;

use super::connection::ConnectionSession;
use super::frame::AcceptedStream;
use super::handshake::HandshakeRefusal;
use super::http_socket::HttpSocket;
use super::permits::ConnectionPermit;
use super::{ConnectionContext, handshake, page, ws};

/// Maximum number of header lines in a request.
pub(super) const HEADERS_MAX: usize = 64;
/// Maximum size of a request header in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of requests on a connection.
pub(super) const REQUESTS_MAX: usize = 100;
/// Maximum time between an answer and the next request.
pub(super) const IDLE_WAIT: Duration = Duration::from_secs(5);

/// Browsers use TLS for this host for a day. Not for longer: it applies to all ports of the host.
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=86400");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

type FullResponse = Response<Full<Bytes>>;

/// Answers the requests of a new connection, until one upgrades it or is refused. The head of each arrives within
/// `header_wait`.
pub(super) async fn serve<S: ConnectionSession, A: AcceptedStream>(
    stream: A,
    (peer, header_wait): (IpAddr, Duration),
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) {
    let (limits, permit, requests) = (context.limits.get(), Arc::new(permit), AtomicUsize::new(0));
    let service = service_fn(|request| {
        let is_last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX;
        let answer = answer::<S, A>(request, peer, (&context, &permit), is_last);
        async { Ok::<_, Infallible>(answer) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_wait)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(HttpSocket::new(stream, limits.write_stall, IDLE_WAIT)), service)
        .with_upgrades();
    let mut http = pin!(http);
    tokio::select! {
        // Broken HTTP, an exceeded limit or a client that closed: the socket is closed without a session.
        _ = http.as_mut() => {}
        () = context.closing.cancelled() => {
            http.as_mut().graceful_shutdown();
            let _ = timeout(limits.close_wait, http).await;
        }
    }
}

/// Answers one request. The connection ends after a refusal, and after a file if it is the last request.
fn answer<S: ConnectionSession, A: AcceptedStream>(
    request: Request<Incoming>,
    peer: IpAddr,
    (context, permit): (&Arc<ConnectionContext<S>>, &Arc<ConnectionPermit>),
    is_last: bool,
) -> FullResponse {
    let limits = context.limits.get();
    let asset = page::find(request.uri().path()).filter(|_| limits.page.served);
    let answered = match asset {
        Some(asset) => page::answer(asset, &request, &limits.page.embedders).map(|mut answer| {
            if is_last || context.admission.is_leaving() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }),
        None => {
            identify(&request, peer, context, permit).and_then(|()| upgrade::<S, A>(request, peer, context, permit))
        }
    };
    let mut answer = answered.unwrap_or_else(|refusal| {
        debug!(reason = refusal.cause(), "request refused");
        refusal.problem().into_http()
    });
    if A::SCHEME.is_some() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
    answer
}

/// Counts the connection for the address of its client, which a trusted proxy names. A file of the page counts for no
/// address: a proxy loads files for many clients over one connection.
fn identify<S: ConnectionSession>(
    request: &Request<Incoming>,
    peer: IpAddr,
    context: &ConnectionContext<S>,
    permit: &ConnectionPermit,
) -> Result<(), HandshakeRefusal> {
    if permit.address().is_some() {
        return Ok(());
    }
    let limits = context.limits.get().addresses;
    let forwarded: Vec<&str> =
        request.headers().get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let client = limits.proxies.client(peer, forwarded.into_iter());
    if client.is_malformed {
        context.metrics.forwarded_malformed.inc();
    }
    if context.refuses_address(client.address) {
        return Err(HandshakeRefusal::Banned);
    }
    permit.identify(client.address, limits.connections).map_err(|limit| {
        context.seat_refusals.record(limit, Some(client.address));
        HandshakeRefusal::from(limit)
    })
}

/// Returns the scheme of the URL that the client used, if a trusted proxy has named it.
fn forwarded_scheme(headers: &HeaderMap, peer: IpAddr, proxies: &TrustedProxies) -> Option<&'static str> {
    // Behind several proxies the first one names the scheme of the client.
    let value = headers.get(FORWARDED_PROTO).filter(|_| proxies.contain(peer))?.to_str().ok()?;
    match value.split(',').next()?.trim().to_ascii_lowercase().as_str() {
        "https" | "wss" => Some("https"),
        "http" | "ws" => Some("http"),
        _ => None,
    }
}

/// Upgrades the connection to a WebSocket.
fn upgrade<S: ConnectionSession, A: AcceptedStream>(
    mut request: Request<Incoming>,
    peer: IpAddr,
    context: &Arc<ConnectionContext<S>>,
    permit: &Arc<ConnectionPermit>,
) -> Result<FullResponse, HandshakeRefusal> {
    let (admission, limits) = (context.admission.refusal(), context.limits.get());
    let scheme = forwarded_scheme(request.headers(), peer, &limits.addresses.proxies).or(A::SCHEME);
    let accepted = handshake::accept(&mut request, admission, (&limits.origins, scheme), Full::default);
    if accepted.as_ref().is_err_and(|refusal| *refusal == HandshakeRefusal::WrongOrigin) {
        context.origin_refusals.record(request.headers(), permit.address());
    }
    let response = accepted?;
    let (bearer, dialect) = (handshake::bearer(request.headers()), handshake::dialect(request.headers()));
    let upgrade = hyper::upgrade::on(&mut request);
    let opening = Box::new(ws::Opening { upgrade, bearer, dialect });
    context.tasks.spawn(ws::serve::<S, A>(opening, Arc::clone(context), Arc::clone(permit)));
    Ok(response)
}
