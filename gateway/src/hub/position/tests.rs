//! A room's position by itself: stories in a table, and random faults, after which every listener has everything once
//! and in order, or was told what it lacks.
#![allow(clippy::unwrap_used)]

use presence::model::stream::{Fork, read_forks};
use proptest::prelude::*;

use std::collections::VecDeque;

use super::*;

const E: &str = "e";

fn head(epoch: &str, top: u64) -> StreamEnd {
    StreamEnd { epoch: epoch.to_owned(), top, forks: Vec::new() }
}

/// Where a log ends in `epoch`, which began after this message of [`E`].
fn forked(epoch: &str, fork: u64, top: u64) -> StreamEnd {
    StreamEnd { forks: read_forks(&format!("{E}:{fork}")), ..head(epoch, top) }
}

fn at(seq: u64) -> StreamTracker<u64> {
    let mut position = StreamTracker::default();
    position.begin(&head(E, seq), &mut Vec::new());
    position
}

fn arrive(position: &mut StreamTracker<u64>, epoch: &str, seq: u64) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    position.arrived(epoch, seq, seq, &mut steps);
    steps
}

fn page(position: &mut StreamTracker<u64>, asked: &StreamPosition, head: StreamEnd, kept: &[u64]) -> Vec<Step<u64>> {
    let (messages, through) = (kept.iter().map(|&seq| (seq, seq)).collect(), head.top);
    let mut steps = Vec::new();
    position.page(asked, StreamPage { head, messages, through }, &mut steps);
    steps
}

fn top(position: &mut StreamTracker<u64>, asked: &StreamPosition, head: &StreamEnd) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    position.top(asked, head, &mut steps);
    steps
}

fn turn(seq: u64, reach: u64, shared: u64) -> Vec<Step<u64>> {
    vec![Step::EpochChanged { was: StreamPosition { epoch: E.into(), seq, reach }, epoch: "f".into(), shared }]
}

fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<Step<u64>> {
    seqs.into_iter().map(|seq| Step::Message(seq, seq)).collect()
}

fn asked_page(position: &mut StreamTracker<u64>) -> StreamPosition {
    let Some(Ask::Page(place)) = position.asks() else { panic!("it asks for no page: {position:?}") };
    place
}

fn asked_top(position: &mut StreamTracker<u64>) -> StreamPosition {
    let Some(Ask::Top(place)) = position.asks() else { panic!("it asks for no top: {position:?}") };
    place
}

#[test]
fn what_comes_in_order_goes_out_at_once_and_asks_for_nothing() {
    let mut position = at(4);
    for seq in 5..9 {
        assert_eq!(arrive(&mut position, E, seq), messages([seq]));
    }
    assert!(!position.is_asking());
    assert_eq!(position.asks(), None);
}

#[test]
fn copies_are_dropped() {
    let mut position = at(4);
    for seq in [1, 4, 4] {
        assert_eq!(arrive(&mut position, E, seq), []);
    }
    assert_eq!(arrive(&mut position, E, 5), messages([5]));
    assert_eq!(arrive(&mut position, E, 5), []);
    assert!(!position.is_asking());
}

#[test]
fn a_hole_is_read_and_what_is_behind_it_waits() {
    let mut position = at(4);
    assert_eq!(arrive(&mut position, E, 7), []);
    assert_eq!(arrive(&mut position, E, 8), []);
    let asked = asked_page(&mut position);
    assert_eq!((asked.seq, asked.reach), (4, 8));
    assert_eq!(page(&mut position, &asked, head(E, 8), &[5, 6]), messages(5..9), "what is here needs no log");
    let mut position = at(4);
    arrive(&mut position, E, 7);
    let asked = asked_page(&mut position);
    arrive(&mut position, E, 8);
    assert_eq!(page(&mut position, &asked, head(E, 7), &[5, 6, 7]), messages(5..9), "8 had arrived meanwhile");
    assert!(!position.is_asking());
}

#[test]
fn a_hole_that_is_filled_by_late_messages_needs_no_reading() {
    let mut position = at(4);
    arrive(&mut position, E, 6);
    assert!(position.is_asking());
    assert_eq!(arrive(&mut position, E, 5), messages([5, 6]));
    assert!(!position.is_asking());
}

