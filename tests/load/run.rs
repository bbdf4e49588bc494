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
    /// Backlog, as the time in which so many messages are due, that ends a paced window early.
    pub(crate) backlog_max: Option<Duration>,
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

impl FinishedRun {
    /// Returns true if all clients are connected and every accepted message of the window has arrived.
    pub(crate) fn is_settled(&self) -> bool {
        let progress = &self.tally.progress;
        let expected = progress.sent.saturating_sub(progress.refused) * self.plan.readers();
        progress.ready == u64::from(self.plan.clients) && progress.delivered >= expected
    }
}

/// Executes the run.
pub(crate) fn run(plan: Plan, course: RunCourse) -> Result<FinishedRun> {
    let mut load = RunningLoad::start(plan, course, Duration::ZERO)?;
    load.wait("quiet", load.course.quiet)?;
    let checking = CheckingMembers::join(&load.plan, load.course.checked)?;
    let mut finished = load.measure()?;
    if let Some(members) = checking {
        finished.checked = Some(members.finish(&load.plan, &load.crew.report()?)?);
    }
    load.wait("quiet", load.course.quiet)?;
    finished.after = load.snapshot();
    finished.tally = load.crew.report()?;
    Ok(finished)
}

/// Clients that are logged in, for one measurement or several.
#[derive(Debug)]
pub(crate) struct RunningLoad {
    plan: Plan,
    course: RunCourse,
    crew: WorkerCrew,
    login: Nanos,
    before: RunSnapshot,
    ready: RunSnapshot,
    /// Results of the measurements so far.
    earlier: Tally,
}

impl RunningLoad {
    /// Starts the workers, pauses, and logs in all clients.
    pub(crate) fn start(plan: Plan, course: RunCourse, pause: Duration) -> Result<Self> {
        let descriptors = process::raise_descriptors()?;
        let clients_max = u32::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(u32::MAX);
        let crew = WorkerCrew::hire(&plan, course.per_process.min(clients_max))?;
        let (before, ready, earlier) = (RunSnapshot::default(), RunSnapshot::default(), Tally::default());
        let mut load = Self { plan, course, crew, login: 0, before, ready, earlier };
        load.wait("pause", pause)?;
        load.before = load.snapshot();
        load.login = clock::now() + ORDER_DELAY_NANOS;
        log_in(&mut load.crew, &load.plan, load.login)?;
        load.ready = load.snapshot();
        Ok(load)
    }

    /// Measures one window at this rate.
    pub(crate) fn measure_at(&mut self, rate: f64) -> Result<FinishedRun> {
        self.plan.set_rate(rate);
        self.measure()
    }

    /// Measures one window of traffic; without traffic, the clients at rest.
    fn measure(&mut self) -> Result<FinishedRun> {
        let Self { plan, course, crew, .. } = self;
        let base = crew.progress();
        let begun = match plan.senders() {
            0 => {
                let begun = snapshot(crew, course);
                wait(crew, "idle", nanos(course.measured))?;
                begun
            }
            _ => {
                let window = MeasureWindow::new(clock::now() + ORDER_DELAY_NANOS, course.warmup, course.measured);
                crew.order(&WorkerOrder::Send { window, rate: plan.rate() })?;
                let lag = BacklogBound { plan, course, base, start: window.start };
                crew.watch("warm-up", |progress, now| now >= window.measured || lag.is_exceeded(progress, now))?;
                let begun = snapshot(crew, course);
                if let Some(storm) = course.storm {
                    storm.start(crew)?;
                }
                crew.watch("measuring", |progress, now| now >= window.end || lag.is_exceeded(progress, now))?;
                if clock::now() < window.end {
                    crew.order(&WorkerOrder::Stop)?;
                }
                drain(crew, plan, course, &base)?;
                begun
            }
        };
        let ended = snapshot(crew, course);
        let all = crew.report()?;
        let tally = all.since(&self.earlier);
        self.earlier = all;
        Ok(FinishedRun {
            plan: self.plan.clone(),
            course: self.course.clone(),
            workers: self.crew.size(),
            base_kib: self.crew.base_kib(),
            login: self.login,
            tally,
            checked: None,
            before: self.before.clone(),
            ready: self.ready.clone(),
            begun,
            after: ended.clone(),
            ended,
        })
    }

    fn snapshot(&self) -> RunSnapshot {
        snapshot(&self.crew, &self.course)
    }

    fn wait(&mut self, what: &str, time: Duration) -> Result<()> {
        wait(&mut self.crew, what, nanos(time))
    }
}

fn snapshot(crew: &WorkerCrew, course: &RunCourse) -> RunSnapshot {
    RunSnapshot {
        at: clock::now(),
        watched: course.watched.iter().map(|watched| ProcessUsage::of(watched.pid)).collect(),
        load: crew.sample(),
    }
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

/// Maximum backlog of a paced window.
struct BacklogBound<'a> {
    plan: &'a Plan,
    course: &'a RunCourse,
    /// Progress before the window.
    base: ClientProgress,
    start: Nanos,
}

impl BacklogBound<'_> {
    /// Returns true if more messages are outstanding than are due in the course's maximum backlog.
    fn is_exceeded(&self, progress: &ClientProgress, now: Nanos) -> bool {
        let (Some(rate), Some(bound)) = (self.plan.rate(), self.course.backlog_max) else { return false };
        let due = now.saturating_sub(self.start) as f64 / SECOND as f64 * rate;
        let delivered = progress.since(&self.base).delivered as f64 / self.plan.readers().max(1) as f64;
        due - delivered > rate * bound.as_secs_f64()
    }
}

/// Waits for outstanding deliveries. `base` is the progress before the window.
fn drain(crew: &mut WorkerCrew, plan: &Plan, course: &RunCourse, base: &ClientProgress) -> Result<()> {
    // The workers have reported the last messages of the window by this time.
    let earliest = clock::now() + SECOND / 2;
    let end = earliest + nanos(course.patience);
    let all = u64::from(plan.clients);
    let has_acks = plan.addresses.iter().all(|address| address.dialect.has_acks()) || plan.readers() == 0;
    let is_settled = |progress: &ClientProgress| {
        let is_reconnected = course.storm.is_none() || progress.ready >= all;
        let progress = progress.since(base);
        let is_answered = !has_acks || progress.answered >= progress.sent;
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
