//! One example of every packed message: requests as JSON objects, replies and events as the gateway's values.
//!
//! The values are fixed, since `gateway/frames.txt` keeps their bytes. Invariant: one example for each type.

use gateway::message::{Accepted, Body, ChatMessage};
use gateway::wire::packed::{encode_closing, encode_event, encode_reply, heartbeat};
use gateway::wire::{
    Answer, DeliveryStatus, Event, PackedCarrier, PackedDialect, PackedFormat, Refusal, Reply, RestoredRoom, RoomItem,
    Since, Token,
};
use presence::model::codes::{CloseCode, ErrorCode};
use presence::model::moderation::{Moderation, ModerationAction, RemovalReason, RoomRole, RoomTopic};
use presence::model::{Availability, LeftReason, MemberInfo, MemberLeft, PresenceDelta, Rename, Status, UserId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Returns the dialect of TCP frames without compression.
pub(super) fn dialect(format: PackedFormat) -> PackedDialect {
    PackedDialect { format, carrier: PackedCarrier::Frames, compresses: false }
}

/// Returns an example of each request, by number.
pub(super) fn requests() -> Vec<Value> {
    vec![
        json!({"type": "register", "id": 1, "nick": "ann", "resume": "r-1", "token": "t-1",
            "since": {"#lobby": {"epoch": "7c1e", "seq": 42}, "@": {"epoch": "0f3a", "seq": 0}}}),
        json!({"type": "join", "id": 2, "room": "#lobby", "since": {"epoch": "7c1e", "seq": 300}}),
        json!({"type": "leave", "id": 3, "room": "#lobby"}),
        json!({"type": "send", "id": 4, "to": "#lobby", "key": "k-1", "body": {"text": "hi \u{e9}", "n": [1, -2, 0.5, null, true]}}),
        json!({"type": "nick", "id": 5, "nick": "anna"}),
        json!({"type": "status", "id": 6, "status": "away", "text": "lunch"}),
        json!({"type": "members", "id": 7, "room": "#lobby", "limit": 1000}),
        json!({"type": "rooms", "id": 8, "limit": 10, "cursor": "lobby"}),
        json!({"type": "whois", "id": 9, "nick": "bob"}),
        json!({"type": "history", "id": 10, "to": "#lobby", "limit": 20, "before": 70_000}),
        json!({"type": "read", "id": 11, "to": "@", "seq": 9_007_199_254_740_991_u64}),
        json!({"type": "typing", "id": 12, "to": "bob"}),
        json!({"type": "refresh", "id": 13, "token": "t-2"}),
        json!({"type": "ping", "id": 18_446_744_073_709_551_615_u64}),
        json!({"type": "bye"}),
        json!({"type": "options", "id": 16, "snappy": false}),
        json!({"type": "kick", "id": 32, "room": "#lobby", "nick": "bob", "reason": "noise"}),
        json!({"type": "ban", "id": 33, "room": "#lobby", "user": "u-7", "seconds": 600, "reason": "noise"}),
        json!({"type": "unban", "id": 34, "room": "#lobby", "user": "u-7"}),
        json!({"type": "mute", "id": 35, "room": "#lobby", "nick": "bob", "seconds": 60}),
        json!({"type": "unmute", "id": 36, "room": "#lobby", "nick": "bob"}),
        json!({"type": "op", "id": 37, "room": "#lobby", "nick": "bob", "role": "owner"}),
        json!({"type": "deop", "id": 38, "room": "#lobby", "nick": "bob"}),
        json!({"type": "invite", "id": 39, "room": "#lobby", "nick": "bob"}),
        json!({"type": "topic", "id": 40, "room": "#lobby", "text": "today"}),
    ]
}

/// Returns an example of each message of the gateway, by number.
pub(super) fn outputs(format: PackedFormat) -> Vec<Vec<u8>> {
    let dialect = dialect(format);
    let reply = |(id, answer): (usize, Answer)| {
        let id = RawValue::from_string(id.to_string()).unwrap();
        encode_reply(dialect, &Reply { id: Some(id), answer }).to_vec()
    };
    let mut outputs: Vec<_> = answers().into_iter().enumerate().map(reply).collect();
    outputs.extend(events().iter().map(|event| encode_event(dialect, event).to_vec()));
    outputs.push(encode_closing(dialect, CloseCode::ProtocolError).to_vec());
    outputs.push(heartbeat().to_vec());
    outputs
}

fn since() -> Since {
    Since { epoch: "0f3a".into(), seq: 0 }
}

fn notice(action: ModerationAction) -> Moderation {
    Moderation {
        action,
        nick: Some("bob".into()),
        user: UserId::parse("u-7"),
        by: Some("ann".into()),
        reason: Some("noise".into()),
        until: Some(1_700_000_600_000),
        role: Some(RoomRole::Moderator),
        text: Some("today".into()),
        time: 1_700_000_000_000,
    }
}

/// Returns a message with this body.
pub(super) fn message(body: Body) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
        msg_id: "0192f0c1-2b3c-7def-8123-456789abcdef".into(),
        seq: 42,
        time: 1_700_000_000_000,
        body,
        accepted: Accepted::default(),
    }
}

