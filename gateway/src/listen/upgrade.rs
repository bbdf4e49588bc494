//! The HTTP side of the WebSocket port: one request, answered with an upgrade or with a problem document.
//!
//! `handshake` decides. The connection runs on a task of its own that owns the bare socket, so no HTTP state stays in
//! memory for a WebSocket.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tracing::debug;

use super::connection::ConnectionSession;
use super::permits::ConnectionPermit;
use super::{ConnectionContext, handshake, ws};

/// Maximum number of header lines in a request.
pub(super) const HEADERS_MAX: usize = 64;
/// Maximum size of a request header in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 16 * 1024;

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
    let (admission, origins) = (context.admission.refusal(), context.limits.get().origins);
    match handshake::accept(&mut request, admission, &origins, Full::default) {
        Ok(response) => {
            let upgrade = hyper::upgrade::on(&mut request);
            context.tasks.spawn(ws::serve(upgrade, Arc::clone(context), Arc::clone(permit)));
            response
        }
        Err(refusal) => {
            debug!(reason = refusal.cause(), "handshake refused");
            refusal.problem().into_http()
        }
    }
}
