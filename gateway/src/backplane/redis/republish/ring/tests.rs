//! The ring against a model with full memory: no message is removed too early, and none is kept forever.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use presence::model::RoomKey;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A ring with a clock that only steps advance.
struct RingHarness {
    ring: RepublishRing<()>,
    start: Instant,
    now: Instant,
}

impl RingHarness {
    fn new() -> Self {
        let start = Instant::now();
        Self { ring: RepublishRing::default(), start, now: start }
    }

    fn after(&mut self, pause: Duration) -> &mut Self {
        self.now += pause;
        self
    }

    /// A beat of this generation is answered at once.
    fn beat(&mut self, generation: u64) {
        self.ring.beat(AnsweredBeat { generation, sent: self.now, received: self.now });
    }

    fn beats(&mut self, generation: u64, seconds: u64) {
        (0..seconds).for_each(|_| self.after(SECOND).beat(generation));
    }

    fn ack(&mut self, room: &str, id: &str, position: (&str, u64), generation: u64) -> bool {
        self.ring.add(acked(room, id, position, generation), (), self.now)
    }

    fn settle(&mut self, generation: u64) {
        for unsettled in self.ring.unsettled().into_iter().flatten() {
            self.ring.mark_present(unsettled.number, unsettled.position, generation, self.now);
        }
    }

    /// Returns the ids of a room's unsettled messages, in the order of their republish.
    fn unsettled(&self, room: &str) -> Vec<String> {
        let stream = StreamId::Room(RoomKey::from_store(room));
        let of_room = self.ring.unsettled().into_iter().filter(|unsettled| unsettled[0].target.stream() == stream);
        of_room.flatten().map(|unsettled| unsettled.message.msg_id.clone()).collect()
    }
}

fn acked(room: &str, id: &str, (epoch, seq): (&str, u64), generation: u64) -> AckedMessage {
    let text = String::new();
    let message = StoredMessage {
        prior: String::new(),
        token: text.clone(),
        nick: text.clone(),
        moderates: false,
        key: text.clone(),
        msg_id: id.to_owned(),
        payload: text,
    };
    AckedMessage {
        target: WriteTarget::Room(RoomKey::from_store(room)),
        message: Arc::new(message),
        position: AckedPosition { epoch: epoch.into(), seq },
        generation,
    }
}

#[test]
fn message_is_removed_after_five_seconds_of_beats() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    harness.after(SECOND / 2).ack("lobby", "a", ("e", 1), 1);
    harness.beats(1, 5);
    assert!(!harness.ring.is_empty(), "removed after beats of only four seconds");
    harness.beats(1, 1);
    assert!(harness.ring.is_empty());
    assert_eq!(harness.ring.settled(), 1);
}

#[test]
fn time_without_beats_does_not_count() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    harness.after(SECOND / 2).ack("lobby", "a", ("e", 1), 1);
    for _ in 0..10 {
        harness.after(SECOND * 60).beat(1);
    }
    assert!(!harness.ring.is_empty(), "removed without proof of the time between beats");
    // A store frozen most of the time: an answer comes late, and the next one at once.
    for _ in 0..10 {
        harness.after(SECOND);
        harness.ring.beat(AnsweredBeat { generation: 1, sent: harness.now, received: harness.now + SECOND * 8 });
        harness.after(SECOND * 8);
    }
    assert!(!harness.ring.is_empty());
    harness.beats(1, 6);
    assert!(harness.ring.is_empty());
}

#[test]
fn beat_sent_before_the_ack_proves_nothing() {
    let mut harness = RingHarness::new();
    let sent = harness.now;
    harness.after(SECOND / 10).ack("lobby", "a", ("e", 1), 1);
    harness.ring.beat(AnsweredBeat { generation: 1, sent, received: harness.now });
    harness.beats(1, 5);
    assert!(!harness.ring.is_empty());
    harness.beats(1, 1);
    assert!(harness.ring.is_empty());
}

#[test]
fn new_generation_unsettles_all_until_checked() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    harness.ack("lobby", "a", ("e", 1), 1);
    harness.ack("hall", "b", ("f", 9), 1);
    harness.beats(1, 4);
    harness.after(SECOND).beat(2);
    assert!(harness.ring.is_unsettled());
    assert_eq!((harness.ring.settled(), harness.ring.generation()), (1, 2));
    harness.beats(2, 60);
    assert_eq!((harness.unsettled("lobby"), harness.unsettled("hall")), (vec!["a".to_owned()], vec!["b".to_owned()]));
    harness.settle(2);
    assert!(!harness.ring.is_unsettled());
    assert_eq!(harness.ring.settled(), 2);
    harness.beats(2, 5);
    assert!(!harness.ring.is_empty(), "removed less than five seconds after its check");
    harness.beats(2, 1);
    assert!(harness.ring.is_empty());
    harness.after(SECOND).beat(3);
    assert_eq!(harness.ring.settled(), 3, "an empty ring had unsettled messages");
}

#[test]
fn check_in_a_former_generation_leaves_message_unsettled() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    harness.ack("lobby", "a", ("e", 1), 1);
    harness.beat(2);
    let unsettled = harness.ring.unsettled().remove(0).remove(0);
    harness.beat(3);
    harness.ring.mark_present(unsettled.number, AckedPosition { epoch: "f".into(), seq: 4 }, 2, harness.now);
    assert_eq!(harness.unsettled("lobby"), ["a"]);
    assert_eq!(harness.ring.unsettled()[0][0].position, AckedPosition { epoch: "f".into(), seq: 4 });
    assert_ne!(harness.ring.settled(), 3);
    harness.settle(3);
    assert_eq!(harness.ring.settled(), 3);
}

