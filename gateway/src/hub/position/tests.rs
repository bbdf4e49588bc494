//! The tracker alone: single cases, and random faults after which a listener has every message once and in order, or a
//! report of what is missing.
#![allow(clippy::unwrap_used)]

use presence::model::stream::{Fork, read_forks};
use proptest::prelude::*;

use std::collections::VecDeque;

use super::*;

const E: &str = "e";

fn end(epoch: &str, top: u64) -> StreamEnd {
    StreamEnd { epoch: epoch.to_owned(), seq: top, forks: Vec::new() }
}

/// The end of a stream in `epoch`, which forked from [`E`] after this seq.
fn forked(epoch: &str, fork: u64, top: u64) -> StreamEnd {
    StreamEnd { forks: read_forks(&format!("{E}:{fork}")), ..end(epoch, top) }
}

fn tracker_at(seq: u64) -> StreamTracker<u64> {
    let mut tracker = StreamTracker::default();
    tracker.observe_end(&end(E, seq), &mut Vec::new());
    tracker
}

fn receive(tracker: &mut StreamTracker<u64>, epoch: &str, seq: u64) -> Vec<StreamStep<u64>> {
    let mut steps = Vec::new();
    tracker.receive(epoch, seq, seq, &mut steps);
    steps
}

fn apply_page(
    tracker: &mut StreamTracker<u64>,
    requested_at: &StreamPosition,
    end: StreamEnd,
    seqs: &[u64],
) -> Vec<StreamStep<u64>> {
    let (messages, through) = (seqs.iter().map(|&seq| (seq, seq)).collect(), end.seq);
    let mut steps = Vec::new();
    tracker.apply_page(requested_at, StreamPage { end, messages, through }, &mut steps);
    steps
}

fn apply_end(tracker: &mut StreamTracker<u64>, requested_at: &StreamPosition, end: &StreamEnd) -> Vec<StreamStep<u64>> {
    let mut steps = Vec::new();
    tracker.apply_end(requested_at, end, &mut steps);
    steps
}

fn epoch_changed(seq: u64, highest_seq: u64, shared_seq: u64) -> Vec<StreamStep<u64>> {
    vec![StreamStep::EpochChanged {
        previous: StreamPosition { epoch: E.into(), seq, highest_seq },
        epoch: "f".into(),
        shared_seq,
    }]
}

fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<StreamStep<u64>> {
    seqs.into_iter().map(|seq| StreamStep::Message(seq, seq)).collect()
}

fn take_page_request(tracker: &mut StreamTracker<u64>) -> StreamPosition {
    let Some(RefillRequest::Page(position)) = tracker.take_refill_request() else {
        panic!("the request is for no page: {tracker:?}")
    };
    position
}

fn take_end_request(tracker: &mut StreamTracker<u64>) -> StreamPosition {
    let Some(RefillRequest::End(position)) = tracker.take_refill_request() else {
        panic!("the request is for no end: {tracker:?}")
    };
    position
}

#[test]
fn consecutive_messages_are_delivered_at_once() {
    let mut tracker = tracker_at(4);
    for seq in 5..9 {
        assert_eq!(receive(&mut tracker, E, seq), messages([seq]));
    }
    assert!(!tracker.needs_refill());
    assert_eq!(tracker.take_refill_request(), None);
}

#[test]
fn position_drops_duplicate_messages() {
    let mut tracker = tracker_at(4);
    for seq in [1, 4, 4] {
        assert_eq!(receive(&mut tracker, E, seq), []);
    }
    assert_eq!(receive(&mut tracker, E, 5), messages([5]));
    assert_eq!(receive(&mut tracker, E, 5), []);
    assert!(!tracker.needs_refill());
}

