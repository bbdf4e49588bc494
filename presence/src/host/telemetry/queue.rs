//! [`LogQueue`]: a bounded queue of log lines, and the thread that writes them to one destination.
//!
//! Invariant: [`LogQueue::push`] never waits for the reader of a log, so a stuck pipe or disk stops no thread that
//! serves. A full queue drops new lines and counts them; the first line after the gap is a report with their number.
//! The common crate for this bounds its queue by lines instead of bytes and reports no losses. Formats nothing.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum size of the queued lines of one destination, in bytes.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Additional bytes for the reports of the writing threads, which a full queue must not refuse.
const REPORT_BYTES_MAX: usize = 64 << 10;
/// Minimum time between two reports of dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two warnings about a failed destination.
const FAILURE_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    /// The report that a writing thread is making: its destination, and the number of dropped lines in it.
    static REPORT: Cell<Option<(&'static str, u64)>> = const { Cell::new(None) };
}

/// A destination of log lines. Its calls may block: only the writing thread makes them.
pub(super) trait LogSink: Send + 'static {
    /// Writes a whole line.
    ///
    /// # Errors
    /// The line is lost.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Opens the destination again, if it has a name.
    ///
    /// # Errors
    /// The former one stays in use.
    fn reopen(&mut self) -> io::Result<()>;
}

/// Handle to the queue of one destination. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct LogQueue {
    destination: &'static str,
    shared: Arc<SharedQueue>,
}

#[derive(Debug, Default)]
struct SharedQueue {
    state: Mutex<QueueState>,
    /// The writing thread has something to do.
    work: Condvar,
    /// The writing thread has finished a step.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<QueuedLine>,
    bytes: usize,
    dropped: u64,
    /// The part of `dropped` that a line in the log reports.
    reported: u64,
    is_busy: bool,
    is_failing: bool,
    is_ending: bool,
    reopen: bool,
}

#[derive(Debug)]
struct QueuedLine {
    text: Vec<u8>,
    /// Number of dropped lines that this line reports.
    reports: u64,
}

/// Next step of the writing thread.
enum WriterStep {
    Write(QueuedLine),
    Report(u64),
    Reopen,
}

impl LogQueue {
    /// Starts the writing thread of a destination, which runs until the process ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(destination: &'static str, sink: impl LogSink) -> io::Result<Self> {
        let queue = Self { destination, shared: Arc::default() };
        let writer = queue.clone();
        thread::Builder::new().name(format!("log-{destination}")).spawn(move || writer.write(sink))?;
        Ok(queue)
    }

    /// Queues a line, or drops and counts it if the queue is full.
    fn push(&self, text: &[u8]) {
        let report = REPORT.get();
        let limit = QUEUE_BYTES_MAX + if report.is_some() { REPORT_BYTES_MAX } else { 0 };
        let reports = report.filter(|(destination, _)| *destination == self.destination).map_or(0, |(_, lost)| lost);
        let mut state = self.shared.lock();
        if state.bytes + text.len() > limit {
            state.dropped += 1;
            state.reported = state.reported.saturating_sub(reports);
            return;
        }
        state.bytes += text.len();
        state.lines.push_back(QueuedLine { text: text.to_vec(), reports });
        self.shared.work.notify_one();
    }

    /// Returns the number of lines that did not reach the destination.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Requests that the destination is opened again before the next line.
    pub(super) fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.work.notify_one();
    }

    /// Waits until every line is written and every loss is reported, at most until `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        state.is_ending = true;
        self.shared.work.notify_one();
        while !state.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes the queued lines, on the thread of this destination.
    fn write(&self, mut sink: impl LogSink) {
        let (mut reported_at, mut warned_at) = (None, None);
        loop {
            match self.next_step(reported_at) {
                WriterStep::Write(line) => {
                    let written = sink.write_line(&line.text);
                    self.record(&line, written.is_ok());
                    if let Err(error) = written
                        && has_passed(warned_at, FAILURE_INTERVAL)
                    {
                        warned_at = Some(Instant::now());
                        self.reporting(0, || {
                            tracing::warn!(destination = self.destination, %error, "log line not written");
                        });
                    }
                }
                WriterStep::Report(lost) => {
                    reported_at = Some(Instant::now());
                    self.reporting(lost, || {
                        tracing::warn!(destination = self.destination, lost, "log lines dropped");
                    });
                }
                WriterStep::Reopen => {
                    if let Err(error) = sink.reopen() {
                        self.reporting(0, || {
                            tracing::warn!(destination = self.destination, %error, "log not opened again");
                        });
                    }
                }
            }
            self.shared.lock().is_busy = false;
            self.shared.progress.notify_all();
        }
    }

    /// Waits for the next step. A report precedes the queued lines, but its own line is queued behind them.
    fn next_step(&self, reported_at: Option<Instant>) -> WriterStep {
        let mut state = self.shared.lock();
        loop {
            let lost = if state.is_failing { 0 } else { state.dropped - state.reported };
            let step = if state.reopen {
                state.reopen = false;
                Some(WriterStep::Reopen)
            } else if lost > 0 && (state.is_ending || has_passed(reported_at, REPORT_INTERVAL)) {
                state.reported = state.dropped;
                Some(WriterStep::Report(lost))
            } else {
                state.lines.pop_front().map(WriterStep::Write)
            };
            if let Some(step) = step {
                state.is_busy = true;
                return step;
            }
            state = if lost > 0 {
                self.shared.work.wait_timeout(state, REPORT_INTERVAL).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn record(&self, line: &QueuedLine, is_written: bool) {
        let mut state = self.shared.lock();
        state.bytes -= line.text.len();
        state.is_failing = !is_written;
        if !is_written {
            state.dropped += 1;
            state.reported = state.reported.saturating_sub(line.reports);
        }
    }

    /// Logs a line about this destination, which a full queue accepts.
    fn reporting(&self, lost: u64, log: impl FnOnce()) {
        REPORT.set(Some((self.destination, lost)));
        log();
        REPORT.set(None);
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Every change of the state is complete before a panic could occur.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Returns true if nothing is left to write. A failing destination gets no report.
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.is_busy && (self.is_failing || self.dropped == self.reported)
    }
}

fn has_passed(since: Option<Instant>, interval: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= interval)
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Takes one line per call, as the layers of [`super::init`] write them.
impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
