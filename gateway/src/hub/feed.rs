//! One stream on this node: a room with its members here, or the inbox of one session.
//!
//! [`StreamFeed`] joins the node's position in the stream, its subscribers, the events pending for them, and the summed
//! changes of a room's members. Invariant: every subscriber receives the same events in one order; a member that is
//! joining has them buffered, as far as [`SLOW_READER`] allows. The hub calls it under its lock; only a join writes to
//! an outbox here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use presence::host::failpoints::{self, Failpoint};
use presence::model::moderation::Moderation;
use presence::model::{PresenceDelta, SessionId};

use super::member_changes;
use super::position::{StreamPosition, StreamStep, StreamTracker};
use super::scheduler::{FanOutJob, PendingEvents};
use super::subscribers::{
    EVENT_OVERHEAD_BYTES, JoinBuffer, Recipient, Sequenced, StreamSubscriber, SubscriberMap, gap_event,
};
use super::written::WrittenSeq;
use crate::message::ChatMessage;
use crate::outbound::outbox::{Broadcast, Outbox};
use crate::outbound::policy::SLOW_READER;
use crate::wire::Event;

/// A request to complete a join at the client's position.
#[derive(Debug)]
pub struct FeedJoin<'a> {
    /// The stream's name for the client: the room's name, or the client's own nick.
    pub display: &'a str,
    /// The session that joins.
    pub session: &'a SessionId,
    /// Its connection.
    pub outbox: &'a Outbox,
    /// Epoch of the client's position.
    pub epoch: &'a str,
    /// The last seq that the client has.
    pub after: u64,
}

/// The state of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinProgress {
    /// Nothing is left to do: live delivery has begun, or the join was cancelled.
    Entered,
    /// The client lacks events that are no longer buffered: replay them from the stream, and retry.
    Behind,
}

/// The subscribers of one stream and its position.
#[derive(Debug)]
pub(super) struct StreamFeed {
    /// Unique per feed, so a stale job does not match a new one.
    pub(super) serial: u64,
    display: Arc<str>,
    pub(super) tracker: StreamTracker<ChatMessage>,
    members: SubscriberMap<FeedMember>,
    /// The live members; `None` after a change.
    recipients: Option<Arc<[Recipient]>>,
    pub(super) pending: PendingEvents,
    /// The progress into the outboxes of the members.
    pub(super) written: WrittenSeq,
    /// The members version of the last change.
    members_version: Option<u64>,
    /// The changes since the last presence event.
    members_changes: Vec<PresenceDelta>,
    resync: bool,
}

#[derive(Debug)]
enum FeedMember {
    /// Joining: new events are buffered.
    Joining(Outbox, Box<JoinBuffer>),
    /// Joined: new events are delivered.
    Live(Recipient),
}

impl FeedMember {
    fn outbox(&self) -> &Outbox {
        match self {
            Self::Joining(outbox, _) => outbox,
            Self::Live(recipient) => &recipient.subscriber.outbox,
        }
    }

    fn recipient(&self) -> Option<Recipient> {
        match self {
            Self::Joining(..) => None,
            Self::Live(recipient) => Some(recipient.clone()),
        }
    }
}

impl StreamFeed {
    pub(super) fn new(display: &str, serial: u64) -> Self {
        Self {
            serial,
            display: display.into(),
            tracker: StreamTracker::default(),
            members: SubscriberMap::default(),
            recipients: None,
            pending: PendingEvents::default(),
            written: WrittenSeq::default(),
            members_version: None,
            members_changes: Vec::new(),
            resync: false,
        }
    }

