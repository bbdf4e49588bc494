//! Line connections behind a trusted proxy: the PROXY header comes first, and names the client.
//!
//! Invariant: no session and no handshake begins before the client is counted for its address.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use presence::model::codes::ErrorCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::ListenerKind;
use crate::wire::{Refusal, line};

use super::connection::ConnectionSession;
use super::permits::ConnectionPermit;
use super::proxy_header::{self, HEADER_BYTES_MAX, HeaderStart};
use super::refuse::{refuse, refuse_on};
use super::tcp::AcceptedTcp;
use super::tls_accept::TlsArrival;
use super::{ConnectionContext, tcp, tls_accept};

/// Reads the header with which a trusted proxy names its client, and runs the line connection behind it.
pub(super) async fn serve<S: ConnectionSession>(
    tcp: TcpStream,
    peer: IpAddr,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) {
    let (limits, mut bytes) = (context.limits.get().addresses, BytesMut::with_capacity(HEADER_BYTES_MAX));
    let header = tokio::select! {
        header = timeout(limits.header_wait, read_header(&tcp, &mut bytes)) => header.unwrap_or(Ok(None)),
        () = context.closing.cancelled() => return,
    };
    let Ok(header) = header else { return };
    let Some(client) = header else {
        context.metrics.forwarded_malformed.inc();
        let refusal = Refusal::from(ErrorCode::BadRequest).with_detail("this port requires a valid PROXY header");
        refuse(tcp, line::encode_refusal(&refusal), &context);
        return;
    };
    let address = client.unwrap_or(peer).into();
    if context.refuses_address(address) {
        let words = line::encode_refusal(&ErrorCode::Banned.into());
        refuse_on(ListenerKind::Tcp, (tcp, bytes[..].into()), words, &context);
        return;
    }
    if let Err(limit) = permit.identify(address, limits.connections) {
        context.seat_refusals.record(limit, Some(address));
        let words = line::encode_refusal(&limit.code().into());
        refuse_on(ListenerKind::Tcp, (tcp, bytes[..].into()), words, &context);
        return;
    }
    if context.tls.is_on() {
        let arrival = TlsArrival { stream: tcp, peer, port: ListenerKind::Tcp, read_ahead: bytes[..].into() };
        context.tasks.spawn(tls_accept::serve(arrival, Arc::clone(&context), permit));
        return;
    }
    let socket = AcceptedTcp { stream: tcp, read_ahead: bytes[..].into() };
    // A task of its own, so that the header takes no memory of the connection.
    context.tasks.spawn(tcp::serve(socket, Arc::clone(&context), permit));
}

/// Reads a header and leaves the bytes behind it. Returns the address that it names, or `None` if it is malformed.
///
/// # Errors
/// The proxy closed the connection.
async fn read_header(tcp: &TcpStream, bytes: &mut BytesMut) -> io::Result<Option<Option<IpAddr>>> {
    loop {
        tcp.readable().await?;
        match tcp.try_read_buf(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => read?,
        };
        match proxy_header::parse(bytes) {
            HeaderStart::Incomplete => {}
            HeaderStart::Malformed => return Ok(None),
            HeaderStart::Complete { client, length } => {
                bytes.advance(length);
                return Ok(Some(client));
            }
        }
    }
}
