//! Worker processes of a run: started, commanded, observed, and ended when the crew is dropped.
//!
//! Invariant: a worker ends with its stdin, so it outlives neither the crew nor this process.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::{self, Nanos};
use crate::orders::{WorkerOrder, WorkerReport};
use crate::plan::Plan;
use crate::process::ProcessUsage;
use crate::tally::{ClientProgress, Tally};

/// Interval at which a condition is checked if no report arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// All workers of a run.
#[derive(Debug)]
pub(crate) struct WorkerCrew {
    workers: Vec<(Child, ChildStdin)>,
    reports: Receiver<(usize, Option<WorkerReport>)>,
    progress: Vec<ClientProgress>,
    clients: u64,
    base_kib: u64,
    is_terminal: bool,
}

impl WorkerCrew {
    /// Starts enough workers for the clients at `per_process` each, and waits until all have allocated their clients.
    pub(crate) fn hire(plan: &Plan, per_process: u32) -> Result<Self> {
        let count = plan.clients.div_ceil(per_process.max(1)).max(1);
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let (report_sender, reports) = channel();
        let mut crew = Self {
            workers: Vec::new(),
            reports,
            progress: vec![ClientProgress::default(); count as usize],
            clients: u64::from(plan.clients),
            base_kib: 0,
            is_terminal: std::io::stderr().is_terminal(),
        };
        for worker in 0..count {
            let child = Command::new(&program).arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut child = child.context("cannot start worker")?;
            let (orders, lines) = (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
            let report_sender = report_sender.clone();
            std::thread::spawn(move || forward_reports(worker as usize, BufReader::new(lines), &report_sender));
            crew.workers.push((child, orders));
            let share = |worker: u32| u32::try_from(u64::from(plan.clients) * u64::from(worker) / u64::from(count));
            let (from, to) = (share(worker)?, share(worker + 1)?);
            crew.order_one(worker as usize, &WorkerOrder::Hire { plan: plan.clone(), from, to, workers: count })?;
        }
        for _ in 0..count {
            match crew.reports.recv() {
                Ok((_, Some(WorkerReport::Hired { base_kib }))) => crew.base_kib += base_kib,
                _ => bail!("worker did not start"),
            }
        }
        Ok(crew)
    }

    /// Returns the number of workers.
    pub(crate) fn size(&self) -> usize {
        self.workers.len()
    }

    /// Returns the memory of all workers before they allocated any clients.
    pub(crate) fn base_kib(&self) -> u64 {
        self.base_kib
    }

    /// Returns the summed resource usage of all workers, from the kernel.
    pub(crate) fn sample(&self) -> ProcessUsage {
        self.workers.iter().map(|(child, _)| ProcessUsage::of(child.id())).fold(ProcessUsage::default(), |sum, one| {
            ProcessUsage {
                user: sum.user + one.user,
                system: sum.system + one.system,
                rss_kib: sum.rss_kib + one.rss_kib,
                peak_kib: sum.peak_kib + one.peak_kib,
            }
        })
    }

    /// Sends an order to all workers.
    pub(crate) fn order(&mut self, order: &WorkerOrder) -> Result<()> {
        (0..self.workers.len()).try_for_each(|worker| self.order_one(worker, order))
    }

    fn order_one(&mut self, worker: usize, order: &WorkerOrder) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.workers[worker].1.write_all(&line).context("worker has ended")
    }

    /// Returns the latest reported progress of all clients.
    pub(crate) fn progress(&self) -> ClientProgress {
        let mut sum = ClientProgress::default();
        self.progress.iter().for_each(|one| sum.add(one));
        sum
    }

    /// Receives reports until `is_done` accepts the progress and the time, and shows `what` meanwhile.
    pub(crate) fn watch(&mut self, what: &str, mut is_done: impl FnMut(&ClientProgress, Nanos) -> bool) -> Result<()> {
        loop {
            let progress = self.progress();
            if is_done(&progress, clock::now()) {
                self.draw("");
                return Ok(());
            }
            match self.reports.recv_timeout(CHECK_INTERVAL) {
                Ok((worker, Some(WorkerReport::ClientProgress(received)))) => {
                    self.progress[worker] = received;
                    self.draw(&line(what, &progress, self.clients));
                }
                Ok((_, Some(_))) | Err(RecvTimeoutError::Timeout) => {}
                Ok((_, None)) | Err(RecvTimeoutError::Disconnected) => bail!("worker ended during the run"),
            }
        }
    }

    /// Collects the tallies of all workers.
    pub(crate) fn report(&mut self) -> Result<Tally> {
        self.order(&WorkerOrder::Report)?;
        let (mut tally, mut missing) = (Tally::default(), self.workers.len());
        while missing > 0 {
            match self.reports.recv()? {
                (_, Some(WorkerReport::Report(received))) => {
                    tally.merge(&received);
                    missing -= 1;
                }
                (worker, Some(WorkerReport::ClientProgress(received))) => self.progress[worker] = received,
                (_, Some(_)) => {}
                (_, None) => bail!("worker ended before its report"),
            }
        }
        Ok(tally)
    }

    /// Shows one line that replaces itself on a terminal; shows nothing elsewhere.
    fn draw(&self, text: &str) {
        if self.is_terminal {
            eprint!("\r\x1b[K{text}");
        }
    }
}

impl Drop for WorkerCrew {
    fn drop(&mut self) {
        for (mut child, orders) in self.workers.drain(..) {
            drop(orders);
            // A worker ends with its stdin; the kill covers a stuck one.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn forward_reports(worker: usize, lines: impl BufRead, report_sender: &Sender<(usize, Option<WorkerReport>)>) {
    let reports = lines.lines().map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
    for report in reports {
        if report_sender.send((worker, Some(report))).is_err() {
            return;
        }
    }
    // A failed send only means that the crew was dropped.
    drop(report_sender.send((worker, None)));
}

fn line(what: &str, progress: &ClientProgress, clients: u64) -> String {
    const WIDTH: u64 = 24;
    let done = progress.ready * WIDTH / clients.max(1);
    let bar: String = (0..WIDTH).map(|at| if at < done { '#' } else { '.' }).collect();
    let ClientProgress { ready, sent, answered, delivered, .. } = progress;
    format!("{what} [{bar}] {ready}/{clients} ready, {sent} sent, {answered} answered, {delivered} received")
}
