//! The beginning of a connection over TLS: the handshake within its time, then the transport of its port.
//!
//! A client that speaks without TLS gets one refusal it can read. Decides nothing about addresses and permits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use presence::host::metrics::Label;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::metrics::ListenerKind;

use super::connection::ConnectionSession;
use super::permits::ConnectionPermit;
use super::refuse::{plain_refusal, refuse};
use super::tls::TlsFailure;
use super::{ConnectionContext, tcp, upgrade};

/// A socket of a client before its handshake.
#[derive(Debug)]
pub(super) struct TlsArrival {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) port: ListenerKind,
    /// Bytes of the client that arrived together with the header of its proxy.
    pub(super) read_ahead: Box<[u8]>,
}

/// Handshakes with an admitted client and starts its connection.
pub(super) async fn serve<S: ConnectionSession>(
    arrival: TlsArrival,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) {
    let TlsArrival { stream, peer, port, read_ahead } = arrival;
    let (began, limit) = (Instant::now(), context.limits.get().header_wait);
    let handshake = tokio::select! {
        handshake = timeout(limit, context.tls.handshake(port, stream, &read_ahead)) => handshake,
        () = context.closing.cancelled() => return,
    };
    let client = match handshake {
        Ok(Ok(client)) => client,
        Ok(Err(TlsFailure::Plain(stream))) => return refuse(stream, plain_refusal(port), &context),
        Ok(Err(TlsFailure::Broken(error))) => return debug!(port = port.value(), %error, "tls handshake failed"),
        Err(_) => return debug!(port = port.value(), "tls handshake timed out"),
    };
    // Tasks of their own, so that the handshake takes no memory of the connection.
    match port {
        ListenerKind::Ws => {
            let header_wait = limit.saturating_sub(began.elapsed());
            context.tasks.spawn(upgrade::serve(client, (peer, header_wait), Arc::clone(&context), permit));
        }
        ListenerKind::Tcp => {
            context.tasks.spawn(tcp::serve(client.into(), Arc::clone(&context), permit));
        }
    }
}
