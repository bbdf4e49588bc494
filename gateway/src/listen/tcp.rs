//! The TCP transport: a request per line for people with `telnet` or `nc`, or binary frames for programs.
//!
//! The first bytes decide. An overlong line is skipped up to its end, a line that is not UTF-8 is refused, and the
//! connection stays open; bytes that are no frame end it. Lines have no silence limit: the kernel's keepalive finds
//! dead connections, and a ping is a visible line. Knows nothing about the contents of lines and frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::tcp::OwnedWriteHalf;

use crate::outbound::outbox::Outgoing;
use crate::wire::line::{self, Decoded, LineDialect};
use crate::wire::{Answer, Dialect, PackedCarrier, PackedDialect, PackedFormat, Refusal, Reply, frame, packed};

use super::ConnectionContext;
use super::connection::{self, ConnectionSession, Transport, TransportInput};
use super::frame::{AcceptedStream, ClientStream};
use super::lines::{InputLine, LineSplitter};
use super::permits::{ConnectionPermit, no_partial_space};
use super::tcp_frames::FrameSplitter;

/// Maximum number of buffers in one write.
const WRITE_SLICES: usize = 64;

/// The dialect in which a client is answered whose first frame is not valid.
const UNKNOWN_DIALECT: PackedDialect =
    PackedDialect { format: PackedFormat::Json, carrier: PackedCarrier::Frames, compresses: false };

/// The socket of a TCP connection.
#[derive(Debug)]
pub(super) struct AcceptedTcp<A> {
    pub(super) stream: A,
    /// Bytes of the client that arrived together with the header of its proxy.
    pub(super) read_ahead: Box<[u8]>,
}

impl<A> From<A> for AcceptedTcp<A> {
    fn from(stream: A) -> Self {
        Self { stream, read_ahead: Box::default() }
    }
}

/// Runs a connection of the TCP port.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
pub(super) fn serve<S: ConnectionSession, A: AcceptedStream>(
    socket: AcceptedTcp<A>,
    context: Arc<ConnectionContext<S>>,
    permit: ConnectionPermit,
) -> impl Future<Output = ()> + Send {
    async move {
        let Some(quota) = permit.quota() else { return };
        let session = (context.open_session)(Dialect::Line, quota);
        permit.opened();
        permit.ended(connection::run(TcpTransport::new(socket, &permit), session, &permit, &context).await);
    }
}

struct TcpTransport<'a, C> {
    permit: &'a ConnectionPermit,
    stream: C,
    input: TcpInput,
    queued: VecDeque<Bytes>,
}

/// The input of a connection, by its first bytes.
enum TcpInput {
    /// Text, or nothing yet.
    Lines(LineDialect, LineSplitter),
    /// Binary frames. The dialect is known with the version of the first one.
    Frames(FrameSplitter, Option<PackedDialect>),
}

impl<'a, C: ClientStream> TcpTransport<'a, C> {
    fn new<A: AcceptedStream<Client = C>>(
        AcceptedTcp { stream, read_ahead }: AcceptedTcp<A>,
        permit: &'a ConnectionPermit,
    ) -> Self {
        let queued = VecDeque::from([line::greeting()]);
        let input = TcpInput::Lines(LineDialect::default(), LineSplitter::after(&read_ahead));
        Self { permit, stream: stream.into_client(), input, queued }
    }

    fn queue_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued.push_back(bytes);
        }
    }

    fn queue_message(&mut self, format: PackedFormat, message: &[u8]) {
        let mut framed = BytesMut::new();
        frame::put_frame(format, message, &mut framed);
        self.queue_bytes(framed.freeze());
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

    /// Returns the next input that has arrived.
    fn arrived(&mut self) -> Option<TransportInput> {
        match &mut self.input {
            TcpInput::Lines(dialect, lines) => match lines.next()? {
                InputLine::Whole(line) => Some(decode_line(dialect, &mut self.queued, &line)),
                InputLine::TooLong => Some(refused(ErrorCode::TooLarge.into())),
                InputLine::Binary => {
                    self.input = TcpInput::Frames(FrameSplitter::after(lines.take_bytes()), None);
                    self.arrived()
                }
                InputLine::Tls => Some(self.refuse_start("this port does not use TLS", CloseCode::Unsupported)),
                InputLine::Header => {
                    let detail = "a PROXY header is not accepted from this address";
                    Some(self.refuse_start(detail, CloseCode::ProtocolError))
                }
            },
            TcpInput::Frames(frames, dialect) => match frames.next(dialect) {
                Ok(input) => input,
                Err(fault) => Some(TransportInput::Unacceptable(fault.close_code())),
            },
        }
    }

    /// Answers a connection whose first bytes are neither text nor frames.
    fn refuse_start(&mut self, detail: &str, code: CloseCode) -> TransportInput {
        self.queue_bytes(line::encode_refusal(&Refusal::from(ErrorCode::BadRequest).with_detail(detail)));
        TransportInput::Unacceptable(code)
    }

    /// Releases the partial input of a connection for which there is no space.
    fn refuse_partial(&mut self) -> TransportInput {
        match &mut self.input {
            TcpInput::Lines(_, lines) => {
                *lines = LineSplitter::default();
                self.queue_bytes(line::encode_refusal(&no_partial_space()));
            }
            TcpInput::Frames(frames, dialect) => {
                *frames = FrameSplitter::default();
                let dialect = dialect.unwrap_or(UNKNOWN_DIALECT);
                let reply = Reply { id: None, answer: Answer::Refused(no_partial_space()) };
                self.queue_message(dialect.format, &packed::encode_reply(dialect, &reply));
            }
        }
        TransportInput::Unacceptable(CloseCode::RegisterTimeout)
    }

    /// Returns the last input of a client that has ended its output. After an error a part may be missing.
    fn finish(&mut self) -> TransportInput {
        let TcpInput::Lines(dialect, lines) = &mut self.input else { return TransportInput::Ended };
        match lines.finish() {
            Some(InputLine::Whole(line)) => decode_line(dialect, &mut self.queued, &line),
            Some(InputLine::TooLong) => refused(ErrorCode::TooLarge.into()),
            Some(InputLine::Binary | InputLine::Tls | InputLine::Header) | None => TransportInput::Ended,
        }
    }
}