#[test]
fn messages_after_a_hole_wait_for_its_refill() {
    let mut tracker = tracker_at(4);
    assert_eq!(receive(&mut tracker, E, 7), []);
    assert_eq!(receive(&mut tracker, E, 8), []);
    let requested_at = take_page_request(&mut tracker);
    assert_eq!((requested_at.seq, requested_at.highest_seq), (4, 8));
    assert_eq!(
        apply_page(&mut tracker, &requested_at, end(E, 8), &[5, 6]),
        messages(5..9),
        "buffered messages complete the page"
    );
    let mut tracker = tracker_at(4);
    receive(&mut tracker, E, 7);
    let requested_at = take_page_request(&mut tracker);
    receive(&mut tracker, E, 8);
    assert_eq!(apply_page(&mut tracker, &requested_at, end(E, 7), &[5, 6, 7]), messages(5..9), "8 arrived meanwhile");
    assert!(!tracker.needs_refill());
}

#[test]
fn late_messages_fill_a_hole_without_refill() {
    let mut tracker = tracker_at(4);
    receive(&mut tracker, E, 6);
    assert!(tracker.needs_refill());
    assert_eq!(receive(&mut tracker, E, 5), messages([5, 6]));
    assert!(!tracker.needs_refill());
}

#[test]
fn messages_the_stream_lost_become_gaps() {
    let mut tracker = tracker_at(4);
    receive(&mut tracker, E, 10);
    let requested_at = take_page_request(&mut tracker);
    let steps = apply_page(&mut tracker, &requested_at, end(E, 10), &[7, 8, 10]);
    let gap = |from, to| vec![StreamStep::Gap { from, to }];
    assert_eq!(steps, [gap(5, 6), messages([7, 8]), gap(9, 9), messages([10])].concat());
    assert!(!tracker.needs_refill());
}

#[test]
fn unverified_position_requests_end_then_missing_page() {
    let mut tracker = tracker_at(4);
    tracker.mark_unverified();
    let requested_at = take_end_request(&mut tracker);
    assert_eq!(tracker.take_refill_request(), None, "the end is requested once");
    assert_eq!(apply_end(&mut tracker, &requested_at, &end(E, 6)), []);
    let requested_at = take_page_request(&mut tracker);
    assert_eq!(apply_page(&mut tracker, &requested_at, end(E, 6), &[5, 6]), messages([5, 6]));
    tracker.mark_unverified();
    let requested_at = take_end_request(&mut tracker);
    assert_eq!(apply_end(&mut tracker, &requested_at, &end(E, 6)), []);
    assert!(!tracker.needs_refill(), "nothing is missing");
}

#[test]
fn position_stays_unverified_from_before_its_start() {
    for make_unverified in
        [StreamTracker::mark_unverified, |tracker: &mut StreamTracker<u64>| drop(receive(tracker, E, 5))]
    {
        let mut tracker = StreamTracker::default();
        make_unverified(&mut tracker);
        assert_eq!(tracker.take_refill_request(), None, "there is no position to compare with yet");
        tracker.observe_end(&end(E, 4), &mut Vec::new());
        let requested_at = take_end_request(&mut tracker);
        apply_end(&mut tracker, &requested_at, &end(E, 5));
        let requested_at = take_page_request(&mut tracker);
        assert_eq!(apply_page(&mut tracker, &requested_at, end(E, 5), &[5]), messages([5]));
    }
}

#[test]
fn messages_beyond_the_buffer_are_refilled() {
    let mut tracker = tracker_at(0);
    let last = BUFFERED_MESSAGES_MAX as u64 * 3;
    for seq in 2..=last {
        assert_eq!(receive(&mut tracker, E, seq), []);
    }
    let requested_at = take_page_request(&mut tracker);
    let mut steps = Vec::new();
    tracker.apply_page(&requested_at, StreamPage { end: end(E, last), messages: vec![(1, 1)], through: 1 }, &mut steps);
    assert_eq!(steps.len(), 1 + BUFFERED_MESSAGES_MAX, "the short page and the buffer are delivered");
    let requested_at = take_page_request(&mut tracker);
    let rest: Vec<u64> = (requested_at.seq + 1..=last).collect();
    assert_eq!(apply_page(&mut tracker, &requested_at, end(E, last), &rest), messages(rest.clone()));
    assert!(!tracker.needs_refill());
}

