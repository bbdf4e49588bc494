//! One run from the first login to the last delivery: phases, snapshots between them, and the end condition.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::checked::{CheckedCounts, CheckingMembers};
use crate::clock::{self, Nanos, SECOND, nanos};
use crate::crew::WorkerCrew;
use crate::orders::WorkerOrder;
use crate::plan::Plan;
use crate::process::{self, ProcessUsage, Watched};
use crate::schedule::MeasureWindow;
use crate::tally::{ClientProgress, Tally};

/// Descriptors that a worker needs in addition to those of its clients.
const SPARE_DESCRIPTORS: u64 = 100;
/// Time without progress after which logins are abandoned.
const LOGIN_STALL_NANOS: Nanos = 60 * SECOND;
/// Time without a delivery, after the window, after which outstanding messages count as lost.
const DELIVERY_STALL_NANOS: Nanos = 3 * SECOND;
/// Delay before an order takes effect, so that it reaches all workers first.
const ORDER_DELAY_NANOS: Nanos = SECOND / 10;

/// Course of a run, in addition to its plan.
#[derive(Debug, Clone)]
pub(crate) struct RunCourse {
    pub(crate) warmup: Duration,
    /// Duration of the measurement; without traffic, duration for which the clients stay connected.
    pub(crate) measured: Duration,
    /// Pause before and after the measurement, to compare memory.
    pub(crate) quiet: Duration,
    pub(crate) storm: Option<DisconnectStorm>,
    /// Maximum number of clients per process; fewer if the descriptor limit is lower.
    pub(crate) per_process: u32,
    pub(crate) watched: Vec<Watched>,
    /// Maximum wait for outstanding deliveries.
    pub(crate) patience: Duration,
    /// Number of members on the client library that check what they receive.
    pub(crate) checked: u32,
}

/// Cause of the lost connections in the middle of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DisconnectStorm {
    /// The clients drop all connections.
    Drop,
    /// A gateway is killed.
    Kill { pid: i32 },
}

/// Usage of all processes at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunSnapshot {
    pub(crate) at: Nanos,
    /// In the order of [`RunCourse::watched`].
    pub(crate) watched: Vec<ProcessUsage>,
    /// All workers together.
    pub(crate) load: ProcessUsage,
}

/// Results of a run.
#[derive(Debug)]
pub(crate) struct FinishedRun {
    pub(crate) plan: Plan,
    pub(crate) course: RunCourse,
    pub(crate) workers: usize,
    /// Memory of the workers without clients.
    pub(crate) base_kib: u64,
    /// Due time of the first login.
    pub(crate) login: Nanos,
    pub(crate) tally: Tally,
    /// Results of the checking members; `None` without traffic in rooms of Parley.
    pub(crate) checked: Option<CheckedCounts>,
    /// Before the first connection.
    pub(crate) before: RunSnapshot,
    /// All clients are ready.
    pub(crate) ready: RunSnapshot,
    /// The warm-up is over.
    pub(crate) begun: RunSnapshot,
    /// The last delivery has arrived.
    pub(crate) ended: RunSnapshot,
    /// The pause after the measurement is over.
    pub(crate) after: RunSnapshot,
}

