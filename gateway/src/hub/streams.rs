//! Those on this node who hear one log: the members of a room, or the one session whose inbox it is. Holds the node's
//! position in the log, and what is to be shown of the comings and goings in a room.
//!
//! The hub calls it under its lock, and nothing here writes to anybody but who just enters: what the position gives out
//! waits for its turn ([`crate::hub::scheduler`]) and goes to every member alike, in one order. A member that is on its way in has
//! it kept for it, as far as it is worth it: the log has the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use presence::host::failpoints::{self, Failpoint};
use presence::model::{PresenceDelta, SessionId};

use crate::hub::position::{Step, StreamPosition, StreamTracker};
use crate::hub::scheduler::{FanOutJob, Recipient, Sequenced, Subscriber, Waiting, gap};
use crate::hub::subscribers::Members;
use crate::hub::{JoinProgress, coalesce};
use crate::message::ChatMessage;
use crate::outbound::outbox::{Broadcast, Outbox};
use crate::wire::Event;

/// Bytes that are kept for one member on its way in: with what its outbox may hold by then, they fit in.
const KEPT_BYTES: usize = 96 * 1024;
/// What a kept event is counted as beside its body.
const KEPT_EACH: usize = 256;

/// Changes of a room's members that are shown one by one. When more come in one round, as when a gateway is lost or a
/// crowd comes back, members are told to ask again: the list of them all would fill the outbox of everybody in the room.
const MAX_SHOWN: usize = 256;

/// Who hears a log, and how far.
#[derive(Debug)]
pub(super) struct StreamFeed {
    /// Which of those that this log has had on this node, one after the other.
    pub(super) serial: u64,
    display: Arc<str>,
    pub(super) position: StreamTracker<ChatMessage>,
    members: Members<Member>,
    /// The members that are in; `None` after one has come or gone.
    hearers: Option<Arc<[Recipient]>>,
    pub(super) waiting: Waiting,
    /// The members version of the last change seen, once there was one.
    version: Option<u64>,
    /// Seldom there, and large.
    delta: Option<Box<PresenceDelta>>,
    resync: bool,
}

#[derive(Debug)]
enum Member {
    /// On its way in; what comes meanwhile is kept.
    Entering(Outbox, Box<JoinBuffer>),
    /// Everything that is new to it goes out.
    Live(Recipient),
}

impl Member {
    fn outbox(&self) -> &Outbox {
        match self {
            Self::Entering(outbox, _) => outbox,
            Self::Live(hearer) => &hearer.seat.outbox,
        }
    }

    fn hearer(&self) -> Option<Recipient> {
        match self {
            Self::Entering(..) => None,
            Self::Live(hearer) => Some(hearer.clone()),
        }
    }
}

/// The newest events of a room without a hole between them, oldest first.
#[derive(Debug, Default)]
struct JoinBuffer {
    events: VecDeque<Sequenced>,
    bytes: usize,
}

impl StreamFeed {
    pub(super) fn new(display: &str, serial: u64) -> Self {
        Self {
            serial,
            display: display.into(),
            position: StreamTracker::default(),
            members: Members::default(),
            hearers: None,
            waiting: Waiting::default(),
            version: None,
            delta: None,
            resync: false,
        }
    }

