//! HTTP server of the public API, with limits that axum's own server lacks.
//!
//! It bounds waiting connections and request heads, disables Nagle, closes peers that are dead or do not read, and
//! answers requests in flight before it ends. Limits of requests are in `service/api/admission.rs`. The admin listener
//! has an address of its own, and few connections.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::write_stall::StallGuard;
use crate::host::accept_failures::AcceptFailures;
use crate::service::api::PeerAddress;
use crate::service::waiting::{ConnectionPhase, WaitingPool};

/// Maximum size of a request's head; a larger one is answered 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The time limits of the API.
pub(super) const TIMEOUTS: HttpTimeouts =
    HttpTimeouts { head: Duration::from_secs(10), stall: Duration::from_secs(15) };
/// Time that sent bytes may stay unacknowledged before the connection is dropped.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpTimeouts {
    /// For a request's head, and for an idle connection.
    head: Duration,
    /// For a client to accept a byte of its response.
    stall: Duration,
}

/// Serves until `closing` is cancelled, then returns after the last request in flight is answered. Dropping the future
/// closes the listener at once; its connections end with `closing`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    pool: WaitingPool,
    timeouts: HttpTimeouts,
    closing: CancellationToken,
) {
    let (connections, mut failures) = (TaskTracker::new(), AcceptFailures::new("api"));
    while let Some(accepted) = closing.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                failures.record_accepted();
                let served = ServedConnection {
                    peer: peer.ip(),
                    phase: pool.open(peer.ip().into()),
                    router: TowerToHyperService::new(router.clone()),
                    timeouts,
                };
                connections.spawn(served.run(stream, closing.clone()));
            }
            Err(error) => failures.record_failed(&error).await,
        }
    }
    // Connections in the queue of a listener that accepts no more would hang.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One connection and its handlers.
struct ServedConnection {
    peer: IpAddr,
    phase: ConnectionPhase,
    router: TowerToHyperService<Router>,
    timeouts: HttpTimeouts,
}

impl ServedConnection {
    /// Serves the connection to its end. Its errors are logged at debug level only, since clients cause most of them.
    async fn run(self, stream: TcpStream, closing: CancellationToken) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "api connection lost before its first request");
            return;
        }
        let Self { peer, phase, router, timeouts } = self;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(timeouts.head).max_buf_size(HEAD_BYTES_MAX);
        let io = TokioIo::new(StallGuard::new(stream, timeouts.stall));
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer));
            request.extensions_mut().insert(phase.clone());
            router.call(request)
        });
        let mut connection = pin!(http.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = phase.evicted() => return,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "api connection failed");
        }
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PEER_TIMEOUT))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests;
