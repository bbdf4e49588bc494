//! Delivery on one node: its sessions, its streams, and the fan-out of every message to their outboxes.
//!
//! The delivery router delivers to the [`Hub`] ([`Hub::deliver`]), drivers join and leave rooms, and session orders
//! close connections. Its own tasks read missed messages ([`refill`]), write batches ([`Hub::fan_out`]) and flush
//! presence. Invariant: a stream's messages reach every member's outbox in one order, and every hole is refilled or
//! reported as a gap. Never waits for a client; knows no store and no socket.
//!
//! # Joining
//! A join has three steps, so no message is lost or delivered twice between replay and live delivery:
//! 1. [`Hub::start_join`], before the member record is written: messages are buffered for the member from here on.
//! 2. [`Hub::observe_end`], with the stream's end as of the member record.
//! 3. [`Hub::complete_join`], with the client's position. While that is behind the buffer, the driver replays and
//!    retries.
//!
//! An inbox is joined in the same way. Its first step is [`Hub::open_inbox`] before a claim, or
//! [`Hub::register_session`] before the stream's end is read.

pub mod member_changes;
pub mod position;
mod announcements;
mod subscribers;
mod scheduler;
mod feed;
mod streams;
mod sessions;
mod written;
pub mod refill;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use presence::model::codes::CloseCode;
use presence::model::moderation::RoomRemoval;
use presence::model::stream::{StreamEnd, StreamId};
use presence::model::{Fence, Incarnation, Nick, Owner, RoomEntryOrder, RoomKey, RoomName, SessionId};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{interval, timeout_at};

use self::feed::StreamFeed;
pub use self::feed::{FeedJoin, JoinProgress};
use self::position::{RefillRequest, StreamPage, StreamPosition, StreamStep, StreamTracker};
use self::scheduler::{FanOutJob, FeedKey, PORTION_WRITES, PortionOutcome};
use self::sessions::LocalSessions;
use self::streams::{FollowUp, StreamTable};
use crate::backplane::Delivery;
use crate::message::ChatMessage;
use crate::metrics::Counts;
use crate::outbound::outbox::{MembershipOrder, Outbox};

/// Interval between two flushes of the changes of a room's members.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(200);

/// The sessions and streams of one node.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<HubState>,
    /// Wakes the refill task.
    refill_due: Notify,
    /// Wakes a fan-out task.
    job_queued: Notify,
    counts: Counts,
}

#[derive(Debug, Default)]
struct HubState {
    sessions: LocalSessions,
    streams: StreamTable,
}

/// Deliveries that arrived together, on the task that read them.
#[derive(Debug)]
pub struct DeliveryBatch<'a> {
    hub: &'a Hub,
    follow_up: FollowUp,
    /// True if no fan-out waited before the batch.
    is_first: bool,
}

impl DeliveryBatch<'_> {
    /// Does the same as [`Hub::deliver`], and leaves the fan-out to the end of the batch.
    pub fn deliver(&mut self, delivery: Delivery) {
        let FollowUp { fan_out, refill } = self.hub.receive(delivery);
        self.follow_up.fan_out |= fan_out;
        self.follow_up.refill |= refill;
    }

    /// Writes the first portion at once, which spares a small room another task. Fan-out tasks write the rest, and
    /// everything if earlier fan-outs wait: this task then returns to reading.
    pub fn fan_out(mut self) {
        if self.follow_up.fan_out && self.is_first {
            self.follow_up.fan_out = self.hub.fan_out_portion(Instant::now) || self.hub.next_pause_end().is_some();
        }
        self.hub.wake(self.follow_up);
    }
}

/// The result of a refill request.
#[derive(Debug)]
pub enum RefillResult {
    /// The stream's end.
    End(StreamEnd),
    /// A part of the stream.
    Page(StreamPage<ChatMessage>),
    /// The stream could not be read; it is requested again.
    Failed,
}

/// Numbers of sessions and rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubSize {
    /// Sessions with a connection on this node.
    pub sessions: usize,
    /// Rooms with members on this node.
    pub rooms: usize,
}

/// # Sessions
impl Hub {
    /// Creates an empty hub that counts its work on `counts`.
    #[must_use]
    pub fn new(counts: Counts) -> Self {
        Self { state: Mutex::default(), refill_due: Notify::new(), job_queued: Notify::new(), counts }
    }

