//! What waits to be written to one connection: filled by the session's driver and by the hub, emptied by the door.
//!
//! Bounded in bytes. For a reader that falls behind, what is worth little is left out first: who is writing, and changes of
//! presence, of which it is told to `resync` when it has caught up. One that falls further behind is closed with
//! [`CloseCode::Slow`]; messages are never left out. It costs nobody else a wait: pushing never blocks. Knows no frame:
//! each [`FanOutBatch`] comes as bytes for the socket.
//!
//! Mostly nothing waits at all. The hub writes a round to the socket itself when nothing is queued before it, and only
//! what the socket does not take goes into the queue. One at a time writes (who has the `WriteTurn`), so bytes stay in order:
//! the door from taking a batch until all of it is out, the hub for one attempt. The lock is never held meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use presence::model::PresenceDelta;
use presence::model::codes::CloseCode;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::message::Accepted;
use crate::wire::{Answer, Dialect, Event, Reply};

use crate::outbound::batch::DropPolicy;
pub use crate::outbound::batch::{Broadcast, FanOutBatch};

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

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The socket has taken all of it.
    Written,
    /// It waits to be written, or the connection has ended.
    Taken,
    /// It was left out: too much waits already.
    LeftOut,
}

/// One thing to write.
#[derive(Debug)]
pub enum Outgoing {
    /// The answer to a request of this connection.
    Reply(Reply),
    /// An event, encoded in this connection's format.
    Event(Bytes),
    /// A round, as it goes over the wire.
    Batch(Bytes),
    /// The rest of a round that is partly out: nothing goes before it, and a connection that ends sends it still.
    Rest(Bytes),
    /// A sign of life to ask for one back; doors without pings skip it.
    Ping,
}

/// The queue of one connection. Cheap to clone: driver, hub and door share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    format: Dialect,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Notify,
    taken: Notify,
}

/// Who writes to the socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum WriteTurn {
    #[default]
    Free,
    /// The door, until all that it took is out.
    Transport,
    /// The hub, just now.
    Hub,
}

#[derive(Debug, Default)]
struct Queue {
    /// Where the hub writes to; nowhere before the connection has begun and after it has ended.
    socket: Option<Arc<OwnedWriteHalf>>,
    pen: WriteTurn,
    /// The door wanted the pen while the hub had it.
    door_waits: bool,
    /// What the hub has begun to write and the socket did not take.
    rest: Option<Bytes>,
    items: VecDeque<Outgoing>,
    /// The size of everything that waits.
    bytes: usize,
    /// Since when the oldest of it waits.
    since: Option<Instant>,
    /// The largest reply of it.
    largest_reply: usize,
    /// When the oldest message of it was accepted.
    oldest: Accepted,
    /// When the oldest message was accepted that the door has taken and not written yet.
    unwritten: Accepted,
    /// Rooms, as they are shown, of which a change was left out and nothing has been said yet.
    stale: BTreeSet<String>,
    close: Option<CloseCode>,
}

impl Queue {
    /// Whether something waits for so long that its reader is slow.
    fn is_overdue(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= SLOW_AFTER)
    }

    /// Whether the door has something to do.
    fn is_for_door(&self) -> bool {
        let is_something = self.rest.is_some() || !self.items.is_empty() || self.close.is_some() || self.door_waits;
        is_something && self.pen != WriteTurn::Hub
    }

    /// Whether the pen is the door's from now on. If not, it will be told.
    fn hand_to_door(&mut self) -> bool {
        self.door_waits = self.pen == WriteTurn::Hub;
        if !self.door_waits {
            self.pen = WriteTurn::Transport;
        }
        !self.door_waits
    }

    /// The socket, and with it the pen, if nothing goes before what the hub wants to write.
    fn hand_to_hub(&mut self) -> Option<Arc<OwnedWriteHalf>> {
        let is_first = self.pen == WriteTurn::Free && self.rest.is_none() && self.items.is_empty();
        let socket = self.socket.as_ref().filter(|_| is_first)?;
        self.pen = WriteTurn::Hub;
        Some(Arc::clone(socket))
    }

    /// Counts what waits from now on.
    fn count(&mut self, size: usize) {
        self.bytes += size;
        self.since.get_or_insert_with(Instant::now);
    }
}

/// What the door finds when it looks.
#[derive(Debug)]
pub struct Batch {
    /// Write these, in order.
    pub items: VecDeque<Outgoing>,
    /// Then close with this.
    pub close: Option<CloseCode>,
    /// Whether it, or what was taken before and is not out yet, has messages in it: [`Outbox::written`] wants to know when
    /// they are out.
    pub has_messages: bool,
}

impl Outbox {
    /// An empty queue for a connection that speaks `format`.
    #[must_use]
    pub fn new(format: Dialect) -> Self {
        Self { format, shared: Arc::default() }
    }

    /// Whether both are the queue of one connection.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The connection has begun: rounds may go to its socket from now on.
    pub fn connect(&self, socket: Arc<OwnedWriteHalf>) {
        self.lock().socket = Some(socket);
    }

    /// Queues the answer to a request. Never blocks.
    pub fn reply(&self, reply: Reply) {
        let size = ENTRY_BYTES + size(&reply.answer);
        let mut queue = self.lock();
        queue.largest_reply = queue.largest_reply.max(size);
        self.push(queue, Outgoing::Reply(reply), size);
    }

    /// Queues an event, or leaves it out. Never blocks; encodes it when nobody has for this format yet.
    pub fn event(&self, event: &Broadcast) -> PushOutcome {
        if leave_out(&mut self.lock(), event.worth()) {
            return PushOutcome::LeftOut;
        }
        let bytes = event.bytes(self.format);
        let size = bytes.len() + ENTRY_BYTES;
        let mut queue = self.lock();
        queue.oldest = queue.oldest.earlier(event.accepted());
        self.push(queue, Outgoing::Event(bytes), size);
        PushOutcome::Taken
    }

