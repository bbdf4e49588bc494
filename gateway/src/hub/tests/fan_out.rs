//! Fan-out: batches, shared buffers and fairness between streams.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::*;
use crate::outbound::policy::SLOW_READER;

/// Creates a room with this many members, each at seq 0.
fn crowd(hub: &Hub, name: &str, size: usize, dialect: Dialect) -> (RoomName, Vec<(SessionId, Outbox)>) {
    let room = RoomName::parse(name).unwrap();
    let stream = StreamId::Room(room.key().clone());
    let members = Vec::from_iter((0..size).map(|_| (SessionId::random(), Outbox::new(dialect))));
    for (session, outbox) in &members {
        hub.start_join(&room, session, outbox);
        hub.observe_end(&stream, &end(0));
        let request = FeedJoin { display: name, session, outbox, epoch: "e", after: 0 };
        assert_eq!(hub.complete_join(&stream, &request), JoinProgress::Entered);
    }
    (room, members)
}

/// Takes the batches that are queued in an outbox.
fn take_batches(outbox: &Outbox) -> Vec<bytes::Bytes> {
    let items = outbox.take().unwrap().items.into_iter();
    items.map(|item| if let Outgoing::Batch(bytes) = item { bytes } else { panic!("{item:?}") }).collect()
}

#[test]
fn members_share_one_buffer_per_dialect_and_batch() {
    let hub = new_hub();
    let (room, json) = crowd(&hub, "#lobby", 5, Dialect::Json);
    let lines = Outbox::new(Dialect::Line);
    let session = SessionId::random();
    hub.start_join(&room, &session, &lines);
    join_at(&hub, (&session, &lines), 0);
    arrive(&hub, &room, 1);
    arrive(&hub, &room, 2);
    fan_out_all(&hub);
    let buffers: Vec<_> = json.iter().map(|(_, outbox)| take_batches(outbox)).collect();
    assert_eq!(unframed(&buffers[0][0]).len(), 2, "pending messages form one batch");
    for buffer in &buffers {
        assert_eq!(
            (buffer.len(), buffer[0].as_ptr()),
            (1, buffers[0][0].as_ptr()),
            "every member gets the same buffer"
        );
    }
    assert_eq!(take_batches(&lines)[0], "[#lobby] <ann> hi\n[#lobby] <ann> hi\n");
}

/// Delivers messages with these seqs that arrived together.
fn arrive_together(hub: &Hub, room: &RoomName, seqs: std::ops::RangeInclusive<u64>) {
    let mut batch = hub.start_batch();
    for seq in seqs {
        batch.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message: message(seq) });
    }
    batch.fan_out();
}

/// Returns true if a fan-out task was woken since the last call.
fn fan_out_is_due(hub: &Hub) -> bool {
    hub.job_queued.notified().now_or_never().is_some()
}

#[test]
fn small_batch_is_written_without_another_task() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", 2, Dialect::Json);
    arrive_together(&hub, &room, 1..=3);
    for (_, outbox) in &members {
        let batches = take_batches(outbox);
        assert_eq!((batches.len(), unframed(&batches[0]).len()), (1, 3), "one write for all three");
    }
    assert!(!fan_out_is_due(&hub));
    arrive(&hub, &room, 4);
    assert!(fan_out_is_due(&hub) && members[0].1.is_empty(), "a single delivery is left to the tasks");
}

#[test]
fn large_room_gets_one_portion_at_once() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", PORTION_WRITES + 1, Dialect::Json);
    arrive_together(&hub, &room, 1..=1);
    let waiting = |members: &[(SessionId, Outbox)]| members.iter().filter(|(_, outbox)| outbox.is_empty()).count();
    assert_eq!((waiting(&members), fan_out_is_due(&hub)), (1, true));
    // The task that reads does not continue it, and starts nothing before it.
    let (small, few) = crowd(&hub, "#den", 1, Dialect::Json);
    arrive_together(&hub, &small, 1..=1);
    assert_eq!((waiting(&members), waiting(&few), fan_out_is_due(&hub)), (1, 1, true));
    fan_out_all(&hub);
    assert_eq!((waiting(&members), waiting(&few)), (0, 0));
}

#[test]
fn messages_during_a_job_form_the_next_batch() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", PORTION_WRITES + 1, Dialect::Json);
    arrive(&hub, &room, 1);
    assert!(fan_out_portion(&hub), "one member is left");
    for seq in 2..=20 {
        arrive(&hub, &room, seq);
    }
    fan_out_all(&hub);
    for (_, outbox) in &members {
        let seqs: Vec<Vec<u64>> = take_batches(outbox)
            .iter()
            .map(|batch| unframed(batch).iter().map(|message| message["seq"].as_u64().unwrap()).collect())
            .collect();
        assert_eq!(seqs, [vec![1], Vec::from_iter(2..=20)]);
    }
}

