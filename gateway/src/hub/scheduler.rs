//! What logs have given out, on its way to everybody who hears them: rounds, and whose turn it is.
//!
//! An audience puts in what its log gives out, under the hub's lock; the node's tasks carry it out ([`crate::hub::Hub::fan_out`])
//! without it. While a round is under way the next one gathers, so rounds grow with the load by themselves: at rest one
//! holds one message and waits for nothing. What comes in meanwhile never changes a round that has begun.
//!
//! # Fairness
//! A log has one round under way. After [`PORTION`] writes a node's task goes on with the next log, and a round that is
//! not over goes behind them all: a message in a small room waits for a portion of each busy room, never for a crowd.
//!
//! A round that took long is followed by a rest of its log, as long as the round was. So no crowd takes more than half of
//! its node's time: what else the node does, to hear the next messages above all, is not late, and as the round that
//! gathers meanwhile is larger, each message costs fewer writes. Messages are shown later by half a round, and sooner by
//! the queues that do not form.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::message::Accepted;
use crate::outbound::outbox::{Broadcast, FanOutBatch, Outbox, PushOutcome};
use crate::wire::Event;

/// Connections that are written to before others have their turn.
pub(super) const PORTION: usize = 64;
/// Bytes of a round, so that one connection is not kept for long and what it does not take is little. One event always
/// fits.
const ROUND_BYTES: usize = 64 * 1024;
/// Bytes that wait for their turn in one log before its node stops to listen and reads the log instead.
const FULL_BYTES: usize = 4 * 1024 * 1024;
/// A round that took so long was one to a crowd.
const LONG: Duration = Duration::from_millis(1);

/// An event and the seqs that it covers.
#[derive(Debug, Clone)]
pub(super) struct Sequenced {
    pub(super) from: u64,
    pub(super) to: u64,
    /// About how long it is.
    pub(super) size: usize,
    /// Whether somebody said it.
    pub(super) is_message: bool,
    pub(super) event: Arc<Broadcast>,
}

impl Sequenced {
    /// An event outside of the counting: for everybody, wherever they are.
    pub(super) fn aside(event: Arc<Broadcast>) -> Self {
        Self { from: u64::MAX, to: u64::MAX, size: 0, is_message: false, event }
    }

    /// What of it is new to somebody who has everything up to `after`.
    pub(super) fn rest(&self, after: u64, display: &str) -> Option<Arc<Broadcast>> {
        if self.to <= after {
            return None;
        }
        if self.from > after {
            return Some(Arc::clone(&self.event));
        }
        // Only a gap covers several: what the member has of it is not gone.
        Some(gap(display, after + 1, self.to))
    }

    fn is_new_message(&self, after: u64) -> bool {
        self.is_message && self.to > after
    }

    fn is_aside(&self) -> bool {
        self.from == u64::MAX
    }
}

pub(super) fn gap(display: &str, from_seq: u64, to_seq: u64) -> Arc<Broadcast> {
    Broadcast::new(Event::Gap { to: display.to_owned(), from_seq, to_seq })
}

/// A connection that hears a log, for as long as it does.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) outbox: Outbox,
    hears: AtomicBool,
}

impl Subscriber {
    pub(super) fn new(outbox: Outbox) -> Arc<Self> {
        Arc::new(Self { outbox, hears: AtomicBool::new(true) })
    }

    /// Nothing of the log is given to it any more, whatever is on its way.
    pub(super) fn leave(&self) {
        self.hears.store(false, Ordering::Release);
    }
}

/// Who gets a round, and what they have already.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) seat: Arc<Subscriber>,
    /// Everything after this seq is new to it.
    pub(super) after: u64,
}

/// What a log has given out and nobody has been given yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    gathered: VecDeque<PendingBatch>,
    bytes: usize,
    is_turning: bool,
}

#[derive(Debug)]
struct PendingBatch {
    events: Vec<Sequenced>,
    bytes: usize,
    /// Whom it is for; `None`: whoever hears the log when its turn begins.
    hearers: Option<Arc<[Recipient]>>,
}

impl Waiting {
    /// Adds an event for all. It goes with the one before it, unless that one is on its way or the round would be large.
    pub(super) fn add(&mut self, event: Sequenced) {
        self.bytes += event.size;
        let is_fitting = |last: &&mut PendingBatch| {
            let is_alone = event.is_aside() || last.events.last().is_some_and(Sequenced::is_aside);
            last.hearers.is_none() && !is_alone && last.bytes + event.size <= ROUND_BYTES
        };
        if let Some(last) = self.gathered.back_mut().filter(is_fitting) {
            last.bytes += event.size;
            last.events.push(event);
        } else {
            self.gathered.push_back(PendingBatch { bytes: event.size, events: vec![event], hearers: None });
        }
    }

