//! The frame reader and writer on a TCP stream.
//!
//! Reads into a buffer of the thread and decodes in place; only bytes beyond the first event are stored. All functions
//! are poll functions with their state in the socket, so a future is one pointer, and dropping it loses nothing.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{FrameEvent, FrameReader, FrameWriter, MessageLimits, Violation};

/// The bytes of one read.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    /// The read buffer of this thread. Empty until the first read.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads into the buffer of this thread and passes the bytes on. No bytes: the client has closed.
pub(in crate::listen) fn poll_read<T>(
    input: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    decode: impl FnOnce(&mut [u8]) -> T,
) -> Poll<io::Result<T>> {
    let mut buffer = BUFFER.take();
    buffer.resize(SCRATCH, 0);
    let mut read = ReadBuf::new(&mut buffer);
    // Not `try_read`: a buffer that is not full means an empty socket, which saves a further call.
    let outcome = Pin::new(input).poll_read(cx, &mut read).map_ok(|()| decode(read.filled_mut()));
    BUFFER.set(buffer);
    outcome
}

/// Writes as much as the socket accepts, once it accepts something.
pub(in crate::listen) fn poll_write(
    output: &OwnedWriteHalf,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(output.as_ref().poll_write_ready(cx))?;
        match output.try_write_vectored(slices) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// The end of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The client broke the protocol and has to be sent the code.
    Broken(Violation),
    /// The stream has ended.
    Gone,
}

/// A WebSocket after its handshake.
#[derive(Debug)]
pub struct FrameSocket {
    input: OwnedReadHalf,
    output: Arc<OwnedWriteHalf>,
    reader: FrameReader,
    writer: FrameWriter,
    /// Bytes of a read beyond its first event.
    unread: BytesMut,
}

impl FrameSocket {
    /// Creates the socket from a stream after its handshake and the bytes already read.
    #[must_use]
    pub fn new(tcp: TcpStream, unread: BytesMut, limits: MessageLimits) -> Self {
        // Even if empty, it may hold the handshake's buffer.
        let unread = if unread.is_empty() { BytesMut::new() } else { unread };
        let (input, output) = tcp.into_split();
        Self {
            input,
            output: Arc::new(output),
            reader: FrameReader::new(limits),
            writer: FrameWriter::default(),
            unread,
        }
    }

    /// Returns the stream for a second writer, which writes whole frames or passes the remainder to
    /// [`FrameWriter::rest`], never during a flush. The stream is closed once both have released it.
    #[must_use]
    pub fn shared(&self) -> Arc<OwnedWriteHalf> {
        Arc::clone(&self.output)
    }

    /// Returns the output queue, which [`FrameSocket::flush`] writes.
    pub fn output(&mut self) -> &mut FrameWriter {
        &mut self.writer
    }

    /// Waits for the next event and decodes it. The next flush answers pings and closes. Dropping the future loses
    /// nothing. `decode` must not read a socket itself.
    ///
    /// # Errors
    /// There are no more events.
    pub async fn next<T>(&mut self, mut decode: impl FnMut(FrameEvent<'_>) -> T) -> Result<T, SocketEnd> {
        poll_fn(|cx| self.poll_next(cx, &mut decode)).await
    }

    /// Writes everything queued. A dropped flush is continued by the next one.
    ///
    /// # Errors
    /// The stream is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes the connection, with a code if the server ends it, and waits for the client's last frame. The caller
    /// limits the time.
    pub async fn close(mut self, code: Option<(u16, &str)>) {
        if let Some((code, reason)) = code {
            self.writer.close(Some(code), reason);
        }
        if self.flush().await.is_err() {
            return;
        }
        if code.is_some() {
            while !self.reader.is_over() && self.next(|_| ()).await.is_ok() {}
        }
        hang_up(self.input, self.output).await;
    }

    /// Releases the partial input. All later input is ignored.
    pub(in crate::listen) fn discard_input(&mut self) {
        self.reader.discard();
        self.unread = BytesMut::new();
    }

    /// Returns the bytes of partial input that are stored.
    pub(in crate::listen) fn held_input(&self) -> usize {
        self.reader.held() + self.unread.capacity()
    }

    /// Returns the bytes of this connection's own buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.reader.held() + self.unread.capacity() + self.writer.held()
    }

    /// The step of [`FrameSocket::next`].
    pub(in crate::listen) fn poll_next<T>(
        &mut self,
        cx: &mut Context<'_>,
        decode: &mut impl FnMut(FrameEvent<'_>) -> T,
    ) -> Poll<Result<T, SocketEnd>> {
        let Self { input: stream, reader, writer, unread, .. } = self;
        let mut step = |input: &mut &mut [u8]| match reader.next(input) {
            Ok(None) => None,
            Ok(Some(event)) => {
                match &event {
                    FrameEvent::Ping(payload) => writer.pong(payload),
                    FrameEvent::Close { code, .. } => writer.close(*code, ""),
                    _ => {}
                }
                Some(Ok(decode(event)))
            }
            Err(violation) => Some(Err(SocketEnd::Broken(violation))),
        };
        loop {
            if !unread.is_empty() {
                let mut input = &mut unread[..];
                let found = step(&mut input);
                let left = input.len();
                unread.advance(unread.len() - left);
                if unread.is_empty() {
                    *unread = BytesMut::new();
                }
                if let Some(found) = found {
                    return Poll::Ready(found);
                }
            }
            let mut is_more_likely = false;
            let read = poll_read(stream, cx, |mut input| {
                if input.is_empty() {
                    return Some(Err(SocketEnd::Gone));
                }
                is_more_likely = input.len() == SCRATCH;
                let found = step(&mut input);
                unread.extend_from_slice(input);
                found
            });
            match ready!(read) {
                Ok(Some(found)) => return Poll::Ready(found),
                // One buffer of a large message is one poll.
                Ok(None) if is_more_likely => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(SocketEnd::Gone)),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { output, writer, .. } = self;
        while !writer.is_empty() {
            let written = ready!(writer.show(|slices| poll_write(output, cx, slices)))?;
            writer.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Closes the sending side and reads until the client has closed. Closing with unread bytes would reset the connection
/// and might discard the last output.
pub(in crate::listen) async fn hang_up(mut input: OwnedReadHalf, output: Arc<OwnedWriteHalf>) {
    // The second writer has released it by now; otherwise the sending side closes when it does.
    let Some(mut output) = Arc::into_inner(output) else { return };
    if output.shutdown().await.is_ok() {
        let skip = |input: &mut OwnedReadHalf, cx: &mut Context<'_>| poll_read(input, cx, |skipped| skipped.is_empty());
        while let Ok(false) = poll_fn(|cx| skip(&mut input, cx)).await {}
    }
}
