//! A member that is a program on a client library. The library reconnects, resumes and repeats; the member chooses the
//! messages and records the events.
//!
//! Contract of the programs: the argument is `{"urls": [..], "nick": "..", "rooms": [..]}`. The program opens a session
//! and joins the rooms. Each line of stdin is a [`SendCommand`], each line of stdout a [`LibraryEvent`]. At the end of
//! stdin the program closes its session and exits with 0. A program that hangs or writes anything else, also to stderr,
//! has failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::pipe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::process::binary_directory;
use harness::{ChildProgram, Process, repository};
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::member::CrowdMode;
use crate::history::{HistoryOp, Jump, OpStatus, Recorder};

/// Age up to which an unanswered message counts as one on its way. An older one waits for a retry of the library, which
/// may take 30 s after the end of a fault.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(2);
/// Time limit for the last answers before a program is asked to end.
const ANSWERS_MAX: Duration = Duration::from_secs(4);
/// Time limit for a program to close its session, and with it its stdout, after the end of its stdin.
const CLOSE_MAX: Duration = Duration::from_secs(6);
/// Time limit for the exit after that. All limits together are below that of the run for the leave of a member.
const EXIT_MAX: Duration = Duration::from_secs(2);
/// Interval at which the exit of a program is checked.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time in which a failed program may write more lines, such as a stack trace.
const REST_MAX: Duration = Duration::from_secs(1);
/// Time limit for a program to read a command.
const COMMAND_MAX: Duration = Duration::from_secs(10);
/// Number of lines kept of a program's output, for the report of a failure.
const LAST_LINES: usize = 10;

/// A client library under test.
#[derive(Debug, Clone, Copy)]
pub struct ClientLibrary {
    pub name: &'static str,
    /// Program and arguments; paths are relative to the repository, or to the folder of the built programs.
    command: &'static [&'static str],
    /// A file of its installation.
    installed: &'static str,
    /// Shell command that installs it.
    install: &'static str,
}

/// Every client library.
pub const LIBRARIES: [ClientLibrary; 3] = [
    ClientLibrary {
        name: "js",
        command: &["node", "clients/js/test/chaos.js"],
        installed: "clients/js/node_modules/ws",
        install: "cd clients/js && npm ci",
    },
    ClientLibrary {
        name: "python",
        command: &["clients/python/build/venv/bin/python", "clients/python/tests/chaos.py"],
        installed: "clients/python/build/venv/bin/python",
        install: "clients/python/install",
    },
    ClientLibrary {
        name: "rust",
        command: &["chaos-rust-member"],
        installed: "chaos-rust-member",
        install: "cargo build --workspace --bins",
    },
];

impl ClientLibrary {
    /// Returns a sentence that names the missing installation, if it is missing.
    pub fn missing(&self) -> Option<String> {
        let Self { name, installed, install, .. } = self;
        let is_missing = stored(installed).is_none();
        is_missing.then(|| format!("{installed} of the {name} library is missing: run `make chaos`, or `{install}`"))
    }

    fn program(&self, process: &str) -> ChildProgram {
        let mut words =
            self.command.iter().map(|word| stored(word).map_or_else(|| word.into(), PathBuf::into_os_string));
        let command = words.next().unwrap_or_default();
        ChildProgram::system(&command.to_string_lossy(), process).args(words)
    }
}

/// Returns the path of a file in the repository or among the built programs, if it exists.
fn stored(path: &str) -> Option<PathBuf> {
    [repository(), binary_directory()].map(|folder| folder.join(path)).into_iter().find(|path| path.exists())
}

/// A message for the program to send; `key` is the idempotency key and the body.
#[derive(Debug, Serialize)]
struct SendCommand<'a> {
    room: &'a str,
    key: &'a str,
}

/// An event of the library.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum LibraryEvent {
    /// State of the connection: `online`, or any other without a connection.
    State {
        name: String,
        node: Option<String>,
        #[serde(default)]
        resumed: bool,
        reason: Option<String>,
    },
    /// Joined a room after this seq.
    Joined {
        room: String,
        seq: u64,
    },
    /// A call of `send` returned.
    Acked {
        room: String,
        key: String,
        id: String,
        seq: u64,
    },
    /// A call of `send` failed.
    Refused {
        key: String,
        code: String,
    },
    Message {
        room: String,
        id: String,
        from: String,
        seq: u64,
        key: String,
    },
    Gap {
        room: String,
        from: u64,
        to: u64,
    },
    Rewind {
        room: String,
        seq: u64,
    },
}

/// A deliberate change of the first line of a kind, which the checkers must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    DropMessage,
    RepeatMessage,
    /// Drops the ack of a mark.
    DropAck,
}

/// Every change; each member gets one of them.
pub const LINE_FAULTS: [LineFault; 3] = [LineFault::DropMessage, LineFault::RepeatMessage, LineFault::DropAck];

/// Configuration of one member on a library.
#[derive(Debug)]
pub struct LibraryScript {
    /// Name in the history, and nickname.
    pub process: String,
    pub library: ClientLibrary,
    pub urls: Vec<String>,
    pub rooms: Vec<String>,
    /// Approximate interval between two messages.
    pub send_interval: Duration,
    /// Maximum number of unanswered messages.
    pub unanswered_max: usize,
    pub line_fault: Option<LineFault>,
}