#[test]
fn new_epoch_continues_at_its_fork() {
    // The end, the last shared seq, and the seq at which a position at 4 that knows of 6 continues.
    for (end, shared_seq, continues_at) in
        [(forked("f", 9, 9), 9, 4), (forked("f", 4, 6), 4, 4), (forked("f", 2, 6), 2, 2), (end("f", 6), 0, 0)]
    {
        let mut tracker = tracker_at(4);
        receive(&mut tracker, E, 6);
        assert_eq!(receive(&mut tracker, "f", 6), [], "the order of the epochs is not known yet");
        let requested_at = take_page_request(&mut tracker);
        assert_eq!(apply_end(&mut tracker, &requested_at, &end), epoch_changed(4, 6, shared_seq), "{end:?}");
        assert_eq!(receive(&mut tracker, E, 5), [], "a late message of the old epoch is dropped");
        let requested_at = take_page_request(&mut tracker);
        assert_eq!((requested_at.epoch.as_str(), requested_at.seq), ("f", continues_at));
        let rest: Vec<u64> = (continues_at + 1..=end.seq).collect();
        assert_eq!(apply_page(&mut tracker, &requested_at, end, &rest), messages(rest));
        assert!(!tracker.needs_refill());
    }
}

#[test]
fn late_page_of_new_epoch_is_not_applied() {
    let mut tracker = tracker_at(4);
    receive(&mut tracker, E, 7);
    let requested_at = take_page_request(&mut tracker);
    let steps = apply_page(&mut tracker, &requested_at, forked("f", 5, 6), &[5, 6]);
    assert_eq!(steps, [epoch_changed(4, 7, 5), messages([5, 6])].concat(), "7 and the old 6 are lost");
    let mut tracker = tracker_at(4);
    receive(&mut tracker, E, 7);
    let requested_at = take_page_request(&mut tracker);
    let steps = apply_page(&mut tracker, &requested_at, forked("f", 3, 6), &[5, 6]);
    assert_eq!(steps, epoch_changed(4, 7, 3), "the page starts after the position");
    assert_eq!(take_page_request(&mut tracker).seq, 3);
}

#[test]
fn unrelated_end_changes_no_epoch() {
    let mut steps = Vec::new();
    let mut tracker = tracker_at(4);
    tracker.observe_end(&forked("f", 4, 4), &mut steps);
    assert_eq!(std::mem::take(&mut steps), epoch_changed(4, 4, 4), "the end lists our epoch as a fork");
    for late in [end(E, 4), end("g", 9)] {
        tracker.observe_end(&late, &mut steps);
        assert_eq!((steps.as_slice(), tracker.position().unwrap().epoch.as_str()), (&[][..], "f"));
        take_end_request(&mut tracker);
    }
}

#[test]
fn shorter_stream_moves_the_position_back() {
    let mut tracker = tracker_at(4);
    tracker.mark_unverified();
    let requested_at = take_end_request(&mut tracker);
    assert_eq!(receive(&mut tracker, E, 5), messages([5]));
    assert_eq!(apply_end(&mut tracker, &requested_at, &end(E, 4)), [], "5 arrived after the request");
    tracker.mark_unverified();
    let requested_at = take_end_request(&mut tracker);
    let previous = StreamPosition { epoch: E.into(), seq: 5, highest_seq: 5 };
    assert_eq!(
        apply_end(&mut tracker, &requested_at, &end(E, 3)),
        [StreamStep::EpochChanged { previous, epoch: E.into(), shared_seq: 3 }]
    );
    assert_eq!(receive(&mut tracker, E, 4), messages([4]));
}

#[test]
fn result_overtaken_by_epoch_is_requested_again() {
    let mut tracker = tracker_at(4);
    tracker.mark_unverified();
    let requested_at = take_end_request(&mut tracker);
    tracker.observe_end(&forked("f", 4, 4), &mut Vec::new());
    assert_eq!(apply_end(&mut tracker, &requested_at, &end(E, 9)), []);
    assert_eq!(tracker.position().unwrap().epoch, "f");
    assert!(tracker.needs_refill());
}

