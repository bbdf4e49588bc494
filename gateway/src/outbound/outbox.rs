//! The queue of one connection.
//!
//! The session's driver and the hub fill an [`Outbox`], the listener's transport empties it. Bounds are those of
//! [`SLOW_READER`]: presence and typing are dropped first, then the connection is closed with [`CloseCode::Slow`].
//! Invariant: pushing never blocks, and bytes reach the socket in the order in which they were pushed.
//!
//! The queue is usually empty: the hub writes a batch to the socket itself, and queues only what the socket refuses.
//! One writer at a time holds the write turn: the transport until all it took is written, the hub for one attempt. The
//! lock is never held during a write. Frames are not made here: each [`FanOutBatch`] has its own.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use presence::model::PresenceDelta;
use presence::model::RoomName;
use presence::model::codes::CloseCode;
use presence::model::moderation::RoomRemoval;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::message::Accepted;
pub use crate::outbound::batch::{Broadcast, FanOutBatch};
pub use crate::outbound::outbox_id::OutboxId;
pub use crate::outbound::outgoing::{Outgoing, TakenItems};
use crate::outbound::policy::{DropPolicy, SLOW_READER};
use crate::outbound::reply_budget::ReplyReservation;
use crate::wire::{Dialect, Event, Reply};

/// Bytes counted for each queued item in addition to its text.
const ITEM_OVERHEAD_BYTES: usize = 64;

/// The result of pushing an event or a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The socket accepted all of it.
    Written,
    /// It is queued, or ignored: the connection has ended, or the event leaves it out.
    Queued,
    /// It was dropped: too much is queued already.
    Dropped,
}

/// The queue of one connection. Cheap to clone: driver, hub and transport share it.
#[derive(Debug, Clone)]
pub struct Outbox {
    shared: Arc<OutboxShared>,
}

#[derive(Debug, Default)]
struct OutboxShared {
    queue: Mutex<OutboxQueue>,
    /// Wakes the transport.
    ready: Notify,
    /// Wakes the driver that waits for space.
    taken: Notify,
    /// [`Dialect::bits`]. A client sets it with its first frame and with `options`; earlier frames are still whole.
    dialect: AtomicU8,
}

/// The right to write to the socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum WriteTurn {
    #[default]
    Free,
    /// Held until everything that the transport took is written.
    Transport,
    /// Held for one attempt.
    Hub,
}

/// An order about a room for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipOrder {
    /// A moderator has removed the session.
    Leave(RoomRemoval),
    /// An application lets the session enter.
    Enter(RoomName),
}

#[derive(Debug, Default)]
struct StaleRooms(BTreeSet<String>);

#[derive(Debug, Default)]
struct QueuedOrders(Vec<MembershipOrder>);

#[derive(Debug, Default)]
struct OutboxQueue {
    /// The socket for the hub's writes, while the connection is open.
    socket: Option<Arc<OwnedWriteHalf>>,
    write_turn: WriteTurn,
    /// The transport was refused the write turn because the hub held it.
    transport_waits: bool,
    /// The part of a batch that the socket refused after it had accepted the beginning. Boxed: an idle connection has
    /// none.
    remainder: Option<Box<Bytes>>,
    items: VecDeque<Outgoing>,
    bytes: usize,
    /// The time since which something has been queued.
    queued_since: Option<Instant>,
    largest_reply_bytes: usize,
    /// The part of the reply budget that a queued reply uses. A connection has one request at a time, so one is enough.
    queued_reservation: Option<ReplyReservation>,
    /// The same for a reply that the transport has taken and not written yet.
    unwritten_reservation: Option<ReplyReservation>,
    /// Acceptance time of the oldest queued message.
    queued_accepted: Accepted,
    /// Acceptance time of the oldest message that the transport has taken and not written yet.
    unwritten_accepted: Accepted,
    /// Display names of the rooms whose presence was dropped since the transport last took the queue. Boxed: few
    /// connections have any.
    stale_rooms: Option<Box<StaleRooms>>,
    close: Option<CloseCode>,
    /// Orders that the driver has not taken yet. Boxed: few sessions have any.
    orders: Option<Box<QueuedOrders>>,
}

impl OutboxQueue {
    fn is_overdue(&self) -> bool {
        self.queued_since.is_some_and(|since| since.elapsed() >= SLOW_READER.overdue_after)
    }

