//! A room's position by itself: stories in a table, and random faults, after which every listener has everything once
//! and in order, or was told what it lacks.
#![allow(clippy::unwrap_used)]

use presence::log::read_forks;
use proptest::prelude::*;

use std::collections::VecDeque;

use super::*;

const E: &str = "e";

fn head(epoch: &str, top: u64) -> Head {
    Head { epoch: epoch.to_owned(), top, forks: Vec::new() }
}

/// Where a log ends in `epoch`, which began after this message of [`E`].
fn forked(epoch: &str, fork: u64, top: u64) -> Head {
    Head { forks: read_forks(&format!("{E}:{fork}")), ..head(epoch, top) }
}

fn at(seq: u64) -> Position<u64> {
    let mut position = Position::default();
    position.begin(&head(E, seq), &mut Vec::new());
    position
}

fn arrive(position: &mut Position<u64>, epoch: &str, seq: u64) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    position.arrived(epoch, seq, seq, &mut steps);
    steps
}

fn page(position: &mut Position<u64>, asked: &Place, head: Head, kept: &[u64]) -> Vec<Step<u64>> {
    let (messages, through) = (kept.iter().map(|&seq| (seq, seq)).collect(), head.top);
    let mut steps = Vec::new();
    position.page(asked, Page { head, messages, through }, &mut steps);
    steps
}

fn top(position: &mut Position<u64>, asked: &Place, head: &Head) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    position.top(asked, head, &mut steps);
    steps
}

fn turn(seq: u64, reach: u64, shared: u64) -> Vec<Step<u64>> {
    vec![Step::Turn { was: Place { epoch: E.into(), seq, reach }, epoch: "f".into(), shared }]
}

fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<Step<u64>> {
    seqs.into_iter().map(|seq| Step::Message(seq, seq)).collect()
}

fn asked_page(position: &mut Position<u64>) -> Place {
    let Some(Ask::Page(place)) = position.asks() else { panic!("it asks for no page: {position:?}") };
    place
}

fn asked_top(position: &mut Position<u64>) -> Place {
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
    for doubt in [Position::doubt, |position: &mut Position<u64>| drop(arrive(position, E, 5))] {
        let mut position = Position::default();
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
    position.page(&asked, Page { head: head(E, last), messages: vec![(1, 1)], through: 1 }, &mut told);
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
fn a_log_from_its_start_takes_any_epoch_and_misses_no_message() {
    let mut position = Position::at_start();
    let asked = asked_top(&mut position);
    let turned = top(&mut position, &asked, &head("f", 1));
    let was = Place { epoch: String::new(), seq: 0, reach: 0 };
    assert_eq!(turned, [Step::Turn { was, epoch: "f".into(), shared: 0 }]);
    let asked = asked_page(&mut position);
    assert_eq!(page(&mut position, &asked, head("f", 1), &[1]), messages([1]));
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
    let was = Place { epoch: E.into(), seq: 5, reach: 5 };
    assert_eq!(top(&mut position, &asked, &head(E, 3)), [Step::Turn { was, epoch: E.into(), shared: 3 }]);
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
    /// The oldest question is put to the store.
    Look,
    /// Its answer comes.
    Answer,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Publish),
        5 => Just(Fate::Arrive),
        1 => (0_usize..8).prop_map(Fate::Overtake),
        1 => (0_usize..8).prop_map(Fate::Lose),
        1 => Just(Fate::Reconnect),
        1 => (0_usize..6).prop_map(Fate::Trim),
        2 => Just(Fate::Look),
        2 => Just(Fate::Answer),
    ]
}

/// A room's log, the wire to one listener, and what the listener was given.
struct World {
    log: VecDeque<u64>,
    top: u64,
    wire: VecDeque<u64>,
    position: Position<u64>,
    asked: Option<Ask>,
    answer: Option<(Ask, Vec<u64>, u64, u64)>,
    given: Vec<Step<u64>>,
    was_trimmed: u64,
}

impl World {
    /// Two messages to a page, so that there are many.
    const PAGE: usize = 2;

    fn new() -> Self {
        Self {
            log: VecDeque::new(),
            top: 0,
            wire: VecDeque::new(),
            position: at(0),
            asked: None,
            answer: None,
            given: Vec::new(),
            was_trimmed: 0,
        }
    }

    fn happen(&mut self, fate: &Fate) {
        match *fate {
            Fate::Publish => {
                self.top += 1;
                self.log.push_back(self.top);
                self.wire.push_back(self.top);
            }
            Fate::Arrive => {
                if let Some(seq) = self.wire.pop_front() {
                    self.position.arrived(E, seq, seq, &mut self.given);
                }
            }
            Fate::Overtake(at) => {
                if let Some(&seq) = self.wire.get(at) {
                    self.position.arrived(E, seq, seq, &mut self.given);
                }
            }
            Fate::Lose(at) => drop(self.wire.remove(at)),
            Fate::Reconnect => {
                self.wire.clear();
                self.position.doubt();
            }
            Fate::Trim(count) => {
                for seq in self.log.drain(..count.min(self.log.len())) {
                    self.was_trimmed = seq;
                }
            }
            Fate::Look => self.look(),
            Fate::Answer => self.answered(),
        }
    }

    fn look(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let Some(ask) = self.asked.take().or_else(|| self.position.asks()) else { return };
        let (Ask::Top(place) | Ask::Page(place)) = &ask;
        let kept: Vec<u64> = self.log.iter().copied().filter(|&seq| seq > place.seq).take(Self::PAGE).collect();
        let through = kept.last().copied().filter(|_| kept.len() == Self::PAGE).unwrap_or(self.top);
        self.answer = Some((ask, kept, through, self.top));
    }

    fn answered(&mut self) {
        match self.answer.take() {
            Some((Ask::Top(place), _, _, top)) => self.position.top(&place, &head(E, top), &mut self.given),
            Some((Ask::Page(place), kept, through, top)) => {
                let messages = kept.into_iter().map(|seq| (seq, seq)).collect();
                self.position.page(&place, Page { head: head(E, top), messages, through }, &mut self.given);
            }
            None => {}
        }
    }

    /// Faults are over: the connection is made again, and every question is answered.
    fn settle(&mut self) {
        self.happen(&Fate::Reconnect);
        for _ in 0..2 * self.top + 4 {
            self.look();
            self.answered();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever was lost, copied, overtaken or trimmed: in the end everything was given once and in order, except for what
    /// was told to be gone, which really is.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order_without_being_told(fates in prop::collection::vec(fate(), 0..120)) {
        let mut world = World::new();
        for fate in &fates {
            world.happen(fate);
        }
        world.settle();
        let mut next = 1;
        for step in &world.given {
            let (from, to) = match *step {
                Step::Message(seq, _) => (seq, seq),
                Step::Gap { from, to } => {
                    prop_assert!(to <= world.was_trimmed, "{from} to {to} are still in the log");
                    (from, to)
                }
                Step::Turn { .. } => return Err(TestCaseError::fail("there is but one history")),
            };
            prop_assert_eq!(from, next);
            next = to + 1;
        }
        prop_assert_eq!(next, world.top + 1, "to the end");
        prop_assert!(!world.position.is_asking());
    }
}
