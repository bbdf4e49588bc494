#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SOON: Duration = Duration::from_secs(20);

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

fn gated() -> (LogQueue, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
    let ((open, gate), (written, lines)) = (channel(), channel());
    (LogQueue::start("test", GatedSink { gate, written }).unwrap(), open, lines)
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