/// Executes the run.
pub(crate) fn run(plan: Plan, course: RunCourse) -> Result<FinishedRun> {
    let descriptors = process::raise_descriptors()?;
    let clients_max = u32::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(u32::MAX);
    let mut crew = WorkerCrew::hire(&plan, course.per_process.min(clients_max))?;
    let (workers, base_kib) = (crew.size(), crew.base_kib());
    let snapshot = |crew: &WorkerCrew| RunSnapshot {
        at: clock::now(),
        watched: course.watched.iter().map(|watched| ProcessUsage::of(watched.pid)).collect(),
        load: crew.sample(),
    };

    let before = snapshot(&crew);
    let login = clock::now() + ORDER_DELAY_NANOS;
    log_in(&mut crew, &plan, login)?;
    let ready = snapshot(&crew);

    wait(&mut crew, "quiet", nanos(course.quiet))?;
    let checking = CheckingMembers::join(&plan, course.checked)?;
    let begun = match plan.senders() {
        0 => {
            let begun = snapshot(&crew);
            wait(&mut crew, "idle", nanos(course.measured))?;
            begun
        }
        _ => {
            let window = MeasureWindow::new(clock::now() + ORDER_DELAY_NANOS, course.warmup, course.measured);
            crew.order(&WorkerOrder::Send { window })?;
            crew.watch("warm-up", |_, now| now >= window.measured)?;
            let begun = snapshot(&crew);
            if let Some(storm) = course.storm {
                storm.start(&mut crew)?;
            }
            crew.watch("measuring", |_, now| now >= window.end)?;
            drain(&mut crew, &plan, &course)?;
            begun
        }
    };
    let ended = snapshot(&crew);
    let checked = match checking {
        Some(members) => Some(members.finish(&plan, &crew.report()?)?),
        None => None,
    };
    wait(&mut crew, "quiet", nanos(course.quiet))?;
    let after = snapshot(&crew);
    let tally = crew.report()?;
    Ok(FinishedRun { plan, course, workers, base_kib, login, tally, checked, before, ready, begun, ended, after })
}

fn log_in(crew: &mut WorkerCrew, plan: &Plan, at: Nanos) -> Result<()> {
    let all = u64::from(plan.clients);
    crew.order(&WorkerOrder::Login { at })?;
    let is_complete = |progress: &ClientProgress| progress.ready + progress.failed >= all;
    let mut stall = StallTimer::since(clock::now());
    crew.watch("logging in", |progress, now| {
        is_complete(progress) || stall.stalled_for(progress.ready, now) > LOGIN_STALL_NANOS
    })?;
    let progress = crew.progress();
    if progress.ready < all {
        let errors = crew.report()?.errors;
        bail!("only {} of {all} clients could log in: {errors:?}", progress.ready);
    }
    Ok(())
}

fn wait(crew: &mut WorkerCrew, what: &str, time: Nanos) -> Result<()> {
    let end = clock::now() + time;
    crew.watch(what, |_, now| now >= end)
}

/// Waits for outstanding deliveries.
fn drain(crew: &mut WorkerCrew, plan: &Plan, course: &RunCourse) -> Result<()> {
    // The workers have reported the last messages of the window by this time.
    let earliest = clock::now() + SECOND / 2;
    let end = earliest + nanos(course.patience);
    let all = u64::from(plan.clients);
    let has_acks = plan.addresses.iter().all(|address| address.dialect.has_acks()) || plan.readers() == 0;
    let is_settled = |progress: &ClientProgress| {
        let is_answered = !has_acks || progress.answered >= progress.sent;
        let is_reconnected = course.storm.is_none() || progress.ready >= all;
        let is_delivered = progress.delivered >= progress.sent.saturating_sub(progress.refused) * plan.readers();
        is_answered && is_reconnected && is_delivered
    };
    let mut stall = StallTimer::since(clock::now());
    crew.watch("waiting for the last deliveries", |progress, now| {
        let total = progress.delivered + progress.answered + progress.ready;
        (now >= earliest && is_settled(progress)) || stall.stalled_for(total, now) > DELIVERY_STALL_NANOS || now >= end
    })
}

impl DisconnectStorm {
    fn start(self, crew: &mut WorkerCrew) -> Result<()> {
        match self {
            Self::Drop => crew.order(&WorkerOrder::Storm),
            Self::Kill { pid } => {
                crew.order(&WorkerOrder::ExpectLoss)?;
                wait(crew, "waiting for the kill", ORDER_DELAY_NANOS)?;
                Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
            }
        }
    }
}

/// Timer of a number that may stop changing.
#[derive(Debug)]
struct StallTimer {
    value: u64,
    since: Nanos,
}

impl StallTimer {
    fn since(now: Nanos) -> Self {
        Self { value: 0, since: now }
    }

    /// Returns the time since the number last changed.
    fn stalled_for(&mut self, value: u64, now: Nanos) -> Nanos {
        if self.value != value {
            (self.value, self.since) = (value, now);
        }
        now.saturating_sub(self.since)
    }
}