#[test]
fn batch_size_is_bounded() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", 1, Dialect::Json);
    for seq in 1..=10 {
        let message = ChatMessage { body: Body::from_text(&"x".repeat(20_000)), ..message(seq) };
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message });
    }
    fan_out_all(&hub);
    let batches = take_batches(&members[0].1);
    let is_bounded = batches.iter().all(|batch| batch.len() < 64 * 1024);
    assert!(batches.len() >= 4 && is_bounded, "{} batches", batches.len());
}

#[test]
fn batch_size_counts_long_names() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, &format!("#{}", "r".repeat(128)), 1, Dialect::Json);
    for seq in 1..=400 {
        let message = ChatMessage { from: "\u{10400}".repeat(32), ..message(seq) };
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message });
    }
    fan_out_all(&hub);
    let sizes: Vec<usize> = take_batches(&members[0].1).iter().map(|batch| batch.len()).collect();
    assert!(sizes.iter().all(|size| *size < 64 * 1024), "{sizes:?}");
}

/// Counts portions instead of time, so a busy machine does not matter.
#[test]
fn small_room_waits_for_one_portion_each() {
    let hub = new_hub();
    let (large, many) = crowd(&hub, "#large", 10 * PORTION_WRITES, Dialect::Json);
    let (larger, more) = crowd(&hub, "#larger", 10 * PORTION_WRITES, Dialect::Json);
    let (small, few) = crowd(&hub, "#small", 2, Dialect::Json);
    for seq in 1..=100 {
        arrive(&hub, &large, seq);
        arrive(&hub, &larger, seq);
    }
    assert!(fan_out_portion(&hub));
    arrive(&hub, &small, 1);
    let portions = (1..100).find(|_| {
        fan_out_portion(&hub);
        few.iter().all(|(_, outbox)| !take_batches(outbox).is_empty())
    });
    assert!(portions.is_some_and(|portions| portions <= 3), "after {portions:?} portions");
    let reached =
        |members: &[(SessionId, Outbox)]| members.iter().filter(|(_, outbox)| !take_batches(outbox).is_empty()).count();
    assert!(
        reached(&many) <= 2 * PORTION_WRITES && reached(&more) <= 2 * PORTION_WRITES,
        "the busy rooms wrote more than two portions each"
    );
}

#[test]
fn leaving_member_receives_nothing_more_of_job() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", 2 * PORTION_WRITES, Dialect::Json);
    arrive(&hub, &room, 1);
    fan_out_portion(&hub);
    for (session, outbox) in &members {
        hub.leave_room(room.key(), session, outbox);
    }
    // The same room has other members while the job of the earlier feed continues.
    let (_, others) = crowd(&hub, "#lobby", 1, Dialect::Json);
    arrive(&hub, &room, 1);
    fan_out_all(&hub);
    let received = members.iter().filter(|(_, outbox)| !take_batches(outbox).is_empty()).count();
    assert_eq!((received, take_batches(&others[0].1).len()), (PORTION_WRITES, 1));
}

#[test]
fn member_ahead_receives_only_new_messages() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    for (session, outbox, after) in [(&ann, &ann_outbox, 0), (&bob, &bob_outbox, 3)] {
        hub.start_join(&room, session, outbox);
        hub.observe_end(&lobby_stream(), &end(0));
        assert_eq!(complete_join(&hub, (session, outbox), "e", after), JoinProgress::Entered);
    }
    for seq in 1..=5 {
        arrive(&hub, &room, seq);
    }
    assert_eq!((seqs(&hub, &ann_outbox), seqs(&hub, &bob_outbox)), (vec![1, 2, 3, 4, 5], vec![4, 5]));
    assert_eq!(hub.counts.delivered.get(), 7);
}

#[tokio::test]
async fn stream_that_outgrows_fan_out_is_refilled() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", 1, Dialect::Json);
    let large = |seq| ChatMessage { body: Body::from_text(&"x".repeat(60_000)), ..message(seq) };
    let mut first_deferred = 0;
    for seq in 1..=100 {
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message: large(seq) });
        if first_deferred == 0 && hub.lock().streams.get_mut(&lobby_stream()).unwrap().pending.is_full() {
            first_deferred = seq + 1;
        }
    }
    assert!(first_deferred > 0, "pending messages are bounded");
    assert!(hub.take_refill_requests().is_empty(), "a full stream requests no refill");
    let mut received = 0;
    while fan_out_portion(&hub) || received < 100 {
        received += take_batches(&members[0].1).iter().map(|batch| unframed(batch).len()).sum::<usize>();
        for (stream, request) in hub.take_refill_requests() {
            let RefillRequest::Page(position) = &request else { panic!("{request:?}") };
            assert_eq!(position.seq + 1, first_deferred, "the refill continues at the first deferred message");
            let messages = (first_deferred..=100).map(|seq| (seq, message(seq))).collect();
            hub.apply_refill(
                &stream,
                &request,
                RefillResult::Page(StreamPage { end: end(100), messages, through: 100 }),
            );
        }
    }
    assert_eq!(received, 100);
}