#[test]
fn what_is_not_kept_any_more_is_told_and_nothing_else() {
    let mut position = at(4);
    arrive(&mut position, E, 10);
    let asked = asked_page(&mut position);
    let told = page(&mut position, &asked, head(E, 10), &[7, 8, 10]);
    let gap = |from, to| vec![Step::Gap { from, to }];
    assert_eq!(told, [gap(5, 6), messages([7, 8]), gap(9, 9), messages([10])].concat());
    assert!(!position.is_asking());
}

#[test]
fn a_doubt_asks_for_the_top_and_the_top_for_what_is_missing() {
    let mut position = at(4);
    position.doubt();
    let asked = asked_top(&mut position);
    assert_eq!(position.asks(), None, "once");
    assert_eq!(top(&mut position, &asked, &head(E, 6)), []);
    let asked = asked_page(&mut position);
    assert_eq!(page(&mut position, &asked, head(E, 6), &[5, 6]), messages([5, 6]));
    position.doubt();
    let asked = asked_top(&mut position);
    assert_eq!(top(&mut position, &asked, &head(E, 6)), []);
    assert!(!position.is_asking(), "nothing was missing");
}

#[test]
fn a_doubt_from_before_the_beginning_is_not_forgotten() {
    for doubt in [StreamTracker::doubt, |position: &mut StreamTracker<u64>| drop(arrive(position, E, 5))] {
        let mut position = StreamTracker::default();
        doubt(&mut position);
        assert_eq!(position.asks(), None, "there is nothing to compare with yet");
        position.begin(&head(E, 4), &mut Vec::new());
        let asked = asked_top(&mut position);
        top(&mut position, &asked, &head(E, 5));
        let asked = asked_page(&mut position);
        assert_eq!(page(&mut position, &asked, head(E, 5), &[5]), messages([5]));
    }
}

#[test]
fn more_than_is_held_comes_from_the_log() {
    let mut position = at(0);
    let last = HELD as u64 * 3;
    for seq in 2..=last {
        assert_eq!(arrive(&mut position, E, seq), []);
    }
    let asked = asked_page(&mut position);
    let mut told = Vec::new();
    position.page(&asked, StreamPage { head: head(E, last), messages: vec![(1, 1)], through: 1 }, &mut told);
    assert_eq!(told.len(), 1 + HELD, "a page that ends early, and what is held");
    let asked = asked_page(&mut position);
    let rest: Vec<u64> = (asked.seq + 1..=last).collect();
    assert_eq!(page(&mut position, &asked, head(E, last), &rest), messages(rest.clone()));
    assert!(!position.is_asking());
}

#[test]
fn another_history_is_entered_where_it_leaves_ours() {
    // Up to where the histories are one, and where that leaves a room that has given out 4 and knows of 6.
    for (head, shared, goes_on_at) in
        [(forked("f", 9, 9), 9, 4), (forked("f", 4, 6), 4, 4), (forked("f", 2, 6), 2, 2), (head("f", 6), 0, 0)]
    {
        let mut position = at(4);
        arrive(&mut position, E, 6);
        assert_eq!(arrive(&mut position, "f", 6), [], "nobody knows yet what it is worth");
        let asked = asked_page(&mut position);
        assert_eq!(top(&mut position, &asked, &head), turn(4, 6, shared), "{head:?}");
        assert_eq!(arrive(&mut position, E, 5), [], "a straggler of the old one is none of it");
        let asked = asked_page(&mut position);
        assert_eq!((asked.epoch.as_str(), asked.seq), ("f", goes_on_at));
        let rest: Vec<u64> = (goes_on_at + 1..=head.top).collect();
        assert_eq!(page(&mut position, &asked, head, &rest), messages(rest));
        assert!(!position.is_asking());
    }
}

#[test]
fn a_page_of_another_history_is_taken_when_nothing_of_ours_is_void() {
    let mut position = at(4);
    arrive(&mut position, E, 7);
    let asked = asked_page(&mut position);
    let told = page(&mut position, &asked, forked("f", 5, 6), &[5, 6]);
    assert_eq!(told, [turn(4, 7, 5), messages([5, 6])].concat(), "7 is lost, and so is the old 6");
    let mut position = at(4);
    arrive(&mut position, E, 7);
    let asked = asked_page(&mut position);
    let told = page(&mut position, &asked, forked("f", 3, 6), &[5, 6]);
    assert_eq!(told, turn(4, 7, 3), "the page begins behind where we go on");
    assert_eq!(asked_page(&mut position).seq, 3);
}

