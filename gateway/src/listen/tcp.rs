//! The line door: one request per line, for people with `telnet` or `nc`.
//!
//! A line that is too long is skipped up to its end, a line that is not UTF-8 is refused, and the connection lives on.
//! There is no silence limit here; the kernel's keepalive finds the dead. Knows nothing of what the lines say.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::outbound::outbox::Outgoing;
use crate::wire::line::{self, Decoded, LineDialect};
use crate::wire::{Dialect, Refusal};

use super::ConnectionContext;
use super::connection::{self, Input, Session, Transport};
use super::frame::{hang_up, poll_write};
use super::lines::{Line, Lines};
use super::permits::ConnectionPermit;

/// Buffers that go out in one write.
const WRITE_SLICES: usize = 64;

/// Holds the conversation on a line connection.
pub(super) async fn serve<S: Session>(tcp: TcpStream, house: Arc<ConnectionContext<S>>, seat: ConnectionPermit) {
    let session = (house.open_session)(Dialect::Line);
    seat.opened();
    seat.ended(connection::run(LineTransport::new(tcp), session, &house).await);
}

struct LineTransport {
    input: OwnedReadHalf,
    output: Arc<OwnedWriteHalf>,
    dialect: LineDialect,
    lines: Lines,
    queued: VecDeque<Bytes>,
}

impl LineTransport {
    fn new(tcp: TcpStream) -> Self {
        let queued = VecDeque::from([line::greeting()]);
        let (input, output) = tcp.into_split();
        Self { input, output: Arc::new(output), dialect: LineDialect::default(), lines: Lines::default(), queued }
    }

    fn say(&mut self, words: Bytes) {
        if !words.is_empty() {
            self.queued.push_back(words);
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        for (slice, words) in slices.iter_mut().zip(&self.queued) {
            *slice = IoSlice::new(words);
        }
        poll_write(&self.output, cx, &slices[..self.queued.len().min(WRITE_SLICES)])
    }

    /// Drops so many bytes from the front of the queue: they are written.
    fn forget(&mut self, mut written: usize) {
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

    fn decode(&mut self, line: &[u8]) -> Input {
        let Ok(line) = std::str::from_utf8(line) else {
            return refused(Refusal::from(ErrorCode::BadRequest).because("the line is not UTF-8"));
        };
        match self.dialect.decode(line) {
            Decoded::Request(request) => Input::Request(Ok(request)),
            Decoded::Local(words) => {
                self.say(words);
                Input::Heard
            }
            Decoded::Nothing => Input::Heard,
        }
    }
}

impl Transport for LineTransport {
    async fn next(&mut self) -> Input {
        loop {
            match self.lines.next() {
                Some(Line::Whole(line)) => return self.decode(&line),
                Some(Line::TooLong) => return refused(ErrorCode::TooLarge.into()),
                Some(Line::Binary) => {
                    let refusal = Refusal::from(ErrorCode::BadRequest).because("this port takes lines of text");
                    self.say(line::encode_refusal(&refusal));
                    return Input::Unacceptable(CloseCode::Unsupported);
                }
                None => {}
            }
            match self.lines.fill(self.input.as_ref()).await {
                // An unfinished last line stays unsaid: half of it may be missing.
                Ok(0) | Err(_) => return Input::Gone,
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
                    let words = self.dialect.encode_reply(&reply);
                    self.say(words);
                }
                Outgoing::Event(words) | Outgoing::Batch(words) => self.say(words),
                Outgoing::Rest(words) => self.queued.push_front(words),
                Outgoing::Ping => {}
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() {
            let written = poll_fn(|cx| self.poll_flush(cx)).await?;
            self.forget(written);
        }
        self.queued = VecDeque::new();
        Ok(())
    }

    async fn close(mut self, code: Option<CloseCode>) {
        if let Some(code) = code {
            self.say(Bytes::from(format!("* closing: {}\n", code.slug())));
        }
        if self.flush().await.is_ok() {
            hang_up(self.input, self.output).await;
        }
    }
}

fn refused(refusal: Refusal) -> Input {
    Input::Request(Err((None, refusal)))
}
