//! Worker: one process, one thread and one epoll loop, with clients up to a descriptor limit.
//!
//! The coordinator starts it and sends orders; the worker reports its progress and finally its tally. The agenda
//! contains all due actions. A timer descriptor wakes the loop to the microsecond: epoll's own timeout has a
//! resolution of milliseconds, which would distort every latency.

mod login;
mod receive;
mod send;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::client::{ClientStage, LoadClient};
use crate::clock::{self, Nanos};
use crate::ledger::{Ledger, StreamTail};
use crate::orders::{WorkerOrder, WorkerReport};
use crate::plan::Plan;
use crate::process::ProcessUsage;
use crate::schedule::{MeasureWindow, Schedule};
use crate::tally::Tally;

const ORDERS: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);
/// Maximum bytes of one read.
const READ_BYTES_MAX: usize = 256 * 1024;
const REPORT_INTERVAL_NANOS: Nanos = 200_000_000;
/// Maximum number of due actions before the next read, so that reading keeps up with sending.
const DUE_ACTIONS_MAX: usize = 256;

/// Action that is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DueAction {
    /// The client logs in; the latency counts from the due time.
    Login(u32),
    /// The client logs in again after a refusal.
    Retry(u32),
    /// The client sends a message or ping.
    Send(u32),
    /// The worker reports its progress.
    Report,
}

/// State of a sending client.
#[derive(Debug, Default)]
struct SendingClient {
    /// Number of scheduled messages so far.
    turns: u64,
    /// Number of messages sent so far; fewer than `turns` if the client was disconnected.
    messages: u32,
    /// Its unanswered messages and pings.
    unanswered: VecDeque<UnansweredRequest>,
}

/// A message or ping without its answer.
#[derive(Debug, Clone, Copy)]
struct UnansweredRequest {
    due: Nanos,
    /// Number of messages that the client sent before.
    number: u32,
}

/// Data to resume sessions; empty unless the plan resumes.
#[derive(Debug, Default)]
struct SavedSessions {
    tokens: HashMap<u32, Box<str>>,
    /// By the number of the room.
    epochs: HashMap<u32, String>,
}

struct LoadWorker {
    plan: Plan,
    /// Number of the worker's first client in the whole run.
    first: u32,
    workers: u32,
    clients: Vec<LoadClient>,
    poll: Poll,
    timer: TimerFd,
    timer_set: Nanos,
    buffer: Vec<u8>,
    outgoing: Vec<u8>,
    agenda: BinaryHeap<Reverse<(Nanos, DueAction)>>,
    /// Clients that wait until other logins finish.
    queue: VecDeque<u32>,
    in_flight: u32,
    /// By client that logs in: the number of its answered joins.
    joins: HashMap<usize, usize>,
    storming: bool,
    sessions: SavedSessions,
    window: Option<MeasureWindow>,
    schedule: Schedule,
    sending_clients: HashMap<u32, SendingClient>,
    ledger: Ledger,
    /// By the name of a stream: the number after the last accepted message.
    tops: HashMap<u32, u64>,
    tally: Tally,
}

/// Runs a worker until its stdin ends.
pub(crate) fn run() -> Result<()> {
    let base_kib = ProcessUsage::of(std::process::id()).rss_kib;
    let mut orders = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut pending = Vec::new();
    let Some(WorkerOrder::Hire { plan, from, to, workers }) =
        read_orders(&mut orders, &mut pending)?.into_iter().next()
    else {
        bail!("the `load` program starts its workers itself");
    };
    let mut worker = LoadWorker::new(plan, from, to, workers)?;
    let descriptor = orders.as_raw_fd();
    worker.poll.registry().register(&mut SourceFd(&descriptor), ORDERS, Interest::READABLE)?;
    send_report(&WorkerReport::Hired { base_kib })?;
    worker.schedule_action(clock::now() + REPORT_INTERVAL_NANOS, DueAction::Report);

    let mut events = Events::with_capacity(1024);
    loop {
        let busy = worker.run_due_actions()?;
        await_events(&mut worker.poll, &mut events, busy.then_some(Duration::ZERO))?;
        for event in &events {
            match event.token() {
                ORDERS => {
                    let received = read_orders(&mut orders, &mut pending)?;
                    if received.is_empty() && pending.is_empty() {
                        return Ok(());
                    }
                    received.iter().try_for_each(|order| worker.execute_order(order))?;
                }
                TIMER => worker.timer_set = 0,
                Token(client) => worker.handle_socket_event(client, event),
            }
        }
    }
}

/// Waits for socket events. A wait interrupted by a pause of the process is not an error.
pub(crate) fn await_events(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> Result<()> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
        result => result.context("cannot wait for events")?,
    }
    Ok(())
}

/// Returns the orders received in whole lines; none at the end of the stream.
fn read_orders(from: &mut File, pending: &mut Vec<u8>) -> Result<Vec<WorkerOrder>> {
    let mut chunk = [0; 4096];
    loop {
        let count = from.read(&mut chunk)?;
        if count == 0 {
            pending.clear();
            return Ok(Vec::new());
        }
        pending.extend_from_slice(&chunk[..count]);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let lines: Vec<u8> = pending.drain(..=end).collect();
        let orders = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return orders.map(|line| serde_json::from_slice(line).context("invalid order")).collect();
    }
}