    fn has_work_for_transport(&self) -> bool {
        let has_work =
            self.remainder.is_some() || !self.items.is_empty() || self.close.is_some() || self.transport_waits;
        has_work && self.write_turn != WriteTurn::Hub
    }

    /// Assigns the write turn to the transport. Returns false while the hub holds it; the transport is then woken
    /// later.
    fn turn_to_transport(&mut self) -> bool {
        self.transport_waits = self.write_turn == WriteTurn::Hub;
        if !self.transport_waits {
            self.write_turn = WriteTurn::Transport;
        }
        !self.transport_waits
    }

    /// Assigns the write turn to the hub and returns the socket, if nothing is queued before its batch.
    fn turn_to_hub(&mut self) -> Option<Arc<OwnedWriteHalf>> {
        let is_first = self.write_turn == WriteTurn::Free && self.remainder.is_none() && self.items.is_empty();
        let socket = self.socket.as_ref().filter(|_| is_first)?;
        self.write_turn = WriteTurn::Hub;
        Some(Arc::clone(socket))
    }

    fn count_queued(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.queued_since.get_or_insert_with(Instant::now);
    }

    /// Decides whether an event is dropped, and notes the room that its reader has to resync.
    fn drops(&mut self, policy: DropPolicy<'_>) -> bool {
        if self.bytes <= SLOW_READER.droppable_bytes_max {
            return false;
        }
        match policy {
            DropPolicy::Never => return false,
            DropPolicy::WithResync(room) => {
                let StaleRooms(rooms) = &mut **self.stale_rooms.get_or_insert_default();
                if !rooms.contains(room) {
                    rooms.insert(room.to_owned());
                }
            }
            DropPolicy::Silently => {}
        }
        true
    }
}

