//! [`HttpSocket`]: the socket of a connection before its upgrade, with two time limits that hyper lacks.
//!
//! A response is written completely within the write stall limit, and the next request begins within the idle limit
//! after it. An exceeded limit fails the read or write, so hyper ends the connection. hyper itself limits the time for
//! a request's head.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream with a time limit for each response, and for the pause after it.
#[derive(Debug)]
pub(super) struct HttpSocket<S> {
    stream: S,
    write_stall: Duration,
    idle_wait: Duration,
    /// True from the first byte of a response until all of it is written.
    is_writing: bool,
    /// The end of the response or of the pause. `None` before the first response, and once a request begins.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> HttpSocket<S> {
    pub(super) fn new(stream: S, write_stall: Duration, idle_wait: Duration) -> Self {
        Self { stream, write_stall, idle_wait, is_writing: false, deadline: None }
    }

    /// Returns the stream without its limits.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn begin_writing(&mut self) {
        if !self.is_writing {
            self.is_writing = true;
            self.deadline = Some(Box::pin(sleep(self.write_stall)));
        }
    }

    /// Passes an outcome on, or fails if it is pending at the deadline.
    fn within_deadline<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.deadline {
            Some(deadline) if outcome.is_pending() => {
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => outcome,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_ready() && !self.is_writing {
            self.deadline = None;
        }
        self.within_deadline(context, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.begin_writing();
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_deadline(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin_writing();
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within_deadline(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the stream once it has written all bytes of a response.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        if outcome.is_ready() && std::mem::take(&mut self.is_writing) {
            self.deadline = Some(Box::pin(sleep(self.idle_wait)));
        }
        self.within_deadline(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{interval, timeout};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// Returns a socket whose buffer holds 8 bytes, and its client.
    fn socket(write_stall: Duration, idle_wait: Duration) -> (HttpSocket<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(8);
        (HttpSocket::new(near, write_stall, idle_wait), far)
    }

    #[tokio::test]
    async fn slow_reader_cannot_prolong_a_response() {
        let (mut socket, mut client) = socket(SHORT, Duration::MAX);
        let dripping = async {
            let mut pace = interval(SHORT / 10);
            for _ in 0..100 {
                pace.tick().await;
                client.read_u8().await.unwrap();
            }
        };
        let failure = tokio::select! {
            outcome = socket.write_all(&[0; 100]) => outcome.unwrap_err(),
            () = dripping => panic!("every byte was accepted"),
        };
        assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn pause_after_a_response_is_limited() {
        let (mut socket, mut client) = socket(Duration::MAX, SHORT);
        let began = timeout(SHORT * 3, socket.read_u8()).await;
        assert!(began.is_err(), "the head of the first request is limited elsewhere");
        socket.write_all(b"answer").await.unwrap();
        socket.flush().await.unwrap();
        client.write_u8(b'G').await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'G');
        let began = timeout(SHORT * 3, socket.read_u8()).await;
        assert!(began.is_err(), "the head of the next request is limited elsewhere");
        client.read_exact(&mut [0; 6]).await.unwrap();
        socket.write_all(b"answer").await.unwrap();
        socket.flush().await.unwrap();
        let paused = timeout(SHORT * 100, socket.read_u8()).await.expect("the pause ends");
        assert_eq!(paused.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