/// One event between a store and a listener.
#[derive(Debug, Clone)]
enum SimulatedEvent {
    /// A message is appended and published.
    Publish,
    /// The next message in transit arrives.
    Arrive,
    /// A message in transit arrives early, and again in order.
    Overtake(usize),
    /// A message in transit is lost. A later message or a reconnect reveals it.
    Lose(usize),
    /// The connection is lost with everything in transit, and restored.
    Reconnect,
    /// The stream trims its oldest messages.
    Trim(usize),
    /// The store restarts without its newest messages, or without the stream's epochs too. Messages published before
    /// are still in transit.
    Fail(usize, bool),
    /// A member joins, which observes the stream's end.
    Join,
    /// A refill request is sent to the store.
    Request,
    /// The result arrives.
    Result,
}

fn simulated_event() -> impl Strategy<Value = SimulatedEvent> {
    prop_oneof![
        8 => Just(SimulatedEvent::Publish),
        6 => Just(SimulatedEvent::Arrive),
        1 => (0_usize..8).prop_map(SimulatedEvent::Overtake),
        1 => (0_usize..8).prop_map(SimulatedEvent::Lose),
        1 => Just(SimulatedEvent::Reconnect),
        1 => (0_usize..6).prop_map(SimulatedEvent::Trim),
        1 => (0_usize..5, prop::bool::weighted(0.1)).prop_map(|(lost, is_total)| SimulatedEvent::Fail(lost, is_total)),
        1 => Just(SimulatedEvent::Join),
        3 => Just(SimulatedEvent::Request),
        3 => Just(SimulatedEvent::Result),
    ]
}

/// The identity of a message, which differs from that of another with the same seq.
type Id = u64;

/// A stream, the messages in transit to one listener, and the steps that the listener received.
struct StreamSimulation {
    /// Every message of the current epoch; those up to `trimmed` are no longer stored.
    history: Vec<Id>,
    trimmed: u64,
    /// The highest seq that was ever trimmed.
    trimmed_max: u64,
    end: StreamEnd,
    last_id: Id,
    in_transit: VecDeque<(String, u64, Id)>,
    tracker: StreamTracker<Id>,
    result: Option<(RefillRequest, StreamPage<Id>)>,
    steps: Vec<StreamStep<Id>>,
}

impl StreamSimulation {
    /// Small, so that there are many pages.
    const PAGE_MESSAGES: usize = 2;

    fn new() -> Self {
        let mut tracker = StreamTracker::default();
        tracker.observe_end(&end("e0", 0), &mut Vec::new());
        Self {
            history: Vec::new(),
            trimmed: 0,
            trimmed_max: 0,
            end: end("e0", 0),
            last_id: 0,
            in_transit: VecDeque::new(),
            tracker,
            result: None,
            steps: Vec::new(),
        }
    }

    fn happen(&mut self, event: &SimulatedEvent) {
        match *event {
            SimulatedEvent::Publish => {
                self.last_id += 1;
                self.history.push(self.last_id);
                self.end.seq += 1;
                self.in_transit.push_back((self.end.epoch.clone(), self.end.seq, self.last_id));
            }
            SimulatedEvent::Arrive => {
                if let Some((epoch, seq, id)) = self.in_transit.pop_front() {
                    self.tracker.receive(&epoch, seq, id, &mut self.steps);
                }
            }
            SimulatedEvent::Overtake(at) => {
                if let Some((epoch, seq, id)) = self.in_transit.get(at) {
                    self.tracker.receive(epoch, *seq, *id, &mut self.steps);
                }
            }
            SimulatedEvent::Lose(at) => drop(self.in_transit.remove(at)),
            SimulatedEvent::Reconnect => {
                self.in_transit.clear();
                self.tracker.mark_unverified();
            }
            SimulatedEvent::Trim(count) => {
                self.trimmed = self.end.seq.min(self.trimmed + count as u64);
                self.trimmed_max = self.trimmed_max.max(self.trimmed);
            }
            SimulatedEvent::Fail(lost, is_total) => self.fail(lost as u64, is_total),
            SimulatedEvent::Join => self.tracker.observe_end(&self.end, &mut self.steps),
            SimulatedEvent::Request => self.send_request(),
            SimulatedEvent::Result => self.apply_result(),
        }
    }

