//! Fan-out: what a stream has to write, in batches, and which stream is next.
//!
//! A feed pushes events into its [`PendingEvents`] under the hub's lock; fan-out tasks write them without the lock, one
//! [`FanOutJob`] after the other from the [`JobQueue`] ([`crate::hub::Hub::fan_out`]). Invariant: a job never changes
//! once started; events that arrive meanwhile form the next batch. So batches grow with the load, and an idle stream
//! writes each message at once. Knows neither positions nor the table of streams.
//!
//! # Fairness
//! A stream has at most one job. After [`PORTION_WRITES`] writes the job moves to the end of the queue, so a small
//! room waits for one portion of each busy room.
//!
//! After a fan-out of 1 ms or longer the room pauses for the same time. So one large room uses at most half of the
//! node, which uses the other half to receive. The next batch grows during the pause: fewer writes for each message, a
//! slightly later delivery, and no growing queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::SessionId;
use presence::model::stream::StreamId;

use super::subscribers::{Recipient, Sequenced};
use crate::message::Accepted;
use crate::outbound::outbox::{Broadcast, FanOutBatch, PushOutcome};

/// Writes after which the next job continues.
pub(super) const PORTION_WRITES: usize = 64;
/// Bytes of one batch, unless a single event is larger. Bounds the time of one write and the remainder that a socket
/// refuses.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Pending bytes of one stream above which the node defers its messages and refills them later.
const PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Duration from which a fan-out is followed by a pause.
const PAUSE_AFTER: Duration = Duration::from_millis(1);

/// Events of a stream that no job has started to write.
#[derive(Debug, Default)]
pub(super) struct PendingEvents {
    batches: VecDeque<PendingBatch>,
    bytes: usize,
    /// A job of the stream is queued, running or paused.
    is_scheduled: bool,
}

#[derive(Debug)]
struct PendingBatch {
    events: Vec<Sequenced>,
    bytes: usize,
    /// Fixed recipients; `None` until the job starts.
    recipients: Option<Arc<[Recipient]>>,
}

impl PendingEvents {
    /// Adds an event for all subscribers, to the last batch if it fits.
    pub(super) fn push(&mut self, event: Sequenced) {
        self.bytes += event.size;
        let has_space = |last: &&mut PendingBatch| {
            let is_alone = event.is_unnumbered() || last.events.last().is_some_and(Sequenced::is_unnumbered);
            last.recipients.is_none() && !is_alone && last.bytes + event.size <= BATCH_BYTES_MAX
        };
        if let Some(last) = self.batches.back_mut().filter(has_space) {
            last.bytes += event.size;
            last.events.push(event);
        } else {
            self.batches.push_back(PendingBatch { bytes: event.size, events: vec![event], recipients: None });
        }
    }

    /// Adds an event for these recipients only.
    pub(super) fn push_for(&mut self, event: Arc<Broadcast>, recipients: Vec<Recipient>) {
        let events = vec![Sequenced::unnumbered(event)];
        self.batches.push_back(PendingBatch { events, bytes: 0, recipients: Some(recipients.into()) });
    }

    /// Freezes the recipients of everything pending, because positions mean something else after an epoch change.
    pub(super) fn freeze_recipients(&mut self, recipients: &Arc<[Recipient]>) {
        for batch in &mut self.batches {
            batch.recipients.get_or_insert_with(|| Arc::clone(recipients));
        }
    }

    /// Returns true if new messages are to be deferred.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= PENDING_BYTES_MAX
    }

    /// Returns true if a job has to be queued, once.
    pub(super) fn schedule(&mut self) -> bool {
        !self.batches.is_empty() && !std::mem::replace(&mut self.is_scheduled, true)
    }

    /// Ends a job. Returns true if another batch is pending, which keeps the stream scheduled.
    pub(super) fn reschedule(&mut self) -> bool {
        self.is_scheduled = !self.batches.is_empty();
        self.is_scheduled
    }

    /// Starts the next batch.
    pub(super) fn start_job(
        &mut self,
        now: Instant,
        display: &Arc<str>,
        subscribers: impl FnOnce() -> Arc<[Recipient]>,
    ) -> Option<FanOutJob> {
        let PendingBatch { events, bytes, recipients } = self.batches.pop_front()?;
        self.bytes -= bytes;
        let recipients = recipients.unwrap_or_else(subscribers);
        let batch = FanOutBatch::new(events.iter().map(|sequenced| Arc::clone(&sequenced.event)).collect());
        let display = Arc::clone(display);
        Some(FanOutJob { started_at: now, batch, events, display, recipients, next: 0, deliveries: 0 })
    }
}

