//! Refusals of connections that have no session: the answer, and a close that lets it arrive.
//!
//! A bounded number of refused clients may close in their own time. Decides nothing.

use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ConnectionContext;
use super::connection::ConnectionSession;
use super::frame::hang_up;

/// Refuses a connection with these bytes and closes it.
pub(super) fn refuse<S: ConnectionSession>(stream: TcpStream, words: Bytes, context: &ConnectionContext<S>) {
    let Some(leave) = context.permits.refuse() else {
        refuse_at_once(&stream, &words);
        return;
    };
    let limit = context.limits.get().close_wait;
    context.tasks.spawn(async move {
        let _ = timeout(limit, async {
            let (input, mut output) = stream.into_split();
            if output.write_all(&words).await.is_ok() {
                hang_up(input, Arc::new(output)).await;
            }
        })
        .await;
        drop(leave);
    });
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
