//! `load api`: messages of an application through the server API, in batches.
//!
//! Each connection is a thread, and sends every call at its due time or as soon as the answer before it has arrived. A
//! latency counts from the due time of its call. The rooms are created by the API and have no members, so the figures
//! are of the presence process and Redis; members can join them to add the cost of deliveries.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};
use ureq::Agent;

use crate::cli::ApiFlags;
use crate::clock;
use crate::outcome;
use crate::process::{self, ProcessUsage};
use crate::schedule::{MeasureWindow, Schedule};
use crate::tally::Latencies;

/// Maximum time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between the start of the threads and the first call.
const LEAD: Duration = Duration::from_millis(100);

/// Creates the rooms, publishes for the whole window and prints the figures.
pub(crate) fn carry_out(flags: &ApiFlags) -> Result<()> {
    ensure!(flags.rooms > 0 && flags.connections > 0, "--rooms and --connections start at 1");
    ensure!((1..=100).contains(&flags.batch), "a batch has 1 to 100 messages");
    let first = Connection::new(flags, 0);
    for room in 0..flags.rooms {
        first.send("PUT", &format!("rooms/load-{room}"), &json!({})).context("create a room")?;
    }
    let calls_per_second = flags.rate / f64::from(flags.batch);
    let start = clock::now() + clock::nanos(LEAD);
    let schedule = Schedule::new(start, calls_per_second, u64::from(flags.connections));
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).context("a number of seconds is out of range");
    let window = MeasureWindow::new(start, seconds(flags.warmup)?, seconds(flags.seconds)?);
    let before = usages(flags);
    let threads: Vec<JoinHandle<Result<CallCounts>>> = (0..flags.connections)
        .map(|number| {
            let connection = Connection::new(flags, number);
            thread::spawn(move || connection.publish(schedule, window))
        })
        .collect();
    let mut counts = CallCounts::default();
    for thread in threads {
        counts.merge(&thread.join().map_err(|_| anyhow!("a connection panicked"))??);
    }
    let outcome = counts.outcome(flags, window, &before);
    println!(
        "api: {} messages, {:.0} a second, {} refused; calls of {} {}; {}",
        counts.messages,
        outcome["messages_per_s"].as_f64().unwrap_or_default(),
        counts.refused,
        flags.batch,
        outcome::milliseconds(&outcome["call_ms"]),
        outcome["processes"],
    );
    ensure!(counts.refused == 0, "the API refused messages");
    outcome::save(&outcome, flags.json.as_deref())
}

/// CPU of the watched processes so far, in seconds.
fn usages(flags: &ApiFlags) -> Vec<f64> {
    flags.watched.iter().map(|watched| ProcessUsage::of(watched.pid).cpu()).collect()
}

/// One connection of an application.
struct Connection {
    agent: Agent,
    api: SocketAddr,
    key: String,
    /// Makes idempotency keys unique to this run.
    run: u32,
    number: u32,
    rooms: u32,
    batch: u32,
    text: String,
}

impl Connection {
    fn new(flags: &ApiFlags, number: u32) -> Self {
        let agent = Agent::config_builder().timeout_global(Some(CALL_TIMEOUT)).http_status_as_error(false).build();
        Self {
            agent: agent.into(),
            api: flags.http,
            key: format!("Bearer {}", flags.key),
            run: std::process::id(),
            number,
            rooms: flags.rooms,
            batch: flags.batch,
            text: "x".repeat(flags.body),
        }
    }

    /// Sends the calls that are due in the window.
    fn publish(&self, schedule: Schedule, window: MeasureWindow) -> Result<CallCounts> {
        let mut counts = CallCounts::default();
        for turn in 0.. {
            let due = schedule.due(u64::from(self.number), turn);
            if due >= window.end {
                break;
            }
            thread::sleep(Duration::from_nanos(due.saturating_sub(clock::now())));
            let answer = self.send("POST", "messages/batch", &self.messages(turn))?;
            let finished = clock::now();
            let items = answer["items"].as_array().context("an answer has no items")?;
            counts.refused += items.iter().filter(|item| item["message"].is_null()).count() as u64;
            if window.counts(due) {
                counts.messages += items.len() as u64;
                counts.calls.record(finished.saturating_sub(due));
                counts.last = counts.last.max(finished);
            }
        }
        Ok(counts)
    }

    fn messages(&self, turn: u64) -> Value {
        let (run, number) = (self.run, self.number);
        let messages = (0..self.batch).map(|at| {
            let room = (turn + u64::from(at)) % u64::from(self.rooms);
            json!({"to": format!("#load-{room}"), "body": self.text, "key": format!("{run}-{number}-{turn}-{at}")})
        });
        json!({"messages": messages.collect::<Vec<Value>>()})
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}/v1/{path}", self.api))
            .header("Authorization", &self.key)
            .header("Content-Type", "application/json")
            .body(body.to_string())?;
        let mut response = self.agent.run(request).with_context(|| format!("{method} {path}"))?;
        let text = response.body_mut().read_to_string()?;
        ensure!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
        Ok(serde_json::from_str(&text)?)
    }
}

/// Counts of one or more connections. Those of the warm-up are left out, except refusals.
#[derive(Debug, Default)]
struct CallCounts {
    calls: Latencies,
    messages: u64,
    refused: u64,
    /// Time of the last answer.
    last: clock::Nanos,
}

impl CallCounts {
    fn merge(&mut self, other: &Self) {
        self.calls.merge(&other.calls);
        self.messages += other.messages;
        self.refused += other.refused;
        self.last = self.last.max(other.last);
    }

    fn outcome(&self, flags: &ApiFlags, window: MeasureWindow, before: &[f64]) -> Value {
        // A backlog that is answered after the window lowers the rate.
        let span = self.last.max(window.end) - window.measured;
        let per_second = self.messages as f64 * clock::SECOND as f64 / span as f64;
        let used = flags.watched.iter().zip(before).zip(usages(flags));
        let processes: Map<String, Value> =
            used.map(|((watched, before), after)| (watched.name.clone(), json!({"cpu_s": after - before}))).collect();
        json!({
            "scenario": "api",
            "machine": process::machine(),
            "debug_build": cfg!(debug_assertions),
            "rooms": flags.rooms,
            "connections": flags.connections,
            "batch": flags.batch,
            "offered_per_s": flags.rate,
            "messages": self.messages,
            "messages_per_s": per_second,
            "refused": self.refused,
            "call_ms": outcome::latency(&self.calls),
            "processes": processes,
        })
    }
}
