#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::message::{Accepted, Body, ChatMessage};
use crate::outbound::reply_budget::ReplyBudget;
use crate::wire::{Answer, PackedCarrier, PackedDialect, PackedFormat};

fn chat_message(body_bytes: usize) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
        msg_id: "m".into(),
        seq: 1,
        time: 1,
        body: Body::from_text(&"x".repeat(body_bytes)),
        accepted: Accepted::default(),
    }
}

fn message(body_bytes: usize) -> Arc<Broadcast> {
    Broadcast::new(Event::Message(chat_message(body_bytes)))
}

fn presence(room: &str) -> Arc<Broadcast> {
    Broadcast::new(Event::Presence { room: room.into(), delta: PresenceDelta::default(), resync: false })
}

fn history(messages: usize, body_bytes: usize) -> Reply {
    let items = vec![chat_message(body_bytes); messages];
    Reply { id: None, answer: Answer::History { to: "#lobby".into(), items, more: true } }
}

/// Moves the queue's age to the limit.
fn make_overdue(outbox: &Outbox) {
    outbox.lock().queued_since = Instant::now().checked_sub(SLOW_READER.overdue_after);
}

/// Takes the queue. Events are shown as JSON, everything else by its kind.
fn take_shown(outbox: &Outbox) -> Vec<serde_json::Value> {
    let items = outbox.take().unwrap().items.into_iter();
    let shown = items.map(|item| match item {
        Outgoing::Event(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Outgoing::Batch(_) | Outgoing::Remainder(_) => "batch".into(),
        Outgoing::Reply(_) => "reply".into(),
        Outgoing::Ping => "ping".into(),
    });
    shown.collect()
}

#[test]
fn idle_outbox_stays_within_its_size() {
    // With the two counters of its `Arc` a size class of the allocator; the next one has 64 bytes more.
    assert!(size_of::<OutboxShared>() <= 256 - 16, "{} bytes", size_of::<OutboxShared>());
}

#[test]
fn slow_reader_loses_presence_first_and_resyncs_once() {
    let outbox = Outbox::new(Dialect::Json);
    assert_eq!(outbox.push_event(&presence("#early")), PushOutcome::Queued);
    outbox.push_event(&message(SLOW_READER.droppable_bytes_max));
    let typing = Broadcast::new(Event::Typing { to: "#lobby".into(), from: "ann".into() });
    for _ in 0..1000 {
        assert_eq!(outbox.push_event(&typing), PushOutcome::Dropped);
        assert_eq!(outbox.push_event(&presence("#lobby")), PushOutcome::Dropped);
        assert_eq!(outbox.push_event(&presence("#den")), PushOutcome::Dropped);
    }
    outbox.push_event(&message(1));
    let shown = take_shown(&outbox);
    let kinds: Vec<&str> = shown.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["presence", "message", "message", "presence", "presence"], "every message arrives in order");
    assert_eq!(shown[0].get("resync"), None);
    let resync = |room: &str| serde_json::json!({"type": "presence", "room": room, "resync": true});
    assert_eq!(shown[3..], [resync("#den"), resync("#lobby")]);
    assert_eq!(outbox.push_event(&presence("#lobby")), PushOutcome::Queued);
    assert_eq!(take_shown(&outbox).len(), 1, "the resync is sent once");
}

#[test]
fn dropped_presence_never_closes_the_connection() {
    let outbox = Outbox::new(Dialect::Json);
    outbox.push_event(&message(SLOW_READER.queue_bytes_max - 1024));
    outbox.push_event(&presence("#lobby"));
    make_overdue(&outbox);
    outbox.push_event(&presence("#lobby"));
    assert_eq!(outbox.close_code(), None, "an event that may be dropped closes no connection");
    outbox.push_event(&message(1024));
    assert_eq!(outbox.close_code(), Some(CloseCode::Slow), "a message above the bound does");
    assert!(take_shown(&outbox).is_empty(), "the queue is discarded");
}

#[test]
fn largest_reply_is_exempt_from_the_queue_bound() {
    let outbox = Outbox::new(Dialect::Json);
    outbox.push_reply(history(200, 64 * 1024));
    outbox.push_event(&message(SLOW_READER.queue_bytes_max / 2));
    outbox.push_reply(history(1, 1024));
    assert_eq!(outbox.close_code(), None, "one page of any size is queued in addition to the bound");
    assert_eq!(take_shown(&outbox).len(), 3);
    outbox.push_reply(history(200, 64 * 1024));
    outbox.push_reply(history(200, 64 * 1024));
    assert_eq!(outbox.close_code(), Some(CloseCode::Slow), "two unread pages exceed it");
}

#[test]
fn small_replies_add_up_to_the_queue_bound() {
    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..SLOW_READER.queue_bytes_max / ITEM_OVERHEAD_BYTES {
        outbox.push_reply(Reply { id: None, answer: Answer::Pong });
        make_overdue(&outbox);
    }
    assert_eq!(outbox.close_code(), Some(CloseCode::Slow));
}

#[test]
fn burst_is_accepted_until_it_is_overdue() {
    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..40 {
        outbox.push_event(&message(60_000));
    }
    assert_eq!(outbox.close_code(), None, "a burst below its bound is accepted");
    assert_eq!(take_shown(&outbox).len(), 40);
    outbox.push_event(&message(SLOW_READER.queue_bytes_max));
    make_overdue(&outbox);
    outbox.push_event(&message(1));
    assert_eq!(outbox.close_code(), Some(CloseCode::Slow), "the queue is above its bound for a second");

    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..=SLOW_READER.burst_bytes_max / 60_000 {
        outbox.push_event(&message(60_000));
    }
    assert_eq!(outbox.close_code(), Some(CloseCode::Slow), "a burst above its bound closes the connection at once");
}

