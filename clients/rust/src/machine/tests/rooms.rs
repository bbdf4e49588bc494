//! Tables of rooms: joins, positions, rewinds, members, pauses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::events::RoomEvent;
use crate::machine::{Input, SessionEffect};
use crate::storage::SavedSession;
use crate::wire::{ClientRequest, WirePosition};

fn message(seq: u64, id: &str) -> Value {
    json!({"type": "message", "to": "#tea", "from": "bob", "msg_id": id, "seq": seq, "time": 1, "body": seq})
}

/// Returns the events of a stream in short: `4`, `4 again`, `gap 4-6`, `rewind 4`.
fn delivered(stage: &Stage, stream: &str) -> Vec<String> {
    let event = |effect: &SessionEffect| match effect {
        SessionEffect::Deliver(to, event) if to == stream => match event {
            RoomEvent::Message(message) => {
                let again = if message.repeated { " again" } else { "" };
                Some(format!("{}{again}", message.seq.unwrap_or_default()))
            }
            RoomEvent::Gap { from_seq, to_seq } => Some(format!("gap {from_seq}-{to_seq}")),
            RoomEvent::Rewind { seq } => Some(format!("rewind {seq}")),
            RoomEvent::Typing { .. } | RoomEvent::Members(_) => None,
        },
        _ => None,
    };
    stage.effects().iter().filter_map(event).collect()
}

