//! Rounds: what goes together, what is shared, and whose turn it is.

use tokio::time::timeout;

use super::*;
use crate::outbound::outbox::SOFT_BYTES;

/// A room of so many members that hear everything from its first message on.
fn crowd(hub: &Hub, name: &str, members: usize, format: Dialect) -> (RoomName, Vec<(SessionId, Outbox)>) {
    let room = RoomName::parse(name).unwrap();
    let log = StreamId::Room(room.key().clone());
    let people = Vec::from_iter((0..members).map(|_| (SessionId::random(), Outbox::new(format))));
    for (session, outbox) in &people {
        hub.prepare(&room, session, outbox);
        hub.begin(&log, &head(0));
        assert_eq!(hub.admit(&log, name, (session, outbox), "e", 0), JoinProgress::Entered);
    }
    (room, people)
}

/// The rounds that wait in an outbox.
fn rounds(outbox: &Outbox) -> Vec<bytes::Bytes> {
    let items = outbox.take().unwrap().items.into_iter();
    items.map(|item| if let Outgoing::Batch(bytes) = item { bytes } else { panic!("{item:?}") }).collect()
}

#[test]
fn everybody_shares_one_buffer_for_each_format_and_round() {
    let hub = hub();
    let (room, json) = crowd(&hub, "#lobby", 5, Dialect::Json);
    let lines = Outbox::new(Dialect::Line);
    let session = SessionId::random();
    hub.prepare(&room, &session, &lines);
    enter(&hub, (&session, &lines), 0);
    arrive(&hub, &room, 1);
    arrive(&hub, &room, 2);
    give_all_out(&hub);
    let buffers: Vec<_> = json.iter().map(|(_, outbox)| rounds(outbox)).collect();
    assert_eq!(unframed(&buffers[0][0]).len(), 2, "what is there goes together");
    for buffer in &buffers {
        assert_eq!((buffer.len(), buffer[0].as_ptr()), (1, buffers[0][0].as_ptr()), "a buffer of its own");
    }
    assert_eq!(rounds(&lines)[0], "[#lobby] <ann> hi\n[#lobby] <ann> hi\n");
}

#[test]
fn what_comes_while_a_round_is_under_way_makes_the_next_one() {
    let hub = hub();
    let (room, people) = crowd(&hub, "#lobby", PORTION + 1, Dialect::Json);
    arrive(&hub, &room, 1);
    assert!(give_out(&hub), "one is left");
    for seq in 2..=20 {
        arrive(&hub, &room, seq);
    }
    give_all_out(&hub);
    for (_, outbox) in &people {
        let seqs: Vec<Vec<u64>> = rounds(outbox)
            .iter()
            .map(|round| unframed(round).iter().map(|message| message["seq"].as_u64().unwrap()).collect())
            .collect();
        assert_eq!(seqs, [vec![1], Vec::from_iter(2..=20)]);
    }
}

#[test]
fn a_round_is_bounded() {
    let hub = hub();
    let (room, people) = crowd(&hub, "#lobby", 1, Dialect::Json);
    for seq in 1..=10 {
        let message = ChatMessage { body: Body::from_text(&"x".repeat(20_000)), ..message(seq) };
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message });
    }
    give_all_out(&hub);
    let rounds = rounds(&people[0].1);
    assert!(rounds.len() >= 4 && rounds.iter().all(|round| round.len() < 64 * 1024), "{} rounds", rounds.len());
}

/// Counted in portions, not in time: what a busy machine does to clocks is not what is asked here.
#[test]
fn a_small_room_waits_for_a_portion_of_each_busy_room_and_not_for_a_crowd() {
    let hub = hub();
    let (large, many) = crowd(&hub, "#large", 10 * PORTION, Dialect::Json);
    let (larger, more) = crowd(&hub, "#larger", 10 * PORTION, Dialect::Json);
    let (small, few) = crowd(&hub, "#small", 2, Dialect::Json);
    for seq in 1..=100 {
        arrive(&hub, &large, seq);
        arrive(&hub, &larger, seq);
    }
    assert!(give_out(&hub));
    arrive(&hub, &small, 1);
    let portions = (1..100).find(|_| {
        give_out(&hub);
        few.iter().all(|(_, outbox)| !rounds(outbox).is_empty())
    });
    assert!(portions.is_some_and(|portions| portions <= 3), "after {portions:?} portions");
    let reached = |people: &[(SessionId, Outbox)]| people.iter().filter(|(_, of)| !rounds(of).is_empty()).count();
    assert!(reached(&many) <= 2 * PORTION && reached(&more) <= 2 * PORTION, "a crowd went before");
}

#[test]
fn who_leaves_while_a_round_is_under_way_hears_nothing_more() {
    let hub = hub();
    let (room, people) = crowd(&hub, "#lobby", 2 * PORTION, Dialect::Json);
    arrive(&hub, &room, 1);
    give_out(&hub);
    for (session, outbox) in &people {
        hub.remove(room.key(), session, outbox);
    }
    // The same log with other people in it, while the round of those before is not over.
    let (_, others) = crowd(&hub, "#lobby", 1, Dialect::Json);
    arrive(&hub, &room, 1);
    give_all_out(&hub);
    let heard = people.iter().filter(|(_, outbox)| !rounds(outbox).is_empty()).count();
    assert_eq!((heard, rounds(&others[0].1).len()), (PORTION, 1));
}

