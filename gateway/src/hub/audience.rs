//! Those on this node who hear one log: the members of a room, or the one session whose inbox it is. Holds the node's
//! position in the log, and what is to be shown of the comings and goings in a room.
//!
//! The hub calls it under its lock. What the position gives out goes to every member alike, in one order; a member that
//! is on its way in has it kept for it, as far as it is worth it: the log has the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use presence::model::{PresenceDelta, SessionId};

use super::position::{Place, Position, Step};
use super::{Admission, coalesce};
use crate::message::ChatMessage;
use crate::session::outbox::{Broadcast, Outbox, Pushed};
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
pub(super) struct Audience {
    display: String,
    pub(super) position: Position<ChatMessage>,
    members: HashMap<SessionId, Member>,
    /// The members version of the last change seen, once there was one.
    version: Option<u64>,
    delta: PresenceDelta,
    resync: bool,
}

#[derive(Debug)]
struct Member {
    outbox: Outbox,
    entry: Entry,
}

#[derive(Debug)]
enum Entry {
    /// On its way in; what comes meanwhile is kept.
    Waiting(Kept),
    /// Everything after this seq goes out.
    Live(u64),
}

/// The newest events of a room without a hole between them, oldest first.
#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Numbered>,
    bytes: usize,
}

/// An event and the seqs that it covers.
#[derive(Debug, Clone)]
struct Numbered {
    from: u64,
    to: u64,
    size: usize,
    event: Arc<Broadcast>,
}

impl Audience {
    pub(super) fn new(display: &str) -> Self {
        Self {
            display: display.to_owned(),
            position: Position::default(),
            members: HashMap::new(),
            version: None,
            delta: PresenceDelta::default(),
            resync: false,
        }
    }

    /// Of a session that has just begun: whatever comes into its inbox is for it.
    pub(super) fn of_new_session(nick: &str, session: &SessionId, outbox: &Outbox) -> Self {
        let member = Member { outbox: outbox.clone(), entry: Entry::Live(0) };
        let members = HashMap::from([(session.clone(), member)]);
        Self { position: Position::at_start(), members, ..Self::new(nick) }
    }