    /// Opens the inbox of a session that is about to claim a nick: messages that arrive after the claim are buffered.
    pub fn open_inbox(&self, session: &SessionId, nick: &Nick, outbox: &Outbox) {
        let inbox = StreamId::Inbox(session.clone());
        self.lock().streams.get_or_create(inbox, nick.as_str()).start_join(session, outbox);
    }

    /// Removes the inbox after a failed claim.
    pub fn discard_inbox(&self, session: &SessionId) {
        self.lock().streams.remove(&StreamId::Inbox(session.clone()));
    }

    /// Adds a session that has begun or was resumed here, and closes its older connection. Its direct messages are
    /// buffered until [`Hub::complete_join`].
    pub fn register_session(&self, owner: &Owner, nick: &Nick, outbox: &Outbox) {
        self.lock().sessions.register(owner, outbox);
        self.open_inbox(&owner.session, nick, outbox);
    }

    /// Changes the nick of a session, and its claim.
    pub fn rename_session(&self, owner: &Owner, nick: &Nick) {
        let mut state = self.lock();
        state.sessions.update_claim(owner);
        if let Some(inbox) = state.streams.get_mut(&StreamId::Inbox(owner.session.clone())) {
            inbox.set_display(nick.as_str());
        }
    }

    /// Removes a session and its inbox, unless a newer connection holds it. Rooms are left one by one with
    /// [`Hub::leave_room`].
    pub fn unregister_session(&self, owner: &Owner) {
        let mut state = self.lock();
        if let Some(outbox) = state.sessions.unregister(owner)
            && let Some(mut inbox) = state.streams.remove(&StreamId::Inbox(owner.session.clone()))
        {
            inbox.leave(&owner.session, &outbox);
        }
    }

    /// Closes the connection of a session.
    pub fn close_session(&self, session: &SessionId, code: CloseCode) {
        self.lock().sessions.close(session, code);
    }

    /// Closes the connection that holds this claim, after another connection resumed the session. The newer claim
    /// stays.
    pub fn close_taken_over(&self, session: &SessionId, fence: Fence) {
        self.close_claim(session, fence, CloseCode::TakenOver);
    }

    /// Closes the connection that holds this claim, if there is one.
    pub fn close_claim(&self, session: &SessionId, fence: Fence, code: CloseCode) {
        self.lock().sessions.close_claim(session, fence, code);
    }

    /// Closes every session that was claimed under a lost lease.
    pub fn close_incarnation(&self, incarnation: &Incarnation, code: CloseCode) {
        self.lock().sessions.close_incarnation(incarnation, code);
    }

    /// Ends the delivery of a room to a session that a moderator has removed, and passes the removal to its connection.
    pub fn remove_member(&self, removal: &RoomRemoval) {
        let mut state = self.lock();
        let Some(outbox) = state.sessions.outbox(&removal.session) else { return };
        state.streams.leave_room(&removal.room, &removal.session, &outbox);
        outbox.push_order(MembershipOrder::Leave(removal.clone()));
    }

    /// Passes the order to enter a room to the connection of its session. Returns false if there is none.
    pub fn enter_room(&self, entry: &RoomEntryOrder) -> bool {
        let outbox = self.lock().sessions.outbox(&entry.session);
        outbox.is_some_and(|outbox| {
            outbox.push_order(MembershipOrder::Enter(entry.room.clone()));
            true
        })
    }

    /// Counts sessions and rooms.
    #[must_use]
    pub fn size(&self) -> HubSize {
        let state = self.lock();
        HubSize { sessions: state.sessions.len(), rooms: state.streams.room_count() }
    }

    /// The number of rooms and inboxes.
    #[cfg(test)]
    pub(crate) fn stream_count(&self) -> usize {
        self.lock().streams.len()
    }
}

/// # Joining and leaving streams
impl Hub {
    /// Starts a join: buffers the room's messages for the member.
    pub fn start_join(&self, room: &RoomName, session: &SessionId, outbox: &Outbox) {
        let stream = StreamId::Room(room.key().clone());
        self.lock().streams.get_or_create(stream, room.as_str()).start_join(session, outbox);
    }

    /// Applies a stream's end that was read after its subscription was confirmed. The first one sets the node's
    /// position.
    pub fn observe_end(&self, stream: &StreamId, end: &StreamEnd) {
        self.change_position(stream, |tracker, steps| tracker.observe_end(end, steps));
    }