#[test]
fn who_has_read_ahead_gets_the_part_of_a_round_that_it_lacks() {
    let (hub, room) = (hub(), room());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (of_ann, of_bob) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    for (session, outbox, after) in [(&ann, &of_ann, 0), (&bob, &of_bob, 3)] {
        hub.prepare(&room, session, outbox);
        hub.begin(&log(), &head(0));
        assert_eq!(admit(&hub, (session, outbox), "e", after), JoinProgress::Entered);
    }
    for seq in 1..=5 {
        arrive(&hub, &room, seq);
    }
    assert_eq!((seqs(&hub, &of_ann), seqs(&hub, &of_bob)), (vec![1, 2, 3, 4, 5], vec![4, 5]));
    assert_eq!(hub.counts.delivered.get(), 7);
}

#[tokio::test]
async fn a_log_that_cannot_be_given_out_as_fast_as_it_grows_is_read_later() {
    let hub = hub();
    let (room, people) = crowd(&hub, "#lobby", 1, Dialect::Json);
    let large = |seq| ChatMessage { body: Body::from_text(&"x".repeat(60_000)), ..message(seq) };
    let mut passed_over = 0;
    for seq in 1..=100 {
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message: large(seq) });
        if passed_over == 0 && hub.lock().logs[&log()].waiting.is_full() {
            passed_over = seq + 1;
        }
    }
    assert!(passed_over > 0, "no bound");
    assert!(hub.take_asks().is_empty(), "reading would only add to it");
    let mut heard = 0;
    while give_out(&hub) || heard < 100 {
        heard += rounds(&people[0].1).iter().map(|round| unframed(round).len()).sum::<usize>();
        for (log, ask) in hub.take_asks() {
            let Ask::Page(place) = &ask else { panic!("{ask:?}") };
            assert_eq!(place.seq + 1, passed_over, "it goes on where it stopped to listen");
            let messages = (passed_over..=100).map(|seq| (seq, message(seq))).collect();
            hub.read(&log, &ask, Reading::Page(StreamPage { head: head(100), messages, through: 100 }));
        }
    }
    assert_eq!(heard, 100);
}

#[test]
fn a_round_that_took_long_is_followed_by_a_rest_as_long_and_nobody_else_waits_for_it() {
    let hub = hub();
    let (large, crowd_of_it) = crowd(&hub, "#lobby", 2 * PORTION, Dialect::Json);
    let (small, few) = crowd(&hub, "#den", 1, Dialect::Json);
    let heard = |people: &[(SessionId, Outbox)]| people.iter().map(|(_, outbox)| rounds(outbox).len()).sum::<usize>();
    let start = Instant::now();
    let at = |millis| move || start + Duration::from_millis(millis);

    arrive(&hub, &large, 1);
    assert!(hub.give_out(at(0)));
    hub.give_out(at(3));
    assert_eq!(heard(&crowd_of_it), 2 * PORTION);
    arrive(&hub, &large, 2);
    arrive(&hub, &large, 3);
    arrive(&hub, &small, 1);
    while hub.give_out(at(5)) {}
    assert_eq!((heard(&crowd_of_it), heard(&few)), (0, 1), "a crowd rests, the others do not");
    assert_eq!(hub.rests_until(), Some(at(6)()));
    while hub.give_out(at(6)) {}
    assert_eq!((heard(&crowd_of_it), hub.rests_until()), (2 * PORTION, None), "both in one round");
    arrive(&hub, &large, 4);
    while hub.give_out(at(6)) {}
    assert_eq!(heard(&crowd_of_it), 2 * PORTION, "one that took no time asks for no rest");
}

#[tokio::test]
async fn what_gathers_while_a_log_rests_goes_out_when_it_has_rested() {
    let hub = hub();
    let (room, people) = crowd(&hub, "#lobby", 2 * PORTION, Dialect::Json);
    let start = Instant::now();
    arrive(&hub, &room, 1);
    assert!(hub.give_out(|| start));
    hub.give_out(|| start + Duration::from_millis(100));
    people.iter().for_each(|(_, outbox)| drop(rounds(outbox)));
    // It rests until 200 ms from the start, and nobody says anything more.
    arrive(&hub, &room, 2);
    let heard = async {
        while people.iter().any(|(_, outbox)| outbox.is_empty()) {
            yield_now().await;
        }
    };
    let given_out = async {
        tokio::select! {
            () = hub.fan_out() => unreachable!("it ends with its task"),
            () = heard => {}
        }
    };
    timeout(Duration::from_secs(10), given_out).await.expect("it rests for ever");
    assert!(start.elapsed() >= Duration::from_millis(200), "it did not rest");
}

#[test]
fn presence_is_left_out_for_a_slow_reader_however_lively_its_room_is() {
    let (hub, session) = (hub(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.prepare(&room(), &session, &outbox);
    enter(&hub, (&session, &outbox), 0);
    let large = ChatMessage { body: Body::from_text(&"x".repeat(SOFT_BYTES)), ..message(1) };
    hub.deliver(Delivery::Room { room: room().key().clone(), epoch: "e".into(), message: large });
    give_all_out(&hub);
    hub.deliver(Delivery::Presence { room: room().key().clone(), version: 1, delta: PresenceDelta::default() });
    hub.deliver(Delivery::Presence { room: room().key().clone(), version: 3, delta: PresenceDelta::default() });
    arrive(&hub, &room(), 2);
    hub.show_presence();
    arrive(&hub, &room(), 3);
    give_all_out(&hub);
    assert_eq!((hub.counts.left_out.get(), hub.counts.delivered.get()), (1, 3));
}
