//! What waits to be written to one connection: filled by the session's driver and by the hub, emptied by the door.
//!
//! Bounded in bytes. For a reader that falls behind, what is worth little is left out first: who is writing, and changes of
//! presence, of which it is told to `resync` when it has caught up. One that falls further behind is closed with [`CloseCode::Slow`]; messages are never left out. It
//! costs nobody else a wait: pushing never blocks. Knows no socket and no format; each [`Broadcast`] is encoded once per
//! format, whoever asks first.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presence::codes::CloseCode;
use presence::model::PresenceDelta;
use tokio::sync::Notify;

use crate::wire::{Answer, Event, Format, Reply};

/// Most bytes that may wait for one connection for longer than [`SLOW_AFTER`]. One reply goes beside it, the largest: the
/// client has asked for it.
pub const OUTBOX_BYTES: usize = 256 * 1024;
/// A burst tells nothing about its reader: nobody is slow before something has waited for so long.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Most bytes that may wait at all.
pub const BURST_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait already when changes of presence are left out.
pub const SOFT_BYTES: usize = 64 * 1024;
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

    fn worth(&self) -> Worth<'_> {
        match &self.event {
            Event::Typing { .. } => Worth::Little,
            Event::Presence { room, .. } => Worth::AskedAgain(room),
            Event::Message(_)
            | Event::Gap { .. }
            | Event::Epoch { .. }
            | Event::Rewound { .. }
            | Event::GoingAway { .. } => Worth::Everything,
        }
    }
}

/// Whether an event may be left out for a reader that falls behind.
enum Worth<'a> {
    /// It may, without a word.
    Little,
    /// It may, if the reader is told to ask for the list of this room again.
    AskedAgain(&'a str),
    /// It must not.
    Everything,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be written, or the connection has ended.
    Taken,
    /// It was left out: too much waits already.
    LeftOut,
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
    /// The size of everything that waits.
    bytes: usize,
    /// Since when the oldest of it waits.
    since: Option<Instant>,
    /// The largest reply of it.
    largest_reply: usize,
    /// Rooms, as they are shown, of which a change was left out and nothing has been said yet.
    stale: BTreeSet<String>,
    close: Option<CloseCode>,
}

impl Queue {
    /// Whether something waits for so long that its reader is slow.
    fn is_overdue(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= SLOW_AFTER)
    }
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

    /// Whether both are the queue of one connection.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Queues the answer to a request. Never blocks.
    pub fn reply(&self, reply: Reply) {
        let size = ENTRY_BYTES + size(&reply.answer);
        let mut queue = self.lock();
        queue.largest_reply = queue.largest_reply.max(size);
        self.push(queue, Out::Reply(reply), size);
    }

    /// Queues an event, or leaves it out. Never blocks; encodes it when nobody has for this format yet.
    pub fn event(&self, event: &Broadcast) -> Pushed {
        let mut queue = self.lock();
        if queue.bytes > SOFT_BYTES {
            match event.worth() {
                Worth::Little => return Pushed::LeftOut,
                Worth::AskedAgain(room) => {
                    if !queue.stale.contains(room) {
                        queue.stale.insert(room.to_owned());
                    }
                    return Pushed::LeftOut;
                }
                Worth::Everything => {}
            }
        }
        drop(queue);
        let bytes = event.bytes(self.format);
        let size = bytes.len() + ENTRY_BYTES;
        self.push(self.lock(), Out::Event(bytes), size);
        Pushed::Taken
    }

    /// Queues a ping.
    pub fn ping(&self) {
        self.push(self.lock(), Out::Ping, ENTRY_BYTES);
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
                if queue.bytes <= SOFT_BYTES || queue.close.is_some() {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Takes everything that waits. What was taken before has gone out, so this is where the reader has caught up and
    /// hears which rooms it has to ask about again.
    #[must_use]
    pub fn take(&self) -> Batch {
        let mut queue = self.lock();
        queue.bytes = 0;
        self.shared.taken.notify_one();
        queue.since = None;
        queue.largest_reply = 0;
        let (mut items, stale) = (mem::take(&mut queue.items), mem::take(&mut queue.stale));
        let close = queue.close;
        drop(queue);
        for room in stale {
            let resync = Event::Presence { room, delta: PresenceDelta::default(), resync: true };
            items.push_back(Out::Event(self.format.encode(&resync)));
        }
        Batch { items, close }
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, item: Out, size: usize) {
        if queue.close.is_some() {
            return;
        }
        // The largest reply may be this one.
        let waiting = queue.bytes + size - queue.largest_reply;
        if waiting > OUTBOX_BYTES && (queue.is_overdue() || waiting > BURST_BYTES) {
            *queue = Queue { close: Some(CloseCode::Slow), ..Queue::default() };
        } else {
            queue.bytes += size;
            queue.since.get_or_insert_with(Instant::now);
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

/// About how long a reply will be, in any format: what is of other people's making is counted, the rest is small.
fn size(answer: &Answer) -> usize {
    match answer {
        Answer::History { items, .. } => items
            .iter()
            .map(|said| said.to.len() + said.from.len() + said.msg_id.len() + said.body.json().len() + ENTRY_BYTES)
            .sum(),
        Answer::Members { items, .. } => {
            items.iter().map(|member| member.nick.len() + member.status.text.len() + ENTRY_BYTES).sum()
        }
        Answer::Rooms { items, .. } => items.iter().map(|item| item.room.len() + ENTRY_BYTES).sum(),
        _ => 2 * ENTRY_BYTES,
    }
}

#[cfg(test)]
mod tests;
