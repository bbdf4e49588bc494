//! The WebSocket door: RFC 6455 frames of JSON text on a socket that left HTTP behind.
//!
//! Text frames are requests; pings are answered by the framing itself; everything that the RFC forbids ends the
//! connection with the code the RFC names. Knows nothing of what the JSON says.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use presence::model::codes::{CloseCode, ErrorCode};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tracing::debug;

use crate::outbound::outbox::Outgoing;
use crate::wire::{Dialect, FRAME_LIMIT, HARD_LIMIT, json};

use super::ConnectionContext;
use super::connection::{self, Input, Session, Transport};
use super::frame::{Event, Kind, Limits, Over, Socket};
use super::permits::ConnectionPermit;

const LIMITS: Limits = Limits::new(FRAME_LIMIT as u32, HARD_LIMIT as u32);

/// Holds the conversation on an upgraded connection.
pub(super) async fn serve<S: Session>(
    upgrade: OnUpgrade,
    house: Arc<ConnectionContext<S>>,
    seat: Arc<ConnectionPermit>,
) {
    // The client may leave between its request and our answer.
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        debug!("upgraded connection is no tcp stream");
        return;
    };
    let door = WebSocketTransport(Socket::new(io.into_inner(), read_buf.into(), LIMITS));
    let session = (house.open_session)(Dialect::Json);
    seat.opened();
    seat.ended(connection::run(door, session, &house).await);
}

struct WebSocketTransport(Socket);

impl Transport for WebSocketTransport {
    async fn next(&mut self) -> Input {
        match self.0.next(decode).await {
            Ok(input) => input,
            Err(Over::Broken(violation)) => Input::Unacceptable(violation.close_code()),
            Err(Over::Gone) => Input::Gone,
        }
    }

    fn socket(&self) -> Arc<OwnedWriteHalf> {
        self.0.shared()
    }

    fn queue(&mut self, items: VecDeque<Outgoing>) {
        let output = self.0.output();
        for item in items {
            match item {
                Outgoing::Reply(reply) => output.text(json::encode_reply(&reply)),
                Outgoing::Event(encoded) => output.text(encoded),
                Outgoing::Batch(framed) => output.framed(framed),
                Outgoing::Rest(framed) => output.rest(framed),
                Outgoing::Ping => output.ping(),
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }

    async fn close(self, code: Option<CloseCode>) {
        self.0.close(code.map(|code| (code.number(), code.slug()))).await;
    }
}

/// A close that a client's program asked for, by our number for it or without one. Any other, such as 1001 of a page that
/// is being left, leaves it open whether the client comes back.
fn is_goodbye(code: Option<u16>) -> bool {
    code.is_none_or(|code| code == CloseCode::Normal.number())
}

fn decode(event: Event<'_>) -> Input {
    match event {
        Event::Text(text) => Input::Request(json::decode(&text)),
        Event::TooLarge(Kind::Text) => Input::Request(Err((None, ErrorCode::TooLarge.into()))),
        Event::Binary(_) | Event::TooLarge(Kind::Binary) => Input::Unacceptable(CloseCode::Unsupported),
        Event::Ping(_) | Event::Pong(_) | Event::Fragment => Input::Heard,
        Event::Close { code, .. } if is_goodbye(code) => Input::Goodbye,
        Event::Close { .. } => Input::Gone,
    }
}