    /// Adds an event for these alone.
    pub(super) fn add_for(&mut self, event: Arc<Broadcast>, hearers: Vec<Recipient>) {
        let events = vec![Sequenced::aside(event)];
        self.gathered.push_back(PendingBatch { events, bytes: 0, hearers: Some(hearers.into()) });
    }

    /// Settles for whom everything is that waits: what they have changes its meaning from here on.
    pub(super) fn settle(&mut self, hearers: &Arc<[Recipient]>) {
        for gathered in &mut self.gathered {
            gathered.hearers.get_or_insert_with(|| Arc::clone(hearers));
        }
    }

    /// Whether so much waits that more of it is better read from the log later.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    /// Whether a turn has to be asked for. Counts as asked for from here on.
    pub(super) fn asks_for_turn(&mut self) -> bool {
        !self.gathered.is_empty() && !std::mem::replace(&mut self.is_turning, true)
    }

    /// The turn is over. Returns whether another round waits; if not, the next event has to ask for a turn.
    pub(super) fn end_turn(&mut self) -> bool {
        self.is_turning = !self.gathered.is_empty();
        self.is_turning
    }

    /// The next round.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        display: &Arc<str>,
        hearers: impl FnOnce() -> Arc<[Recipient]>,
    ) -> Option<FanOutJob> {
        let PendingBatch { events, bytes, hearers: settled } = self.gathered.pop_front()?;
        self.bytes -= bytes;
        let hearers = settled.unwrap_or_else(hearers);
        let round = FanOutBatch::new(events.iter().map(|numbered| Arc::clone(&numbered.event)).collect());
        Some(FanOutJob { begun: now, round, events, display: Arc::clone(display), hearers, next: 0, deliveries: 0 })
    }
}

/// A round under way.
#[derive(Debug)]
pub(super) struct FanOutJob {
    begun: Instant,
    round: FanOutBatch,
    events: Vec<Sequenced>,
    display: Arc<str>,
    hearers: Arc<[Recipient]>,
    /// The first who has not been given it.
    next: usize,
    /// Messages that went out or wait to, each counted for each connection.
    deliveries: u64,
}

/// What came of a portion.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// Connections that had their turn.
    pub(super) hearers: usize,
    /// Sockets that took what they were given at once.
    pub(super) written: u64,
    /// Events that outboxes left out.
    pub(super) left_out: u64,
}

impl FanOutJob {
    /// Gives the round to the next of them, `most` at most.
    pub(super) fn go_on(&mut self, most: usize) -> Given {
        let end = self.hearers.len().min(self.next + most);
        let mut given = Given { hearers: end - self.next, ..Given::default() };
        for hearer in &self.hearers[self.next..end] {
            self.deliveries += self.give(hearer, &mut given);
        }
        self.next = end;
        given
    }

    pub(super) fn is_over(&self) -> bool {
        self.next == self.hearers.len()
    }

    /// How long its log rests after it, now that it is over; `None`: not at all.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let took = now.duration_since(self.begun);
        (took >= LONG).then_some(took)
    }

    /// When the oldest message of the round was accepted.
    pub(super) fn accepted(&self) -> Accepted {
        self.round.accepted()
    }

    /// Messages that went out so far or wait to, each counted for each connection.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Returns how many messages it were.
    fn give(&self, hearer: &Recipient, given: &mut Given) -> u64 {
        let Recipient { seat, after } = hearer;
        let is_all_new = self.events.first().is_none_or(|first| first.from > *after);
        let pushed = if is_all_new {
            seat.outbox.round(&self.round, &seat.hears)
        } else {
            // It has read ahead: a round of its own, of what it lacks.
            let lacks = self.events.iter().filter_map(|event| event.rest(*after, &self.display));
            seat.outbox.round(&FanOutBatch::new(lacks.collect()), &seat.hears)
        };
        match pushed {
            PushOutcome::LeftOut => {
                given.left_out += 1;
                return 0;
            }
            PushOutcome::Written => given.written += 1,
            PushOutcome::Taken => {}
        }
        self.events.iter().filter(|event| event.is_new_message(*after)).count() as u64
    }
}
