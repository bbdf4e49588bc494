//! The history of one run: requests, answers and faults with their times.
//!
//! The crowd and the bench write it while they run, the checkers read it afterwards, and a file keeps it as JSON lines.
//! An operation is invoked and ends as `ok`, `fail` (certainly not done) or `info` (unknown). A missing reply is
//! `info`, never `fail`. It judges nothing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::plan::Fault;

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpStatus {
    /// Begun.
    Invoke,
    /// Done.
    Ok,
    /// Certainly not done.
    Fail,
    /// Unknown outcome.
    Info,
}

/// A jump in the seqs of a room that a member receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Jump {
    /// These messages are gone.
    Gap { from: u64, to: u64 },
    /// Every message after this one is void.
    Rewound { seq: u64 },
    /// Every earlier message is void; the line port does not show the new position.
    Reset,
    /// The seqs continue in another epoch.
    Epoch { seq: u64 },
}

impl Jump {
    /// Returns the seq before the next message, if the server sends it.
    pub fn new_position(self) -> Option<u64> {
        match self {
            Self::Gap { to: seq, .. } | Self::Rewound { seq } | Self::Epoch { seq } => Some(seq),
            Self::Reset => None,
        }
    }
}

/// The operation of one line of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", content = "value", rename_all = "snake_case")]
pub enum HistoryOp {
    /// Registers a nickname or resumes its session; the line port sends neither node nor session.
    Register { nick: String, node: Option<String>, session: Option<String>, resumed: bool },
    /// Joins a room; `seq` is that of its newest message.
    Join { room: String, seq: Option<u64> },
    /// Sends a message; `key` is the idempotency key and the body.
    Send { room: String, key: String, msg_id: Option<String>, seq: Option<u64> },
    /// A call of a client library ends with an error.
    Refused { key: String, code: String },
    /// Receives a message; `room` is `@` and the own nick for a direct message. The line port sends neither id nor
    /// position.
    Message { room: String, from: String, key: String, msg_id: Option<String>, epoch: Option<String>, seq: Option<u64> },
    /// The application receives a message of a room by webhook.
    Webhook { id: String, room: String, key: String, seq: u64 },
    /// Receives a jump of the seqs.
    Jump { room: String, jump: Jump },
    /// Receives that other members left.
    Left { room: String, nicks: Vec<String> },
    /// A program on a client library starts (invoke), and ends as requested (ok) or otherwise (fail).
    Library { name: String, failure: Option<String> },
    /// A connection ends, by either side.
    End { reason: String },
    /// A fault begins (invoke) and has been cleared (ok).
    Fault(Fault),
    /// The run enters its next phase.
    Phase { name: String },
    /// A program exits; `requested` after SIGTERM or SIGKILL of the bench.
    Exit { node: String, code: Option<i32>, requested: bool },
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryEvent {
    /// Nanoseconds since the start of the run.
    pub at: u64,
    /// Actor: a member of the crowd, or `bench`.
    pub process: String,
    /// Number of the actor's session, from 1; a resumed session keeps its number.
    pub session: u32,
    pub kind: OpStatus,
    #[serde(flatten)]
    pub op: HistoryOp,
}

/// Collects events. Cheap to clone: clones write to the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    start: Instant,
    start_ms: u64,
    events: Arc<Mutex<Vec<HistoryEvent>>>,
}

impl Recorder {
    /// Creates an empty history, whose clock starts now.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Self { start: Instant::now(), start_ms, events: Arc::default() }
    }

    /// Appends an event with the current time.
    pub fn note(&self, process: &str, session: u32, kind: OpStatus, op: HistoryOp) {
        // The clock is read under the lock, so the order of the lines is the order of their times.
        let mut events = self.lock();
        let at = nanoseconds(self.start.elapsed());
        events.push(HistoryEvent { at, process: process.to_owned(), session, kind, op });
    }

    /// Converts a timestamp of Redis (Unix milliseconds of this machine) to the time of this history; 0 if it is
    /// earlier.
    pub fn moment(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_sub(self.start_ms) * 1_000_000
    }

    /// Returns all events so far.
    pub fn events(&self) -> Vec<HistoryEvent> {
        self.lock().clone()
    }

    /// Passes all events after the first `seen` to `look`. Returns the number of events.
    pub fn since(&self, seen: usize, look: impl FnMut(&HistoryEvent)) -> usize {
        let events = self.lock();
        events.iter().skip(seen).for_each(look);
        events.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<HistoryEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a history as JSON lines.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, events: &[HistoryEvent]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = BufWriter::new(File::create(path)?);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Converts a duration to the unit of the history.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn history_line_holds_actor_operation_and_status() {
        let op = HistoryOp::Send { room: "#a".to_owned(), key: "k".to_owned(), msg_id: None, seq: Some(3) };
        let event = HistoryEvent { at: 5, process: "ann".to_owned(), session: 2, kind: OpStatus::Info, op };
        let expected = r##"{"at":5,"process":"ann","session":2,"kind":"info","op":"send","value":{"room":"#a","key":"k","msg_id":null,"seq":3}}"##;
        assert_eq!(serde_json::to_string(&event).unwrap(), expected);
    }

    #[test]
    fn recorder_keeps_times_in_order() {
        let recorder = Recorder::start();
        for _ in 0..100 {
            recorder.note("ann", 1, OpStatus::Ok, HistoryOp::End { reason: "test".to_owned() });
        }
        assert!(recorder.events().is_sorted_by_key(|event| event.at));
        assert_eq!(recorder.since(40, |_| {}), 100);
    }
}
