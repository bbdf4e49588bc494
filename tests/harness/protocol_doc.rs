//! The examples of the protocol page, executed as printed: a wrong example fails a test.
//!
//! A fenced block `parley` is an exchange over WebSocket, a block `lines` one over the line port, and a block `frames`
//! one of binary frames in hexadecimal over that port:
//!
//! ```text
//! ann+                                     ann connects
//! ann> {"type":"register","nick":"ann"}    ann sends
//! ann< {"type":"registered","nick":"*"}    ann receives; in JSON "*" fits any value, in lines * fits any run
//! ann-                                     the server has closed ann's connection
//! ```
//!
//! In JSON `"$epoch"` as the value of a field stands for any value at its first use, and for the same value afterwards.
//!
//! Replies must arrive in the order of the page, and so must events. The order between the two is free, because an ack
//! races with its message. On the line port, where the two look alike, lines may arrive in any order. Everything
//! received must be on the page. Only presence (on the line port, all lines with `* `) may be omitted.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::client::{LineClient, RESPONSE_TIMEOUT, WsClient};
use crate::node::Node;
use crate::pattern::json_fits;

/// The dialect of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExampleDialect {
    WebSocket,
    Lines,
    Frames,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ExampleAction {
    Connects,
    Sends(String),
    Receives(String),
    IsDisconnected,
}

/// One line of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExampleStep {
    line: usize,
    client: String,
    action: ExampleAction,
}

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolExample {
    /// First line on the page, from 1.
    pub line: usize,
    dialect: ExampleDialect,
    steps: Vec<ExampleStep>,
}

/// Returns all examples of a page, in order.
///
/// # Panics
/// If a line of an example is not a step.
#[must_use]
pub fn examples(page: &str) -> Vec<ProtocolExample> {
    let mut examples: Vec<ProtocolExample> = Vec::new();
    let mut is_open = false;
    let mut is_foreign = false;
    for (number, line) in (1..).zip(page.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match fence {
            Some(_) if is_open || is_foreign => (is_open, is_foreign) = (false, false),
            Some(language @ ("parley" | "lines" | "frames")) => {
                let dialect = match language {
                    "parley" => ExampleDialect::WebSocket,
                    "lines" => ExampleDialect::Lines,
                    _ => ExampleDialect::Frames,
                };
                examples.push(ProtocolExample { line: number, dialect, steps: Vec::new() });
                is_open = true;
            }
            Some(_) => is_foreign = true,
            None if is_open && !line.trim().is_empty() => {
                let step = step(number, line).unwrap_or_else(|| panic!("line {number} is not a step: {line}"));
                examples.last_mut().expect("a block is open").steps.push(step);
            }
            None => {}
        }
    }
    examples
}

fn step(number: usize, line: &str) -> Option<ExampleStep> {
    let end = line.find(|c: char| !c.is_alphanumeric())?;
    let (client, rest) = line.split_at(end);
    let mut rest = rest.chars();
    let sign = rest.next()?;
    let text = rest.as_str().strip_prefix(' ').unwrap_or(rest.as_str()).to_owned();
    let action = match sign {
        '+' if text.is_empty() => ExampleAction::Connects,
        '-' if text.is_empty() => ExampleAction::IsDisconnected,
        '>' => ExampleAction::Sends(text),
        '<' => ExampleAction::Receives(text),
        _ => return None,
    };
    (!client.is_empty()).then(|| ExampleStep { line: number, client: client.to_owned(), action })
}

impl ProtocolExample {
    /// Executes the example against a gateway without other clients.
    ///
    /// # Panics
    /// If the gateway deviates from the page; the message contains the line of the page.
    pub async fn play(&self, gateway: &Node) {
        let mut clients: BTreeMap<&str, ExampleClient> = BTreeMap::new();
        let mut bindings = BTreeMap::new();
        for step in &self.steps {
            let name = step.client.as_str();
            if step.action == ExampleAction::Connects {
                clients.insert(name, ExampleClient::connect(self.dialect, gateway).await);
                continue;
            }
            let client = clients.get(name).unwrap_or_else(|| panic!("line {}: {name} is not connected", step.line));
            if let Err(error) = client.perform(&step.action, &mut bindings).await {
                panic!("line {} of the page, {name}: {error}", step.line);
            }
        }
        for (name, client) in clients {
            let unexpected = client.unexpected();
            assert!(unexpected.is_empty(), "example at line {}: {name} also received {unexpected:#?}", self.line);
        }
    }
}

enum ExampleClient {
    Json(WsClient),
    Text(LineClient),
    Frames(Mutex<TcpStream>),
}

impl ExampleClient {
    async fn connect(dialect: ExampleDialect, gateway: &Node) -> Self {
        match dialect {
            ExampleDialect::WebSocket => Self::Json(WsClient::connect(gateway.ws()).await),
            ExampleDialect::Lines => Self::Text(LineClient::connect(gateway.tcp()).await),
            ExampleDialect::Frames => {
                Self::Frames(Mutex::new(TcpStream::connect(gateway.tcp()).await.expect("a connection")))
            }
        }
    }