fn member(nick: &str, user: Option<&str>, text: &str) -> MemberInfo {
    let status = Status { status: Availability::Away, text: text.into() };
    MemberInfo { nick: nick.into(), user: user.and_then(UserId::parse), status }
}

/// Returns the answers and events whose optional fields are absent.
pub(super) fn sparse_outputs(format: PackedFormat) -> Vec<Vec<u8>> {
    let to = || "#lobby".to_owned();
    let notice = Moderation {
        nick: None,
        user: None,
        by: None,
        reason: None,
        until: None,
        role: None,
        text: None,
        ..notice(ModerationAction::Topic)
    };
    let answers = [
        Answer::Registered {
            nick: "ann".into(),
            user: None,
            expires_in_ms: None,
            session: "s-1".into(),
            resume: Token::new("r-1"),
            rooms: Vec::new(),
            inbox: since(),
            heartbeat_ms: 0,
            node: String::new(),
            time: 0,
        },
        Answer::Joined {
            room: to(),
            epoch: String::new(),
            seq: 0,
            member_count: 0,
            recovered: true,
            topic: None,
            role: None,
            by_order: true,
        },
        Answer::Ack {
            to: "bob".into(),
            msg_id: "m".into(),
            delivery: DeliveryStatus::Online,
            time: 0,
            duplicate: true,
        },
        Answer::Members { room: to(), items: Vec::new(), next_cursor: None },
        Answer::Rooms { items: Vec::new(), next_cursor: Some("c".into()) },
        Answer::Whois { nick: "bob".into(), user: None, status: None },
        Answer::History { to: to(), items: Vec::new(), more: false },
        Answer::Refreshed { expires_in_ms: None, left: Vec::new() },
        Answer::Options { snappy: false },
        Answer::Moderated { room: to(), notice: Box::new(notice.clone()) },
        Answer::Refused(ErrorCode::BadRequest.into()),
    ];
    let events = [
        Event::Presence { room: to(), delta: PresenceDelta::default(), resync: false },
        Event::Moderation { room: to(), notice: Box::new(notice) },
        Event::Left { room: to(), reason: RemovalReason::Kicked, by: None, text: None },
    ];
    let dialect = dialect(format);
    let replies = answers.into_iter().map(|answer| encode_reply(dialect, &Reply { id: None, answer }).to_vec());
    replies.chain(events.iter().map(|event| encode_event(dialect, event).to_vec())).collect()
}

