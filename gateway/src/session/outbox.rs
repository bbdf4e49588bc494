//! What waits to be written to one connection: filled by the session's driver and by the hub, emptied by the door.
//!
//! Bounded in bytes. A reader that falls behind is closed with [`CloseCode::Slow`] and costs nobody else a wait: pushing
//! never blocks. Knows no socket and no format; each [`Broadcast`] is encoded once per format, whoever asks first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use presence::codes::CloseCode;
use tokio::sync::Notify;

use crate::wire::{Event, Format, Reply};

/// Most bytes that may wait for one connection.
pub const OUTBOX_BYTES: usize = 256 * 1024;
/// So little waits for a connection that keeps up: what is read for it from a log goes in at its own pace.
const LITTLE: usize = OUTBOX_BYTES / 4;
/// What an entry is counted as beside its text.
const ENTRY_BYTES: usize = 64;

/// An event on its way to many connections, encoded once per format.
#[derive(Debug)]
pub struct Broadcast {
    event: Event,
    json: OnceLock<Bytes>,
    line: OnceLock<Bytes>,
}

impl Broadcast {
    /// Wraps an event for sharing.
    #[must_use]
    pub fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, json: OnceLock::new(), line: OnceLock::new() })
    }

    /// The event in a format; encoded on first ask, shared after.
    #[must_use]
    pub fn bytes(&self, format: Format) -> Bytes {
        let cell = match format {
            Format::Json => &self.json,
            Format::Line => &self.line,
        };
        cell.get_or_init(|| format.encode(&self.event)).clone()
    }
}

/// One thing to write.
#[derive(Debug)]
pub enum Out {
    /// The answer to a request of this connection.
    Reply(Reply),
    /// An event, encoded in this connection's format.
    Event(Bytes),
    /// A sign of life to ask for one back; doors without pings skip it.
    Ping,
}

/// The queue of one connection. Cheap to clone: driver, hub and door share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    format: Format,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Out>,
    bytes: usize,
    close: Option<CloseCode>,
}

/// What the door finds when it looks.
#[derive(Debug)]
pub struct Batch {
    /// Write these, in order.
    pub items: VecDeque<Out>,
    /// Then close with this.
    pub close: Option<CloseCode>,
}

impl Outbox {
    /// An empty queue for a connection that speaks `format`.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, shared: Arc::default() }
    }

    /// Queues the answer to a request. Never blocks.
    pub fn reply(&self, reply: Reply) {
        self.push(Out::Reply(reply), ENTRY_BYTES);
    }

    /// Queues an event. Never blocks; encodes it when nobody has for this format yet.
    pub fn event(&self, event: &Broadcast) {
        let bytes = event.bytes(self.format);
        let size = bytes.len();
        self.push(Out::Event(bytes), size + ENTRY_BYTES);
    }

    /// Queues a ping.
    pub fn ping(&self) {
        self.push(Out::Ping, ENTRY_BYTES);
    }

    /// Ends the connection after what is queued; the first reason given stands. Nothing is taken on afterwards.
    pub fn close(&self, code: CloseCode) {
        self.lock().close.get_or_insert(code);
        self.shared.ready.notify_one();
        self.shared.taken.notify_one();
    }

    /// Whether the connection is to end, and why.
    #[must_use]
    pub fn closing(&self) -> Option<CloseCode> {
        self.lock().close
    }

    /// Waits until there is something to take. Dropping the future loses nothing. One waiter at a time.
    pub async fn ready(&self) {
        loop {
            let notified = self.shared.ready.notified();
            {
                let queue = self.lock();
                if !queue.items.is_empty() || queue.close.is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Waits until the connection is to end, and says why; what is queued may still wait then. For a door whose socket takes nothing
    /// more right now. Dropping the future loses nothing. Shares the one waiter with [`Outbox::ready`].
    pub async fn closed(&self) -> CloseCode {
        loop {
            let notified = self.shared.ready.notified();
            if let Some(code) = self.closing() {
                return code;
            }
            notified.await;
        }
    }

    /// Waits until little is left to write, or the connection is to end. One waiter at a time: the session's driver.
    pub async fn has_room(&self) {
        loop {
            let taken = self.shared.taken.notified();
            {
                let queue = self.lock();
                if queue.bytes <= LITTLE || queue.close.is_some() {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Takes everything that waits.
    #[must_use]
    pub fn take(&self) -> Batch {
        let mut queue = self.lock();
        queue.bytes = 0;
        self.shared.taken.notify_one();
        Batch { items: std::mem::take(&mut queue.items), close: queue.close }
    }

    fn push(&self, item: Out, size: usize) {
        let mut queue = self.lock();
        if queue.close.is_some() {
            return;
        }
        if queue.bytes + size > OUTBOX_BYTES {
            queue.items.clear();
            queue.bytes = 0;
            queue.close = Some(CloseCode::Slow);
        } else {
            queue.bytes += size;
            queue.items.push_back(item);
        }
        drop(queue);
        self.shared.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic while the lock is held leaves a queue that is still a queue.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
