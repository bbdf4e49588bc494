//! The line transport: one request per line, for people with `telnet` or `nc`.
//!
//! An overlong line is skipped up to its end, a line that is not UTF-8 is refused, and the connection stays open. There
//! is no silence limit; the kernel's keepalive finds dead connections. A ping is a visible line here. Knows nothing
//! about the lines' contents.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::outbound::outbox::Outgoing;
use crate::wire::line::{self, Decoded, LineDialect};
use crate::wire::{Dialect, Refusal};

use super::ConnectionContext;
use super::connection::{self, ConnectionSession, Transport, TransportInput};
use super::frame::{hang_up, poll_write};
use super::lines::{InputLine, LineSplitter};
use super::permits::{ConnectionPermit, no_partial_space};
use super::proxy_header::{self, HEADER_BYTES_MAX, HeaderStart};
use super::refuse::refuse;

/// Maximum number of buffers in one write.
const WRITE_SLICES: usize = 64;

/// The socket of a line connection.
#[derive(Debug)]
pub(super) struct LineSocket {
    tcp: TcpStream,
    /// Bytes of the client that arrived together with the header of its proxy.
    read_ahead: Box<[u8]>,
}

impl From<TcpStream> for LineSocket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, read_ahead: Box::default() }
    }
}

/// Reads the header with which a trusted proxy names its client, and runs the line connection behind it.
pub(super) async fn serve_forwarded<S: ConnectionSession>(
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
    if let Err(limit) = permit.identify(address, limits.connections) {
        context.seat_refusals.record(limit, Some(address));
        refuse(tcp, line::encode_refusal(&limit.code().into()), &context);
        return;
    }
    let socket = LineSocket { tcp, read_ahead: bytes[..].into() };
    // A task of its own, so that the header takes no memory of the connection.
    context.tasks.spawn(serve(socket, Arc::clone(&context), permit));
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

/// Runs a line connection.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn serve<S: ConnectionSession>(
    socket: LineSocket,
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

struct LineTransport<'a> {
    permit: &'a ConnectionPermit,
    input: OwnedReadHalf,
    output: Arc<OwnedWriteHalf>,
    dialect: LineDialect,
    lines: LineSplitter,
    queued: VecDeque<Bytes>,
}

impl<'a> LineTransport<'a> {
    fn new(LineSocket { tcp, read_ahead }: LineSocket, permit: &'a ConnectionPermit) -> Self {
        let queued = VecDeque::from([line::greeting()]);
        let (input, output) = tcp.into_split();
        Self {
            permit,
            input,
            output: Arc::new(output),
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

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        for (slice, bytes) in slices.iter_mut().zip(&self.queued) {
            *slice = IoSlice::new(bytes);
        }
        poll_write(&self.output, cx, &slices[..self.queued.len().min(WRITE_SLICES)])
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
            Decoded::Local(bytes) => {
                self.queue_bytes(bytes);
                TransportInput::Activity
            }
            Decoded::Nothing => TransportInput::Activity,
        }
    }
}

impl Transport for LineTransport<'_> {
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
            match self.lines.fill(self.input.as_ref()).await {
                // The client ended its output, so its last line is whole. After an error a part may be missing.
                Ok((0, _)) => match self.lines.finish() {
                    Some(InputLine::Whole(line)) => return self.decode(&line),
                    Some(InputLine::TooLong) => return refused(ErrorCode::TooLarge.into()),
                    Some(InputLine::Binary | InputLine::Header) | None => return TransportInput::Ended,
                },
                Err(_) => return TransportInput::Gone,
                Ok((_, answers)) if !answers.is_empty() => {
                    self.queue_bytes(answers.into());
                    return TransportInput::Activity;
                }
                Ok(_) => {}
            }
        }
    }

    fn socket(&self) -> Arc<OwnedWriteHalf> {
        Arc::clone(&self.output)
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
            let written = poll_fn(|cx| self.poll_flush(cx)).await?;
            self.advance(written);
        }
        self.queued = VecDeque::new();
        Ok(())
    }

    async fn close(mut self, code: Option<CloseCode>) {
        if let Some(code) = code {
            self.queue_bytes(Bytes::from(format!("* closing: {}\n", code.slug())));
        }
        if self.flush().await.is_ok() {
            hang_up(self.input, self.output).await;
        }
    }
}

fn refused(refusal: Refusal) -> TransportInput {
    TransportInput::Request(Err((None, refusal)))
}