#[test]
fn a_head_that_was_read_before_or_elsewhere_turns_nothing_by_itself() {
    let mut steps = Vec::new();
    let mut position = at(4);
    position.begin(&forked("f", 4, 4), &mut steps);
    assert_eq!(std::mem::take(&mut steps), turn(4, 4, 4), "it knows ours as its past");
    for late in [head(E, 4), head("g", 9)] {
        position.begin(&late, &mut steps);
        assert_eq!((steps.as_slice(), position.place().unwrap().epoch.as_str()), (&[][..], "f"));
        asked_top(&mut position);
    }
}

#[test]
fn a_log_that_is_shorter_than_it_was_is_cut_back_to_what_there_is() {
    let mut position = at(4);
    position.doubt();
    let asked = asked_top(&mut position);
    assert_eq!(arrive(&mut position, E, 5), messages([5]));
    assert_eq!(top(&mut position, &asked, &head(E, 4)), [], "5 came after the question");
    position.doubt();
    let asked = asked_top(&mut position);
    let was = StreamPosition { epoch: E.into(), seq: 5, reach: 5 };
    assert_eq!(top(&mut position, &asked, &head(E, 3)), [Step::EpochChanged { was, epoch: E.into(), shared: 3 }]);
    assert_eq!(arrive(&mut position, E, 4), messages([4]));
}

#[test]
fn an_answer_that_was_overtaken_by_another_history_is_asked_for_again() {
    let mut position = at(4);
    position.doubt();
    let asked = asked_top(&mut position);
    position.begin(&forked("f", 4, 4), &mut Vec::new());
    assert_eq!(top(&mut position, &asked, &head(E, 9)), []);
    assert_eq!(position.place().unwrap().epoch, "f");
    assert!(position.is_asking());
}

/// One thing that happens between a store and a listener.
#[derive(Debug, Clone)]
enum Fate {
    /// A message is appended and published.
    Publish,
    /// The next message on the wire arrives.
    Arrive,
    /// A message on the wire arrives before its turn, and once more in its turn.
    Overtake(usize),
    /// One on the wire is lost. Somebody notices later: a message after it, or the reconnect that follows.
    Lose(usize),
    /// All on the wire is lost with the connection, which is made again.
    Reconnect,
    /// The log forgets its oldest messages.
    Trim(usize),
    /// The store comes back without its newest messages, or without the log's epochs too: another generation. What was
    /// published before is still on the wire.
    Fail(usize, bool),
    /// Somebody joins: the log's head is heard of.
    Join,
    /// The oldest question is put to the store.
    Look,
    /// Its answer comes.
    Answer,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Publish),
        6 => Just(Fate::Arrive),
        1 => (0_usize..8).prop_map(Fate::Overtake),
        1 => (0_usize..8).prop_map(Fate::Lose),
        1 => Just(Fate::Reconnect),
        1 => (0_usize..6).prop_map(Fate::Trim),
        1 => (0_usize..5, prop::bool::weighted(0.1)).prop_map(|(lost, whole)| Fate::Fail(lost, whole)),
        1 => Just(Fate::Join),
        3 => Just(Fate::Look),
        3 => Just(Fate::Answer),
    ]
}

/// A message as it is told from another with the same number.
type Id = u64;

/// A log, the wire to one listener, and what the listener was given.
struct World {
    /// Every message of the present history; those up to `trimmed` are not kept any more.
    history: Vec<Id>,
    trimmed: u64,
    /// The highest that ever was trimmed.
    was_trimmed: u64,
    head: StreamEnd,
    ids: Id,
    wire: VecDeque<(String, u64, Id)>,
    position: StreamTracker<Id>,
    answer: Option<(Ask, StreamPage<Id>)>,
    given: Vec<Step<Id>>,
}

impl World {
    /// Two messages to a page, so that there are many.
    const PAGE: usize = 2;

    fn new() -> Self {
        let mut position = StreamTracker::default();
        position.begin(&head("e0", 0), &mut Vec::new());
        Self {
            history: Vec::new(),
            trimmed: 0,
            was_trimmed: 0,
            head: head("e0", 0),
            ids: 0,
            wire: VecDeque::new(),
            position,
            answer: None,
            given: Vec::new(),
        }
    }