    /// Gives a round to a connection that hears its log (`hears`; looked at under the lock, so that nothing follows an
    /// answer that was queued after it had become false). Written at once if nothing goes before it and the socket takes
    /// it, else queued, or left out. Never blocks.
    pub fn round(&self, round: &FanOutBatch, hears: &AtomicBool) -> PushOutcome {
        let bytes = round.bytes(self.format);
        let mut queue = self.lock();
        if queue.close.is_some() || bytes.is_empty() || !hears.load(Ordering::Acquire) {
            return PushOutcome::Taken;
        }
        if leave_out(&mut queue, round.worth()) {
            return PushOutcome::LeftOut;
        }
        let size = bytes.len() + ENTRY_BYTES;
        let Some(socket) = queue.hand_to_hub() else {
            queue.oldest = queue.oldest.earlier(round.accepted());
            self.push(queue, Outgoing::Batch(bytes.clone()), size);
            return PushOutcome::Taken;
        };
        drop(queue);
        // A socket that is broken takes nothing: its door will find out.
        let written = socket.try_write(bytes).unwrap_or(0);
        drop(socket);
        self.put_down(bytes, written, round.accepted());
        if written == bytes.len() { PushOutcome::Written } else { PushOutcome::Taken }
    }

    /// The hub has written so much of a round, whose oldest message was accepted then.
    fn put_down(&self, bytes: &Bytes, written: usize, accepted: Accepted) {
        let mut queue = self.lock();
        queue.pen = WriteTurn::Free;
        if written < bytes.len() {
            queue.oldest = queue.oldest.earlier(accepted);
            queue.count(bytes.len() - written + ENTRY_BYTES);
            if written > 0 {
                queue.rest = Some(bytes.slice(written..));
            } else if queue.close.is_none() {
                queue.items.push_front(Outgoing::Batch(bytes.clone()));
            }
        }
        let is_for_door = queue.is_for_door();
        drop(queue);
        if is_for_door {
            self.shared.ready.notify_one();
        }
    }

    /// Queues a ping.
    pub fn ping(&self) {
        self.push(self.lock(), Outgoing::Ping, ENTRY_BYTES);
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
            if self.lock().is_for_door() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until the connection is to end, and says why; what is queued may still wait then. For a door whose socket takes
    /// nothing more right now. Dropping the future loses nothing. Shares the one waiter with [`Outbox::ready`].
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

    /// Takes everything that waits, and with it the right to write to the socket, until [`Outbox::written`]. What was taken
    /// before has gone out, so this is where the reader has caught up and hears which rooms it has to ask about again.
    /// `None`: the hub writes just now, [`Outbox::ready`] tells when it is done.
    #[must_use]
    pub fn take(&self) -> Option<Batch> {
        let mut queue = self.lock();
        if !queue.hand_to_door() {
            return None;
        }
        queue.bytes = 0;
        self.shared.taken.notify_one();
        queue.since = None;
        queue.largest_reply = 0;
        let (mut items, stale) = (mem::take(&mut queue.items), mem::take(&mut queue.stale));
        let close = queue.close;
        if let Some(rest) = queue.rest.take() {
            items.push_front(Outgoing::Rest(rest));
        }
        queue.unwritten = queue.unwritten.earlier(mem::take(&mut queue.oldest));
        let has_messages = !queue.unwritten.is_unknown();
        drop(queue);
        for room in stale {
            let resync = Event::Presence { room, delta: PresenceDelta::default(), resync: true };
            items.push_back(Outgoing::Event(self.format.encode(&resync)));
        }
        Some(Batch { items, close, has_messages })
    }

    /// Everything that was taken is out. What came meanwhile is found by [`Outbox::ready`]. Answers when the oldest message
    /// of it was accepted.
    #[must_use]
    pub fn written(&self) -> Accepted {
        let mut queue = self.lock();
        queue.pen = WriteTurn::Free;
        mem::take(&mut queue.unwritten)
    }

    /// The connection is over: nothing is taken on any more, and the socket is the door's alone when this returns.
    /// Returns what is left of a round that the hub had begun to write. Shares the one waiter with [`Outbox::ready`].
    pub async fn disconnect(&self) -> Option<Bytes> {
        self.close(CloseCode::Normal);
        loop {
            let notified = self.shared.ready.notified();
            {
                let mut queue = self.lock();
                queue.socket = None;
                if queue.hand_to_door() {
                    return queue.rest.take();
                }
            }
            notified.await;
        }
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.items.is_empty() && queue.rest.is_none()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, item: Outgoing, size: usize) {
        if queue.close.is_some() {
            return;
        }
        // The largest reply may be this one.
        let waiting = queue.bytes + size - queue.largest_reply;
        if waiting > OUTBOX_BYTES && (queue.is_overdue() || waiting > BURST_BYTES) {
            (queue.items, queue.stale, queue.close) = (VecDeque::new(), BTreeSet::new(), Some(CloseCode::Slow));
            (queue.bytes, queue.since, queue.largest_reply) = (0, None, 0);
        } else {
            queue.count(size);
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

/// Whether something of this worth is left out, as too much waits already. Notes what the reader will have to be told.
fn leave_out(queue: &mut Queue, worth: DropPolicy<'_>) -> bool {
    if queue.bytes <= SOFT_BYTES {
        return false;
    }
    match worth {
        DropPolicy::Everything => return false,
        DropPolicy::AskedAgain(room) if !queue.stale.contains(room) => _ = queue.stale.insert(room.to_owned()),
        DropPolicy::AskedAgain(_) | DropPolicy::Little => {}
    }
    true
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
