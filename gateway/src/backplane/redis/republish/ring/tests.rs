//! The ring against a model that remembers everything: nothing is forgotten too early, nothing is kept for ever.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use presence::model::RoomKey;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A ring and a clock that stands still between two steps.
struct World {
    ring: RepublishRing<()>,
    start: Instant,
    now: Instant,
}

impl World {
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

    fn ack(&mut self, room: &str, id: &str, epoch: &str, seq: u64, generation: u64) -> bool {
        self.ring.keep(acked(room, id, epoch, seq, generation), (), self.now)
    }

    fn find(&mut self, generation: u64) {
        for owed in self.ring.unsettled().into_iter().flatten() {
            self.ring.mark_present(owed.number, owed.position, generation, self.now);
        }
    }

    /// What is owed in a room, in the order in which it is to be put back.
    fn unsettled(&self, room: &str) -> Vec<String> {
        let log = StreamId::Room(RoomKey::from_store(room));
        let of_room = self.ring.unsettled().into_iter().filter(|owed| owed[0].target.stream() == log);
        of_room.flatten().map(|owed| owed.message.msg_id.clone()).collect()
    }
}

fn acked(room: &str, id: &str, epoch: &str, seq: u64, generation: u64) -> AckedMessage {
    let text = String::new();
    let message = StoredMessage {
        token: text.clone(),
        nick: text.clone(),
        key: text.clone(),
        msg_id: id.to_owned(),
        payload: text,
    };
    AckedMessage {
        target: WriteTarget::Room(RoomKey::from_store(room)),
        message: Arc::new(message),
        position: AckedPosition { epoch: epoch.to_owned(), seq },
        generation,
    }
}

#[test]
fn what_beats_have_spanned_five_seconds_since_is_forgotten() {
    let mut world = World::new();
    world.beat(1);
    world.after(SECOND / 2).ack("lobby", "a", "e", 1, 1);
    world.beats(1, 5);
    assert!(!world.ring.is_empty(), "four seconds between the first beat since and the last");
    world.beats(1, 1);
    assert!(world.ring.is_empty());
    assert_eq!(world.ring.settled(), 1);
}

#[test]
fn time_without_beats_does_not_count() {
    let mut world = World::new();
    world.beat(1);
    world.after(SECOND / 2).ack("lobby", "a", "e", 1, 1);
    for _ in 0..10 {
        world.after(SECOND * 60).beat(1);
    }
    assert!(!world.ring.is_empty(), "nobody knows what the store did meanwhile");
    // Frozen for most of the time: the answer to a beat comes late, and the next one at once.
    for _ in 0..10 {
        world.after(SECOND);
        world.ring.beat(AnsweredBeat { generation: 1, sent: world.now, received: world.now + SECOND * 8 });
        world.after(SECOND * 8);
    }
    assert!(!world.ring.is_empty());
    world.beats(1, 6);
    assert!(world.ring.is_empty());
}

#[test]
fn a_beat_that_was_under_way_when_it_was_acked_proves_nothing() {
    let mut world = World::new();
    let sent = world.now;
    world.after(SECOND / 10).ack("lobby", "a", "e", 1, 1);
    world.ring.beat(AnsweredBeat { generation: 1, sent, received: world.now });
    world.beats(1, 5);
    assert!(!world.ring.is_empty());
    world.beats(1, 1);
    assert!(world.ring.is_empty());
}

#[test]
fn another_generation_owes_everything_and_nothing_new_is_written_before_it_is_found() {
    let mut world = World::new();
    world.beat(1);
    world.ack("lobby", "a", "e", 1, 1);
    world.ack("hall", "b", "f", 9, 1);
    world.beats(1, 4);
    world.after(SECOND).beat(2);
    assert!(world.ring.is_unsettled());
    assert_eq!((world.ring.settled(), world.ring.generation()), (1, 2));
    world.beats(2, 60);
    assert_eq!((world.unsettled("lobby"), world.unsettled("hall")), (vec!["a".to_owned()], vec!["b".to_owned()]));
    world.find(2);
    assert!(!world.ring.is_unsettled());
    assert_eq!(world.ring.settled(), 2);
    world.beats(2, 5);
    assert!(!world.ring.is_empty(), "counted from when it was found");
    world.beats(2, 1);
    assert!(world.ring.is_empty());
    world.after(SECOND).beat(3);
    assert_eq!(world.ring.settled(), 3, "who keeps nothing owes nothing");
}

#[test]
fn what_was_found_in_a_generation_that_is_over_is_unsettled_message_again() {
    let mut world = World::new();
    world.beat(1);
    world.ack("lobby", "a", "e", 1, 1);
    world.beat(2);
    let owed = world.ring.unsettled().remove(0).remove(0);
    world.beat(3);
    world.ring.mark_present(owed.number, AckedPosition { epoch: "f".into(), seq: 4 }, 2, world.now);
    assert_eq!(world.unsettled("lobby"), ["a"]);
    assert_eq!(world.ring.unsettled()[0][0].position, AckedPosition { epoch: "f".into(), seq: 4 });
    assert_ne!(world.ring.settled(), 3);
    world.find(3);
    assert_eq!(world.ring.settled(), 3);
}

