//! Echo server: returns every text and binary message through the framing of the gateway, without its other parts.
//!
//! It serves conformance tools and measurements of the framing alone:
//! `cargo run -p gateway --example ws_echo -- --listen 127.0.0.1:9002 --max-message 16777216`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Parser;
use gateway::listen::frame::{FrameEvent, FrameSocket, MessageLimits, SocketEnd};
use presence::model::codes::CloseCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Time limit of the handshake and of the last frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns every message to its sender.
#[derive(Debug, Parser)]
struct ExampleFlags {
    /// Listen address.
    #[arg(long, default_value = "127.0.0.1:9002")]
    listen: SocketAddr,
    /// Maximum size of an echoed message, in bytes.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    max_message: u32,
    /// Maximum size of a skipped message; a larger one ends the connection. At least --max-message.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    max_skipped: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = ExampleFlags::parse();
    let listener = TcpListener::bind(flags.listen).await?;
    let limits = MessageLimits::new(flags.max_message, flags.max_skipped.max(flags.max_message));
    serve(listener, limits).await
}

async fn serve(listener: TcpListener, limits: MessageLimits) -> anyhow::Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(converse(tcp, limits));
    }
}

async fn converse(tcp: TcpStream, limits: MessageLimits) {
    let Ok(Ok(upgraded)) = timeout(PATIENCE, tokio_tungstenite::accept_async(tcp)).await else { return };
    let mut socket = FrameSocket::new(upgraded.into_inner(), BytesMut::new(), limits);
    let end = echo(&mut socket).await;
    let code = match end {
        SocketEnd::Broken(violation) => Some(violation.close_code()),
        SocketEnd::Gone => None,
    };
    let _ = timeout(PATIENCE, socket.close(code.map(|code| (code.number(), code.slug())))).await;
}

/// Echoes every message until the connection ends.
async fn echo(socket: &mut FrameSocket) -> SocketEnd {
    loop {
        match socket.next(decode).await {
            Ok(EchoInput::Text(text)) => socket.output().text(text),
            Ok(EchoInput::Binary(bytes)) => socket.output().binary(bytes),
            Ok(EchoInput::Skipped) => socket.output().text(Bytes::from_static(CloseCode::TooBig.slug().as_bytes())),
            Ok(EchoInput::Nothing) => {}
            Ok(EchoInput::Close) => return SocketEnd::Gone,
            Err(over) => return over,
        }
        if socket.flush().await.is_err() {
            return SocketEnd::Gone;
        }
    }
}

/// Event that does not borrow the reader's buffer.
enum EchoInput {
    Text(Bytes),
    Binary(Bytes),
    Skipped,
    Nothing,
    Close,
}

fn decode(event: FrameEvent<'_>) -> EchoInput {
    match event {
        FrameEvent::Text(text) => EchoInput::Text(text.into_owned().into()),
        FrameEvent::Binary(bytes) => EchoInput::Binary(bytes.into_owned().into()),
        FrameEvent::TooLarge(_) => EchoInput::Skipped,
        FrameEvent::Fragment | FrameEvent::Ping(_) | FrameEvent::Pong(_) => EchoInput::Nothing,
        FrameEvent::Close { .. } => EchoInput::Close,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::Frame};
    use tokio_tungstenite::tungstenite::{Error, Message};
    use tokio_tungstenite::{WebSocketStream, client_async_with_config};

    use super::*;

    const MIB: usize = 1024 * 1024;

    struct EchoClient(WebSocketStream<TcpStream>);

    impl EchoClient {
        async fn connect(max_message: usize, max_skipped: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tokio::spawn(serve(listener, MessageLimits::new(max_message as u32, max_skipped as u32)));
            let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
            Self(client_async_with_config("ws://echo/", tcp, Some(config)).await.unwrap().0)
        }

        async fn sends(&mut self, message: Message) {
            timeout(PATIENCE, self.0.send(message)).await.unwrap().unwrap();
        }

        async fn hears(&mut self) -> Message {
            timeout(PATIENCE * 4, self.0.next()).await.unwrap().unwrap().unwrap()
        }

        async fn is_answered(&mut self, message: Message) {
            self.sends(message.clone()).await;
            assert!(self.hears().await == message, "another message came back");
        }

        async fn ends_with(mut self, code: CloseCode) {
            let Message::Close(Some(close)) = self.hears().await else { panic!("no close frame") };
            assert_eq!(close.code, code);
            let after = timeout(PATIENCE, self.0.next()).await.unwrap();
            assert!(matches!(after, None | Some(Err(Error::ConnectionClosed))), "{after:?}");
        }
    }

    fn fragment(payload: &[u8], opcode: Data, is_final: bool) -> Message {
        Message::Frame(Frame::message(payload.to_vec(), OpCode::Data(opcode), is_final))
    }

    #[tokio::test]
    async fn server_echoes_messages_of_all_sizes() {
        let mut client = EchoClient::connect(16 * MIB, 16 * MIB).await;
        for size in [0, 1, 125, 126, 127, 65535, 65536, 65537, MIB, 16 * MIB] {
            client.is_answered(Message::binary(vec![7; size])).await;
            client.is_answered(Message::text("x".repeat(size))).await;
        }
        client.sends(Message::binary(vec![7; 16 * MIB + 1])).await;
        client.ends_with(CloseCode::Size).await;
    }

    #[tokio::test]
    async fn server_joins_fragments_and_answers_pings_between_them() {
        let mut client = EchoClient::connect(MIB, MIB).await;
        let world = "世".as_bytes();
        client.sends(fragment(&world[..1], Data::Text, false)).await;
        client.sends(fragment(b"", Data::Continue, false)).await;
        client.sends(Message::Ping(Bytes::from_static(b"there?"))).await;
        assert_eq!(client.hears().await, Message::Pong(Bytes::from_static(b"there?")));
        client.sends(fragment(&world[1..], Data::Continue, true)).await;
        assert_eq!(client.hears().await, Message::text("世"));
    }

    #[tokio::test]
    async fn server_echoes_pipelined_messages_in_order() {
        let mut client = EchoClient::connect(MIB, MIB).await;
        for i in 0..5000 {
            client.0.feed(Message::text(i.to_string())).await.unwrap();
        }
        client.0.flush().await.unwrap();
        for i in 0..5000 {
            assert_eq!(client.hears().await, Message::text(i.to_string()));
        }
    }

    #[tokio::test]
    async fn server_skips_message_over_the_limit() {
        let mut client = EchoClient::connect(1000, MIB).await;
        client.sends(Message::binary(vec![0; MIB])).await;
        assert_eq!(client.hears().await, Message::text("too_big"));
        client.is_answered(Message::binary(vec![0; 1000])).await;
    }

    #[tokio::test]
    async fn server_answers_close_and_ends_connection() {
        let mut client = EchoClient::connect(MIB, MIB).await;
        let close = CloseFrame { code: CloseCode::Away, reason: "tea".into() };
        client.sends(Message::Close(Some(close))).await;
        client.ends_with(CloseCode::Away).await;
    }

    #[tokio::test]
    async fn server_reports_protocol_violations_in_close_code() {
        let mut client = EchoClient::connect(MIB, MIB).await;
        client.sends(fragment(b"x", Data::Continue, true)).await;
        client.ends_with(CloseCode::Protocol).await;
        let mut client = EchoClient::connect(MIB, MIB).await;
        client.sends(fragment(&[0xFF], Data::Text, true)).await;
        client.ends_with(CloseCode::Invalid).await;
    }
}
