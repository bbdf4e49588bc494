//! The history of one run: requests, answers and faults with their times.
//!
//! Written by the crowd and by the bench while they run, read by the checkers afterwards, kept as one JSON object a
//! line. An operation is invoked and then ends as `ok`, `fail` (certainly not done) or `info` (unknown): an answer that
//! did not come is never a failure. Nothing here judges.

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
    /// It begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was certainly not done.
    Fail,
    /// The outcome is unknown.
    Info,
}

/// A jump in a room's numbers that a member is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Jump {
    /// These are gone.
    Gap { from: u64, to: u64 },
    /// Everything after this is void.
    Rewound { seq: u64 },
    /// Everything so far is void; the line port does not show where it goes on.
    Anew,
    /// The counting goes on under another epoch.
    Epoch { seq: u64 },
}

impl Jump {
    /// The number before the next one, where it is told.
    pub fn goes_on_after(self) -> Option<u64> {
        match self {
            Self::Gap { to: seq, .. } | Self::Rewound { seq } | Self::Epoch { seq } => Some(seq),
            Self::Anew => None,
        }
    }
}

/// The operation of one line of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", content = "value", rename_all = "snake_case")]
pub enum HistoryOp {
    /// Takes a nickname, or goes on with the session that has it; the line port sends neither node nor session.
    Register { nick: String, node: Option<String>, session: Option<String>, resumed: bool },
    /// Enters a room; `seq` is its newest message then.
    Join { room: String, seq: Option<u64> },
    /// Says something; `key` is the idempotency key and the body.
    Send { room: String, key: String, msg_id: Option<String>, seq: Option<u64> },
    /// Receives a message; `room` is `@` and the own nick for a direct message. The line port tells
    /// neither id nor number, nor the epoch that the number belongs to.
    Message { room: String, from: String, key: String, msg_id: Option<String>, epoch: Option<String>, seq: Option<u64> },
    /// Is told that the numbers jump.
    Jump { room: String, jump: Jump },
    /// Is told that others left.
    Left { room: String, nicks: Vec<String> },
    /// The end of a connection, by either side.
    End { why: String },
    /// A fault begins (invoke) and has been cleared (ok).
    Fault(Fault),
    /// The bench goes on to its next part.
    Phase { name: String },
    /// A program ended; a code of 0 after SIGTERM is in order.
    Exit { node: String, code: Option<i32>, asked: bool },
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryEvent {
    /// Nanoseconds since the start of the run.
    pub at: u64,
    /// The actor: a member of the crowd, or `bench`.
    pub process: String,
    /// Which of its sessions, from 1: a connection that resumes goes on with the one before.
    pub session: u32,
    /// The state of the operation.
    pub kind: OpStatus,
    /// The operation.
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
    /// The clock starts now.
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_ms = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Self { start: Instant::now(), start_ms, events: Arc::default() }
    }

    /// Appends an event that happens now.
    pub fn note(&self, process: &str, session: u32, kind: OpStatus, op: HistoryOp) {
        // The clock is read under the lock, so the order of the lines is the order of their times.
        let mut events = self.lock();
        let at = nanoseconds(self.start.elapsed());
        events.push(HistoryEvent { at, process: process.to_owned(), session, kind, op });
    }

    /// The moment of a Redis timestamp (Unix milliseconds of this machine) in this history; 0 for what came before it.
    pub fn moment(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_sub(self.start_ms) * 1_000_000
    }

    /// Everything so far.
    pub fn events(&self) -> Vec<HistoryEvent> {
        self.lock().clone()
    }

    /// Looks at what came after the first `seen` events; returns how many there are now.
    pub fn since(&self, seen: usize, look: impl FnMut(&HistoryEvent)) -> usize {
        let events = self.lock();
        events.iter().skip(seen).for_each(look);
        events.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<HistoryEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a history, one JSON object a line.
///
/// # Errors
/// As the file system tells it.
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

/// A duration as the history counts.
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
            recorder.note("ann", 1, OpStatus::Ok, HistoryOp::End { why: "test".to_owned() });
        }
        assert!(recorder.events().is_sorted_by_key(|event| event.at));
        assert_eq!(recorder.since(40, |_| {}), 100);
    }
}