/// Events, the events that the application receives, and the position after them.
type StreamCase = (Vec<Value>, &'static [&'static str], (&'static str, u64));

#[test]
fn stream_events_move_the_position() {
    let rewound = |seq| json!({"type": "rewound", "to": "#tea", "epoch": "f", "seq": seq});
    let epoch = |seq| json!({"type": "epoch", "to": "#tea", "epoch": "f", "seq": seq});
    let gap = |from: u64, to: u64| json!({"type": "gap", "to": "#tea", "from_seq": from, "to_seq": to});
    let cases: [StreamCase; 7] = [
        (vec![message(4, "a"), message(4, "a"), message(3, "z")], &["4"], ("e", 4)),
        (vec![message(4, "a"), gap(4, 6), gap(2, 6), message(7, "b")], &["4", "gap 5-6", "7"], ("e", 7)),
        (
            vec![message(4, "a"), rewound(3), message(4, "b"), message(5, "a")],
            &["4", "rewind 3", "4", "5 again"],
            ("f", 5),
        ),
        (vec![rewound(0), message(1, "a")], &["rewind 0", "1"], ("f", 1)),
        (vec![rewound(9)], &["rewind 3"], ("f", 3)),
        (vec![epoch(3), message(4, "a")], &["4"], ("f", 4)),
        (vec![epoch(2), message(3, "a")], &["rewind 2", "3"], ("f", 3)),
    ];
    for (events, expected, (epoch, seq)) in cases {
        let mut stage = Stage::in_tea();
        events.iter().for_each(|event| stage.event(event));
        assert_eq!(delivered(&stage, "#tea"), expected, "{events:?}");
        stage.clear();
        stage.input(Input::Closed(None));
        stage.tick();
        stage.open();
        assert_eq!(stage.last_request()["since"]["#tea"], json!({"epoch": epoch, "seq": seq}), "{events:?}");
    }
}

#[test]
fn message_of_the_application_is_never_own() {
    let mut stage = Stage::in_tea();
    let mut frame = message(4, "a");
    frame["from"] = json!("ann");
    stage.event(&frame);
    (frame["seq"], frame["from_api"]) = (json!(5), json!(true));
    stage.event(&frame);
    let seen = stage.effects().iter().filter_map(|effect| match effect {
        SessionEffect::Deliver(_, RoomEvent::Message(message)) => Some((message.own, message.from_api)),
        _ => None,
    });
    assert_eq!(Vec::from_iter(seen), [(true, false), (false, true)]);
}

#[test]
fn room_entered_by_the_application_delivers_messages() {
    let mut stage = Stage::online();
    for _ in 0..2 {
        stage.event(&json!({"type": "joined", "room": "#tea", "epoch": "e1", "seq": 3, "member_count": 2}));
    }
    let mut frame = message(4, "a");
    frame["to"] = json!("#tea");
    stage.event(&frame);
    let effects = stage.effects();
    let opened = effects.iter().filter(|effect| matches!(effect, SessionEffect::OpenRoom { seq: 3, .. }));
    assert_eq!(opened.count(), 1);
    let delivered = effects.iter().filter(|effect| matches!(effect, SessionEffect::Deliver(_, RoomEvent::Message(_))));
    assert_eq!(delivered.count(), 1);
}

#[test]
fn announcement_is_an_event_and_answers_nothing() {
    let mut stage = Stage::online();
    let call = stage.call(ClientRequest::Whois { nick: "bob".to_owned() });
    for id in [json!("a1"), json!("a1"), stage.last_request()["id"].clone()] {
        stage.event(&json!({"type": "announcement", "msg_id": id, "body": {"at": 12}, "time": 7}));
    }
    stage.event(&json!({"type": "news of a later version", "id": "a2", "room": 7}));
    let announced = stage.effects().iter().filter_map(|effect| match effect {
        SessionEffect::Announce(announcement) => {
            Some((announcement.id.as_str(), &announcement.body, announcement.time))
        }
        _ => None,
    });
    assert_eq!(Vec::from_iter(announced), [("a1", &json!({"at": 12}), 7)]);
    assert_eq!(stage.answer(call), None);
}

#[test]
fn events_before_the_joined_reply_are_kept() {
    let mut stage = Stage::online();
    stage.event(&message(4, "x"));
    stage.join("#Tea");
    stage.event(&message(4, "a"));
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
    stage.event(&message(5, "b"));
    assert_eq!(delivered(&stage, "#tea"), ["4", "5"]);
}

#[test]
fn second_join_enters_the_same_room() {
    let mut stage = Stage::in_tea();
    for name in ["#tea", "#TEA", "#ｔｅａ", "#te\u{200d}a"] {
        let call = stage.join(name);
        assert_eq!(stage.answer(call), Some(Ok(json!("#tea"))), "{name}");
    }
    assert!(stage.requests().is_empty(), "nothing is sent for a live room");
}

#[test]
fn joins_are_answered_with_the_members() {
    let mut stage = Stage::online();
    let calls = [stage.join("#tea"), stage.join("#Tea")];
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
    assert_eq!(calls.map(|call| stage.answer(call)), [None, None]);
    let presence = json!({"type": "presence", "room": "#tea", "joined": [{"nick": "cat", "status": "away"}],
        "left": [{"nick": "bob", "reason": "closed"}], "renamed": [{"from": "dan", "to": "Dan"}]});
    stage.event(&presence);
    let items = json!([{"nick": "ann", "status": "online"}, {"nick": "bob", "status": "online"}]);
    stage.reply("members", &json!({"type": "members", "items": items, "next_cursor": "c"}));
    assert_eq!(stage.last_request()["cursor"], "c");
    let items = json!([{"nick": "dan", "status": "away", "text": "tea"}]);
    stage.reply("members", &json!({"type": "members", "items": items, "next_cursor": null}));
    assert!(calls.iter().all(|call| stage.answer(*call).is_some_and(|answer| answer.is_ok())));
    let members = stage.effects().iter().find_map(|effect| match effect {
        SessionEffect::Members(_, members) => Some(members.keys().map(String::as_str).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(members.expect("members"), ["Dan", "ann", "cat"], "changes meanwhile are applied");
}

#[test]
fn resync_loads_the_members_again() {
    let mut stage = Stage::in_tea();
    stage.event(&json!({"type": "presence", "room": "#tea", "resync": true}));
    assert_eq!(stage.request_types(), ["members"]);
}

#[test]
fn removal_by_moderator_closes_the_room() {
    let mut stage = Stage::in_tea();
    stage.event(&json!({"type": "moderation", "room": "#tea", "action": "kick", "nick": "ann", "time": 1}));
    stage.event(&json!({"type": "left", "room": "#tea", "reason": "kicked", "by": "bob"}));
    assert!(stage.effects().iter().any(|effect| matches!(effect, SessionEffect::CloseRoom(key) if key == "#tea")));
    stage.clear();
    stage.resume(&[]);
    assert!(!stage.request_types().contains(&"join".to_owned()), "the room is not joined again");
}

#[test]
fn room_that_the_server_lost_is_joined_again() {
    let mut stage = Stage::in_tea();
    stage.event(&message(4, "a"));
    stage.clear();
    stage.resume(&[]);
    let send = stage.send("#tea", 1);
    let join = stage.last_request();
    assert_eq!((&join["type"], &join["since"]), (&json!("join"), &json!({"epoch": "e", "seq": 4})));
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 6}));
    assert_eq!(stage.last_request()["type"], "send", "after the room");
    stage.event(&message(5, "b"));
    assert_eq!(delivered(&stage, "#tea"), ["5"]);
    assert_eq!(stage.answer(send), None);
}

#[test]
fn history_waits_for_a_rejoin() {
    let mut stage = Stage::in_tea();
    stage.resume(&[]);
    let request = ClientRequest::History { to: "#tea".to_owned(), limit: 1, before: None, after: None };
    let call = stage.call(request);
    stage.refuse("history", "not_in_room");
    assert_eq!(stage.answer(call), None);
}

#[test]
fn refused_rejoin_ends_the_room() {
    let mut stage = Stage::in_tea();
    stage.resume(&[]);
    stage.refuse("join", "too_many_rooms");
    assert!(stage.effects().contains(&SessionEffect::CloseRoom("#tea".to_owned())));
}

#[test]
fn aborted_join_that_was_sent_is_completed() {
    let mut stage = Stage::online();
    let sent = stage.join("#tea");
    let waiting = stage.join("#tea");
    stage.input(Input::Abort(waiting));
    stage.input(Input::Abort(sent));
    stage.resume(&[]);
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 3}));
    stage.event(&message(4, "a"));
    assert_eq!(delivered(&stage, "#tea"), ["4"]);
    assert_eq!((stage.answer(sent), stage.answer(waiting)), (None, None));
}

