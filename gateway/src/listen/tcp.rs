//! The line transport: one request per line, for people with `telnet` or `nc`.
//!
//! An overlong line is skipped up to its end, a line that is not UTF-8 is refused, and the connection stays open. There
//! is no silence limit; the kernel's keepalive finds dead connections. A ping is a visible line here. Knows nothing
//! about the lines' contents.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::tcp::OwnedWriteHalf;

use crate::outbound::outbox::Outgoing;
use crate::wire::line::{self, Decoded, LineDialect};
use crate::wire::{Dialect, Refusal};

use super::ConnectionContext;
use super::connection::{self, ConnectionSession, Transport, TransportInput};
use super::frame::{AcceptedStream, ClientStream};
use super::lines::{InputLine, LineSplitter};
use super::permits::{ConnectionPermit, no_partial_space};

/// Maximum number of buffers in one write.
const WRITE_SLICES: usize = 64;

/// The socket of a line connection.
#[derive(Debug)]
pub(super) struct LineSocket<A> {
    pub(super) stream: A,
    /// Bytes of the client that arrived together with the header of its proxy.
    pub(super) read_ahead: Box<[u8]>,
}

impl<A> From<A> for LineSocket<A> {
    fn from(stream: A) -> Self {
        Self { stream, read_ahead: Box::default() }
    }
}

/// Runs a line connection.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn serve<S: ConnectionSession, A: AcceptedStream>(
    socket: LineSocket<A>,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) -> impl Future<Output = ()> + Send {
    async move {
        let Some(quota) = permit.quota() else { return };
        let session = (context.open_session)(Dialect::Line, quota);
        permit.opened();
        permit.ended(connection::run(LineTransport::new(socket, &permit), session, &permit, &context).await);
    }
}

struct LineTransport<'a, C> {
    permit: &'a ConnectionPermit,
    stream: C,
    dialect: LineDialect,
    lines: LineSplitter,
    queued: VecDeque<Bytes>,
}

impl<'a, C: ClientStream> LineTransport<'a, C> {
    fn new<A: AcceptedStream<Client = C>>(
        LineSocket { stream, read_ahead }: LineSocket<A>,
        permit: &'a ConnectionPermit,
    ) -> Self {
        let queued = VecDeque::from([line::greeting()]);
        Self {
            permit,
            stream: stream.into_client(),
            dialect: LineDialect::default(),
            lines: LineSplitter::after(&read_ahead),
            queued,
        }
    }

    fn queue_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued.push_back(bytes);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        for (slice, bytes) in slices.iter_mut().zip(&self.queued) {
            *slice = IoSlice::new(bytes);
        }
        self.stream.poll_write(cx, &slices[..self.queued.len().min(WRITE_SLICES)])
    }

    /// Removes written bytes from the front of the queue.
    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.queued.front_mut() {
            let step = written.min(first.len());
            first.advance(step);
            written -= step;
            if !first.is_empty() {
                return;
            }
            self.queued.pop_front();
        }
    }

    fn decode(&mut self, line: &[u8]) -> TransportInput {
        let Ok(line) = std::str::from_utf8(line) else {
            return refused(Refusal::from(ErrorCode::BadRequest).with_detail("the line is not UTF-8"));
        };
        match self.dialect.decode(line) {
            Decoded::Request(request) => TransportInput::Request(Ok(request)),
            Decoded::Refused(refusal) => refused(refusal),
            Decoded::Local(bytes) => {
                self.queue_bytes(bytes);
                TransportInput::Handled
            }
            Decoded::Nothing => TransportInput::Handled,
        }
    }
}

impl<C: ClientStream> Transport for LineTransport<'_, C> {
    async fn next(&mut self) -> TransportInput {
        loop {
            match self.lines.next() {
                Some(InputLine::Whole(line)) => return self.decode(&line),
                Some(InputLine::TooLong) => return refused(ErrorCode::TooLarge.into()),
                Some(InputLine::Binary) => {
                    let refusal = Refusal::from(ErrorCode::BadRequest).with_detail("this port accepts text lines only");
                    self.queue_bytes(line::encode_refusal(&refusal));
                    return TransportInput::Unacceptable(CloseCode::Unsupported);
                }
                Some(InputLine::Tls) => {
                    let refusal = Refusal::from(ErrorCode::BadRequest).with_detail("this port does not use TLS");
                    self.queue_bytes(line::encode_refusal(&refusal));
                    return TransportInput::Unacceptable(CloseCode::Unsupported);
                }
                Some(InputLine::Header) => {
                    let refusal = Refusal::from(ErrorCode::BadRequest)
                        .with_detail("a PROXY header is not accepted from this address");
                    self.queue_bytes(line::encode_refusal(&refusal));
                    return TransportInput::Unacceptable(CloseCode::ProtocolError);
                }
                None if !self.permit.holds_partial(self.lines.held()) => {
                    self.lines = LineSplitter::default();
                    self.queue_bytes(line::encode_refusal(&no_partial_space()));
                    return TransportInput::Unacceptable(CloseCode::RegisterTimeout);
                }
                None => {}
            }
            match self.lines.fill(&mut self.stream).await {
                // The client ended its output, so its last line is whole. After an error a part may be missing.
                Ok((0, _)) => match self.lines.finish() {
                    Some(InputLine::Whole(line)) => return self.decode(&line),
                    Some(InputLine::TooLong) => return refused(ErrorCode::TooLarge.into()),
                    Some(InputLine::Binary | InputLine::Tls | InputLine::Header) | None => {
                        return TransportInput::Ended;
                    }
                },
                Err(_) => return TransportInput::Gone,
                Ok((_, answers)) if !answers.is_empty() => {
                    self.queue_bytes(answers.into());
                    return TransportInput::Handled;
                }
                Ok(_) => {}
            }
        }
    }

    fn socket(&self) -> Option<Arc<OwnedWriteHalf>> {
        self.stream.shared()
    }

    fn queue(&mut self, items: VecDeque<Outgoing>) {
        for item in items {
            match item {
                Outgoing::Reply(reply) => {
                    let bytes = self.dialect.encode_reply(&reply);
                    self.queue_bytes(bytes);
                }
                Outgoing::Event(bytes) | Outgoing::Batch(bytes) => self.queue_bytes(bytes),
                Outgoing::Remainder(bytes) => self.queued.push_front(bytes),
                Outgoing::Ping => self.queue_bytes(line::sign_of_life()),
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx)).await?;
            self.advance(written);
        }
        self.queued = VecDeque::new();
        poll_fn(|cx| self.stream.poll_flush(cx)).await
    }

    async fn close(mut self, code: Option<CloseCode>) {
        if let Some(code) = code {
            self.queue_bytes(Bytes::from(format!("* closing: {}\n", code.slug())));
        }
        if self.flush().await.is_ok() {
            self.stream.hang_up().await;
        }
    }
}

fn refused(refusal: Refusal) -> TransportInput {
    TransportInput::Request(Err((None, refusal)))
}
