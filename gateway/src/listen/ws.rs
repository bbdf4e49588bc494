//! The WebSocket transport: RFC 6455 frames on an upgraded socket, of JSON text or of packed messages.
//!
//! A frame of the connection's kind is a request, one of the other kind ends the connection; the framing answers pings;
//! a violation of the RFC ends the connection with the RFC's code. Knows nothing about the contents of frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use crate::outbound::outbox::Outgoing;
use crate::quota::Quota;
use crate::wire::frame::TYPE_BYTES;
use crate::wire::{Answer, DISCARDED_BYTES_MAX, Dialect, REQUEST_BYTES_MAX, Reply, Token, json, packed};

use super::ConnectionContext;
use super::connection::{self, ConnectionSession, Transport, TransportInput};
use super::frame::{AcceptedStream, ClientStream, DataKind, FrameEvent, FrameSocket, MessageLimits, SocketEnd};
use super::http_socket::HttpSocket;
use super::permits::{ConnectionPermit, no_partial_space};

/// The limits of a message that begins with so many bytes besides its payload.
const fn limits(head: usize) -> MessageLimits {
    MessageLimits::new((head + REQUEST_BYTES_MAX) as u32, (head + DISCARDED_BYTES_MAX) as u32)
}

/// A connection that is being upgraded. Boxed, because its fields would otherwise stay in every connection's task.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) upgrade: OnUpgrade,
    /// The token of its `Authorization` header.
    pub(super) bearer: Option<Token>,
    /// The dialect of its subprotocol.
    pub(super) dialect: Dialect,
}

/// Runs an upgraded connection.
pub(super) async fn serve<S: ConnectionSession, A: AcceptedStream>(
    opening: Box<Opening>,
    context: Arc<ConnectionContext<S>>,
    permit: Arc<ConnectionPermit>,
) {
    // The client may close between its request and the answer.
    let mut opening = opening;
    let Ok(upgraded) = (&mut opening.upgrade).await else { return };
    let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<HttpSocket<A>>>() else {
        debug!("upgraded connection is not the accepted stream");
        return;
    };
    // The request for the upgrade has named it.
    let Some(quota) = permit.quota() else { return };
    let stream = io.into_inner().into_inner().into_client();
    let limits = match opening.dialect {
        Dialect::Packed(_) => limits(TYPE_BYTES),
        Dialect::Json | Dialect::Line => limits(0),
    };
    let socket = FrameSocket::over(stream, read_buf.into(), limits);
    let transport = WebSocketTransport { socket, permit: &permit, dialect: opening.dialect };
    let session = open(&context, *opening, quota);
    permit.opened();
    permit.ended(connection::run(transport, session, &permit, &context).await);
}

/// Opens the session. Not a part of [`serve`], whose task would have space for it twice.
fn open<S: ConnectionSession>(context: &ConnectionContext<S>, opening: Opening, quota: Arc<Quota>) -> S {
    let Opening { bearer, dialect, .. } = opening;
    let mut session = (context.open_session)(dialect, quota);
    if let Some(token) = bearer {
        session.present(token);
    }
    session
}

struct WebSocketTransport<'a, C> {
    socket: FrameSocket<C>,
    permit: &'a ConnectionPermit,
    dialect: Dialect,
}

impl<C: ClientStream> WebSocketTransport<'_, C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<TransportInput> {
        let dialect = self.dialect;
        let Poll::Ready(input) = self.socket.poll_next(cx, &mut |event| decode(dialect, event)) else {
            if self.permit.holds_partial(self.socket.held_input()) {
                return Poll::Pending;
            }
            // At once: the close waits for the client.
            self.socket.discard_input();
            self.reply(&no_space());
            return Poll::Ready(TransportInput::Unacceptable(CloseCode::RegisterTimeout));
        };
        Poll::Ready(match input {
            Ok(input) => input,
            Err(SocketEnd::Broken(violation)) => TransportInput::Unacceptable(violation.close_code()),
            Err(SocketEnd::Gone) => TransportInput::Gone,
        })
    }

    fn reply(&mut self, reply: &Reply) {
        match &mut self.dialect {
            Dialect::Packed(dialect) => {
                dialect.apply_options(reply);
                self.socket.output().binary(packed::encode_reply(*dialect, reply));
            }
            Dialect::Json | Dialect::Line => self.socket.output().text(json::encode_reply(reply)),
        }
    }
}

impl<C: ClientStream> Transport for WebSocketTransport<'_, C> {
    async fn next(&mut self) -> TransportInput {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn socket(&self) -> Option<Arc<OwnedWriteHalf>> {
        self.socket.shared()
    }

    fn queue(&mut self, items: VecDeque<Outgoing>) {
        let is_text = self.dialect == Dialect::Json;
        for item in items {
            match item {
                Outgoing::Reply(reply) => self.reply(&reply),
                Outgoing::Event(encoded) if is_text => self.socket.output().text(encoded),
                Outgoing::Event(encoded) => self.socket.output().binary(encoded),
                Outgoing::Batch(framed) => self.socket.output().framed(framed),
                Outgoing::Remainder(framed) => self.socket.output().rest(framed),
                Outgoing::Ping => self.socket.output().ping(),
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().await
    }

    async fn close(self, code: Option<CloseCode>) {
        self.socket.close(code.map(|code| (code.number(), code.slug()))).await;
    }
}

fn no_space() -> Reply {
    Reply { id: None, answer: Answer::Refused(no_partial_space()) }
}

/// Returns true if a close frame ends the session: code 1000, or none. After any other code, such as 1001 (page
/// closed), the client may return.
fn is_goodbye(code: Option<u16>) -> bool {
    code.is_none_or(|code| code == CloseCode::Normal.number())
}

fn decode(dialect: Dialect, event: FrameEvent<'_>) -> TransportInput {
    match (event, dialect) {
        (FrameEvent::Text(text), Dialect::Json) => TransportInput::Request(json::decode(&text)),
        (FrameEvent::Binary(message), Dialect::Packed(dialect)) => {
            TransportInput::Request(packed::decode(dialect.format, &message))
        }
        (FrameEvent::TooLarge(DataKind::Text), Dialect::Json)
        | (FrameEvent::TooLarge(DataKind::Binary), Dialect::Packed(_)) => {
            TransportInput::Request(Err((None, ErrorCode::TooLarge.into())))
        }
        (FrameEvent::Text(_) | FrameEvent::Binary(_) | FrameEvent::TooLarge(_), _) => {
            TransportInput::Unacceptable(CloseCode::Unsupported)
        }
        (FrameEvent::Ping(_) | FrameEvent::Pong(_), _) => TransportInput::Handled,
        // The frame limits bound the parts of a message; the whole message is charged as a request.
        (FrameEvent::Fragment, _) => TransportInput::Activity,
        (FrameEvent::Close { code, .. }, _) if is_goodbye(code) => TransportInput::Goodbye,
        (FrameEvent::Close { .. }, _) => TransportInput::Gone,
    }
}
