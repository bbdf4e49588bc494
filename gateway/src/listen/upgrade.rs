//! The HTTP side of the WebSocket port: files of the chat page, and one upgrade or refusal, which ends the HTTP.
//!
//! `page` and `handshake` decide. An upgraded connection runs on a task of its own that owns the bare socket, so no
//! HTTP state stays in memory for a WebSocket. A client may load files and then upgrade over the same connection, as
//! proxies do.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::connection::ConnectionSession;
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

type FullResponse = Response<Full<Bytes>>;

/// Answers the requests of a new connection, until one upgrades it or is refused.
pub(super) async fn serve<S: ConnectionSession>(
    tcp: TcpStream,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) {
    let (limits, permit, requests) = (context.limits.get(), Arc::new(permit), AtomicUsize::new(0));
    let service = service_fn(|request| {
        let is_last = requests.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX;
        let answer = answer(request, &context, &permit, is_last);
        async { Ok::<_, Infallible>(answer) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_wait)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(HttpSocket::new(tcp, limits.write_stall, IDLE_WAIT)), service)
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
fn answer<S: ConnectionSession>(
    request: Request<Incoming>,
    context: &Arc<ConnectionContext<S>>,
    permit: &Arc<ConnectionPermit>,
    is_last: bool,
) -> FullResponse {
    let asset = page::find(request.uri().path()).filter(|_| context.limits.get().page);
    let answered = match asset {
        Some(asset) => page::answer(asset, &request).map(|mut answer| {
            if is_last || context.admission.is_leaving() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }),
        None => upgrade(request, context, permit),
    };
    answered.unwrap_or_else(|refusal| {
        debug!(reason = refusal.cause(), "request refused");
        refusal.problem().into_http()
    })
}

/// Upgrades the connection to a WebSocket.
fn upgrade<S: ConnectionSession>(
    mut request: Request<Incoming>,
    context: &Arc<ConnectionContext<S>>,
    permit: &Arc<ConnectionPermit>,
) -> Result<FullResponse, HandshakeRefusal> {
    let (admission, origins) = (context.admission.refusal(), context.limits.get().origins);
    let response = handshake::accept(&mut request, admission, &origins, Full::default)?;
    let bearer = handshake::bearer(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    let opening = Box::new(ws::Opening { upgrade, bearer });
    context.tasks.spawn(ws::serve(opening, Arc::clone(context), Arc::clone(permit)));
    Ok(response)
}