    /// It goes by another name.
    pub(super) fn rename(&mut self, display: &str) {
        self.display = display.into();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Keeps what comes for a member that is about to enter.
    pub(super) fn prepare(&mut self, session: &SessionId, outbox: &Outbox) {
        self.vacate(session);
        let member = match failpoints::takes(Failpoint::HoldBack) {
            false => Member::Entering(outbox.clone(), Box::default()),
            true => Member::Live(Recipient { seat: Subscriber::new(outbox.clone()), after: 0 }),
        };
        self.members.insert(session, member);
        self.hearers = None;
    }

    /// See [`crate::hub::Hub::admit`].
    pub(super) fn admit(
        &mut self,
        name: &str,
        (session, outbox): (&SessionId, &Outbox),
        epoch: &str,
        after: u64,
    ) -> JoinProgress {
        // The first one here may have typed it otherwise.
        if *self.display != *name {
            self.display = name.into();
        }
        let Some(Member::Entering(of, kept)) = self.members.get(session) else { return JoinProgress::Entered };
        if !of.is(outbox) {
            return JoinProgress::Entered;
        }
        let Some(place) = self.position.place().filter(|place| place.epoch == epoch) else {
            return JoinProgress::Behind;
        };
        if after < place.seq {
            if !kept.covers(after + 1) {
                return JoinProgress::Behind;
            }
            for event in kept.events.iter().filter_map(|event| event.rest(after, &self.display)) {
                outbox.event(&event);
            }
        }
        let hearer = Recipient { seat: Subscriber::new(outbox.clone()), after: after.max(place.seq) };
        self.members.insert(session, Member::Live(hearer));
        self.hearers = None;
        JoinProgress::Entered
    }

    pub(super) fn remove(&mut self, session: &SessionId, outbox: &Outbox) {
        if self.members.get(session).is_some_and(|member| member.outbox().is(outbox)) {
            self.vacate(session);
        }
    }

    /// Whoever has the place of this session hears nothing more.
    fn vacate(&mut self, session: &SessionId) {
        if let Some(Member::Live(hearer)) = self.members.remove(session) {
            hearer.seat.leave();
            self.hearers = None;
        }
    }

    /// The next round of what waits.
    pub(super) fn begin_turn(&mut self, now: Instant) -> Option<FanOutJob> {
        let Self { waiting, display, members, hearers, .. } = self;
        waiting.begin(now, display, || Arc::clone(hearers.get_or_insert_with(|| live(members))))
    }

    /// A message came over the subscription. When too much waits to be given out already it is left to the log.
    pub(super) fn arrived(&mut self, epoch: &str, message: ChatMessage) {
        if self.waiting.is_full() {
            return self.position.passed_over(epoch, message.seq);
        }
        let mut steps = Vec::new();
        self.position.arrived(epoch, message.seq, message, &mut steps);
        self.take(steps);
    }

    /// Gives every member what the position gave out.
    pub(super) fn take(&mut self, steps: Vec<Step<ChatMessage>>) {
        for step in steps {
            match step {
                Step::Message(seq, mut message) => {
                    // The store does not know how a nick is shown.
                    (*self.display).clone_into(&mut message.to);
                    let size = message.body.json().len() + KEPT_EACH;
                    let event = Broadcast::new(Event::Message(message));
                    self.spread(Sequenced { from: seq, to: seq, size, is_message: true, event });
                }
                Step::Gap { from, to } => {
                    tracing::info!(to = &*self.display, from, through = to, "messages are gone from the log");
                    let event = gap(&self.display, from, to);
                    self.spread(Sequenced { from, to, size: KEPT_EACH, is_message: false, event });
                }
                Step::EpochChanged { was, epoch, shared } => self.turn(&was, &epoch, shared),
            }
        }
    }

    /// Adds a change of the members. A jump in versions means that a change was missed: the sum would be wrong, so members
    /// are told to ask again.
    pub(super) fn change(&mut self, version: u64, delta: PresenceDelta) {
        self.resync |= self.version.is_some_and(|last| version != last + 1);
        self.version = Some(version);
        let sum = self.delta.get_or_insert_default();
        coalesce::add(sum, delta);
        if coalesce::count(sum) > MAX_SHOWN {
            self.delta = None;
            self.resync = true;
        }
    }

    /// Nobody knows which changes were missed.
    pub(super) fn missed_changes(&mut self) {
        self.version = None;
        self.resync = true;
    }

    /// Shows the members what changed since the last call, as one event.
    pub(super) fn show_presence(&mut self) {
        let delta = self.delta.take().map_or_else(PresenceDelta::default, |delta| *delta);
        let resync = std::mem::take(&mut self.resync);
        if coalesce::count(&delta) > 0 || resync {
            let event = Event::Presence { room: (*self.display).to_owned(), delta, resync };
            self.waiting.add(Sequenced::aside(Broadcast::new(event)));
        }
    }

    /// Shows everybody but the one who is writing that they do.
    pub(super) fn show_typing(&mut self, by: Option<&SessionId>, from: &str) {
        let event = Broadcast::new(Event::Typing { to: (*self.display).to_owned(), from: from.to_owned() });
        let others = self.members.iter().filter(|(session, _)| Some(*session) != by).map(|(_, member)| member);
        self.waiting.add_for(event, others.filter_map(Member::hearer).collect());
    }

    fn spread(&mut self, event: Sequenced) {
        for member in self.members.values_mut() {
            if let Member::Entering(_, kept) = member {
                kept.add(event.clone());
            }
        }
        self.waiting.add(event);
    }

    /// Tells each member what of it still holds: who has read ahead, or begun later, has its own answer.
    fn turn(&mut self, was: &StreamPosition, epoch: &str, shared: u64) {
        tracing::info!(to = &*self.display, epoch, seq = was.seq, shared, "the log has another history");
        let before = self.hearers.take().unwrap_or_else(|| live(&self.members));
        self.waiting.settle(&before);
        let (mut rewound, mut told) = (Vec::new(), BTreeMap::<u64, Vec<Recipient>>::new());
        for member in self.members.values_mut() {
            match member {
                Member::Live(hearer) => {
                    let has = was.seq.max(hearer.after);
                    if has > shared {
                        hearer.after = shared;
                        rewound.push(hearer.clone());
                    } else if was.epoch != epoch {
                        told.entry(has).or_default().push(hearer.clone());
                    }
                }
                Member::Entering(_, kept) => **kept = JoinBuffer::default(),
            }
        }
        let (to, epoch) = (&self.display, epoch.to_owned());
        if !rewound.is_empty() {
            let event = Event::Rewound { to: (**to).to_owned(), epoch: epoch.clone(), seq: shared };
            self.waiting.add_for(Broadcast::new(event), rewound);
        }
        for (seq, hearers) in told {
            let event = Event::Epoch { to: (**to).to_owned(), epoch: epoch.clone(), seq };
            self.waiting.add_for(Broadcast::new(event), hearers);
        }
    }
}

fn live(members: &Members<Member>) -> Arc<[Recipient]> {
    members.values().filter_map(Member::hearer).collect()
}

impl JoinBuffer {
    fn add(&mut self, event: Sequenced) {
        self.bytes += event.size;
        self.events.push_back(event);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.size;
        }
    }

    /// Whether everything from this seq on is kept.
    fn covers(&self, seq: u64) -> bool {
        self.events.front().is_some_and(|oldest| oldest.from <= seq)
    }
}
