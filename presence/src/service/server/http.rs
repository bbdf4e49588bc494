//! HTTP server of the public API, with limits that axum's own server lacks.
//!
//! It caps connections, sets a deadline for request heads, disables Nagle, detects dead peers, and answers requests in
//! flight before it ends. The admin listener has an address of its own and needs none of this.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::descriptors::DescriptorLimit;

/// Maximum number of open connections, fewer if the process has fewer descriptors; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Time limit for a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that sent bytes may stay unacknowledged before the connection is dropped.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which usually lacks file descriptors until other connections close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `closing` is cancelled, then returns after the last request in flight is answered. Dropping the future
/// closes the listener at once; its connections end with `closing`.
pub(super) async fn serve(listener: TcpListener, router: Router, closing: CancellationToken) {
    let slots = Arc::new(Semaphore::new(DescriptorLimit::of_process().connections(CONNECTIONS_MAX)));
    let connections = TaskTracker::new();
    loop {
        let accept = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let Some((slot, accepted)) = closing.run_until_cancelled(accept).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let connection = serve_connection(stream, router.clone(), closing.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "api connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Connections in the queue of a listener that accepts no more would hang.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end. Its errors are logged at debug level only, since clients cause most of them.
async fn serve_connection(stream: TcpStream, router: Router, closing: CancellationToken) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "api connection lost before its first request");
        return;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "api connection failed");
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