/// Output of a program, with its stderr.
type OutputLines = Lines<BufReader<Receiver>>;

/// State of a member on a library.
pub struct LibraryMember {
    script: LibraryScript,
    mode: watch::Receiver<CrowdMode>,
    recorder: Recorder,
    rng: Xoshiro256PlusPlus,
    is_joined: Arc<AtomicBool>,
    is_online: bool,
    /// Number of sessions so far.
    session: u32,
    joined: BTreeSet<String>,
    /// Unanswered messages by key, with the time of the command.
    pending: BTreeMap<String, Instant>,
    sends: u64,
    last_lines: VecDeque<String>,
    has_altered: bool,
}

impl LibraryMember {
    pub fn new(
        script: LibraryScript,
        mode: watch::Receiver<CrowdMode>,
        recorder: Recorder,
        rng: Xoshiro256PlusPlus,
    ) -> Self {
        Self {
            script,
            mode,
            recorder,
            rng,
            is_joined: Arc::default(),
            is_online: false,
            session: 0,
            joined: BTreeSet::new(),
            pending: BTreeMap::new(),
            sends: 0,
            last_lines: VecDeque::new(),
            has_altered: false,
        }
    }

    /// Returns a flag that is true while the member is in all its rooms and no message waits for a retry.
    pub fn joined_flag(&self) -> Arc<AtomicBool> {
        self.is_joined.clone()
    }

    /// Runs the program until the mode is [`CrowdMode::Leave`].
    pub async fn run(mut self) {
        let name = self.script.library.name.to_owned();
        self.note(OpStatus::Invoke, HistoryOp::Library { name: name.clone(), failure: None });
        let LibraryScript { process, library, urls, rooms, .. } = &self.script;
        let (stdin, commands) = pipe().expect("a pipe");
        let (lines, stdout) = pipe().expect("a pipe");
        let task = json!({"urls": urls, "nick": process, "rooms": rooms}).to_string();
        let stderr = stdout.try_clone().expect("another descriptor of a pipe");
        let program = library.program(process).args([task]);
        let mut process = program.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
        let commands = Sender::from_owned_fd(commands.into()).expect("the writing end of a pipe");
        let lines = Receiver::from_owned_fd(lines.into()).expect("the reading end of a pipe");
        let mut lines = BufReader::new(lines).lines();
        let driven = self.drive(commands, &mut lines).await;
        let failure = match driven {
            Ok(()) => exit_failure(&mut process).await,
            Err(failure) => Some(failure),
        };
        self.is_joined.store(false, Ordering::Relaxed);
        self.disconnected("exit");
        let failure = match failure {
            Some(failure) => Some(format!("{failure}; its last lines:\n{}", self.rest(&mut lines).await)),
            None => None,
        };
        let kind = if failure.is_some() { OpStatus::Fail } else { OpStatus::Ok };
        self.note(kind, HistoryOp::Library { name, failure });
    }

