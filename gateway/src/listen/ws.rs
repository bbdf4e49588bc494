//! The WebSocket door: RFC 6455 frames of JSON text on a socket that left HTTP behind.
//!
//! Text frames are requests; pings are answered by the framing itself; everything that the RFC forbids ends the
//! connection with the code the RFC names. Knows nothing of what the JSON says.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use presence::codes::{CloseCode, ErrorCode};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes, error::ProtocolError};
use tracing::debug;

use crate::session::outbox::Out;
use crate::wire::{FRAME_LIMIT, Format, HARD_LIMIT, json};

use super::House;
use super::connection::{self, Door, Input, Session, hang_up};
use super::seats::Seat;

/// Read buffer of one connection: allocated for its whole life and cleared before every read, so small.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes that are collected before they are written. Small, so that a stalled reader's output waits in buffers that are
/// shared with others, and not in a copy of its own.
const WRITE_BUFFER: usize = 8 * 1024;
/// Most unwritten bytes: above every frame that we make (a full page of history of the longest bodies).
const MAX_WRITE_BUFFER: usize = 16 * 1024 * 1024;

fn framing() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(HARD_LIMIT))
        .max_frame_size(Some(HARD_LIMIT))
        .accept_unmasked_frames(false)
}

/// Holds the conversation on an upgraded connection.
pub(super) async fn serve<S: Session>(upgrade: OnUpgrade, house: Arc<House<S>>, seat: Arc<Seat>) {
    // The client may leave between its request and our answer.
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(Parts { io, read_buf, .. }) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        debug!("upgraded connection is no tcp stream");
        return;
    };
    let ws =
        WebSocketStream::from_partially_read(io.into_inner(), read_buf.into(), Role::Server, Some(framing())).await;
    let door = WsDoor { ws, queued: VecDeque::new() };
    let session = (house.open_session)(Format::Json);
    seat.ended(connection::run(door, session, &house.limits, &house.departure).await);
}

struct WsDoor {
    ws: WebSocketStream<TcpStream>,
    queued: VecDeque<Out>,
}

impl Door for WsDoor {
    async fn next(&mut self) -> Input {
        match self.ws.next().await {
            Some(Ok(Message::Text(text))) if text.len() > FRAME_LIMIT => {
                Input::Request(Err((None, ErrorCode::TooLarge.into())))
            }
            Some(Ok(Message::Text(text))) => Input::Request(json::decode(&text)),
            Some(Ok(Message::Binary(_))) => Input::Unacceptable(CloseCode::Unsupported),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Input::Heard,
            Some(Ok(Message::Close(frame))) if is_goodbye(frame.as_ref()) => Input::Goodbye,
            Some(Ok(Message::Close(_))) | None => Input::Gone,
            Some(Err(error)) => failure(&error),
        }
    }

    fn queue(&mut self, mut items: VecDeque<Out>) {
        if self.queued.is_empty() {
            self.queued = items;
        } else {
            self.queued.append(&mut items);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        // Nothing is taken from the queue before the framing has room for it, so a dropped flush loses nothing.
        while !self.queued.is_empty() {
            poll_fn(|cx| self.ws.poll_ready_unpin(cx)).await.map_err(io::Error::other)?;
            if let Some(item) = self.queued.pop_front() {
                self.ws.start_send_unpin(frame(item)).map_err(io::Error::other)?;
            }
        }
        self.queued = VecDeque::new();
        self.ws.flush().await.map_err(io::Error::other)
    }

    async fn close(mut self, code: Option<CloseCode>) {
        let last_word = match code {
            Some(code) => self.ws.send(Message::Close(Some(close_frame(code)))).await,
            None => self.ws.flush().await,
        };
        if last_word.is_ok() {
            while let Some(Ok(_)) = self.ws.next().await {}
            hang_up(self.ws.into_inner()).await;
        }
    }
}

/// A close that a client's program asked for, by our number for it or without one. Any other, such as 1001 of a page that
/// is being left, leaves it open whether the client comes back.
fn is_goodbye(frame: Option<&CloseFrame>) -> bool {
    frame.is_none_or(|frame| frame.code == CloseCode::Normal.number().into())
}

fn frame(item: Out) -> Message {
    match item {
        Out::Reply(reply) => text(json::encode_reply(&reply)),
        Out::Event(encoded) => text(encoded),
        Out::Ping => Message::Ping(Bytes::new()),
    }
}

/// A text frame of bytes that are known to be UTF-8, without looking at them again for every receiver.
fn text(encoded: Bytes) -> Message {
    Message::Frame(Frame::message(encoded, OpCode::Data(Data::Text), true))
}

fn close_frame(code: CloseCode) -> CloseFrame {
    CloseFrame { code: code.number().into(), reason: Utf8Bytes::from_static(code.slug()) }
}

fn failure(error: &Error) -> Input {
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Input::Gone,
        Error::Capacity(_) => Input::Unacceptable(CloseCode::TooBig),
        Error::Utf8(_) => Input::Unacceptable(CloseCode::BadUtf8),
        Error::Protocol(_) => Input::Unacceptable(CloseCode::ProtocolError),
        _ => Input::Unacceptable(CloseCode::Internal),
    }
}