#[test]
fn an_ack_that_comes_late_is_unsettled_message_at_once() {
    let mut world = World::new();
    world.beat(1);
    assert!(!world.ack("lobby", "a", "e", 1, 1));
    world.beat(2);
    world.find(2);
    assert!(world.ack("lobby", "late", "e", 2, 1));
    assert_eq!(world.unsettled("lobby"), ["late"]);
    world.find(2);
    assert!(!world.ring.is_unsettled());
}

#[test]
fn the_old_order_is_that_of_the_numbers_behind_what_was_put_back_before() {
    let mut world = World::new();
    world.beat(1);
    for (id, seq) in [("b", 51), ("d", 53), ("a", 50), ("c", 52)] {
        world.ack("lobby", id, "e", seq, 1);
    }
    world.beat(2);
    assert_eq!(world.unsettled("lobby"), ["a", "b", "c", "d"]);
    // Half of it is put back, low in the next epoch; then that is lost as well.
    for (at, owed) in world.ring.unsettled().remove(0).into_iter().take(2).enumerate() {
        world.ring.mark_present(owed.number, AckedPosition { epoch: "f".into(), seq: 7 + at as u64 }, 2, world.now);
    }
    world.beat(3);
    assert_eq!(world.unsettled("lobby"), ["a", "b", "c", "d"]);
}

/// What happens to a ring.
#[derive(Debug, Clone)]
enum Deed {
    Ack,
    AnsweredBeat { latency: u64, reborn: bool },
    Find(usize),
}

fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let deed = prop_oneof![
        3 => Just(Deed::Ack),
        6 => (prop_oneof![4 => 0_u64..50, 1 => 0_u64..4000], prop::bool::weighted(0.1))
            .prop_map(|(latency, reborn)| Deed::AnsweredBeat { latency, reborn }),
        2 => (0_usize..3).prop_map(Deed::Find),
    ];
    prop::collection::vec((prop_oneof![6 => 0_u64..1500, 1 => 0_u64..9000], deed), 1..120)
}

/// For how long beats show that one generation has lived since `since`; none that began before it.
fn shown(beats: &[AnsweredBeat], since: Instant) -> Duration {
    let mut shown = Duration::ZERO;
    let after: Vec<&AnsweredBeat> = beats.iter().filter(|beat| beat.sent > since).collect();
    for pair in after.windows(2) {
        if pair[0].generation != pair[1].generation {
            shown = Duration::ZERO;
        } else if pair[1].received - pair[0].sent <= BREAK {
            shown += pair[1].sent - pair[0].sent;
        }
    }
    shown
}

proptest! {
    #[test]
    fn a_message_is_kept_until_it_is_safe_and_no_longer(deeds in deeds()) {
        let mut world = World::new();
        let (mut beats, mut generation): (Vec<AnsweredBeat>, u64) = (Vec::new(), 1);
        // Of everything that was ever acked: generation and time of when it was last known to be there.
        let mut known: Vec<(u64, Instant)> = Vec::new();
        let (mut found_at, mut forgotten) = (world.start, 0);
        for (pause, deed) in deeds {
            world.after(Duration::from_millis(pause));
            match deed {
                Deed::Ack => {
                    let written = if beats.is_empty() { 0 } else { world.ring.settled() };
                    world.ack("lobby", &known.len().to_string(), "e", known.len() as u64, written);
                    known.push((written, world.now));
                }
                Deed::AnsweredBeat { latency, reborn } => {
                    generation += u64::from(reborn);
                    let received = world.now + Duration::from_millis(latency);
                    let beat = AnsweredBeat { generation, sent: world.now, received };
                    beats.push(beat);
                    world.ring.beat(beat);
                    world.now = received;
                }
                Deed::Find(most) => {
                    let owed: Vec<UnsettledMessage> = world.ring.unsettled().into_iter().flatten().take(most).collect();
                    found_at = if owed.is_empty() { found_at } else { world.now };
                    for owed in owed {
                        known[usize::try_from(owed.number).unwrap()] = (generation, world.now);
                        world.ring.mark_present(owed.number, owed.position, generation, world.now);
                    }
                }
            }
            let is_current = |(of, _): &(u64, Instant)| beats.is_empty() || *of == generation;
            let safe = |entry: &(u64, Instant)| is_current(entry) && shown(&beats, entry.1) >= SAFE_AFTER;
            let before = std::mem::replace(&mut forgotten, usize::try_from(world.ring.first).unwrap());
            for entry in &known[before..forgotten] {
                prop_assert!(shown(&beats, entry.1) >= SAFE_AFTER, "forgotten too early");
            }
            // Whatever is looked at puts the others off too.
            let overdue = |entry: &(u64, Instant)| safe(entry) && shown(&beats, found_at) >= SAFE_AFTER;
            prop_assert!(known[forgotten..].first().is_none_or(|oldest| !overdue(oldest)), "kept for too long");
            let owing = known[forgotten..].iter().filter(|entry| !is_current(entry)).count();
            prop_assert_eq!(world.ring.is_unsettled(), owing > 0);
            prop_assert_eq!(world.ring.unsettled().into_iter().flatten().count(), owing);
            prop_assert!(owing > 0 || beats.is_empty() || world.ring.settled() == generation);
        }
    }
}