#[test]
fn lost_leave_is_not_undone_by_a_rejoin() {
    let mut stage = Stage::in_tea();
    let call = stage.call(ClientRequest::Leave { room: "#tea".to_owned() });
    stage.clear();
    stage.resume(&[]);
    assert!(!stage.request_types().contains(&"join".to_owned()));
    stage.refuse("leave", "not_in_room");
    assert!(stage.answer(call).is_some_and(|answer| answer.is_ok()));
    assert!(stage.effects().contains(&SessionEffect::CloseRoom("#tea".to_owned())));
}

#[test]
fn paused_room_continues_from_its_position() {
    let mut stage = Stage::in_tea();
    stage.event(&message(4, "a"));
    stage.input(Input::Pause("#tea".to_owned()));
    stage.event(&message(5, "b"));
    assert_eq!(delivered(&stage, "#tea"), ["4"]);
    stage.input(Input::Unpause("#tea".to_owned()));
    assert!(stage.effects().contains(&SessionEffect::Connect(1)), "a live room needs another connection");
    stage.open();
    assert_eq!(stage.last_request()["since"]["#tea"]["seq"], 4);
    stage.input(Input::Pause("#tea".to_owned()));
    stage.register(&["#tea"]);
    stage.resume(&["#tea"]);
    stage.clear();
    stage.input(Input::Unpause("#tea".to_owned()));
    assert_eq!(stage.last_request()["since"], json!({"epoch": "e", "seq": 4}), "a silent one is joined");
}

#[test]
fn stored_positions_continue_rooms_and_inbox() {
    let position = |seq| WirePosition { epoch: "e".to_owned(), seq };
    let positions = BTreeMap::from([("#Tea".to_owned(), position(4)), ("@".to_owned(), position(2))]);
    let saved = SavedSession { token: Some("old".to_owned()), positions, read: BTreeMap::new() };
    let mut stage = Stage::new(saved);
    stage.open();
    assert_eq!(stage.last_request()["since"], json!({"@": {"epoch": "e", "seq": 2}}));
    stage.register(&["#tea"]);
    stage.event(&json!({"type": "message", "to": "ann", "from": "bob", "msg_id": "d", "seq": 3, "time": 1, "body": 1}));
    stage.join("#tea");
    assert_eq!(stage.last_request()["since"], json!({"epoch": "e", "seq": 4}));
    stage.reply("join", &json!({"type": "joined", "room": "#tea", "epoch": "e", "seq": 9}));
    stage.event(&message(5, "a"));
    assert_eq!((delivered(&stage, "@"), delivered(&stage, "#tea")), (vec!["3".to_owned()], vec!["5".to_owned()]));
}
