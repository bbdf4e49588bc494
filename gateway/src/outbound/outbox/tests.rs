#![allow(clippy::unwrap_used)]

use super::*;
use crate::message::{Accepted, Body, ChatMessage};

fn said(bytes: usize) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        msg_id: "m".into(),
        seq: 1,
        time: 1,
        body: Body::from_text(&"x".repeat(bytes)),
        accepted: Accepted::default(),
    }
}

fn message(bytes: usize) -> Arc<Broadcast> {
    Broadcast::new(Event::Message(said(bytes)))
}

fn presence(room: &str) -> Arc<Broadcast> {
    Broadcast::new(Event::Presence { room: room.into(), delta: PresenceDelta::default(), resync: false })
}

fn history(messages: usize, bytes: usize) -> Reply {
    let items = vec![said(bytes); messages];
    Reply { id: None, answer: Answer::History { to: "#lobby".into(), items, more: true } }
}

/// Lets what waits have waited for too long.
fn overdue(outbox: &Outbox) {
    outbox.lock().since = Instant::now().checked_sub(SLOW_AFTER);
}

/// What is written, as JSON; replies by their kind only.
fn written(outbox: &Outbox) -> Vec<serde_json::Value> {
    let items = outbox.take().unwrap().items.into_iter();
    let shown = items.map(|item| match item {
        Outgoing::Event(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Outgoing::Batch(_) | Outgoing::Rest(_) => "round".into(),
        Outgoing::Reply(_) => "reply".into(),
        Outgoing::Ping => "ping".into(),
    });
    shown.collect()
}

#[test]
fn presence_is_left_out_first_and_each_room_told_once_when_there_is_room_again() {
    let outbox = Outbox::new(Dialect::Json);
    assert_eq!(outbox.event(&presence("#early")), PushOutcome::Taken);
    outbox.event(&message(SOFT_BYTES));
    let typing = Broadcast::new(Event::Typing { to: "#lobby".into(), from: "ann".into() });
    for _ in 0..1000 {
        assert_eq!(outbox.event(&typing), PushOutcome::LeftOut);
        assert_eq!(outbox.event(&presence("#lobby")), PushOutcome::LeftOut);
        assert_eq!(outbox.event(&presence("#den")), PushOutcome::LeftOut);
    }
    outbox.event(&message(1));
    let seen = written(&outbox);
    let kinds: Vec<&str> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["presence", "message", "message", "presence", "presence"], "every message, in order");
    assert_eq!(seen[0].get("resync"), None);
    let resync = |room: &str| serde_json::json!({"type": "presence", "room": room, "resync": true});
    assert_eq!(seen[3..], [resync("#den"), resync("#lobby")]);
    assert_eq!(outbox.event(&presence("#lobby")), PushOutcome::Taken);
    assert_eq!(written(&outbox).len(), 1, "told once");
}

#[test]
fn a_change_that_was_left_out_makes_nobody_wait_for_the_word_of_it() {
    let outbox = Outbox::new(Dialect::Json);
    outbox.event(&message(OUTBOX_BYTES - 1024));
    outbox.event(&presence("#lobby"));
    overdue(&outbox);
    outbox.event(&presence("#lobby"));
    assert_eq!(outbox.closing(), None, "what can be left out closes nobody");
    outbox.event(&message(1024));
    assert_eq!(outbox.closing(), Some(CloseCode::Slow), "what must not be left out does");
    assert!(written(&outbox).is_empty(), "and nothing of it is written");
}

#[test]
fn a_reply_counts_as_what_it_is_and_one_of_any_size_gets_through() {
    let outbox = Outbox::new(Dialect::Json);
    outbox.reply(history(200, 64 * 1024));
    outbox.event(&message(OUTBOX_BYTES / 2));
    outbox.reply(history(1, 1024));
    assert_eq!(outbox.closing(), None, "one page goes beside the bound, whatever else waits");
    assert_eq!(written(&outbox).len(), 3);
    outbox.reply(history(200, 64 * 1024));
    outbox.reply(history(200, 64 * 1024));
    assert_eq!(outbox.closing(), Some(CloseCode::Slow), "two pages that nobody reads are too many");
}

#[test]
fn small_replies_add_up() {
    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..OUTBOX_BYTES / ENTRY_BYTES {
        outbox.reply(Reply { id: None, answer: Answer::Pong });
        overdue(&outbox);
    }
    assert_eq!(outbox.closing(), Some(CloseCode::Slow));
}

#[test]
fn a_burst_makes_nobody_slow_and_waiting_does() {
    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..40 {
        outbox.event(&message(60_000));
    }
    assert_eq!(outbox.closing(), None, "it came at once");
    assert_eq!(written(&outbox).len(), 40);
    outbox.event(&message(OUTBOX_BYTES));
    overdue(&outbox);
    outbox.event(&message(1));
    assert_eq!(outbox.closing(), Some(CloseCode::Slow), "it waits for a second already");

    let outbox = Outbox::new(Dialect::Json);
    for _ in 0..=BURST_BYTES / 60_000 {
        outbox.event(&message(60_000));
    }
    assert_eq!(outbox.closing(), Some(CloseCode::Slow), "a bound is a bound");
}
