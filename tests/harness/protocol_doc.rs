//! The examples of the protocol page, run as they are printed: a page that lies fails a test.
//!
//! A fenced block `parley` is a conversation over WebSocket, a block `lines` one over the text door:
//!
//! ```text
//! ann+                                     ann connects
//! ann> {"type":"register","nick":"ann"}    ann sends
//! ann< {"type":"registered","nick":"*"}    ann is told; in JSON "*" fits any value, in lines * fits any run
//! ann-                                     ann's connection has been ended by the server
//! ```
//!
//! In JSON `"$epoch"` as the value of a field stands for any value where it is told first, and for that value from there on.
//!
//! Replies must come in the order of the page, and so must events; between the two no order is promised, since an ack
//! races with the message itself. On the text door, where nobody can tell them apart, lines may come in any order. All
//! that comes must be on the page: something untold is as wrong as something missing. Only presence (in lines, all that
//! begins with `* `) may be left out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::{LineClient, PATIENCE, WsClient};
use crate::node::Node;
use crate::pattern::json_fits;

/// Which door an example uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    WebSocket,
    Lines,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Connects,
    Sends(String),
    IsTold(String),
    IsDisconnected,
}

/// One line of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    line: usize,
    who: String,
    deed: Deed,
}

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Where it begins on the page, from 1.
    pub line: usize,
    door: Door,
    steps: Vec<Step>,
}

/// All examples of a page, in order.
///
/// # Panics
/// At a line of an example that cannot be understood.
#[must_use]
pub fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut is_open = false;
    let mut is_foreign = false;
    for (number, line) in (1..).zip(page.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match fence {
            Some(_) if is_open || is_foreign => (is_open, is_foreign) = (false, false),
            Some(language @ ("parley" | "lines")) => {
                let door = if language == "parley" { Door::WebSocket } else { Door::Lines };
                examples.push(Example { line: number, door, steps: Vec::new() });
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

fn step(number: usize, line: &str) -> Option<Step> {
    let end = line.find(|c: char| !c.is_alphanumeric())?;
    let (who, rest) = line.split_at(end);
    let mut rest = rest.chars();
    let sign = rest.next()?;
    let text = rest.as_str().strip_prefix(' ').unwrap_or(rest.as_str()).to_owned();
    let deed = match sign {
        '+' if text.is_empty() => Deed::Connects,
        '-' if text.is_empty() => Deed::IsDisconnected,
        '>' => Deed::Sends(text),
        '<' => Deed::IsTold(text),
        _ => return None,
    };
    (!who.is_empty()).then(|| Step { line: number, who: who.to_owned(), deed })
}

impl Example {
    /// Plays it against a gateway that nobody else uses.
    ///
    /// # Panics
    /// Where the gateway does something else than the page says, with the line of the page.
    pub async fn play(&self, gateway: &Node) {
        let mut people: BTreeMap<&str, Person> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for step in &self.steps {
            let who = step.who.as_str();
            if step.deed == Deed::Connects {
                people.insert(who, Person::connect(self.door, gateway).await);
                continue;
            }
            let person = people.get(who).unwrap_or_else(|| panic!("line {}: {who} is not connected", step.line));
            if let Err(complaint) = person.does(&step.deed, &mut known).await {
                panic!("line {} of the page, {who}: {complaint}", step.line);
            }
        }
        for (who, person) in people {
            let untold = person.untold();
            assert!(untold.is_empty(), "example at line {}: {who} was also told: {untold:#?}", self.line);
        }
    }
}

enum Person {
    Json(WsClient),
    Text(LineClient),
}

impl Person {
    async fn connect(door: Door, gateway: &Node) -> Self {
        match door {
            Door::WebSocket => Self::Json(WsClient::connect(gateway.ws()).await),
            Door::Lines => Self::Text(LineClient::connect(gateway.tcp()).await),
        }
    }

    async fn does(&self, deed: &Deed, known: &mut BTreeMap<String, Value>) -> Result<(), String> {
        match (self, deed) {
            (_, Deed::Connects) => {}
            (Self::Json(ws), Deed::Sends(text)) => ws.send_message(filled(text, known).into()).await,
            (Self::Text(line), Deed::Sends(text)) => line.types(text).await,
            (Self::Json(ws), Deed::IsTold(text)) => {
                let mut pattern: Value =
                    serde_json::from_str(&filled(text, known)).map_err(|error| format!("not JSON: {error}"))?;
                let next = ws.next(PATIENCE, |value| order_of(value) == order_of(&pattern)).await?;
                learn(&mut pattern, &next, known);
                if !json_fits(&pattern, &next) {
                    return Err(format!("is told {next}, and the page says {pattern}"));
                }
            }
            (Self::Text(line), Deed::IsTold(text)) => {
                line.try_read(PATIENCE, text).await?;
            }
            (Self::Json(ws), Deed::IsDisconnected) => drop(ws.closed().await),
            (Self::Text(line), Deed::IsDisconnected) => drop(line.closed().await),
        }
        Ok(())
    }

    /// What came and is not on the page, except news of who is there.
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
enum Order {
    Replies,
    Messages,
    Presence,
}

fn order_of(frame: &Value) -> Order {
    match frame["type"].as_str() {
        Some("message" | "gap" | "rewound" | "epoch" | "going_away") => Order::Messages,
        Some("presence") => Order::Presence,
        _ => Order::Replies,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_blocks_that_are_meant() {
        let page = "Text\n```json\nann+\n```\n```parley\nann+\nann> {\"a\":1}\n\nann< {\"b\":\"*\"}\n```\n\
                    ```lines\nbob+\nbob> /nick bob\nbob< * bob*\nbob-\n```\n";
        let found = examples(page);
        assert_eq!(
            found.iter().map(|example| (example.line, example.door)).collect::<Vec<_>>(),
            [(5, Door::WebSocket), (11, Door::Lines)]
        );
        assert_eq!(
            found[0].steps[1],
            Step { line: 7, who: "ann".to_owned(), deed: Deed::Sends("{\"a\":1}".to_owned()) }
        );
        assert_eq!(found[1].steps[2].deed, Deed::IsTold("* bob*".to_owned()));
        assert_eq!(found[1].steps[3].deed, Deed::IsDisconnected);
    }

    #[test]
    #[should_panic(expected = "line 2 is no step")]
    fn a_line_that_is_no_step_is_an_error() {
        let _ = examples("```parley\n{\"type\":\"ping\"}\n```\n");
    }
}