/// One batch on its way to its recipients.
#[derive(Debug)]
pub(super) struct FanOutJob {
    started_at: Instant,
    batch: FanOutBatch,
    events: Vec<Sequenced>,
    display: Arc<str>,
    recipients: Arc<[Recipient]>,
    /// Index of the next recipient.
    next: usize,
    deliveries: u64,
}

/// The result of one portion of a job.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortionOutcome {
    /// Recipients that were written to.
    pub(super) recipients: usize,
    /// Sockets that accepted everything at once.
    pub(super) written: u64,
    /// Events that outboxes dropped.
    pub(super) dropped: u64,
}

impl FanOutJob {
    /// Starts the delivery of an announcement.
    pub(super) fn of_announcement(now: Instant, event: Arc<Broadcast>, recipients: Vec<Recipient>) -> Self {
        let (batch, events) = (FanOutBatch::new(vec![Arc::clone(&event)]), vec![Sequenced::unnumbered(event)]);
        let (display, recipients) = ("".into(), recipients.into());
        Self { started_at: now, batch, events, display, recipients, next: 0, deliveries: 0 }
    }

    /// Writes the batch to at most `writes_max` more recipients.
    pub(super) fn write_portion(&mut self, writes_max: usize) -> PortionOutcome {
        let end = self.recipients.len().min(self.next + writes_max);
        let mut outcome = PortionOutcome { recipients: end - self.next, ..PortionOutcome::default() };
        for recipient in &self.recipients[self.next..end] {
            self.deliveries += self.write_to(recipient, &mut outcome);
        }
        self.next = end;
        outcome
    }

    pub(super) fn is_finished(&self) -> bool {
        self.next == self.recipients.len()
    }

    /// The last seq of the batch; `None` for a batch without seqs.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.events.last().filter(|last| !last.is_unnumbered()).map(|last| last.to)
    }

    /// The pause of the stream after the finished job.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let took = now.duration_since(self.started_at);
        (took >= PAUSE_AFTER).then_some(took)
    }

    /// The acceptance time of the oldest message.
    pub(super) fn accepted(&self) -> Accepted {
        self.batch.accepted()
    }

    /// Messages written or queued so far, counted once per recipient.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Returns the number of messages delivered.
    fn write_to(&self, recipient: &Recipient, outcome: &mut PortionOutcome) -> u64 {
        let Recipient { subscriber, after } = recipient;
        let is_all_new = self.events.first().is_none_or(|first| first.from > *after);
        let pushed = if is_all_new {
            subscriber.outbox.push_batch(&self.batch, &subscriber.is_subscribed)
        } else {
            // The recipient has some of these events from its replay: it gets a batch with the others.
            let missing = self.events.iter().filter_map(|event| event.part_after(*after, &self.display));
            subscriber.outbox.push_batch(&FanOutBatch::new(missing.collect()), &subscriber.is_subscribed)
        };
        match pushed {
            PushOutcome::Dropped => {
                outcome.dropped += 1;
                return 0;
            }
            PushOutcome::Written => outcome.written += 1,
            PushOutcome::Queued => {}
        }
        self.events.iter().filter(|event| event.is_new_message(*after)).count() as u64
    }
}

/// One feed of a stream: a stream that was left by all and joined again has another serial.
#[derive(Debug, Clone)]
pub(super) struct FeedKey {
    pub(super) stream: StreamId,
    pub(super) serial: u64,
}

impl FeedKey {
    /// Returns the key of a job that belongs to no stream: serials begin at 1.
    pub(super) fn of_no_stream() -> Self {
        Self { stream: StreamId::Inbox(SessionId::from_store("")), serial: 0 }
    }
}

/// The streams with something to write, in order, and those that pause.
#[derive(Debug, Default)]
pub(super) struct JobQueue {
    /// With the job that continues, or `None` for the next batch.
    ready: VecDeque<(FeedKey, Option<FanOutJob>)>,
    /// With the end of the pause.
    paused: Vec<(Instant, FeedKey)>,
}

impl JobQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn push_back(&mut self, feed: FeedKey, job: Option<FanOutJob>) {
        self.ready.push_back((feed, job));
    }

    pub(super) fn pop_front(&mut self) -> Option<(FeedKey, Option<FanOutJob>)> {
        self.ready.pop_front()
    }

    pub(super) fn pause(&mut self, until: Instant, feed: FeedKey) {
        self.paused.push((until, feed));
    }

    /// Removes the feeds whose pause has ended.
    pub(super) fn end_pauses(&mut self, now: Instant) -> Vec<FeedKey> {
        self.paused.extract_if(.., |(until, _)| *until <= now).map(|(_, feed)| feed).collect()
    }

    /// The end of the first pause.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.paused.iter().map(|(until, _)| *until).min()
    }
}