    /// It goes by another name.
    pub(super) fn rename(&mut self, display: &str) {
        display.clone_into(&mut self.display);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Keeps what comes for a member that is about to enter.
    pub(super) fn prepare(&mut self, session: &SessionId, outbox: &Outbox) {
        let member = Member { outbox: outbox.clone(), entry: Entry::Waiting(Kept::default()) };
        self.members.insert(session.clone(), member);
    }

    /// See [`super::Hub::admit`].
    pub(super) fn admit(&mut self, name: &str, session: &SessionId, epoch: &str, after: u64) -> Admission {
        // The first one here may have typed it otherwise.
        name.clone_into(&mut self.display);
        let Some(member) = self.members.get_mut(session) else { return Admission::Entered };
        let Entry::Waiting(kept) = &member.entry else { return Admission::Entered };
        let Some(place) = self.position.place().filter(|place| place.epoch == epoch) else { return Admission::Behind };
        if after < place.seq {
            if !kept.covers(after + 1) {
                return Admission::Behind;
            }
            for event in &kept.events {
                event.give(&member.outbox, after, &self.display);
            }
        }
        member.entry = Entry::Live(after.max(place.seq));
        Admission::Entered
    }

    pub(super) fn remove(&mut self, session: &SessionId) -> bool {
        self.members.remove(session).is_some()
    }

    /// Gives every member what the position gave out. Returns how many messages went into outboxes.
    pub(super) fn take(&mut self, steps: Vec<Step<ChatMessage>>) -> u64 {
        let mut delivered = 0;
        for step in steps {
            match step {
                Step::Message(seq, mut message) => {
                    // The store does not know how a nick is shown.
                    self.display.clone_into(&mut message.to);
                    let size = message.body.json().len() + KEPT_EACH;
                    let event = Broadcast::new(Event::Message(message));
                    delivered += self.spread(&Numbered { from: seq, to: seq, size, event });
                }
                Step::Gap { from, to } => {
                    tracing::info!(to = self.display, from, through = to, "messages are gone from the log");
                    let event = gap(&self.display, from, to);
                    self.spread(&Numbered { from, to, size: KEPT_EACH, event });
                }
                Step::Turn { was, epoch, shared } => self.turn(&was, &epoch, shared),
            }
        }
        delivered
    }

    /// Adds a change of the members. A jump in versions means that a change was missed: the sum would be wrong, so members
    /// are told to ask again.
    pub(super) fn change(&mut self, version: u64, delta: PresenceDelta) {
        self.resync |= self.version.is_some_and(|last| version != last + 1);
        self.version = Some(version);
        coalesce::add(&mut self.delta, delta);
        if coalesce::count(&self.delta) > MAX_SHOWN {
            self.delta = PresenceDelta::default();
            self.resync = true;
        }
    }

    /// Nobody knows which changes were missed.
    pub(super) fn missed_changes(&mut self) {
        self.version = None;
        self.resync = true;
    }

    /// Shows the members what changed since the last call, as one event. Returns how many outboxes left it out.
    pub(super) fn show_presence(&mut self) -> u64 {
        let delta = std::mem::take(&mut self.delta);
        let resync = std::mem::take(&mut self.resync);
        if coalesce::count(&delta) == 0 && !resync {
            return 0;
        }
        let event = Broadcast::new(Event::Presence { room: self.display.clone(), delta, resync });
        let live = self.members.values().filter(|member| matches!(member.entry, Entry::Live(_)));
        live.filter(|member| member.outbox.event(&event) == Pushed::LeftOut).count() as u64
    }

    fn spread(&mut self, event: &Numbered) -> u64 {
        let mut receivers = 0;
        for member in self.members.values_mut() {
            match &mut member.entry {
                Entry::Live(after) => receivers += u64::from(event.give(&member.outbox, *after, &self.display)),
                Entry::Waiting(kept) => kept.add(event.clone()),
            }
        }
        receivers
    }

    /// Tells each member what of it still holds: who has read ahead, or begun later, has its own answer.
    fn turn(&mut self, was: &Place, epoch: &str, shared: u64) {
        let is_first = was.epoch.is_empty();
        if !is_first {
            tracing::info!(to = self.display, epoch, seq = was.seq, shared, "the log has another history");
        }
        let (to, epoch) = (&self.display, epoch.to_owned());
        let rewound = Broadcast::new(Event::Rewound { to: to.clone(), epoch: epoch.clone(), seq: shared });
        for member in self.members.values_mut() {
            match &mut member.entry {
                Entry::Live(after) => {
                    let has = was.seq.max(*after);
                    if has > shared {
                        member.outbox.event(&rewound);
                        *after = shared;
                    } else if was.epoch != epoch && !is_first {
                        let event = Event::Epoch { to: to.clone(), epoch: epoch.clone(), seq: has };
                        member.outbox.event(&Broadcast::new(event));
                    }
                }
                Entry::Waiting(kept) => *kept = Kept::default(),
            }
        }
    }
}

impl Kept {
    fn add(&mut self, event: Numbered) {
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

impl Numbered {
    /// Gives it to a member that has everything up to `after`. Returns whether there was anything new in it.
    fn give(&self, outbox: &Outbox, after: u64, display: &str) -> bool {
        if self.to <= after {
            return false;
        }
        if self.from > after {
            outbox.event(&self.event);
        } else {
            // Only a gap covers several: what the member has of it is not gone.
            outbox.event(&gap(display, after + 1, self.to));
        }
        true
    }
}

fn gap(display: &str, from_seq: u64, to_seq: u64) -> Arc<Broadcast> {
    Broadcast::new(Event::Gap { to: display.to_owned(), from_seq, to_seq })
}