    fn happen(&mut self, fate: &Fate) {
        match *fate {
            Fate::Publish => {
                self.ids += 1;
                self.history.push(self.ids);
                self.head.top += 1;
                self.wire.push_back((self.head.epoch.clone(), self.head.top, self.ids));
            }
            Fate::Arrive => {
                if let Some((epoch, seq, id)) = self.wire.pop_front() {
                    self.position.arrived(&epoch, seq, id, &mut self.given);
                }
            }
            Fate::Overtake(at) => {
                if let Some((epoch, seq, id)) = self.wire.get(at) {
                    self.position.arrived(epoch, *seq, *id, &mut self.given);
                }
            }
            Fate::Lose(at) => drop(self.wire.remove(at)),
            Fate::Reconnect => {
                self.wire.clear();
                self.position.doubt();
            }
            Fate::Trim(count) => {
                self.trimmed = self.head.top.min(self.trimmed + count as u64);
                self.was_trimmed = self.was_trimmed.max(self.trimmed);
            }
            Fate::Fail(lost, whole) => self.fail(lost as u64, whole),
            Fate::Join => self.position.begin(&self.head, &mut self.given),
            Fate::Look => self.look(),
            Fate::Answer => self.answered(),
        }
    }

    fn fail(&mut self, lost: u64, whole: bool) {
        let top = if whole { 0 } else { self.head.top.saturating_sub(lost) };
        self.history.truncate(top as usize);
        self.trimmed = self.trimmed.min(top);
        let next = format!("{}'", self.head.epoch);
        let before = std::mem::replace(&mut self.head.epoch, next);
        self.head.top = top;
        self.head.forks.push(Fork { epoch: before, seq: top });
        if whole {
            self.head.forks.clear();
        }
    }

    fn look(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let Some(ask) = self.position.asks() else { return };
        let (Ask::Top(place) | Ask::Page(place)) = &ask;
        let first = place.seq.max(self.trimmed) + 1;
        let kept = (first..=self.head.top).map(|seq| (seq, self.history[seq as usize - 1]));
        let messages: Vec<(u64, Id)> = kept.take(Self::PAGE).collect();
        let through = messages.last().filter(|_| messages.len() == Self::PAGE).map_or(self.head.top, |last| last.0);
        let page = StreamPage { head: self.head.clone(), messages, through: through.max(place.seq) };
        self.answer = Some((ask, page));
    }

    fn answered(&mut self) {
        match self.answer.take() {
            Some((Ask::Top(place), page)) => self.position.top(&place, &page.head, &mut self.given),
            Some((Ask::Page(place), page)) => self.position.page(&place, page, &mut self.given),
            None => {}
        }
    }

    /// Faults are over: the connection is made again, and every question is answered.
    fn settle(&mut self) {
        self.happen(&Fate::Reconnect);
        for _ in 0..2 * self.ids + 8 {
            self.answered();
            self.look();
        }
        self.answered();
    }

    /// What somebody holds who was given all that, cut back where they were told to: a message or what was said to be gone.
    fn held(&self) -> Result<Vec<Option<Id>>, TestCaseError> {
        let mut held: Vec<Option<Id>> = Vec::new();
        for step in &self.given {
            let next = held.len() as u64 + 1;
            match step {
                Step::Message(seq, id) => {
                    prop_assert_eq!(*seq, next, "a hole that nobody spoke of");
                    held.push(Some(*id));
                }
                Step::Gap { from, to } => {
                    prop_assert_eq!(*from, next);
                    held.resize(*to as usize, None);
                }
                Step::EpochChanged { was, shared, .. } => {
                    prop_assert_eq!(was.seq, next - 1);
                    held.truncate(*shared as usize);
                }
            }
        }
        Ok(held)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever was lost on the way or by the store, copied, overtaken, trimmed or late: in the end everything was given once
    /// and in order, except for what was told to be gone, and what was told to be void is what the store has lost.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order_without_being_told(fates in prop::collection::vec(fate(), 0..160)) {
        let mut world = World::new();
        for fate in &fates {
            world.happen(fate);
            // The epochs of what is on the wire are told apart at every moment, not only in the end.
            world.held()?;
        }
        world.settle();
        let held = world.held()?;
        prop_assert_eq!(held.len() as u64, world.head.top, "to the end");
        for (seq, (held, kept)) in (1..).zip(held.iter().zip(&world.history)) {
            match held {
                Some(id) => prop_assert_eq!(id, kept, "{} is another message than in the log", seq),
                None => prop_assert!(seq <= world.was_trimmed, "{seq} was never trimmed"),
            }
        }
        prop_assert!(!world.position.is_asking());
    }
}