    /// Returns the node's position in a stream; `None` before its first end was observed.
    #[must_use]
    pub fn position(&self, stream: &StreamId) -> Option<StreamPosition> {
        self.lock().streams.get_mut(stream)?.tracker.position().cloned()
    }

    /// Completes a join: queues what is buffered after the client's position and delivers everything that follows.
    /// Does nothing for a session that joins, or has joined, over another connection.
    pub fn complete_join(&self, stream: &StreamId, request: &FeedJoin<'_>) -> JoinProgress {
        let mut state = self.lock();
        let feed = state.streams.get_mut(stream);
        feed.map_or(JoinProgress::Entered, |feed| feed.complete_join(request))
    }

    /// Removes a member from a room, unless it has joined over another connection. Also cancels a join.
    pub fn leave_room(&self, room: &RoomKey, session: &SessionId, outbox: &Outbox) {
        self.lock().streams.leave_room(room, session, outbox);
    }
}

/// # Delivery
impl Hub {
    /// Handles a delivery of the backplane; fan-out tasks write it. Ignores echoes and orders, which the lease handles.
    pub fn deliver(&self, delivery: Delivery) {
        self.wake(self.receive(delivery));
    }

    /// Starts deliveries that arrived together.
    pub fn start_batch(&self) -> DeliveryBatch<'_> {
        DeliveryBatch { hub: self, follow_up: FollowUp::default(), is_first: !self.lock().streams.has_jobs() }
    }

    /// Waits until the outboxes of a stream's members have it up to this seq. Returns at once if the stream has no
    /// members here. A message that never arrives is waited for as long as there are members. Cancel-safe.
    pub async fn written(&self, stream: &StreamId, seq: u64) {
        let wait = self.lock().streams.get_mut(stream).and_then(|feed| feed.written.wait_for(seq));
        if let Some(wait) = wait {
            // An error means that the last member has left.
            let _ = wait.await;
        }
    }

    /// Pushes each room's member changes as one event every 200 ms, for as long as it is polled. Cancel-safe.
    pub async fn flush_presence_periodically(&self) {
        let mut tick = interval(PRESENCE_INTERVAL);
        loop {
            tick.tick().await;
            self.flush_presence();
        }
    }

    /// Pushes each room's member changes since the last call as one event.
    pub fn flush_presence(&self) {
        let changed_rooms = self.lock().streams.take_changed_rooms();
        for room in changed_rooms {
            self.wake(self.change_feed(&StreamId::Room(room), StreamFeed::flush_presence));
        }
    }

    /// Writes pending events for as long as it is polled. Several tasks may share the work. Cancel-safe.
    pub async fn fan_out(&self) {
        loop {
            let job_queued = self.job_queued.notified();
            while self.fan_out_portion(Instant::now) {
                // Messages that arrive meanwhile join the next batches.
                yield_now().await;
            }
            let next_pause_end = self.next_pause_end();
            match next_pause_end {
                None => job_queued.await,
                Some(end) => _ = timeout_at(end.into(), job_queued).await,
            }
        }
    }

    /// Writes one portion, to a bounded number of connections. Returns true if more is ready.
    pub fn fan_out_portion(&self, clock: impl Fn() -> Instant) -> bool {
        let mut writes_left = PORTION_WRITES;
        while writes_left > 0 {
            let Some((key, mut job)) = self.lock().streams.next_job(clock()) else { return false };
            let PortionOutcome { recipients, written, dropped } = job.write_portion(writes_left);
            self.counts.deliveries.written(job.accepted(), written);
            self.counts.skipped.inc_by(dropped);
            // A stream without recipients counts as one write, so the loop ends.
            writes_left -= recipients.clamp(1, writes_left);
            self.return_job(key, job, clock());
        }
        self.lock().streams.has_jobs()
    }

    /// Requeues a job, or the stream of a finished one, after a pause if it took long.
    fn return_job(&self, key: FeedKey, job: FanOutJob, now: Instant) {
        let mut state = self.lock();
        if !job.is_finished() {
            return state.streams.requeue(key, job);
        }
        self.counts.fan_out_finished(job.deliveries());
        if let Some(seq) = job.last_seq() {
            state.streams.advance_written(&key, seq);
        }
        // A stream that was too full for a refill may be refilled now.
        if state.streams.follow_up(&key.stream).refill {
            self.refill_due.notify_one();
        }
        match job.pause(now) {
            None => state.streams.queue_next(key),
            Some(pause) => state.streams.pause(now + pause, key),
        }
    }

    fn next_pause_end(&self) -> Option<Instant> {
        self.lock().streams.next_pause_end()
    }

    fn receive(&self, delivery: Delivery) -> FollowUp {
        let (stream, epoch, message) = match delivery {
            Delivery::Room { room, epoch, message } => (StreamId::Room(room), epoch, message),
            Delivery::Direct { session, epoch, message } => (StreamId::Inbox(session), epoch, message),
            Delivery::Presence { room, version, mut delta } => {
                let notices = std::mem::take(&mut delta.moderation);
                self.lock().streams.change_members(&room, version, delta);
                if notices.is_empty() {
                    return FollowUp::default();
                }
                return self.change_feed(&StreamId::Room(room), |feed| feed.push_moderation(notices));
            }
            Delivery::Typing { stream, by, from } => {
                return self.change_feed(&stream, |feed| feed.push_typing(by.as_ref(), &from));
            }
            Delivery::SubscriptionRestored => {
                self.subscription_restored();
                return FollowUp::default();
            }
            Delivery::Echo { .. }
            | Delivery::Kick { .. }
            | Delivery::Taken { .. }
            | Delivery::Remove(_)
            | Delivery::Enter(_)
            | Delivery::Announcement(_)
            | Delivery::SanctionChanged { .. } => return FollowUp::default(),
        };
        self.change_feed(&stream, |feed| feed.receive(&epoch, message))
    }

    /// Requests the end of every stream and a `resync` of every room: anything may be missing.
    fn subscription_restored(&self) {
        self.verify_streams();
        self.lock().streams.mark_members_unverified();
    }
}