    pub(super) fn set_display(&mut self, display: &str) {
        self.display = display.into();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Buffers events for a member from now on, in place of an older connection of its session.
    pub(super) fn start_join(&mut self, session: &SessionId, outbox: &Outbox) {
        self.end_subscription(session);
        let member = match failpoints::is_disabled(Failpoint::JoinOrder) {
            false => FeedMember::Joining(outbox.clone(), Box::default()),
            true => FeedMember::Live(Recipient { subscriber: StreamSubscriber::new(outbox.clone()), after: 0 }),
        };
        self.members.insert(session, member);
        self.recipients = None;
    }

    /// Queues the buffered events after the client's position and makes the member live.
    pub(super) fn complete_join(&mut self, request: &FeedJoin<'_>) -> JoinProgress {
        let &FeedJoin { display, session, outbox, epoch, after } = request;
        // The first member here may have typed the name differently.
        if *self.display != *display {
            self.set_display(display);
        }
        let Some(FeedMember::Joining(joining, buffer)) = self.members.get(session) else {
            return JoinProgress::Entered;
        };
        if !joining.is_same(outbox) {
            return JoinProgress::Entered;
        }
        let Some(position) = self.tracker.position().filter(|position| position.epoch == epoch) else {
            return JoinProgress::Behind;
        };
        if after < position.seq {
            if !buffer.covers(after + 1) {
                return JoinProgress::Behind;
            }
            for event in buffer.parts_after(after, &self.display) {
                outbox.push_event(&event);
            }
        }
        for announcement in buffer.announcements() {
            outbox.push_event(announcement);
        }
        let subscriber = StreamSubscriber::new(outbox.clone());
        let recipient = Recipient { subscriber, after: after.max(position.seq) };
        self.members.insert(session, FeedMember::Live(recipient));
        self.recipients = None;
        JoinProgress::Entered
    }

    /// Removes a member, unless it has joined over another connection.
    pub(super) fn leave(&mut self, session: &SessionId, outbox: &Outbox) {
        if self.members.get(session).is_some_and(|member| member.outbox().is_same(outbox)) {
            self.end_subscription(session);
        }
    }

    fn end_subscription(&mut self, session: &SessionId) {
        if let Some(FeedMember::Live(recipient)) = self.members.remove(session) {
            recipient.subscriber.leave();
            self.recipients = None;
        }
    }

    /// Starts the next pending batch.
    pub(super) fn start_job(&mut self, now: Instant) -> Option<FanOutJob> {
        let Self { pending, display, members, recipients, .. } = self;
        pending.start_job(now, display, || Arc::clone(recipients.get_or_insert_with(|| live_recipients(members))))
    }

    /// Handles a message from the subscription, or defers it to a refill while too much is pending.
    pub(super) fn receive(&mut self, epoch: &str, message: ChatMessage) {
        if self.pending.is_full() {
            return self.tracker.defer(epoch, message.seq);
        }
        let mut steps = Vec::new();
        self.tracker.receive(epoch, message.seq, message, &mut steps);
        self.apply_steps(steps);
    }

    /// Passes the tracker's steps on to every member.
    pub(super) fn apply_steps(&mut self, steps: Vec<StreamStep<ChatMessage>>) {
        for step in steps {
            match step {
                StreamStep::Message(seq, mut message) => {
                    // The stream does not store the display form of a name.
                    (*self.display).clone_into(&mut message.to);
                    let size = message.body.json().len() + message.name_bytes() + EVENT_OVERHEAD_BYTES;
                    let event = Broadcast::new(Event::Message(message));
                    self.push(Sequenced { from: seq, to: seq, size, is_message: true, event });
                }
                StreamStep::Gap { from, to } => {
                    tracing::info!(stream = &*self.display, from_seq = from, to_seq = to, "messages lost");
                    let event = gap_event(&self.display, from, to);
                    self.push(Sequenced { from, to, size: EVENT_OVERHEAD_BYTES, is_message: false, event });
                }
                StreamStep::EpochChanged { previous, epoch, shared_seq } => {
                    self.apply_epoch(&previous, &epoch, shared_seq)
                }
            }
        }
    }

    /// Adds a change of the members. A jump in versions means that a change was missed: members receive `resync`.
    pub(super) fn change_members(&mut self, version: u64, delta: PresenceDelta) {
        self.resync |= self.members_version.is_some_and(|last| version != last + 1);
        self.members_version = Some(version);
        member_changes::add(&mut self.members_changes, delta);
        if member_changes::count(&self.members_changes) > SLOW_READER.presence_changes_max {
            self.members_changes = Vec::new();
            self.resync = true;
        }
    }

    /// Records that member changes may be missing.
    pub(super) fn mark_members_unverified(&mut self) {
        self.members_version = None;
        self.resync = true;
    }

    /// Pushes the member changes: as one event, unless a nickname changed more than once.
    pub(super) fn flush_presence(&mut self) {
        let mut parts = std::mem::take(&mut self.members_changes);
        let resync = std::mem::take(&mut self.resync);
        if resync && parts.is_empty() {
            parts.push(PresenceDelta::default());
        }
        for (index, delta) in parts.into_iter().enumerate() {
            let event = Event::Presence { room: (*self.display).to_owned(), delta, resync: resync && index == 0 };
            self.pending.push(Sequenced::unnumbered(Broadcast::new(event)));
        }
    }

    /// Pushes the actions of moderators for every member, each as an event of its own.
    pub(super) fn push_moderation(&mut self, notices: Vec<Moderation>) {
        for notice in notices {
            let event = Event::Moderation { room: (*self.display).to_owned(), notice: Box::new(notice) };
            self.pending.push(Sequenced::unnumbered(Broadcast::new(event)));
        }
    }

    /// Pushes a typing event for every member but the session that types.
    pub(super) fn push_typing(&mut self, by: Option<&SessionId>, from: &str) {
        let event = Broadcast::new(Event::Typing { to: (*self.display).to_owned(), from: from.to_owned() });
        let others = self.members.iter().filter(|(session, _)| Some(*session) != by).map(|(_, member)| member);
        self.pending.push_for(event, others.filter_map(FeedMember::recipient).collect());
    }

    /// Returns the live recipient of an announcement in this inbox. A joining one buffers it.
    pub(super) fn announce(&mut self, event: &Arc<Broadcast>) -> Option<Recipient> {
        match self.members.values_mut().next()? {
            FeedMember::Live(recipient) => Some(recipient.clone()),
            FeedMember::Joining(_, buffer) => {
                buffer.push_announcement(Arc::clone(event));
                None
            }
        }
    }

    fn push(&mut self, event: Sequenced) {
        for member in self.members.values_mut() {
            if let FeedMember::Joining(_, buffer) = member {
                buffer.push(event.clone());
            }
        }
        self.pending.push(event);
    }

    /// Sends each member `epoch` or `rewound`, depending on its position. Positions differ after a replay or a later
    /// join.
    fn apply_epoch(&mut self, previous: &StreamPosition, epoch: &str, shared_seq: u64) {
        tracing::info!(stream = &*self.display, epoch, seq = previous.seq, shared = shared_seq, "epoch changed");
        let before = self.recipients.take().unwrap_or_else(|| live_recipients(&self.members));
        self.pending.freeze_recipients(&before);
        self.written.rewind(shared_seq);
        let (mut rewound, mut continued) = (Vec::new(), BTreeMap::<u64, Vec<Recipient>>::new());
        for member in self.members.values_mut() {
            match member {
                FeedMember::Live(recipient) => {
                    let seq = previous.seq.max(recipient.after);
                    if seq > shared_seq {
                        recipient.after = shared_seq;
                        rewound.push(recipient.clone());
                    } else if previous.epoch != epoch {
                        continued.entry(seq).or_default().push(recipient.clone());
                    }
                }
                FeedMember::Joining(_, buffer) => buffer.forget_events(),
            }
        }
        let (to, epoch) = (&self.display, epoch.to_owned());
        if !rewound.is_empty() {
            let event = Event::Rewound { to: (**to).to_owned(), epoch: epoch.clone(), seq: shared_seq };
            self.pending.push_for(Broadcast::new(event), rewound);
        }
        for (seq, recipients) in continued {
            let event = Event::Epoch { to: (**to).to_owned(), epoch: epoch.clone(), seq };
            self.pending.push_for(Broadcast::new(event), recipients);
        }
    }
}

fn live_recipients(members: &SubscriberMap<FeedMember>) -> Arc<[Recipient]> {
    members.values().filter_map(FeedMember::recipient).collect()
}