    async fn perform(&self, action: &ExampleAction, bindings: &mut BTreeMap<String, Value>) -> Result<(), String> {
        match (self, action) {
            (_, ExampleAction::Connects) => {}
            (Self::Json(ws), ExampleAction::Sends(text)) => ws.send_message(substitute(text, bindings).into()).await,
            (Self::Text(line), ExampleAction::Sends(text)) => line.types(text).await,
            (Self::Json(ws), ExampleAction::Receives(text)) => {
                let mut pattern: Value =
                    serde_json::from_str(&substitute(text, bindings)).map_err(|error| format!("not JSON: {error}"))?;
                let next = ws.next(RESPONSE_TIMEOUT, |value| order_of(value) == order_of(&pattern)).await?;
                bind_names(&mut pattern, &next, bindings);
                if !json_fits(&pattern, &next) {
                    return Err(format!("received {next}, but the page has {pattern}"));
                }
            }
            (Self::Text(line), ExampleAction::Receives(text)) => {
                line.try_read(RESPONSE_TIMEOUT, text).await?;
            }
            (Self::Frames(stream), ExampleAction::Sends(text)) => {
                let sent = stream.lock().await.write_all(&bytes_of(text)?).await;
                sent.map_err(|error| error.to_string())?;
            }
            (Self::Frames(stream), ExampleAction::Receives(text)) => {
                let mut stream = stream.lock().await;
                let frame =
                    timeout(RESPONSE_TIMEOUT, next_frame(&mut stream)).await.map_err(|late| late.to_string())?;
                let frame = frame.map_err(|error| error.to_string())?;
                if frame != bytes_of(text)? {
                    return Err(format!("received {frame:02X?}, but the page has {text}"));
                }
            }
            (Self::Frames(stream), ExampleAction::IsDisconnected) => {
                let end = timeout(RESPONSE_TIMEOUT, stream.lock().await.read_to_end(&mut Vec::new())).await;
                end.map_err(|late| late.to_string())?.map_err(|error| error.to_string())?;
            }
            (Self::Json(ws), ExampleAction::IsDisconnected) => drop(ws.closed().await),
            (Self::Text(line), ExampleAction::IsDisconnected) => drop(line.closed().await),
        }
        Ok(())
    }

    /// Returns everything received that is not on the page, except presence events.
    fn unexpected(&self) -> Vec<String> {
        match self {
            Self::Json(ws) => ws.unused(|value| value["type"] != "presence").iter().map(Value::to_string).collect(),
            Self::Text(line) => line.unused(|line| !line.starts_with("* ")),
            // Each frame is compared where it is received.
            Self::Frames(_) => Vec::new(),
        }
    }
}

/// Returns the bytes of a line in hexadecimal.
fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).map_err(|error| format!("{byte}: {error}")))
        .collect()
}

/// Reads the next binary frame. Lines of text may precede it.
async fn next_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    const MAGIC: [u8; 4] = [0xCA, 0xFE, 0xBA, 0xBE];
    const HEADER_BYTES: usize = 11;
    let mut frame = Vec::new();
    while !frame.ends_with(&MAGIC) {
        frame.push(stream.read_u8().await?);
    }
    frame.drain(..frame.len() - MAGIC.len());
    frame.resize(HEADER_BYTES, 0);
    stream.read_exact(&mut frame[MAGIC.len()..]).await?;
    let length = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]);
    frame.resize(HEADER_BYTES + length as usize, 0);
    stream.read_exact(&mut frame[HEADER_BYTES..]).await?;
    Ok(frame)
}

/// Returns the text with each bound name replaced by its value.
fn substitute(text: &str, bindings: &BTreeMap<String, Value>) -> String {
    bindings
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("\"{name}\""), &value.to_string()))
}

/// Binds each unbound name in the pattern to the received value.
fn bind_names(pattern: &mut Value, received: &Value, bindings: &mut BTreeMap<String, Value>) {
    for (field, value) in pattern.as_object_mut().into_iter().flatten() {
        bind_names(value, &received[field], bindings);
        if let Some(name) = value.as_str().filter(|name| name.starts_with('$')) {
            bindings.insert(name.to_owned(), received[field].clone());
            *value = received[field].clone();
        }
    }
}

/// Kinds of frames; each kind keeps its order.
#[derive(PartialEq, Eq)]
enum FrameOrder {
    Replies,
    Messages,
    Presence,
}

fn order_of(frame: &Value) -> FrameOrder {
    match frame["type"].as_str() {
        Some("message" | "gap" | "rewound" | "epoch" | "going_away") => FrameOrder::Messages,
        Some("presence") => FrameOrder::Presence,
        _ => FrameOrder::Replies,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_reads_only_protocol_example_blocks() {
        let page = "Text\n```json\nann+\n```\n```parley\nann+\nann> {\"a\":1}\n\nann< {\"b\":\"*\"}\n```\n\
                    ```lines\nbob+\nbob> /nick bob\nbob< * bob*\nbob-\n```\n```frames\neve+\neve> 0A ff\n```\n";
        let found = examples(page);
        assert_eq!(
            found.iter().map(|example| (example.line, example.dialect)).collect::<Vec<_>>(),
            [(5, ExampleDialect::WebSocket), (11, ExampleDialect::Lines), (17, ExampleDialect::Frames)]
        );
        assert_eq!(
            found[0].steps[1],
            ExampleStep { line: 7, client: "ann".to_owned(), action: ExampleAction::Sends("{\"a\":1}".to_owned()) }
        );
        assert_eq!(found[1].steps[2].action, ExampleAction::Receives("* bob*".to_owned()));
        assert_eq!(found[1].steps[3].action, ExampleAction::IsDisconnected);
        assert_eq!(bytes_of("0A ff"), Ok(vec![10, 255]));
    }

    #[test]
    #[should_panic(expected = "line 2 is not a step")]
    fn parser_rejects_line_without_a_step() {
        let _ = examples("```parley\n{\"type\":\"ping\"}\n```\n");
    }
}