/// # Refill
impl Hub {
    /// Requests the end of every stream, because something may be missing that no later message reveals.
    pub fn verify_streams(&self) {
        self.lock().streams.mark_unverified();
        self.refill_due.notify_one();
    }

    /// Waits until streams have something to refill, and takes their requests. Each is answered with
    /// [`Hub::apply_refill`]. Cancel-safe; only the refill task calls it.
    pub async fn refill_requests(&self) -> Vec<(StreamId, RefillRequest)> {
        loop {
            let refill_due = self.refill_due.notified();
            let requests = self.take_refill_requests();
            if !requests.is_empty() {
                return requests;
            }
            refill_due.await;
        }
    }

    /// Applies the result of a refill request.
    pub fn apply_refill(&self, stream: &StreamId, request: &RefillRequest, result: RefillResult) {
        let requested_at = request.position();
        self.change_position(stream, |tracker, steps| match result {
            RefillResult::End(end) => tracker.apply_end(requested_at, &end, steps),
            RefillResult::Page(page) => {
                tracker.apply_page(requested_at, page, steps);
                self.counts.gap(steps);
            }
            RefillResult::Failed => tracker.mark_unverified(),
        });
    }

    fn take_refill_requests(&self) -> Vec<(StreamId, RefillRequest)> {
        self.lock().streams.take_refill_requests()
    }

    /// Changes the position in a stream and passes the resulting steps on to its members.
    fn change_position(
        &self,
        stream: &StreamId,
        change: impl FnOnce(&mut StreamTracker<ChatMessage>, &mut Vec<StreamStep<ChatMessage>>),
    ) {
        self.wake(self.change_feed(stream, |feed| {
            let mut steps = Vec::new();
            change(&mut feed.tracker, &mut steps);
            feed.apply_steps(steps);
        }));
    }

    /// Changes a feed. Returns the tasks that have to follow up.
    fn change_feed(&self, stream: &StreamId, change: impl FnOnce(&mut StreamFeed)) -> FollowUp {
        let mut state = self.lock();
        let Some(feed) = state.streams.get_mut(stream) else { return FollowUp::default() };
        change(feed);
        state.streams.follow_up(stream)
    }

    fn wake(&self, FollowUp { fan_out, refill }: FollowUp) {
        if fan_out {
            self.job_queued.notify_one();
        }
        if refill {
            self.refill_due.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HubState> {
        // Every method keeps the state valid at each step, so a panic while the lock is held does not corrupt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
