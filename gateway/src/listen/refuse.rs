//! Refusals of connections that have no session: the answer, and a close that lets it arrive.
//!
//! A bounded number of refused clients may close in their own time. Decides nothing.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;

use bytes::Bytes;
use presence::model::codes::ErrorCode;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::metrics::ListenerKind;
use crate::wire::{Refusal, line};

use super::ConnectionContext;
use super::connection::ConnectionSession;
use super::frame::{AcceptedStream, ClientStream};
use super::handshake::HandshakeRefusal;
use super::tls::TlsFailure;

/// Refuses a connection with these bytes and closes it.
pub(super) fn refuse<S: ConnectionSession>(stream: TcpStream, words: Bytes, context: &ConnectionContext<S>) {
    let Some(leave) = context.permits.refuse() else {
        refuse_at_once(&stream, &words);
        return;
    };
    let limit = context.limits.get().close_wait;
    context.tasks.spawn(async move {
        let _ = timeout(limit, say_and_close(stream, &words)).await;
        drop(leave);
    });
}

/// Refuses a connection as [`refuse`] does, over TLS if the port uses it: such a client could not read plain bytes.
/// `read_ahead` is the beginning of its handshake. Beyond the bounded number it is closed without an answer.
pub(super) fn refuse_on<S: ConnectionSession>(
    port: ListenerKind,
    (stream, read_ahead): (TcpStream, Box<[u8]>),
    words: Bytes,
    context: &Arc<ConnectionContext<S>>,
) {
    if !context.tls.is_on() {
        return refuse(stream, words, context);
    }
    let Some(leave) = context.permits.refuse() else { return };
    let (limit, shared) = (context.limits.get().close_wait, Arc::clone(context));
    context.tasks.spawn(async move {
        let answer = async {
            match shared.tls.handshake(port, stream, &read_ahead).await {
                Ok(client) => say_and_close(client, &words).await,
                Err(TlsFailure::Plain(stream)) => say_and_close(stream, &words).await,
                Err(TlsFailure::Broken(_)) => {}
            }
        };
        let _ = timeout(limit, answer).await;
        drop(leave);
    });
}

/// Returns the answer to a client that speaks without TLS where it is required.
pub(super) fn plain_refusal(port: ListenerKind) -> Bytes {
    match port {
        ListenerKind::Ws => HandshakeRefusal::NotTls.problem().into_bytes(),
        ListenerKind::Tcp => {
            line::encode_refusal(&Refusal::from(ErrorCode::BadRequest).with_detail("this port requires TLS"))
        }
    }
}

async fn say_and_close(mut stream: impl AcceptedStream, words: &[u8]) {
    if stream.write_all(words).await.is_ok() && stream.flush().await.is_ok() {
        stream.into_client().hang_up().await;
    }
}

/// Sends a refusal and closes the socket without a wait for the client. A request that is unread at the close could
/// destroy the answer, so it is read first.
fn refuse_at_once(stream: &TcpStream, words: &[u8]) {
    let socket = SockRef::from(stream);
    let _ = (&*socket).read(&mut [0; 4096]);
    if socket.send(words).is_ok() {
        let _ = socket.shutdown(Shutdown::Write);
    }
}