#[tokio::test]
async fn finished_fan_out_wakes_the_deferred_refill() {
    let hub = Arc::new(new_hub());
    let (room, _members) = crowd(&hub, "#lobby", 1, Dialect::Json);
    for seq in 1..=100 {
        let message = ChatMessage { body: Body::from_text(&"x".repeat(60_000)), ..message(seq) };
        hub.deliver(Delivery::Room { room: room.key().clone(), epoch: "e".into(), message });
    }
    let requests = tokio::spawn({
        let hub = Arc::clone(&hub);
        async move { hub.refill_requests().await }
    });
    yield_now().await;
    fan_out_all(&hub);
    let requests = timeout(Duration::from_secs(10), requests).await.expect("the refill task wakes").unwrap();
    assert_eq!(requests.len(), 1);
}

#[test]
fn epoch_change_keeps_recipients_of_pending_messages() {
    let (hub, room) = (new_hub(), lobby());
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (ann_outbox, bob_outbox) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    hub.start_join(&room, &ann, &ann_outbox);
    join_at(&hub, (&ann, &ann_outbox), 3);
    // Bob's replay is ahead of the node.
    hub.start_join(&room, &bob, &bob_outbox);
    assert_eq!(complete_join(&hub, (&bob, &bob_outbox), "e", 5), JoinProgress::Entered);
    arrive(&hub, &room, 4);
    arrive(&hub, &room, 5);
    hub.observe_end(&lobby_stream(), &forked(3, 3));
    assert_eq!(take_short(&hub, &bob_outbox), ["rewound 3"]);
    assert_eq!(take_short(&hub, &ann_outbox), ["4", "5", "rewound 3"]);
}

#[test]
fn long_fan_out_pauses_its_own_room_only() {
    let hub = new_hub();
    let (large, many) = crowd(&hub, "#lobby", 2 * PORTION_WRITES, Dialect::Json);
    let (small, few) = crowd(&hub, "#den", 1, Dialect::Json);
    let received =
        |members: &[(SessionId, Outbox)]| members.iter().map(|(_, outbox)| take_batches(outbox).len()).sum::<usize>();
    let start = Instant::now();
    let at = |millis| move || start + Duration::from_millis(millis);

    arrive(&hub, &large, 1);
    assert!(hub.fan_out_portion(at(0)));
    hub.fan_out_portion(at(3));
    assert_eq!(received(&many), 2 * PORTION_WRITES);
    arrive(&hub, &large, 2);
    arrive(&hub, &large, 3);
    arrive(&hub, &small, 1);
    while hub.fan_out_portion(at(5)) {}
    assert_eq!((received(&many), received(&few)), (0, 1), "only the large room pauses");
    assert_eq!(hub.next_pause_end(), Some(at(6)()));
    while hub.fan_out_portion(at(6)) {}
    assert_eq!((received(&many), hub.next_pause_end()), (2 * PORTION_WRITES, None), "both messages are in one batch");
    arrive(&hub, &large, 4);
    while hub.fan_out_portion(at(6)) {}
    assert_eq!(received(&many), 2 * PORTION_WRITES, "a short fan-out causes no pause");
}

#[tokio::test]
async fn messages_during_a_pause_are_written_after_it() {
    let hub = new_hub();
    let (room, members) = crowd(&hub, "#lobby", 2 * PORTION_WRITES, Dialect::Json);
    let start = Instant::now();
    arrive(&hub, &room, 1);
    assert!(hub.fan_out_portion(|| start));
    hub.fan_out_portion(|| start + Duration::from_millis(100));
    members.iter().for_each(|(_, outbox)| drop(take_batches(outbox)));
    // The pause lasts until 200 ms from the start, and no further message arrives.
    arrive(&hub, &room, 2);
    let received = async {
        while members.iter().any(|(_, outbox)| outbox.is_empty()) {
            yield_now().await;
        }
    };
    let fan_out = async {
        tokio::select! {
            () = hub.fan_out() => unreachable!("fan-out never returns"),
            () = received => {}
        }
    };
    timeout(Duration::from_secs(10), fan_out).await.expect("the pause ends");
    assert!(start.elapsed() >= Duration::from_millis(200), "the pause was shorter than the fan-out");
}

#[test]
fn slow_reader_receives_no_presence_of_busy_room() {
    let (hub, session) = (new_hub(), SessionId::random());
    let outbox = Outbox::new(Dialect::Json);
    hub.start_join(&lobby(), &session, &outbox);
    join_at(&hub, (&session, &outbox), 0);
    let large = ChatMessage { body: Body::from_text(&"x".repeat(SLOW_READER.droppable_bytes_max)), ..message(1) };
    hub.deliver(Delivery::Room { room: lobby().key().clone(), epoch: "e".into(), message: large });
    fan_out_all(&hub);
    hub.deliver(Delivery::Presence { room: lobby().key().clone(), version: 1, delta: PresenceDelta::default() });
    hub.deliver(Delivery::Presence { room: lobby().key().clone(), version: 3, delta: PresenceDelta::default() });
    arrive(&hub, &lobby(), 2);
    hub.flush_presence();
    arrive(&hub, &lobby(), 3);
    fan_out_all(&hub);
    assert_eq!((hub.counts.skipped.get(), hub.counts.delivered.get()), (1, 3));
}