#[test]
fn late_ack_is_unsettled_at_once() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    assert!(!harness.ack("lobby", "a", ("e", 1), 1));
    harness.beat(2);
    harness.settle(2);
    assert!(harness.ack("lobby", "late", ("e", 2), 1));
    assert_eq!(harness.unsettled("lobby"), ["late"]);
    harness.settle(2);
    assert!(!harness.ring.is_unsettled());
}

#[test]
fn unsettled_messages_keep_order_across_epochs() {
    let mut harness = RingHarness::new();
    harness.beat(1);
    for (id, seq) in [("b", 51), ("d", 53), ("a", 50), ("c", 52)] {
        harness.ack("lobby", id, ("e", seq), 1);
    }
    harness.beat(2);
    assert_eq!(harness.unsettled("lobby"), ["a", "b", "c", "d"]);
    // Half of them are republished with low seqs in the next epoch, which is lost as well.
    for (at, unsettled) in harness.ring.unsettled().remove(0).into_iter().take(2).enumerate() {
        harness.ring.mark_present(
            unsettled.number,
            AckedPosition { epoch: "f".into(), seq: 7 + at as u64 },
            2,
            harness.now,
        );
    }
    harness.beat(3);
    assert_eq!(harness.unsettled("lobby"), ["a", "b", "c", "d"]);
}

/// An event of a ring.
#[derive(Debug, Clone)]
enum RingStep {
    Ack,
    AnsweredBeat { latency: u64, is_new_generation: bool },
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<(u64, RingStep)>> {
    let step = prop_oneof![
        3 => Just(RingStep::Ack),
        6 => (prop_oneof![4 => 0_u64..50, 1 => 0_u64..4000], prop::bool::weighted(0.1))
            .prop_map(|(latency, is_new_generation)| RingStep::AnsweredBeat { latency, is_new_generation }),
        2 => (0_usize..3).prop_map(RingStep::Settle),
    ];
    prop::collection::vec((prop_oneof![6 => 0_u64..1500, 1 => 0_u64..9000], step), 1..120)
}

/// Returns the span of beats of the newest generation after `since`.
fn proven_span(beats: &[AnsweredBeat], since: Instant) -> Duration {
    let mut proven_span = Duration::ZERO;
    let after: Vec<&AnsweredBeat> = beats.iter().filter(|beat| beat.sent > since).collect();
    for pair in after.windows(2) {
        if pair[0].generation != pair[1].generation {
            proven_span = Duration::ZERO;
        } else if pair[1].received - pair[0].sent <= BEAT_SPAN_MAX {
            proven_span += pair[1].sent - pair[0].sent;
        }
    }
    proven_span
}

proptest! {
    #[test]
    fn messages_are_kept_exactly_until_they_are_safe(steps in steps()) {
        let mut harness = RingHarness::new();
        let (mut beats, mut generation): (Vec<AnsweredBeat>, u64) = (Vec::new(), 1);
        // The generation and time of the last proof that each acknowledged message was present.
        let mut known: Vec<(u64, Instant)> = Vec::new();
        let (mut settled_at, mut removed) = (harness.start, 0);
        for (pause, step) in steps {
            harness.after(Duration::from_millis(pause));
            match step {
                RingStep::Ack => {
                    let written = if beats.is_empty() { 0 } else { harness.ring.settled() };
                    harness.ack("lobby", &known.len().to_string(), ("e", known.len() as u64), written);
                    known.push((written, harness.now));
                }
                RingStep::AnsweredBeat { latency, is_new_generation } => {
                    generation += u64::from(is_new_generation);
                    let received = harness.now + Duration::from_millis(latency);
                    let beat = AnsweredBeat { generation, sent: harness.now, received };
                    beats.push(beat);
                    harness.ring.beat(beat);
                    harness.now = received;
                }
                RingStep::Settle(limit) => {
                    let unsettled: Vec<UnsettledMessage> = harness.ring.unsettled().into_iter().flatten().take(limit).collect();
                    settled_at = if unsettled.is_empty() { settled_at } else { harness.now };
                    for unsettled in unsettled {
                        known[usize::try_from(unsettled.number).unwrap()] = (generation, harness.now);
                        harness.ring.mark_present(unsettled.number, unsettled.position, generation, harness.now);
                    }
                }
            }
            let is_current = |(of, _): &(u64, Instant)| beats.is_empty() || *of == generation;
            let safe = |entry: &(u64, Instant)| is_current(entry) && proven_span(&beats, entry.1) >= SAFE_AFTER;
            let before = std::mem::replace(&mut removed, usize::try_from(harness.ring.first_number).unwrap());
            for entry in &known[before..removed] {
                prop_assert!(proven_span(&beats, entry.1) >= SAFE_AFTER, "removed too early");
            }
            // A check of any message delays the others as well.
            let overdue = |entry: &(u64, Instant)| safe(entry) && proven_span(&beats, settled_at) >= SAFE_AFTER;
            prop_assert!(known[removed..].first().is_none_or(|oldest| !overdue(oldest)), "kept for too long");
            let unsettled_count = known[removed..].iter().filter(|entry| !is_current(entry)).count();
            prop_assert_eq!(harness.ring.is_unsettled(), unsettled_count > 0);
            prop_assert_eq!(harness.ring.unsettled().into_iter().flatten().count(), unsettled_count);
            prop_assert!(unsettled_count > 0 || beats.is_empty() || harness.ring.settled() == generation);
        }
    }
}
