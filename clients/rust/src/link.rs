//! One WebSocket connection, from the attempt to its end. Only this file and `tls` do network IO.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message as SocketMessage};

use crate::error::ParleyError;
use crate::machine::Input;
use crate::packed;
use crate::tls::{self, Connector};

/// Maximum size of a received frame: lists have up to 1 MiB of messages, and their JSON around.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Number of inputs that wait for the session before the connection stops reading.
const INPUTS_MAX: usize = 64;

/// The format of the messages of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFormat {
    /// Text messages.
    Json,
    /// Binary messages.
    MessagePack,
}

impl WireFormat {
    fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "parley.v1",
            Self::MessagePack => packed::SUBPROTOCOL,
        }
    }

    /// Returns the message of a request; `None` for one that this format does not know.
    fn encode(self, frame: &Value) -> Option<SocketMessage> {
        match self {
            Self::Json => Some(SocketMessage::text(frame.to_string())),
            Self::MessagePack => packed::encode(frame).map(SocketMessage::binary),
        }
    }

    /// Reads a message of the server; `None` if it is no frame of this format.
    fn decode(self, message: &SocketMessage) -> Option<Value> {
        match (self, message) {
            (Self::Json, SocketMessage::Text(text)) => serde_json::from_str(text).ok(),
            (Self::MessagePack, SocketMessage::Binary(bytes)) => packed::decode(bytes),
            _ => None,
        }
    }
}

/// The properties of all connections of a session.
#[derive(Clone)]
pub(crate) struct LinkOptions {
    pub(crate) connector: Connector,
    pub(crate) format: WireFormat,
}

/// A connection that is being opened, or is open. Dropping it abandons the connection without a close frame, which
/// would end the session.
#[derive(Debug)]
pub(crate) struct Link {
    frames: mpsc::UnboundedSender<Value>,
    inputs: mpsc::Receiver<Input>,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn open(url: String, options: LinkOptions) -> Self {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (incoming, inputs) = mpsc::channel(INPUTS_MAX);
        let task = tokio::spawn(async move {
            let last = run(&url, options, outgoing, &incoming).await;
            let _ = incoming.send(last).await;
        });
        Self { frames, inputs, task }
    }

    /// Queues a frame. A lost connection is reported by [`Link::next`].
    pub(crate) fn transmit(&self, frame: Value) {
        let _ = self.frames.send(frame);
    }

    /// Waits for the next input: `Open` or `Failed` first, `Closed` last. Cancel safe.
    pub(crate) async fn next(&mut self) -> Input {
        self.inputs.recv().await.unwrap_or(Input::Closed(None))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the request to open a connection.
///
/// # Errors
/// `bad_request`: the address is not valid.
pub(crate) fn request(url: &str, format: WireFormat) -> Result<Request<()>, ParleyError> {
    let is_web_socket = url.starts_with("ws://") || url.starts_with("wss://");
    let mut request = url
        .into_client_request()
        .ok()
        .filter(|_| is_web_socket)
        .ok_or_else(|| ParleyError::new("bad_request", format!("not a ws: or wss: address: {url}")))?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(format.subprotocol()));
    Ok(request)
}

/// Opens a connection and serves it to its end. Returns the last input.
async fn run(
    url: &str,
    LinkOptions { connector, format }: LinkOptions,
    mut frames: mpsc::UnboundedReceiver<Value>,
    inputs: &mpsc::Sender<Input>,
) -> Input {
    let request = match request(url, format) {
        Ok(request) => request,
        Err(error) => return Input::Failed(Some(error)),
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let socket = match tls::open(request, config, connector).await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::info!(url, %error, "connection failed");
            return Input::Failed(refusal(error, format));
        }
    };
    let _ = inputs.send(Input::Open).await;
    let (mut sink, mut stream) = socket.split();
    let writing = async {
        while let Some(frame) = frames.recv().await {
            let Some(message) = format.encode(&frame) else { continue };
            if sink.send(message).await.is_err() {
                break;
            }
        }
        // The reader reports the end of the connection.
        std::future::pending().await
    };
    let reading = async {
        loop {
            match stream.next().await {
                Some(Ok(SocketMessage::Close(frame))) => return frame.map(|frame| u16::from(frame.code)),
                Some(Ok(message)) => {
                    if let Some(frame) = format.decode(&message) {
                        let _ = inputs.send(Input::Frame(frame)).await;
                    }
                }
                Some(Err(_)) | None => return None,
            }
        }
    };
    tokio::select! {
        number = reading => Input::Closed(number),
        () = writing => Input::Closed(None),
    }
}

/// Returns the refusal of an address; `None` if it may connect later.
fn refusal(error: Error, format: WireFormat) -> Option<ParleyError> {
    match error {
        Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) if format != WireFormat::Json => {
            let text = format!("the gateway does not know {}", format.subprotocol());
            Some(ParleyError::new("unsupported_data", text))
        }
        Error::Http(response) => http_refusal(&response),
        _ => None,
    }
}

/// Reads a problem document (RFC 9457).
fn http_refusal(response: &Response<Option<Vec<u8>>>) -> Option<ParleyError> {
    #[derive(Deserialize)]
    struct RefusalDocument {
        code: String,
        #[serde(default)]
        detail: String,
    }
    let body = response.body().as_deref().unwrap_or_default();
    let document: RefusalDocument = serde_json::from_slice(body).ok()?;
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let error = ParleyError::new(document.code, document.detail);
    Some(error.with_retry_after(seconds.map(Duration::from_secs)))
}