pub(super) fn answers() -> Vec<Answer> {
    let room = || "#lobby".to_owned();
    let of_user = ChatMessage {
        from_user: UserId::parse("u-1"),
        from_api: true,
        ..message(Body::from_raw(RawValue::from_string(r#"{"b": [-1, 2.5, null], "a": {}}"#.into()).unwrap()))
    };
    let mut answers = vec![
        Answer::Registered {
            nick: "ann".into(),
            user: UserId::parse("u-1"),
            expires_in_ms: Some(60_000),
            session: "s-1".into(),
            resume: Token::new("r-1"),
            rooms: vec![RestoredRoom { room: room(), epoch: "7c1e".into(), seq: 42 }],
            inbox: since(),
            heartbeat_ms: 30_000,
            node: "g1".into(),
            time: 1_700_000_000_000,
        },
        Answer::Joined {
            room: room(),
            epoch: "7c1e".into(),
            seq: 0,
            member_count: 3,
            recovered: false,
            topic: Some(Box::new(RoomTopic { text: "today".into(), by: "ann".into(), time: 1 })),
            role: Some(RoomRole::Owner),
            by_order: false,
        },
        Answer::Left { room: room() },
        Answer::Ack {
            to: room(),
            msg_id: "m-1".into(),
            delivery: DeliveryStatus::Room { seq: 43 },
            time: 5,
            duplicate: false,
        },
        Answer::Nick { nick: "anna".into() },
        Answer::Status(Status { status: Availability::Online, text: String::new() }),
        Answer::Members {
            room: room(),
            items: vec![member("ann", Some("u-1"), "lunch"), member("bob", None, "")],
            next_cursor: Some("c-1".into()),
        },
        Answer::Rooms { items: vec![RoomItem { room: room(), member_count: 0 }], next_cursor: None },
        Answer::Whois {
            nick: "bob".into(),
            user: UserId::parse("u-7"),
            status: Some(Status { status: Availability::Away, text: String::new() }),
        },
        Answer::History { to: room(), items: vec![message(Body::from_text("hi")), of_user], more: true },
        Answer::Read { seq: 9 },
        Answer::Typing { to: "bob".into() },
        Answer::Refreshed { expires_in_ms: Some(60_000), left: vec![room(), "#hall".into()] },
        Answer::Pong,
        Answer::Options { snappy: true },
    ];
    let moderated = |action: &_| Answer::Moderated { room: room(), notice: Box::new(notice(*action)) };
    answers.extend(ModerationAction::ALL.iter().map(moderated));
    answers.push(Answer::Refused(Refusal {
        code: ErrorCode::RateLimited,
        detail: Some("slower".into()),
        retry_after_ms: Some(250),
    }));
    answers
}

pub(super) fn events() -> Vec<Event> {
    let delta = PresenceDelta {
        joined: vec![member("ann", Some("u-1"), "lunch")],
        left: vec![MemberLeft { nick: "bob".into(), reason: LeftReason::Timeout }],
        renamed: vec![Rename { from: "cat".into(), to: "dan".into() }],
        status: vec![member("eve", None, "")],
        ..PresenceDelta::default()
    };
    let to = || "#lobby".to_owned();
    vec![
        Event::Message(message(Body::from_text(&"x".repeat(128)))),
        Event::Presence { room: to(), delta, resync: true },
        Event::Gap { to: to(), from_seq: 121, to_seq: 130 },
        Event::Epoch { to: to(), epoch: "7c1e".into(), seq: 0 },
        Event::Rewound { to: to(), epoch: "7c1e".into(), seq: 128 },
        Event::Typing { to: to(), from: "ann".into() },
        Event::Moderation { room: to(), notice: Box::new(notice(ModerationAction::Kick)) },
        Event::Left { room: to(), reason: RemovalReason::Banned, by: Some("ann".into()), text: Some("noise".into()) },
        Event::Expiring { expires_in_ms: 30_000 },
        Event::Announcement { id: "a-1".into(), body: Body::from_text("news"), time: 7 },
        Event::GoingAway { retry_after_ms: 1500 },
    ]
}
