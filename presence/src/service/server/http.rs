//! Serves a router on a listener, with the limits that axum's own server does not have.
//!
//! A cap on connections, a deadline for request heads, no Nagle, dead peers found, and an end that waits for answers
//! under way. Used for the public API; the operators' door is behind another address and needs none of it.

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

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS: usize = 4096;
/// How long a client may take to send a request's head, and may keep a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what we sent may stay unacknowledged before the client counts as gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: it fails for want of descriptors, and those come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `leave`, then returns when every answer under way is out. Dropping the future ends it at once, its
/// connections when `leave` and the runtime let them.
pub(super) async fn serve(listener: TcpListener, router: Router, leave: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accept = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let Some((slot, accepted)) = leave.run_until_cancelled(accept).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let connection = converse(stream, router.clone(), leave.clone());
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
    // Nobody is to wait in the queue of a listener that will not accept again.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One connection, to its end. What goes wrong on it is the client's affair.
async fn converse(stream: TcpStream, router: Router, leave: CancellationToken) {
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, "api connection lost before its first request");
        return;
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = leave.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "api connection broke");
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