fn send_report(report: &WorkerReport) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    io::stdout().lock().write_all(&line).context("the coordinator has ended")
}

impl LoadWorker {
    fn new(plan: Plan, from: u32, to: u32, workers: u32) -> Result<Self> {
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let mut clients = Vec::new();
        clients.resize_with((to - from) as usize, LoadClient::default);
        Ok(Self {
            first: from,
            workers,
            poll,
            timer,
            timer_set: 0,
            buffer: vec![0; READ_BYTES_MAX],
            outgoing: Vec::new(),
            agenda: BinaryHeap::new(),
            queue: VecDeque::new(),
            in_flight: 0,
            joins: HashMap::new(),
            storming: false,
            sessions: SavedSessions::default(),
            window: None,
            schedule: Schedule::new(0, 1.0, 1),
            sending_clients: HashMap::new(),
            ledger: Ledger::new(clients.len(), plan.streams() as usize),
            tops: HashMap::new(),
            tally: Tally::default(),
            clients,
            plan,
        })
    }

    /// Returns the client's number in the whole run.
    fn number(&self, client: usize) -> u32 {
        // The worker has no more clients than the plan, whose number is a u32.
        self.first + client as u32
    }

    fn index(&self, number: u32) -> usize {
        (number - self.first) as usize
    }

    fn schedule_action(&mut self, at: Nanos, due: DueAction) {
        self.agenda.push(Reverse((at, due)));
    }

    /// Performs at most [`DUE_ACTIONS_MAX`] due actions, and sets the timer for the next one. Returns true if more are
    /// due.
    fn run_due_actions(&mut self) -> Result<bool> {
        for _ in 0..DUE_ACTIONS_MAX {
            let Some(Reverse((at, due))) = self.agenda.peek().copied() else { return Ok(false) };
            if at > clock::now() {
                self.wake_at(at)?;
                return Ok(false);
            }
            self.agenda.pop();
            match due {
                DueAction::Login(number) => self.login_due(number, at),
                DueAction::Retry(number) => self.queue_login(number),
                DueAction::Send(number) => self.send_due(number, at),
                DueAction::Report => {
                    send_report(&WorkerReport::ClientProgress(self.tally.progress))?;
                    self.schedule_action(clock::now() + REPORT_INTERVAL_NANOS, DueAction::Report);
                }
            }
        }
        Ok(true)
    }

    fn wake_at(&mut self, at: Nanos) -> Result<()> {
        if self.timer_set != at {
            let time = TimeSpec::from_duration(Duration::from_nanos(at));
            self.timer.set(Expiration::OneShot(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.timer_set = at;
        }
        Ok(())
    }

    fn execute_order(&mut self, order: &WorkerOrder) -> Result<()> {
        match *order {
            WorkerOrder::Hire { .. } => bail!("clients are already assigned"),
            WorkerOrder::Login { at } => self.begin_logins(at),
            WorkerOrder::Send { window, rate } => self.start_sending(window, rate),
            WorkerOrder::Stop => self.stop_sending(),
            WorkerOrder::ExpectLoss => self.storming = true,
            WorkerOrder::Storm => {
                self.storming = true;
                self.drop_all_connections();
            }
            WorkerOrder::Report => {
                self.copy_ledger_results();
                send_report(&WorkerReport::ClientProgress(self.tally.progress))?;
                send_report(&WorkerReport::Report(Box::new(self.tally.clone())))?;
            }
        }
        Ok(())
    }

    /// Copies the ledger's results into the tally.
    fn copy_ledger_results(&mut self) {
        let (plan, first) = (&self.plan, self.first);
        self.tally.faults = self.ledger.faults();
        self.tally.tails = self.ledger.tails(|client, stream| plan.stream(first + client as u32, stream as u32));
        for (name, top) in &self.tops {
            self.tally.tails.entry(*name).or_default().merge(&StreamTail { top: *top, ..StreamTail::default() });
        }
    }

    /// Handles an event of the client's socket.
    fn handle_socket_event(&mut self, client: usize, event: &Event) {
        let stage = self.clients[client].stage;
        if stage == ClientStage::Away {
            return;
        }
        if stage == ClientStage::Connecting {
            self.connected(client);
        } else if event.is_writable()
            && let Err(error) = self.clients[client].flush()
        {
            return self.connection_lost(client, &error_code(&error));
        }
        if event.is_readable() {
            self.read(client, event.is_read_closed());
        }
    }

    /// Writes the contents of `outgoing` to this client.
    fn send_outgoing(&mut self, client: usize) {
        let outgoing = std::mem::take(&mut self.outgoing);
        let sent = self.clients[client].send(&outgoing);
        self.outgoing = outgoing;
        self.outgoing.clear();
        if let Err(error) = sent {
            self.connection_lost(client, &error_code(&error));
        }
    }
}

/// Returns the error code of a socket error.
fn error_code(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed_without_code".to_owned(),
        kind => kind.to_string().replace(' ', "_"),
    }
}