impl<C: ClientStream> Transport for TcpTransport<'_, C> {
    async fn next(&mut self) -> TransportInput {
        loop {
            if let Some(input) = self.arrived() {
                return input;
            }
            let held = match &self.input {
                TcpInput::Lines(_, lines) => lines.held(),
                TcpInput::Frames(frames, _) => frames.held(),
            };
            if !self.permit.holds_partial(held) {
                return self.refuse_partial();
            }
            let read = match &mut self.input {
                TcpInput::Lines(_, lines) => lines.fill(&mut self.stream).await,
                TcpInput::Frames(frames, _) => frames.fill(&mut self.stream).await.map(|read| (read, Vec::new())),
            };
            match read {
                Ok((0, _)) => return self.finish(),
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
            match (item, &mut self.input) {
                (Outgoing::Reply(reply), TcpInput::Lines(dialect, _)) => {
                    let bytes = dialect.encode_reply(&reply);
                    self.queue_bytes(bytes);
                }
                (Outgoing::Reply(reply), TcpInput::Frames(_, dialect)) => {
                    let dialect = dialect.get_or_insert(UNKNOWN_DIALECT);
                    dialect.apply_options(&reply);
                    let dialect = *dialect;
                    self.queue_message(dialect.format, &packed::encode_reply(dialect, &reply));
                }
                (Outgoing::Event(message), TcpInput::Frames(_, Some(dialect))) => {
                    let format = dialect.format;
                    self.queue_message(format, &message);
                }
                (Outgoing::Event(bytes) | Outgoing::Batch(bytes), _) => self.queue_bytes(bytes),
                (Outgoing::Remainder(bytes), _) => self.queued.push_front(bytes),
                (Outgoing::Ping, TcpInput::Lines(..)) => self.queue_bytes(line::sign_of_life()),
                (Outgoing::Ping, TcpInput::Frames(_, Some(dialect))) => {
                    let format = dialect.format;
                    self.queue_message(format, &packed::heartbeat());
                }
                // A heartbeat in another version than the client's would break it.
                (Outgoing::Ping, TcpInput::Frames(_, None)) => {}
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
            match &self.input {
                TcpInput::Lines(..) => self.queue_bytes(Bytes::from(format!("* closing: {}\n", code.slug()))),
                TcpInput::Frames(_, dialect) => {
                    let dialect = dialect.unwrap_or(UNKNOWN_DIALECT);
                    self.queue_message(dialect.format, &packed::encode_closing(dialect, code));
                }
            }
        }
        if self.flush().await.is_ok() {
            self.stream.hang_up().await;
        }
    }
}

/// Decodes a line. The output of one that the dialect answers itself is queued.
fn decode_line(dialect: &mut LineDialect, queued: &mut VecDeque<Bytes>, line: &[u8]) -> TransportInput {
    let Ok(line) = std::str::from_utf8(line) else {
        return refused(Refusal::from(ErrorCode::BadRequest).with_detail("the line is not UTF-8"));
    };
    match dialect.decode(line) {
        Decoded::Request(request) => TransportInput::Request(Ok(request)),
        Decoded::Refused(refusal) => refused(refusal),
        Decoded::Local(bytes) => {
            if !bytes.is_empty() {
                queued.push_back(bytes);
            }
            TransportInput::Handled
        }
        Decoded::Nothing => TransportInput::Handled,
    }
}

fn refused(refusal: Refusal) -> TransportInput {
    TransportInput::Request(Err((None, refusal)))
}