/// An event of an outbox whose replies use the budget.
#[derive(Debug, Clone)]
enum OutboxStep {
    /// A request is answered, after everything before it is written.
    Reply {
        reserved_bytes: usize,
    },
    /// A message arrives, large enough to close a slow connection after some of them.
    Event,
    Take,
    FinishWrite,
    Close,
}

fn outbox_steps() -> impl Strategy<Value = Vec<OutboxStep>> {
    let step = prop_oneof![
        4 => (1_usize..1_000_000).prop_map(|reserved_bytes| OutboxStep::Reply { reserved_bytes }),
        2 => Just(OutboxStep::Event),
        4 => Just(OutboxStep::Take),
        4 => Just(OutboxStep::FinishWrite),
        1 => Just(OutboxStep::Close),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn unwritten_replies_hold_exactly_their_reservations(steps in outbox_steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let budget = ReplyBudget::new(64 * 1024 * 1024);
        let outbox = Outbox::new(Dialect::Json);
        let (mut queued, mut unwritten) = (0, 0);
        for step in steps {
            match step {
                // The next request is read after the output before it is written.
                OutboxStep::Reply { reserved_bytes } if queued + unwritten == 0 => {
                    let reservation = runtime.block_on(budget.reserve(reserved_bytes)).unwrap();
                    queued = if outbox.close_code().is_none() { reservation.bytes() } else { 0 };
                    outbox.push_reserved_reply(history(1, 10), Some(reservation));
                }
                OutboxStep::Reply { .. } => {}
                OutboxStep::Event => {
                    outbox.push_event(&message(SLOW_READER.burst_bytes_max / 4));
                    // A reader that is too slow loses what is queued, and no more.
                    queued = if outbox.close_code() == Some(CloseCode::Slow) { 0 } else { queued };
                }
                OutboxStep::Take => {
                    let _ = outbox.take().unwrap();
                    unwritten += std::mem::take(&mut queued);
                }
                OutboxStep::FinishWrite => {
                    let _ = outbox.finish_write();
                    unwritten = 0;
                }
                OutboxStep::Close => outbox.close(CloseCode::Kicked),
            }
            prop_assert_eq!(budget.reserved_bytes(), queued + unwritten);
        }
        let _ = runtime.block_on(outbox.disconnect());
        prop_assert_eq!(budget.reserved_bytes(), 0, "an ended connection holds a part, its outbox may live on");
        let late = runtime.block_on(budget.reserve(1000)).unwrap();
        outbox.push_reserved_reply(history(1, 10), Some(late));
        prop_assert_eq!(budget.reserved_bytes(), 0, "a reply after the end holds a part");
    }
}

#[test]
fn left_out_connection_receives_all_other_events() {
    let (sender, other) = (Outbox::new(Dialect::Json), Outbox::new(Dialect::Json));
    let gap = |to_seq| Event::Gap { to: "#lobby".into(), from_seq: 1, to_seq };
    let echo = Broadcast::except(gap(1), sender.id());
    let batch = FanOutBatch::new(vec![Arc::clone(&echo), Broadcast::new(gap(2))]);
    let only_echo = FanOutBatch::new(vec![Arc::clone(&echo)]);
    let seqs = |outbox: &Outbox| {
        outbox.push_event(&echo);
        outbox.push_batch(&batch, &AtomicBool::new(true));
        outbox.push_batch(&only_echo, &AtomicBool::new(true));
        let items = outbox.take().unwrap().items.into_iter();
        let texts = items.map(|item| match item {
            Outgoing::Event(bytes) | Outgoing::Batch(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("{other:?}"),
        });
        let text = texts.collect::<String>();
        text.split("\"to_seq\":").skip(1).map(|rest| rest.starts_with('1')).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&sender), [false]);
    assert_eq!(seqs(&other), [true, true, false, true]);
}

/// A pusher encodes before it takes the lock, and the client turns compression off in between.
#[test]
fn events_after_a_confirmation_are_not_compressed() {
    let dialect = |compresses| {
        let (format, carrier) = (PackedFormat::MessagePack, PackedCarrier::Frames);
        Dialect::Packed(PackedDialect { format, carrier, compresses })
    };
    let (outbox, is_over) = (Outbox::new(dialect(true)), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if outbox.lock().bytes < 64 * 1024 {
                    outbox.push_event(&message(4000));
                }
            }
        });
        for round in 0..10_000 {
            let compresses = round % 2 == 0;
            outbox.set_dialect(dialect(compresses));
            outbox.push_reply(Reply { id: None, answer: Answer::Options { snappy: compresses } });
            let mut may_be_compressed = true;
            for item in outbox.take().unwrap().items {
                match item {
                    Outgoing::Reply(_) => may_be_compressed = compresses,
                    Outgoing::Event(bytes) if bytes[0] & 0x80 != 0 && !may_be_compressed => {
                        is_over.store(true, Ordering::Relaxed);
                        panic!("compressed after the reply of round {round}");
                    }
                    _ => {}
                }
            }
            let _accepted = outbox.finish_write();
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
