//! The examples of the protocol page, run as they are printed: a page that lies fails a test.
//!
//! A fenced block `parley` is a conversation over WebSocket, a block `lines` one over the line port:
//!
//! ```text
//! ann+                                     ann connects
//! ann> {"type":"register","nick":"ann"}    ann sends
//! ann< {"type":"registered","nick":"*"}    ann is told; in JSON "*" fits any value, in lines * fits any run
//! ann-                                     ann's connection has been ended by the server
//! ```
//!
//! In JSON `"$epoch"` as the value of a field stands for any value where it is told first, and for that value from
//! there on.
//!
//! Replies must come in the order of the page, and so must events; between the two no order is promised, since an ack
//! races with the message itself. On the line port, where the two look alike, lines may come in any order. All that
//! comes must be on the page: something untold is as wrong as something missing. Only presence (in lines, all that
//! begins with `* `) may be left out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::{LineClient, PATIENCE, WsClient};
use crate::node::Node;
use crate::pattern::json_fits;

/// Which door an example uses.
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
    who: String,
    action: ExampleAction,
}

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolExample {
    /// Where it begins on the page, from 1.
    pub line: usize,
    dialect: ExampleDialect,
    steps: Vec<ExampleStep>,
}

/// All examples of a page, in order.
///
/// # Panics
/// At a line of an example that cannot be understood.
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
                let step = step(number, line).unwrap_or_else(|| panic!("line {number} is no step: {line}"));
                examples.last_mut().expect("a block is open").steps.push(step);
            }
            None => {}
        }
    }
    examples
}

fn step(number: usize, line: &str) -> Option<ExampleStep> {
    let end = line.find(|c: char| !c.is_alphanumeric())?;
    let (who, rest) = line.split_at(end);
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
    (!who.is_empty()).then(|| ExampleStep { line: number, who: who.to_owned(), action })
}

impl ProtocolExample {
    /// Plays it against a gateway without other clients.
    ///
    /// # Panics
    /// Where the gateway does something else than the page says, with the line of the page.
    pub async fn play(&self, gateway: &Node) {
        let mut clients: BTreeMap<&str, ExampleClient> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for step in &self.steps {
            let who = step.who.as_str();
            if step.action == ExampleAction::Connects {
                clients.insert(who, ExampleClient::connect(self.dialect, gateway).await);
                continue;
            }
            let person = clients.get(who).unwrap_or_else(|| panic!("line {}: {who} is not connected", step.line));
            if let Err(complaint) = person.does(&step.action, &mut known).await {
                panic!("line {} of the page, {who}: {complaint}", step.line);
            }
        }
        for (who, person) in clients {
            let untold = person.untold();
            assert!(untold.is_empty(), "example at line {}: {who} was also told: {untold:#?}", self.line);
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

    async fn does(&self, action: &ExampleAction, known: &mut BTreeMap<String, Value>) -> Result<(), String> {
        match (self, action) {
            (_, ExampleAction::Connects) => {}
            (Self::Json(ws), ExampleAction::Sends(text)) => ws.send_message(filled(text, known).into()).await,
            (Self::Text(line), ExampleAction::Sends(text)) => line.types(text).await,
            (Self::Json(ws), ExampleAction::Receives(text)) => {
                let mut pattern: Value =
                    serde_json::from_str(&filled(text, known)).map_err(|error| format!("not JSON: {error}"))?;
                let next = ws.next(PATIENCE, |value| order_of(value) == order_of(&pattern)).await?;
                learn(&mut pattern, &next, known);
                if !json_fits(&pattern, &next) {
                    return Err(format!("is told {next}, and the page says {pattern}"));
                }
            }
            (Self::Text(line), ExampleAction::Receives(text)) => {
                line.try_read(PATIENCE, text).await?;
            }
            (Self::Json(ws), ExampleAction::IsDisconnected) => drop(ws.closed().await),
            (Self::Text(line), ExampleAction::IsDisconnected) => drop(line.closed().await),
        }
        Ok(())
    }

    /// What came and is not on the page, except presence events.
    fn untold(&self) -> Vec<String> {
        match self {
            Self::Json(ws) => ws.unused(|value| value["type"] != "presence").iter().map(Value::to_string).collect(),
            Self::Text(line) => line.unused(|line| !line.starts_with("* ")),
        }
    }
}

/// The text with what is known in the place of its names.
fn filled(text: &str, known: &BTreeMap<String, Value>) -> String {
    known.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("\"{name}\""), &value.to_string()))
}

/// Notes the values of the names in a pattern that are told for the first time.
fn learn(pattern: &mut Value, told: &Value, known: &mut BTreeMap<String, Value>) {
    for (field, value) in pattern.as_object_mut().into_iter().flatten() {
        learn(value, &told[field], known);
        if let Some(name) = value.as_str().filter(|name| name.starts_with('$')) {
            known.insert(name.to_owned(), told[field].clone());
            *value = told[field].clone();
        }
    }
}

/// What keeps its order among its own kind.
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
            ExampleStep { line: 7, who: "ann".to_owned(), action: ExampleAction::Sends("{\"a\":1}".to_owned()) }
        );
        assert_eq!(found[1].steps[2].action, ExampleAction::Receives("* bob*".to_owned()));
        assert_eq!(found[1].steps[3].action, ExampleAction::IsDisconnected);
    }

    #[test]
    #[should_panic(expected = "line 2 is no step")]
    fn parser_rejects_line_without_a_step() {
        let _ = examples("```parley\n{\"type\":\"ping\"}\n```\n");
    }
}
