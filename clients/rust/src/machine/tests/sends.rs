//! Tables of calls: repeats, lanes, lost answers, and calls that nothing awaits any more.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::events::RoomEvent;
use crate::machine::{Input, SessionEffect};
use crate::wire::ClientRequest;

fn ack(seq: u64) -> Value {
    json!({"type": "ack", "to": "#tea", "msg_id": format!("m{seq}"), "seq": seq, "time": 1, "duplicate": false})
}

#[test]
fn lost_send_is_repeated_with_its_key() {
    let mut stage = Stage::in_tea();
    let call = stage.send("#tea", 1);
    let first = stage.last_request();
    stage.clear();
    stage.resume(&["#tea"]);
    let requests = stage.requests();
    let again = requests.iter().find(|request| request["type"] == "send").expect("a repeat");
    assert_eq!((&again["key"], &again["body"]), (&first["key"], &first["body"]));
    stage.reply("send", &ack(4));
    assert!(stage.answer(call).is_some_and(|answer| answer.is_ok()));
    stage.clear();
    stage.resume(&["#tea"]);
    assert!(!stage.request_types().contains(&"send".to_owned()), "an answered send is not repeated");
}

#[test]
fn sends_to_one_target_wait_for_each_other() {
    let mut stage = Stage::in_tea();
    let calls = [stage.send("#tea", 1), stage.send("#TEA", 2), stage.send("bob", 3)];
    let bodies = |stage: &Stage| stage.requests().iter().map(|request| request["body"].clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&stage), [1, 3], "the other target is free");
    stage.reply("send", &json!({"type": "ack", "to": "bob", "msg_id": "d", "time": 1, "duplicate": false}));
    assert!(stage.answer(calls[2]).is_some());
    stage.event(
        &json!({"type": "error", "id": stage.requests()[0]["id"], "code": "rate_limited", "retry_after_ms": 70}),
    );
    assert_eq!(stage.next_in(), Some(Duration::from_millis(320)), "at least the time that the server asks for");
    stage.tick();
    assert_eq!(bodies(&stage), [1, 3, 1], "a refused send keeps its turn");
    stage.reply("send", &ack(4));
    assert_eq!(bodies(&stage), [1, 3, 1, 2]);
}

#[test]
fn refusal_codes_end_or_repeat_a_send() {
    for (code, is_final) in [
        ("not_in_room", true),
        ("no_such_user", true),
        ("bad_request", true),
        ("too_large", true),
        ("rate_limited", false),
        ("overloaded", false),
        ("unavailable", false),
        ("outcome_unknown", false),
        ("going_away", false),
        ("internal", false),
    ] {
        let mut stage = Stage::in_tea();
        let call = stage.send("#tea", 1);
        stage.refuse("send", code);
        assert_eq!(stage.code(call), is_final.then(|| code.to_owned()), "{code}");
    }
}

#[test]
fn uncertain_send_fails_with_a_lost_session() {
    let mut stage = Stage::in_tea();
    let uncertain = stage.send("#tea", 1);
    let certain = stage.send("#tea", 2);
    stage.input(Input::Closed(None));
    stage.tick();
    stage.open();
    stage.clear();
    stage.event(&json!({"type": "error", "id": 6, "code": "resume_failed"}));
    assert_eq!(stage.last_request()["type"], "register", "{:?}", stage.effects());
    assert_eq!(stage.code(uncertain).as_deref(), Some("outcome_unknown"));
    assert_eq!(stage.answer(certain), None, "it was never sent");
    stage.register(&[]);
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
    assert_eq!(stage.last_request()["body"], 2, "after the room was joined again");
}

#[test]
fn unanswered_send_ends_before_its_key_expires() {
    let mut stage = Stage::in_tea();
    let call = stage.send("#tea", 1);
    stage.now = Duration::from_secs(10);
    stage.input(Input::Closed(None));
    while stage.code(call).is_none() {
        stage.tick();
        stage.input(Input::Failed(None));
    }
    assert_eq!(stage.code(call).as_deref(), Some("outcome_unknown"));
    assert_eq!(stage.now.as_secs(), 240, "counted from the attempt");
}

#[test]
fn direct_message_is_delivered_to_its_sender() {
    let mut stage = Stage::online();
    stage.send("bob", 1);
    let ack = json!({"type": "ack", "to": "bob", "msg_id": "d", "delivered": "online", "time": 7, "duplicate": false});
    stage.reply("send", &ack);
    let delivered = stage.effects().iter().find_map(|effect| match effect {
        SessionEffect::Deliver(stream, RoomEvent::Message(message)) => Some((stream.as_str(), message)),
        _ => None,
    });
    let (stream, message) = delivered.expect("a message");
    assert_eq!((stream, message.to.as_str(), message.own, message.seq), ("@", "bob", true, None));
}

#[test]
fn aborted_calls_leave_nothing_behind() {
    let mut stage = Stage::in_tea();
    let sent = stage.send("#tea", 1);
    let waiting = stage.send("#tea", 2);
    stage.input(Input::Abort(waiting));
    stage.input(Input::Abort(sent));
    let next = stage.send("#tea", 3);
    assert_eq!(stage.last_request()["body"], 3);
    stage.event(&json!({"type": "ack", "id": stage.requests()[0]["id"], "to": "#tea", "msg_id": "a", "seq": 4,
        "time": 1, "duplicate": false}));
    stage.reply("send", &ack(5));
    let answers = [sent, waiting, next].map(|call| stage.answer(call).is_some());
    assert_eq!(answers, [false, false, true]);
}

#[test]
fn aborted_rename_that_was_sent_takes_effect() {
    let mut stage = Stage::in_tea();
    let call = stage.call(ClientRequest::Nick { nick: "anna".to_owned() });
    stage.input(Input::Abort(call));
    stage.reply("nick", &json!({"type": "nick", "nick": "anna"}));
    assert!(stage.effects().contains(&SessionEffect::ChangeNick("anna".to_owned())));
    assert_eq!(stage.answer(call), None);
    stage.event(&json!({"type": "message", "to": "#tea", "from": "anna", "msg_id": "m", "seq": 4, "time": 1,
        "body": 1}));
    let own = stage
        .effects()
        .iter()
        .any(|effect| matches!(effect, SessionEffect::Deliver(_, RoomEvent::Message(message)) if message.own));
    assert!(own, "{:?}", stage.effects());
}

#[test]
fn oversized_request_is_refused_at_once() {
    let mut stage = Stage::in_tea();
    let body = Value::from("x".repeat(66_000));
    let call = stage.call(ClientRequest::Send { to: "#tea".to_owned(), body, key: "k".to_owned() });
    assert_eq!(stage.code(call).as_deref(), Some("too_large"));
    assert!(stage.requests().is_empty());
}

#[test]
fn error_without_id_refuses_the_oldest_request() {
    let mut stage = Stage::online();
    let calls = [stage.send("bob", 1), stage.send("cat", 2)];
    stage.event(&json!({"type": "error", "code": "too_large", "message": ""}));
    assert_eq!(calls.map(|call| stage.code(call)), [Some("too_large".to_owned()), None]);
}