    fn fail(&mut self, lost: u64, is_total: bool) {
        let top = if is_total { 0 } else { self.end.seq.saturating_sub(lost) };
        self.history.truncate(top as usize);
        self.trimmed = self.trimmed.min(top);
        let next = format!("{}'", self.end.epoch);
        let before = std::mem::replace(&mut self.end.epoch, next);
        self.end.seq = top;
        self.end.forks.push(Fork { epoch: before, seq: top });
        if is_total {
            self.end.forks.clear();
        }
    }

    fn send_request(&mut self) {
        if self.result.is_some() {
            return;
        }
        let Some(request) = self.tracker.take_refill_request() else { return };
        let position = request.position();
        let first = position.seq.max(self.trimmed) + 1;
        let stored = (first..=self.end.seq).map(|seq| (seq, self.history[seq as usize - 1]));
        let messages: Vec<(u64, Id)> = stored.take(Self::PAGE_MESSAGES).collect();
        let through =
            messages.last().filter(|_| messages.len() == Self::PAGE_MESSAGES).map_or(self.end.seq, |last| last.0);
        let page = StreamPage { end: self.end.clone(), messages, through: through.max(position.seq) };
        self.result = Some((request, page));
    }

    fn apply_result(&mut self) {
        match self.result.take() {
            Some((RefillRequest::End(position), page)) => self.tracker.apply_end(&position, &page.end, &mut self.steps),
            Some((RefillRequest::Page(position), page)) => self.tracker.apply_page(&position, page, &mut self.steps),
            None => {}
        }
    }

    /// Ends the faults: restores the connection and answers every request.
    fn settle(&mut self) {
        self.happen(&SimulatedEvent::Reconnect);
        for _ in 0..2 * self.last_id + 8 {
            self.apply_result();
            self.send_request();
        }
        self.apply_result();
    }

    /// Returns what a listener has after these steps: a message or a reported gap for each seq.
    fn received(&self) -> Result<Vec<Option<Id>>, TestCaseError> {
        let mut received: Vec<Option<Id>> = Vec::new();
        for step in &self.steps {
            let next = received.len() as u64 + 1;
            match step {
                StreamStep::Message(seq, id) => {
                    prop_assert_eq!(*seq, next, "an unreported hole");
                    received.push(Some(*id));
                }
                StreamStep::Gap { from, to } => {
                    prop_assert_eq!(*from, next);
                    received.resize(*to as usize, None);
                }
                StreamStep::EpochChanged { previous, shared_seq, .. } => {
                    prop_assert_eq!(previous.seq, next - 1);
                    received.truncate(*shared_seq as usize);
                }
            }
        }
        Ok(received)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// After any faults the listener has every message once and in order, except for reported gaps. Messages reported
    /// as void are those that the store has lost.
    #[test]
    fn random_faults_leave_no_unreported_loss(events in prop::collection::vec(simulated_event(), 0..160)) {
        let mut simulation = StreamSimulation::new();
        for event in &events {
            simulation.happen(event);
            // Messages of different epochs are told apart at every step, not only at the end.
            simulation.received()?;
        }
        simulation.settle();
        let received = simulation.received()?;
        prop_assert_eq!(received.len() as u64, simulation.end.seq, "the listener reaches the end");
        for (seq, (received, stored)) in (1..).zip(received.iter().zip(&simulation.history)) {
            match received {
                Some(id) => prop_assert_eq!(id, stored, "{} differs from the stored message", seq),
                None => prop_assert!(seq <= simulation.trimmed_max, "{seq} was never trimmed"),
            }
        }
        prop_assert!(!simulation.tracker.needs_refill());
    }
}