impl Outbox {
    /// Creates an empty queue for a connection of this dialect.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { shared: Arc::new(OutboxShared { dialect: AtomicU8::new(dialect.bits()), ..OutboxShared::default() }) }
    }

    /// Returns the identity of this queue.
    #[must_use]
    pub fn id(&self) -> OutboxId {
        OutboxId::of(&self.shared)
    }

    /// Returns the dialect of the connection.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        Dialect::of_bits(self.shared.dialect.load(Ordering::Relaxed))
    }

    /// Sets the dialect of everything that is queued from now on.
    pub fn set_dialect(&self, dialect: Dialect) {
        let _queue = self.lock();
        self.shared.dialect.store(dialect.bits(), Ordering::Relaxed);
    }

    /// Encodes something without the lock, and returns it with the lock while the dialect is still that one.
    fn lock_with<B>(&self, encode: impl Fn(Dialect) -> B) -> (B, MutexGuard<'_, OutboxQueue>) {
        loop {
            let dialect = self.dialect();
            let encoded = encode(dialect);
            let queue = self.lock();
            if self.dialect() == dialect {
                return (encoded, queue);
            }
        }
    }

    /// Returns true if both are the queue of one connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Sets the socket that batches are written to from now on.
    pub fn connect(&self, socket: Arc<OwnedWriteHalf>) {
        self.lock().socket = Some(socket);
    }

    /// Queues the answer to a request.
    pub fn push_reply(&self, reply: Reply) {
        self.push_reserved_reply(reply, None);
    }

    /// Queues the answer to a request, whose part of the reply budget is released once it is written or the connection
    /// ends.
    pub fn push_reserved_reply(&self, reply: Reply, reservation: Option<ReplyReservation>) {
        let bytes = ITEM_OVERHEAD_BYTES + reply.answer.estimated_bytes(self.dialect());
        let mut queue = self.lock();
        if queue.close.is_none() {
            queue.queued_reservation = reservation.or(queue.queued_reservation.take());
        }
        queue.largest_reply_bytes = queue.largest_reply_bytes.max(bytes);
        self.push(queue, Outgoing::Reply(reply), bytes);
    }

    /// Queues an event or drops it.
    pub fn push_event(&self, event: &Broadcast) -> PushOutcome {
        if event.leaves_out(&self.shared) {
            return PushOutcome::Queued;
        }
        if self.lock().drops(event.drop_policy()) {
            return PushOutcome::Dropped;
        }
        let (encoded, mut queue) = self.lock_with(|dialect| event.bytes(dialect));
        let bytes = encoded.len() + ITEM_OVERHEAD_BYTES;
        queue.queued_accepted = queue.queued_accepted.earlier(event.accepted());
        self.push(queue, Outgoing::Event(encoded), bytes);
        PushOutcome::Queued
    }

    /// Writes a batch at once if nothing is queued before it and the socket accepts it; otherwise queues or drops it.
    ///
    /// `is_subscribed` is read under the lock: once it is false, nothing of the stream follows a reply queued
    /// afterwards.
    pub fn push_batch(&self, batch: &FanOutBatch, is_subscribed: &AtomicBool) -> PushOutcome {
        let (bytes, mut queue) = self.lock_with(|dialect| match batch.bytes_without(&self.shared, dialect) {
            Some(without) => Cow::Owned(without),
            None => Cow::Borrowed(batch.bytes(dialect)),
        });
        let bytes = &*bytes;
        if queue.close.is_some() || bytes.is_empty() || !is_subscribed.load(Ordering::Acquire) {
            return PushOutcome::Queued;
        }
        if queue.drops(batch.drop_policy()) {
            return PushOutcome::Dropped;
        }
        let queued_bytes = bytes.len() + ITEM_OVERHEAD_BYTES;
        let Some(socket) = queue.turn_to_hub() else {
            queue.queued_accepted = queue.queued_accepted.earlier(batch.accepted());
            self.push(queue, Outgoing::Batch(bytes.clone()), queued_bytes);
            return PushOutcome::Queued;
        };
        drop(queue);
        // A broken socket accepts nothing; its transport finds the error.
        let written = socket.try_write(bytes).unwrap_or(0);
        drop(socket);
        self.finish_hub_write(bytes, written, batch.accepted());
        if written == bytes.len() { PushOutcome::Written } else { PushOutcome::Queued }
    }

    /// Returns the write turn and queues the bytes after the first `written`.
    fn finish_hub_write(&self, bytes: &Bytes, written: usize, accepted: Accepted) {
        let mut queue = self.lock();
        queue.write_turn = WriteTurn::Free;
        if written < bytes.len() {
            queue.queued_accepted = queue.queued_accepted.earlier(accepted);
            queue.count_queued(bytes.len() - written + ITEM_OVERHEAD_BYTES);
            if written > 0 {
                queue.remainder = Some(Box::new(bytes.slice(written..)));
            } else if queue.close.is_none() {
                queue.items.push_front(Outgoing::Batch(bytes.clone()));
            }
        }
        let has_work_for_transport = queue.has_work_for_transport();
        drop(queue);
        if has_work_for_transport {
            self.shared.ready.notify_one();
        }
    }

    /// Queues a ping.
    pub fn push_ping(&self) {
        self.push(self.lock(), Outgoing::Ping, ITEM_OVERHEAD_BYTES);
    }

    /// Ends the connection after what is queued. The first code wins; later pushes are ignored.
    pub fn close(&self, code: CloseCode) {
        self.lock().close.get_or_insert(code);
        self.shared.ready.notify_one();
        self.shared.taken.notify_one();
    }

    /// The close code, once the connection is to end.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        self.lock().close
    }

    /// Returns true if a moderator, an operator or the token has ended the session: then nothing more is done for it.
    #[must_use]
    pub fn is_ended_by_order(&self) -> bool {
        matches!(self.close_code(), Some(CloseCode::Kicked | CloseCode::Banned | CloseCode::TokenExpired))
    }

    /// Waits until the transport has something to take. Cancel-safe. At most one task waits, here, in
    /// [`Outbox::closed`] or in [`Outbox::disconnect`].
    pub async fn ready(&self) {
        loop {
            let notified = self.shared.ready.notified();
            if self.lock().has_work_for_transport() {
                return;
            }
            notified.await;
        }
    }

    /// Queues an order about a room, for the driver.
    pub fn push_order(&self, order: MembershipOrder) {
        self.lock().orders.get_or_insert_default().0.push(order);
        self.shared.ready.notify_one();
    }

    /// Takes the orders about rooms for the driver.
    #[must_use]
    pub fn take_orders(&self) -> Vec<MembershipOrder> {
        self.lock().orders.take().map_or_else(Vec::new, |queued| queued.0)
    }

    /// Waits as [`Outbox::ready`], and for orders about rooms: returns true if there are any. Cancel-safe.
    pub async fn ready_or_ordered(&self) -> bool {
        loop {
            let notified = self.shared.ready.notified();
            {
                let queue = self.lock();
                let has_orders = queue.orders.is_some();
                if has_orders || queue.has_work_for_transport() {
                    return has_orders;
                }
            }
            notified.await;
        }
    }

    /// Waits until the connection is to end, for a transport whose socket accepts nothing. Items may still be queued
    /// then. Cancel-safe. Shares its waiter with [`Outbox::ready`].
    pub async fn closed(&self) -> CloseCode {
        loop {
            let notified = self.shared.ready.notified();
            if let Some(code) = self.close_code() {
                return code;
            }
            notified.await;
        }
    }

    /// Waits until at most `droppable_bytes_max` is queued or the connection is to end. At most one task waits: the
    /// session's driver.
    pub async fn wait_for_space(&self) {
        loop {
            let taken = self.shared.taken.notified();
            {
                let queue = self.lock();
                if queue.bytes <= SLOW_READER.droppable_bytes_max || queue.close.is_some() {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Takes everything queued and the write turn, until [`Outbox::finish_write`]. `None` while the hub writes;
    /// [`Outbox::ready`] returns when it is done.
    ///
    /// Everything taken before is written by now, so the reader has caught up: a `resync` follows for each room whose
    /// presence was dropped.
    #[must_use]
    pub fn take(&self) -> Option<TakenItems> {
        let mut queue = self.lock();
        if !queue.turn_to_transport() {
            return None;
        }
        queue.bytes = 0;
        self.shared.taken.notify_one();
        queue.queued_since = None;
        queue.largest_reply_bytes = 0;
        queue.unwritten_reservation = queue.queued_reservation.take().or(queue.unwritten_reservation.take());
        let (mut items, stale_rooms) = (mem::take(&mut queue.items), queue.stale_rooms.take());
        let close = queue.close;
        if let Some(remainder) = queue.remainder.take() {
            items.push_front(Outgoing::Remainder(*remainder));
        }
        queue.unwritten_accepted = queue.unwritten_accepted.earlier(mem::take(&mut queue.queued_accepted));
        let has_messages = !queue.unwritten_accepted.is_unknown();
        drop(queue);
        for room in stale_rooms.into_iter().flat_map(|stale| stale.0) {
            let resync = Event::Presence { room, delta: PresenceDelta::default(), resync: true };
            items.push_back(Outgoing::Event(self.dialect().encode(&resync)));
        }
        Some(TakenItems { items, close, has_messages })
    }

    /// Returns the write turn after everything taken was written, and the acceptance time of the oldest message in it.
    #[must_use]
    pub fn finish_write(&self) -> Accepted {
        let mut queue = self.lock();
        queue.write_turn = WriteTurn::Free;
        queue.unwritten_reservation = None;
        mem::take(&mut queue.unwritten_accepted)
    }

    /// Ends the connection and waits until the socket is the transport's alone. Returns the remainder of a batch that
    /// the hub had begun to write. Shares its waiter with [`Outbox::ready`].
    pub async fn disconnect(&self) -> Option<Bytes> {
        self.close(CloseCode::Normal);
        loop {
            let notified = self.shared.ready.notified();
            {
                let mut queue = self.lock();
                queue.socket = None;
                (queue.queued_reservation, queue.unwritten_reservation) = (None, None);
                if queue.turn_to_transport() {
                    return queue.remainder.take().map(|remainder| *remainder);
                }
            }
            notified.await;
        }
    }

    /// Returns true if nothing is queued.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.items.is_empty() && queue.remainder.is_none()
    }

    /// Bytes that are queued.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Queues an item, or closes the connection of a reader that is too slow.
    fn push(&self, mut queue: MutexGuard<'_, OutboxQueue>, item: Outgoing, bytes: usize) {
        if queue.close.is_some() {
            return;
        }
        // The largest reply may be this item.
        let counted_bytes = queue.bytes + bytes - queue.largest_reply_bytes;
        if counted_bytes > SLOW_READER.queue_bytes_max
            && (queue.is_overdue() || counted_bytes > SLOW_READER.burst_bytes_max)
        {
            (queue.items, queue.stale_rooms, queue.close) = (VecDeque::new(), None, Some(CloseCode::Slow));
            (queue.bytes, queue.queued_since, queue.largest_reply_bytes) = (0, None, 0);
            queue.queued_reservation = None;
        } else {
            queue.count_queued(bytes);
            queue.items.push_back(item);
        }
        drop(queue);
        self.shared.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, OutboxQueue> {
        // Every method keeps the queue valid at each step, so a panic while the lock is held does not corrupt it.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
