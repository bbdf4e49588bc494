//! The frame reader and writer on the stream of a client.
//!
//! Reads into a buffer of the thread and decodes in place; only bytes beyond the first event are stored. All functions
//! are poll functions with their state in the socket, so a future is one pointer, and dropping it loses nothing.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::stream::{ClientStream, PlainStream, READ_BYTES_MAX};
use super::{FrameEvent, FrameReader, FrameWriter, MessageLimits, Violation};

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
pub struct FrameSocket<S = PlainStream> {
    stream: S,
    reader: FrameReader,
    writer: FrameWriter,
    /// Bytes of a read beyond its first event.
    unread: BytesMut,
}

impl FrameSocket {
    /// Creates the socket from a plain stream after its handshake and the bytes already read.
    #[must_use]
    pub fn new(tcp: TcpStream, unread: BytesMut, limits: MessageLimits) -> Self {
        Self::over(tcp.into(), unread, limits)
    }
}

impl<S: ClientStream> FrameSocket<S> {
    /// Creates the socket from a stream after its handshake and the bytes already read.
    #[must_use]
    pub fn over(stream: S, unread: BytesMut, limits: MessageLimits) -> Self {
        // Even if empty, it may hold the handshake's buffer.
        let unread = if unread.is_empty() { BytesMut::new() } else { unread };
        Self { stream, reader: FrameReader::new(limits), writer: FrameWriter::default(), unread }
    }

    /// Returns the stream for a second writer, which writes whole frames or passes the remainder to
    /// [`FrameWriter::rest`], never during a flush. The stream is closed once both have released it.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<OwnedWriteHalf>> {
        self.stream.shared()
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
        self.stream.hang_up().await;
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
        let Self { stream, reader, writer, unread } = self;
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
            let read = stream.poll_read(cx, |mut input| {
                if input.is_empty() {
                    return Some(Err(SocketEnd::Gone));
                }
                is_more_likely = input.len() == READ_BYTES_MAX;
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
        let Self { stream, writer, .. } = self;
        while !writer.is_empty() {
            let written = ready!(writer.show(|slices| stream.poll_write(cx, slices)))?;
            writer.advance(written);
        }
        stream.poll_flush(cx)
    }
}