    /// Sends commands and records events until the program closes its stdout.
    async fn drive(&mut self, commands: Sender, lines: &mut OutputLines) -> Result<(), String> {
        let mut commands = Some(commands);
        let mut mode = self.mode.clone();
        let mut tick = interval(self.script.send_interval.mul_f64(self.rng.random_range(0.7..1.3)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut has_marked, mut leaves_at) = (false, None);
        while let Some(open) = &mut commands {
            let mut is_due = false;
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => self.handle_line(&line)?,
                    _ => return Err("exited too early".to_owned()),
                },
                _ = tick.tick() => is_due = true,
                changed = mode.changed() => changed.map_err(|_| "the run ended".to_owned())?,
            }
            let is_complete = self.joined.len() == self.script.rooms.len();
            let has_waiting = self.pending.values().any(|since| since.elapsed() > ON_ITS_WAY_MAX);
            self.is_joined.store(self.is_online && is_complete && !has_waiting, Ordering::Relaxed);
            let now = *mode.borrow_and_update();
            match now {
                CrowdMode::Chat if is_due && is_complete && self.pending.len() < self.script.unanswered_max => {
                    let room = self.script.rooms[self.rng.random_range(0..self.script.rooms.len())].clone();
                    self.send(open, room, "chat").await?;
                }
                // The library sends the mark after the messages that wait.
                CrowdMode::Mark if is_complete && !has_marked => {
                    has_marked = true;
                    for room in self.script.rooms.clone() {
                        self.send(open, room, "mark").await?;
                    }
                }
                CrowdMode::Leave => {
                    let leaves_at = *leaves_at.get_or_insert_with(|| Instant::now() + ANSWERS_MAX);
                    if self.pending.is_empty() || leaves_at < Instant::now() {
                        commands = None;
                    }
                }
                _ => {}
            }
        }
        let closing = async {
            while let Ok(Some(line)) = lines.next_line().await {
                self.handle_line(&line)?;
            }
            Ok(())
        };
        timeout(CLOSE_MAX, closing).await.unwrap_or_else(|_| Err("did not close its session in time".to_owned()))
    }

    async fn send(&mut self, commands: &mut Sender, room: String, what: &str) -> Result<(), String> {
        self.sends += 1;
        let key = format!("{what}-{}-{}", self.script.process, self.sends);
        let command = SendCommand { room: &room, key: &key };
        let line = format!("{}\n", serde_json::to_string(&command).map_err(|error| error.to_string())?);
        self.pending.insert(key.clone(), Instant::now());
        self.note(OpStatus::Invoke, HistoryOp::Send { room, key, msg_id: None, seq: None });
        let written = timeout(COMMAND_MAX, commands.write_all(line.as_bytes())).await;
        written.map_err(|_| "reads no commands".to_owned())?.map_err(|error| error.to_string())
    }

    /// Returns the last lines of a failed program, with the ones that it still writes in a short time.
    async fn rest(&mut self, lines: &mut OutputLines) -> String {
        let reading = async {
            while let Ok(Some(line)) = lines.next_line().await {
                self.keep_line(&line);
            }
        };
        let _ = timeout(REST_MAX, reading).await;
        self.last_lines.make_contiguous().join("\n")
    }

    fn keep_line(&mut self, line: &str) {
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(line.to_owned());
    }

    fn handle_line(&mut self, line: &str) -> Result<(), String> {
        self.keep_line(line);
        let read = || serde_json::from_str::<LibraryEvent>(line).map_err(|error| format!("wrote no event: {error}"));
        let event = read()?;
        match self.fault_of(&event) {
            Some(LineFault::DropMessage | LineFault::DropAck) => return Ok(()),
            Some(LineFault::RepeatMessage) => self.record_event(read()?),
            None => {}
        }
        self.record_event(event);
        Ok(())
    }

    /// Returns the line fault if it alters the line of this event.
    fn fault_of(&mut self, event: &LibraryEvent) -> Option<LineFault> {
        let fault = self.script.line_fault?;
        let is_alterable = match fault {
            LineFault::DropMessage | LineFault::RepeatMessage => matches!(event, LibraryEvent::Message { .. }),
            LineFault::DropAck => matches!(event, LibraryEvent::Acked { key, .. } if key.starts_with("mark-")),
        };
        let alters = is_alterable && !self.has_altered;
        self.has_altered |= alters;
        alters.then_some(fault)
    }

    fn record_event(&mut self, event: LibraryEvent) {
        let op = match event {
            LibraryEvent::State { name, node, resumed, reason } => {
                self.disconnected(reason.as_ref().unwrap_or(&name));
                if name != "online" {
                    return;
                }
                self.is_online = true;
                self.session += u32::from(!resumed);
                HistoryOp::Register { nick: self.script.process.clone(), node, session: None, resumed }
            }
            LibraryEvent::Joined { room, seq } => {
                self.joined.insert(room.clone());
                HistoryOp::Join { room, seq: Some(seq) }
            }
            LibraryEvent::Acked { room, key, id, seq } => {
                self.pending.remove(&key);
                HistoryOp::Send { room, key, msg_id: Some(id), seq: Some(seq) }
            }
            LibraryEvent::Refused { key, code } => {
                self.pending.remove(&key);
                HistoryOp::Refused { key, code }
            }
            LibraryEvent::Message { room, id, from, seq, key } => {
                HistoryOp::Message { room, from, key, msg_id: Some(id), epoch: None, seq: Some(seq) }
            }
            LibraryEvent::Gap { room, from, to } => HistoryOp::Jump { room, jump: Jump::Gap { from, to } },
            LibraryEvent::Rewind { room, seq } => HistoryOp::Jump { room, jump: Jump::Rewound { seq } },
        };
        self.note(OpStatus::Ok, op);
    }

    /// Records the end of the connection, if there is one.
    fn disconnected(&mut self, reason: &str) {
        if std::mem::take(&mut self.is_online) {
            self.note(OpStatus::Ok, HistoryOp::End { reason: reason.to_owned() });
        }
    }

    fn note(&self, kind: OpStatus, op: HistoryOp) {
        self.recorder.note(&self.script.process, self.session, kind, op);
    }
}

/// Waits for the exit of a program that has closed its stdout. Returns a description of a failure.
async fn exit_failure(process: &mut Process) -> Option<String> {
    let mut poll = interval(EXIT_POLL_INTERVAL);
    let exiting = async {
        loop {
            poll.tick().await;
            if let Some(status) = process.exit_status() {
                return status;
            }
        }
    };
    match timeout(EXIT_MAX, exiting).await {
        Ok(status) => (!status.success()).then(|| format!("ended with {status}")),
        Err(_) => Some("did not exit in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_installation_is_reported_with_its_command() {
        let [library, ..] = LIBRARIES;
        let missing = ClientLibrary { installed: "clients/js/not-installed", ..library };
        let expected =
            "clients/js/not-installed of the js library is missing: run `make chaos`, or `cd clients/js && npm ci`";
        assert_eq!(missing.missing().as_deref(), Some(expected));
        assert_eq!(ClientLibrary { installed: "clients/js/package.json", ..library }.missing(), None);
    }
}
