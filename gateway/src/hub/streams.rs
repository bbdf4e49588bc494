//! The streams of this node: rooms with members here and inboxes of its sessions.
//!
//! [`StreamTable`] finds the [`StreamFeed`] of a stream, and tracks the streams that need a refill, a fan-out or a
//! presence event. Invariant: a stream with pending events is in the job queue, is being written, or
//! pauses. Called under the hub's lock; waits for nothing and wakes no task.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use presence::model::stream::StreamId;
use presence::model::{PresenceDelta, RoomKey, SessionId};

use super::feed::StreamFeed;
use super::position::RefillRequest;
use super::scheduler::{FanOutJob, FeedKey, JobQueue};
use super::subscribers::Recipient;
use crate::outbound::outbox::{Broadcast, Outbox};

#[derive(Debug, Default)]
pub(super) struct StreamTable {
    /// Boxed, because a hash table allocates spare slots of the full entry size.
    feeds: HashMap<StreamId, Box<StreamFeed>>,
    /// Rooms whose members changed since presence was last flushed.
    changed_rooms: Vec<RoomKey>,
    refill_due: HashSet<StreamId>,
    jobs: JobQueue,
    last_serial: u64,
}

/// The tasks to wake after a feed has changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FollowUp {
    /// A job was queued.
    pub(super) fan_out: bool,
    /// A refill became due.
    pub(super) refill: bool,
}

impl StreamTable {
    /// Returns the feed of a stream, created under this name if there is none.
    pub(super) fn get_or_create(&mut self, stream: StreamId, display: &str) -> &mut StreamFeed {
        self.last_serial += 1;
        let serial = self.last_serial;
        self.feeds.entry(stream).or_insert_with(|| Box::new(StreamFeed::new(display, serial)))
    }

    pub(super) fn get_mut(&mut self, stream: &StreamId) -> Option<&mut StreamFeed> {
        self.feeds.get_mut(stream).map(Box::as_mut)
    }

    pub(super) fn remove(&mut self, stream: &StreamId) -> Option<Box<StreamFeed>> {
        self.feeds.remove(stream)
    }

    /// Removes a member, and the room's feed after its last one.
    pub(super) fn leave_room(&mut self, room: &RoomKey, session: &SessionId, outbox: &Outbox) {
        let Entry::Occupied(mut feed) = self.feeds.entry(StreamId::Room(room.clone())) else { return };
        feed.get_mut().leave(session, outbox);
        if feed.get().is_empty() {
            feed.remove();
        }
    }

    pub(super) fn room_count(&self) -> usize {
        self.feeds.keys().filter(|stream| matches!(stream, StreamId::Room(_))).count()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.feeds.len()
    }

    /// Makes a comparison with the end of every stream due.
    pub(super) fn mark_unverified(&mut self) {
        for (stream, feed) in &mut self.feeds {
            feed.tracker.mark_unverified();
            self.refill_due.insert(stream.clone());
        }
    }

    pub(super) fn take_refill_requests(&mut self) -> Vec<(StreamId, RefillRequest)> {
        let Self { feeds, refill_due, .. } = self;
        let requests = refill_due.drain().filter_map(|stream| {
            let request = feeds.get_mut(&stream)?.tracker.take_refill_request()?;
            Some((stream, request))
        });
        requests.collect()
    }

    pub(super) fn change_members(&mut self, room: &RoomKey, version: u64, delta: PresenceDelta) {
        let Some(feed) = self.feeds.get_mut(&StreamId::Room(room.clone())) else { return };
        feed.change_members(version, delta);
        self.changed_rooms.push(room.clone());
    }

    /// Notes that member changes of every room may be missing.
    pub(super) fn mark_members_unverified(&mut self) {
        for (stream, feed) in &mut self.feeds {
            if let StreamId::Room(room) = stream {
                feed.mark_members_unverified();
                self.changed_rooms.push(room.clone());
            }
        }
    }

    pub(super) fn take_changed_rooms(&mut self) -> Vec<RoomKey> {
        std::mem::take(&mut self.changed_rooms)
    }

    /// Queues a job for what is pending in a stream, and a refill if the stream is behind.
    pub(super) fn follow_up(&mut self, stream: &StreamId) -> FollowUp {
        let Some(feed) = self.feeds.get_mut(stream) else { return FollowUp::default() };
        let fan_out = feed.pending.schedule();
        let needs_refill = feed.tracker.needs_refill() && !feed.pending.is_full();
        if fan_out {
            let key = FeedKey { stream: stream.clone(), serial: feed.serial };
            self.jobs.push_back(key, None);
        }
        FollowUp { fan_out, refill: needs_refill && self.refill_due.insert(stream.clone()) }
    }

    /// Removes the next job from the queue; no other task continues it until it is returned with
    /// [`StreamTable::requeue`], or its stream with [`StreamTable::queue_next`] or [`StreamTable::pause`].
    pub(super) fn next_job(&mut self, now: Instant) -> Option<(FeedKey, FanOutJob)> {
        for key in self.jobs.end_pauses(now) {
            self.queue_next(key);
        }
        while let Some((key, job)) = self.jobs.pop_front() {
            let job = job.or_else(|| self.feed(&key)?.start_job(now));
            if let Some(job) = job {
                return Some((key, job));
            }
        }
        None
    }

    /// Returns an unfinished job to the end of the queue.
    pub(super) fn requeue(&mut self, key: FeedKey, job: FanOutJob) {
        self.jobs.push_back(key, Some(job));
    }

    /// Notes that every member's outbox has the stream up to this seq.
    pub(super) fn advance_written(&mut self, key: &FeedKey, seq: u64) {
        if let Some(feed) = self.feed(key) {
            feed.written.advance(seq);
        }
    }

    /// Queues the next batch of a stream, if one is pending.
    pub(super) fn queue_next(&mut self, key: FeedKey) {
        if self.feed(&key).is_some_and(|feed| feed.pending.reschedule()) {
            self.jobs.push_back(key, None);
        }
    }

    /// Queues the next batch of a stream after a pause.
    pub(super) fn pause(&mut self, until: Instant, key: FeedKey) {
        self.jobs.pause(until, key);
    }

    /// Returns every inbox.
    pub(super) fn inboxes(&mut self) -> impl Iterator<Item = (&SessionId, &mut StreamFeed)> {
        self.feeds.iter_mut().filter_map(|(stream, feed)| match stream {
            StreamId::Inbox(session) => Some((session, feed.as_mut())),
            StreamId::Room(_) => None,
        })
    }

    /// Queues an event for these recipients, apart from every stream. Returns true if there are any.
    pub(super) fn queue_announcement(
        &mut self,
        now: Instant,
        event: Arc<Broadcast>,
        recipients: Vec<Recipient>,
    ) -> bool {
        let has_recipients = !recipients.is_empty();
        if has_recipients {
            self.jobs.push_back(FeedKey::of_no_stream(), Some(FanOutJob::of_announcement(now, event, recipients)));
        }
        has_recipients
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.jobs.next_pause_end()
    }

    fn feed(&mut self, key: &FeedKey) -> Option<&mut StreamFeed> {
        self.get_mut(&key.stream).filter(|feed| feed.serial == key.serial)
    }
}
