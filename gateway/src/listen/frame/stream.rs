//! The streams of clients: [`ClientStream`], and [`PlainStream`] for a bare socket.
//!
//! Transports read and write through the trait, so one without encryption costs what a bare socket costs. All functions
//! are poll functions with their state in the stream: dropping a future loses nothing. Knows no framing.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The bytes of one read.
pub(in crate::listen) const READ_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// The read buffer of this thread. Empty until the first read.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads at most `most` bytes into the buffer of this thread and passes them on. No bytes: the client has closed.
pub(in crate::listen) fn poll_read<T>(
    input: &mut (impl AsyncRead + Unpin),
    most: usize,
    cx: &mut Context<'_>,
    decode: impl FnOnce(&mut [u8]) -> T,
) -> Poll<io::Result<T>> {
    let mut buffer = BUFFER.take();
    buffer.resize(READ_BYTES_MAX, 0);
    let mut read = ReadBuf::new(&mut buffer[..most]);
    // Not `try_read`: a buffer that is not full means an empty socket, which saves a further call.
    let outcome = Pin::new(input).poll_read(cx, &mut read).map_ok(|()| decode(read.filled_mut()));
    BUFFER.set(buffer);
    outcome
}

/// The stream of a client after everything that precedes its transport.
pub trait ClientStream: fmt::Debug + Send + Sized + Unpin + 'static {
    /// Returns the socket for a second writer, if its bytes need no change on the way.
    fn shared(&self) -> Option<Arc<OwnedWriteHalf>>;

    /// Reads into a buffer of the thread and passes the bytes on. No bytes: the client has closed. `decode` must not
    /// read a stream itself.
    ///
    /// # Errors
    /// The stream is broken.
    fn poll_read<T>(&mut self, cx: &mut Context<'_>, decode: impl FnOnce(&mut [u8]) -> T) -> Poll<io::Result<T>>;

    /// Appends at most `most` bytes once some have arrived, and allocates nothing before. Returns their number, 0 once
    /// the client has closed.
    ///
    /// # Errors
    /// The stream is broken.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize, bytes: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Writes as much as the stream accepts, once it accepts something.
    ///
    /// # Errors
    /// The stream is broken.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Writes everything that the stream has accepted to its socket.
    ///
    /// # Errors
    /// The stream is broken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Closes the sending side and reads until the client has closed. Closing with unread bytes would reset the
    /// connection and might discard the last output.
    fn hang_up(self) -> impl Future<Output = ()> + Send;
}

/// The stream of a client before its transport is known.
pub trait AcceptedStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The stream of the transport.
    type Client: ClientStream;
    /// Scheme of URLs that lead to this stream; `None` if a proxy may have changed it.
    const SCHEME: Option<&'static str>;

    /// Returns the stream for its transport.
    fn into_client(self) -> Self::Client;
}

impl AcceptedStream for TcpStream {
    type Client = PlainStream;
    const SCHEME: Option<&'static str> = None;

    fn into_client(self) -> PlainStream {
        self.into()
    }
}

/// A TCP stream without encryption. The hub writes to its socket too.
#[derive(Debug)]
pub struct PlainStream {
    input: OwnedReadHalf,
    output: Arc<OwnedWriteHalf>,
}

impl From<TcpStream> for PlainStream {
    fn from(tcp: TcpStream) -> Self {
        let (input, output) = tcp.into_split();
        Self { input, output: Arc::new(output) }
    }
}

impl ClientStream for PlainStream {
    fn shared(&self) -> Option<Arc<OwnedWriteHalf>> {
        Some(Arc::clone(&self.output))
    }

    fn poll_read<T>(&mut self, cx: &mut Context<'_>, decode: impl FnOnce(&mut [u8]) -> T) -> Poll<io::Result<T>> {
        poll_read(&mut self.input, READ_BYTES_MAX, cx, decode)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize, bytes: &mut BytesMut) -> Poll<io::Result<usize>> {
        let tcp: &TcpStream = self.input.as_ref();
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            bytes.reserve(most);
            match tcp.try_read_buf(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.output.as_ref().as_ref().poll_write_ready(cx))?;
            match self.output.try_write_vectored(slices) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    async fn hang_up(self) {
        let Self { mut input, output } = self;
        // The second writer has released it by now; otherwise the sending side closes when it does.
        let Some(mut output) = Arc::into_inner(output) else { return };
        if output.shutdown().await.is_ok() {
            while let Ok(false) =
                poll_fn(|cx| poll_read(&mut input, READ_BYTES_MAX, cx, |skipped| skipped.is_empty())).await
            {
            }
        }
    }
}
