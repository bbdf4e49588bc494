#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use super::super::lines;
use super::super::rolling::Rolling;
use super::*;

const SOON: Duration = Duration::from_secs(20);
type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Size of a line of which four fit into the queue, beside a report.
const LINE_BYTES: usize = (1 << 20) - (1 << 10);

/// A destination that writes a line each time the test allows it.
struct GatedSink {
    gate: Receiver<io::Result<()>>,
    written: Sender<Vec<u8>>,
}

impl LogSink for GatedSink {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        // A dropped gate is an open one.
        self.gate.recv().unwrap_or(Ok(()))?;
        self.written.send(line.to_vec()).map_err(io::Error::other)
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a queue whose thread logs to the layer.
///
/// Each thread that logs needs a subscriber. While a process has one subscriber, tracing asks only the thread that
/// reaches an event first. A thread without a subscriber would disable the event for the other tests.
fn start_logging(sink: impl LogSink, log: impl FnOnce(&LogQueue) -> LogLayer) -> LogQueue {
    let queue = LogQueue { destination: "test", shared: Arc::default() };
    let writer = queue.clone();
    let subscriber = tracing_subscriber::registry().with(log(&queue));
    thread::spawn(move || tracing::subscriber::with_default(subscriber, || writer.write(sink)));
    queue
}

fn gated() -> (LogQueue, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
    let ((open, gate), (written, received)) = (channel(), channel());
    (start_logging(GatedSink { gate, written }, |_| lines(false, false, io::sink)), open, received)
}

#[test]
fn blocked_destination_drops_and_counts_lines() {
    let (queue, gate, lines) = gated();
    let line = vec![b'x'; 1 << 20];
    // The thread may hold one line, and four fit into the queue.
    for _ in 0..20 {
        queue.push(&line);
    }
    let dropped = queue.dropped();
    assert_eq!(dropped, 16, "the line that is being written counts too");
    let began = Instant::now();
    queue.flush(Instant::now() + Duration::from_millis(50));
    assert!(began.elapsed() < SOON, "a flush ends although the destination is blocked");
    drop(gate);
    queue.flush(Instant::now() + SOON);
    assert_eq!(lines.try_iter().count(), 4);
    assert_eq!(queue.dropped(), dropped);
    queue.push(b"again");
    queue.flush(Instant::now() + SOON);
    assert_eq!(lines.try_recv().unwrap(), b"again");
}

#[test]
fn failed_write_counts_as_dropped_line() {
    let (queue, gate, lines) = gated();
    queue.push(b"lost");
    gate.send(Err(io::Error::other("full"))).unwrap();
    queue.flush(Instant::now() + SOON);
    assert_eq!((queue.dropped(), lines.try_recv().ok()), (1, None));
    drop(gate);
    queue.push(b"kept");
    queue.flush(Instant::now() + SOON);
    assert_eq!((queue.dropped(), lines.try_recv().unwrap()), (1, b"kept".to_vec()));
}

/// Starts a queue whose thread logs to the queue itself, as in a program with one destination.
fn start_reporting(sink: impl LogSink) -> LogQueue {
    start_logging(sink, |queue| lines(false, false, queue.clone()))
}

fn gated_reporting() -> (LogQueue, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
    let ((open, gate), (written, lines)) = (channel(), channel());
    (start_reporting(GatedSink { gate, written }), open, lines)
}

/// Returns the number of dropped lines that a line reports.
fn reported(line: &[u8]) -> Option<u64> {
    let line: Value = serde_json::from_slice(line).ok()?;
    (line["message"] == "log lines dropped" && line["destination"] == "test").then(|| line["lost"].as_u64().unwrap())
}

/// Lets the destination write this many lines, and returns what the last one reports.
fn write(gate: &Sender<io::Result<()>>, lines: &Receiver<Vec<u8>>, count: usize) -> Option<u64> {
    (0..count).for_each(|_| gate.send(Ok(())).unwrap());
    (0..count).map(|_| lines.recv_timeout(SOON).unwrap()).reduce(|_, line| line).and_then(|line| reported(&line))
}

/// Queues one line more than fits.
fn overfill(queue: &LogQueue) {
    (0..5).for_each(|_| queue.push(&[b'x'; LINE_BYTES]));
}

#[test]
fn each_gap_is_reported_behind_queued_lines() {
    let (queue, gate, lines) = gated_reporting();
    let began = Instant::now();
    overfill(&queue);
    assert_eq!(write(&gate, &lines, 5), Some(1));
    overfill(&queue);
    assert_eq!(write(&gate, &lines, 5), Some(1));
    assert!(began.elapsed() >= REPORT_INTERVAL, "a reader that is too slow gets few reports");
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn report_fits_into_a_full_queue() {
    let (queue, gate, lines) = gated_reporting();
    queue.reporting(0, || queue.push(b"x"));
    queue.push(&vec![b'x'; QUEUE_BYTES_MAX - 1]);
    queue.push(b"only reports have a reserve");
    assert_eq!(write(&gate, &lines, 3), Some(1));
    assert_eq!(queue.dropped(), 1);
}

#[test]
fn refused_report_is_made_again() {
    let (queue, gate, lines) = gated_reporting();
    queue.push(b"x");
    queue.push(&vec![b'x'; QUEUE_BYTES_MAX - 1]);
    queue.reporting(0, || queue.push(&[b'x'; REPORT_BYTES_MAX]));
    queue.push(b"lost");
    assert_eq!(write(&gate, &lines, 4), Some(2), "the line and its first report");
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn unwritten_report_is_made_again() {
    let (queue, gate, lines) = gated_reporting();
    overfill(&queue);
    write(&gate, &lines, 4);
    gate.send(Err(io::Error::other("full"))).unwrap();
    // The first line after the failure is the warning about it.
    assert_eq!(write(&gate, &lines, 2), Some(2));
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn report_of_another_destination_is_a_plain_line() {
    let (queue, gate, lines) = gated_reporting();
    overfill(&queue);
    assert_eq!(write(&gate, &lines, 5), Some(1));
    let other = LogQueue { destination: "other", shared: Arc::default() };
    other.reporting(7, || queue.push(b"7 lines lost elsewhere"));
    gate.send(Err(io::Error::other("full"))).unwrap();
    assert_eq!(write(&gate, &lines, 2), Some(1));
}

#[test]
fn failing_destination_gets_one_warning_only() {
    let (queue, gate, _lines) = gated_reporting();
    let began = Instant::now();
    queue.push(b"lost");
    // The line and the warning about it; a third line would wait for the gate.
    for _ in 0..2 {
        gate.send(Err(io::Error::other("full"))).unwrap();
    }
    queue.flush(Instant::now() + SOON);
    assert!(began.elapsed() < SOON);
    assert_eq!(queue.dropped(), 2);
}

#[test]
fn flush_waits_for_line_being_written() {
    let (queue, _gate, _lines) = gated();
    queue.push(b"stuck");
    let pushed = Instant::now();
    while !queue.shared.lock().is_busy {
        assert!(pushed.elapsed() < SOON, "the line is not taken");
        thread::yield_now();
    }
    let began = Instant::now();
    queue.flush(began + Duration::from_millis(50));
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[test]
fn flush_reports_the_last_gap_at_once() {
    let queue = LogQueue { destination: "test", shared: Arc::default() };
    overfill(&queue);
    queue.flush(Instant::now());
    let just_reported = Some(Instant::now() + SOON);
    assert!(matches!(queue.next_step(just_reported), WriterStep::Report(1)));
}

#[test]
fn reopened_file_needs_no_next_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let queue = LogQueue::start("test", Rolling::open(&path, 2, 1 << 20).unwrap()).unwrap();
    std::fs::rename(&path, &moved).unwrap();
    queue.reopen();
    let began = Instant::now();
    while !path.exists() {
        assert!(began.elapsed() < SOON, "the file is not opened again");
        thread::yield_now();
    }
}

#[test]
fn failed_reopen_is_logged_to_former_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let queue = start_reporting(Rolling::open(&path, 2, 1 << 20).unwrap());
    std::fs::rename(&path, &moved).unwrap();
    std::fs::create_dir(&path).unwrap();
    queue.reopen();
    queue.push(b"kept\n");
    queue.flush(Instant::now() + SOON);
    let text = std::fs::read_to_string(&moved).unwrap();
    assert!(text.starts_with("kept\n") && text.contains("log not opened again"), "{text}");
}
