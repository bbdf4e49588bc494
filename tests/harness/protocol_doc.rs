//! The examples of the protocol page, executed as printed: a wrong example fails a test.
//!
//! A fenced block `parley` is an exchange over WebSocket, a block `lines` one over the line port:
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

use crate::client::{LineClient, RESPONSE_TIMEOUT, WsClient};
use crate::node::Node;
use crate::pattern::json_fits;

/// The dialect of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExampleDialect {
    WebSocket,
    Lines,
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
            Some(language @ ("parley" | "lines")) => {
                let dialect = if language == "parley" { ExampleDialect::WebSocket } else { ExampleDialect::Lines };
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
}

impl ExampleClient {
    async fn connect(dialect: ExampleDialect, gateway: &Node) -> Self {
        match dialect {
            ExampleDialect::WebSocket => Self::Json(WsClient::connect(gateway.ws()).await),
            ExampleDialect::Lines => Self::Text(LineClient::connect(gateway.tcp()).await),
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
        }
    }
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
                    ```lines\nbob+\nbob> /nick bob\nbob< * bob*\nbob-\n```\n";
        let found = examples(page);
        assert_eq!(
            found.iter().map(|example| (example.line, example.dialect)).collect::<Vec<_>>(),
            [(5, ExampleDialect::WebSocket), (11, ExampleDialect::Lines)]
        );
        assert_eq!(
            found[0].steps[1],
            ExampleStep { line: 7, client: "ann".to_owned(), action: ExampleAction::Sends("{\"a\":1}".to_owned()) }
        );
        assert_eq!(found[1].steps[2].action, ExampleAction::Receives("* bob*".to_owned()));
        assert_eq!(found[1].steps[3].action, ExampleAction::IsDisconnected);
    }

    #[test]
    #[should_panic(expected = "line 2 is not a step")]
    fn parser_rejects_line_without_a_step() {
        let _ = examples("```parley\n{\"type\":\"ping\"}\n```\n");
    }
}
