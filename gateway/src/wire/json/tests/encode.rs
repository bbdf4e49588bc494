//! Replies and events as frozen text.

use presence::model::codes::ErrorCode;
use presence::model::moderation::{Moderation, ModerationAction, RemovalReason, RoomRole, RoomTopic};
use presence::model::{Availability, LeftReason, MemberInfo, MemberLeft, PresenceDelta, Rename, Status, UserId};
use serde_json::value::RawValue;

use crate::message::{Accepted, Body, ChatMessage};
use crate::wire::json::{encode_event, encode_reply};
use crate::wire::{Answer, DeliveryStatus, Event, Refusal, Reply, RestoredRoom, RoomItem, Since, Token};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn reply(id: Option<&str>, answer: Answer) -> String {
    String::from_utf8(encode_reply(&Reply { id: id.map(raw), answer }).to_vec()).unwrap()
}

fn event(event: &Event) -> String {
    String::from_utf8(encode_event(event).to_vec()).unwrap()
}

fn message(body: &str) -> ChatMessage {
    let (to, from, msg_id) = ("#lobby".into(), "ann".into(), "m1".into());
    let (body, accepted) = (Body::from_raw(raw(body)), Accepted::default());
    ChatMessage {
        to,
        from,
        from_user: None,
        from_api: false,
        msg_id,
        seq: 132,
        time: 1_700_000_000_000,
        body,
        accepted,
    }
}

fn member(nick: &str, status: Availability, text: &str) -> MemberInfo {
    MemberInfo { nick: nick.into(), user: None, status: Status { status, text: text.into() } }
}

fn notice(action: ModerationAction) -> Moderation {
    Moderation {
        action,
        nick: Some("bob".into()),
        user: None,
        by: Some("ann".into()),
        reason: Some("spam".into()),
        until: Some(9),
        role: None,
        text: None,
        time: 7,
    }
}

#[test]
fn replies_encode_as_frozen() {
    let ack =
        |delivery, duplicate| Answer::Ack { to: "#Lobby".into(), msg_id: "m1".into(), delivery, time: 7, duplicate };
    let slow = Refusal { code: ErrorCode::Overloaded, detail: None, retry_after_ms: Some(250) };
    for (answer, text) in [
        (
            Answer::Registered {
                nick: "Ann".into(),
                user: UserId::parse("user:1"),
                expires_in_ms: Some(900_000),
                session: "s1".into(),
                resume: Token::new("s1.secret"),
                rooms: vec![RestoredRoom { room: "#lobby".into(), epoch: "e1".into(), seq: 131 }],
                inbox: Since { epoch: "e2".into(), seq: 3 },
                heartbeat_ms: 30_000,
                node: "g1".into(),
                time: 7,
            },
            r##"{"type":"registered","id":1,"nick":"Ann","user":"user:1","expires_in_ms":900000,"session":"s1","resume":"s1.secret","rooms":[{"room":"#lobby","epoch":"e1","seq":131}],"inbox":{"epoch":"e2","seq":3},"heartbeat_ms":30000,"node":"g1","time":7}"##,
        ),
        (
            Answer::Joined {
                room: "#lobby".into(),
                epoch: "e1".into(),
                seq: 131,
                member_count: 57,
                recovered: false,
                topic: None,
                role: None,
                by_order: false,
            },
            r##"{"type":"joined","id":1,"room":"#lobby","epoch":"e1","seq":131,"member_count":57,"recovered":false}"##,
        ),
        (
            Answer::Joined {
                room: "#lobby".into(),
                epoch: "e1".into(),
                seq: 1,
                member_count: 1,
                recovered: true,
                topic: Some(Box::new(RoomTopic { text: "tea".into(), by: "ann".into(), time: 7 })),
                role: Some(RoomRole::Moderator),
                by_order: true,
            },
            r##"{"type":"joined","id":1,"room":"#lobby","epoch":"e1","seq":1,"member_count":1,"recovered":true,"topic":{"text":"tea","by":"ann","time":7},"role":"moderator"}"##,
        ),
        (
            Answer::Moderated { room: "#lobby".into(), notice: Box::new(notice(ModerationAction::Mute)) },
            r##"{"type":"mute","id":1,"room":"#lobby","nick":"bob","by":"ann","reason":"spam","until":9,"time":7}"##,
        ),
        (
            Answer::Refreshed { expires_in_ms: Some(900_000), left: vec!["#a".into()] },
            r##"{"type":"refreshed","id":1,"expires_in_ms":900000,"left":["#a"]}"##,
        ),
        (Answer::Refreshed { expires_in_ms: None, left: Vec::new() }, r#"{"type":"refreshed","id":1,"left":[]}"#),
        (Answer::Left { room: "#lobby".into() }, r##"{"type":"left","id":1,"room":"#lobby"}"##),
        (
            ack(DeliveryStatus::Room { seq: 132 }, false),
            r##"{"type":"ack","id":1,"to":"#Lobby","msg_id":"m1","seq":132,"time":7,"duplicate":false}"##,
        ),
        (
            ack(DeliveryStatus::Online, true),
            r##"{"type":"ack","id":1,"to":"#Lobby","msg_id":"m1","delivered":"online","time":7,"duplicate":true}"##,
        ),
        (
            ack(DeliveryStatus::Offline, false),
            r##"{"type":"ack","id":1,"to":"#Lobby","msg_id":"m1","delivered":"offline","time":7,"duplicate":false}"##,
        ),
        (Answer::Read { seq: 7 }, r#"{"type":"read","id":1,"to":"@","seq":7}"#),
        (Answer::Nick { nick: "\"安\"".into() }, r#"{"type":"nick","id":1,"nick":"\"安\""}"#),
        (
            Answer::Status(Status { status: Availability::Away, text: "lunch".into() }),
            r#"{"type":"status","id":1,"status":"away","text":"lunch"}"#,
        ),
        (Answer::Status(Status::default()), r#"{"type":"status","id":1,"status":"online","text":""}"#),
        (
            Answer::Members {
                room: "#lobby".into(),
                items: vec![
                    MemberInfo { user: UserId::parse("user:1"), ..member("ann", Availability::Online, "") },
                    member("bob", Availability::Away, "lunch"),
                ],
                next_cursor: Some("bob".into()),
            },
            r##"{"type":"members","id":1,"room":"#lobby","items":[{"nick":"ann","user":"user:1","status":"online"},{"nick":"bob","status":"away","text":"lunch"}],"next_cursor":"bob"}"##,
        ),
        (
            Answer::Rooms { items: vec![RoomItem { room: "#lobby".into(), member_count: 2 }], next_cursor: None },
            r##"{"type":"rooms","id":1,"items":[{"room":"#lobby","member_count":2}],"next_cursor":null}"##,
        ),
        (
            Answer::Whois {
                nick: "Bob".into(),
                user: None,
                status: Some(Status { status: Availability::Away, text: "tea".into() }),
            },
            r#"{"type":"whois","id":1,"nick":"Bob","online":true,"status":"away","text":"tea"}"#,
        ),
        (
            Answer::Whois { nick: "Bob".into(), user: None, status: Some(Status::default()) },
            r#"{"type":"whois","id":1,"nick":"Bob","online":true,"status":"online","text":""}"#,
        ),
        (
            Answer::Whois { nick: "Bob".into(), user: None, status: None },
            r#"{"type":"whois","id":1,"nick":"Bob","online":false}"#,
        ),
        (
            Answer::Whois { nick: "Bob".into(), user: UserId::parse("user:2"), status: None },
            r#"{"type":"whois","id":1,"nick":"Bob","user":"user:2","online":false}"#,
        ),
        (
            Answer::History {
                to: "#lobby".into(),
                items: vec![ChatMessage { from_user: UserId::parse("user:1"), ..message("1") }],
                more: false,
            },
            r##"{"type":"history","id":1,"to":"#lobby","items":[{"to":"#lobby","from":"ann","from_user":"user:1","msg_id":"m1","seq":132,"time":1700000000000,"body":1}],"more":false}"##,
        ),
        (
            Answer::History { to: "#lobby".into(), items: vec![message("[ 1,\n 2 ]")], more: true },
            "{\"type\":\"history\",\"id\":1,\"to\":\"#lobby\",\"items\":[{\"to\":\"#lobby\",\"from\":\"ann\",\"msg_id\":\"m1\",\
             \"seq\":132,\"time\":1700000000000,\"body\":[ 1,\n 2 ]}],\"more\":true}",
        ),
        (
            Answer::History { to: "#lobby".into(), items: vec![], more: false },
            r##"{"type":"history","id":1,"to":"#lobby","items":[],"more":false}"##,
        ),
        (Answer::Pong, r#"{"type":"pong","id":1}"#),
        (
            Answer::Refused(ErrorCode::NickInUse.into()),
            r#"{"type":"error","id":1,"code":"nick_in_use","message":"this nickname is in use"}"#,
        ),
        (
            Answer::Refused(slow.with_detail("one at a time")),
            r#"{"type":"error","id":1,"code":"overloaded","message":"one at a time","retry_after_ms":250}"#,
        ),
    ] {
        assert_eq!(reply(Some("1"), answer), text);
    }
}

#[test]
fn reply_carries_the_id_byte_for_byte() {
    assert_eq!(reply(None, Answer::Pong), r#"{"type":"pong"}"#);
    for id in ["\"a\"", "\"\\u0061\\n\"", "1.0", "-0", "1e400", "12345678901234567890123"] {
        assert_eq!(reply(Some(id), Answer::Pong), format!(r#"{{"type":"pong","id":{id}}}"#));
    }
}

#[test]
fn events_encode_as_frozen() {
    let everything = PresenceDelta {
        joined: vec![member("bob", Availability::Online, "")],
        left: vec![MemberLeft { nick: "eve".into(), reason: LeftReason::GatewayLost }],
        renamed: vec![Rename { from: "x".into(), to: "y".into() }],
        status: vec![member("ann", Availability::Away, "lunch")],
        moderation: Vec::new(),
    };
    let presence = |delta, resync| Event::Presence { room: "#lobby".into(), delta, resync };
    for (input, text) in [
        (
            Event::Message(message(r#"{ "k": 1e400 }"#)),
            r##"{"type":"message","to":"#lobby","from":"ann","msg_id":"m1","seq":132,"time":1700000000000,"body":{ "k": 1e400 }}"##,
        ),
        (
            presence(everything, false),
            r##"{"type":"presence","room":"#lobby","joined":[{"nick":"bob","status":"online"}],"left":[{"nick":"eve","reason":"gateway_lost"}],"renamed":[{"from":"x","to":"y"}],"status":[{"nick":"ann","status":"away","text":"lunch"}]}"##,
        ),
        (presence(PresenceDelta::default(), true), r##"{"type":"presence","room":"#lobby","resync":true}"##),
        (
            Event::Gap { to: "#lobby".into(), from_seq: 4, to_seq: 6 },
            r##"{"type":"gap","to":"#lobby","from_seq":4,"to_seq":6}"##,
        ),
        (
            Event::Epoch { to: "#lobby".into(), epoch: "e2".into(), seq: 6 },
            r##"{"type":"epoch","to":"#lobby","epoch":"e2","seq":6}"##,
        ),
        (
            Event::Rewound { to: "#lobby".into(), epoch: "e2".into(), seq: 0 },
            r##"{"type":"rewound","to":"#lobby","epoch":"e2","seq":0}"##,
        ),
        (Event::Typing { to: "bob".into(), from: "ann".into() }, r#"{"type":"typing","to":"bob","from":"ann"}"#),
        (
            Event::Moderation { room: "#lobby".into(), notice: Box::new(notice(ModerationAction::Ban)) },
            r##"{"type":"moderation","room":"#lobby","action":"ban","nick":"bob","by":"ann","reason":"spam","until":9,"time":7}"##,
        ),
        (
            Event::Left { room: "#lobby".into(), reason: RemovalReason::Banned, by: Some("ann".into()), text: None },
            r##"{"type":"left","room":"#lobby","reason":"banned","by":"ann"}"##,
        ),
        (Event::Expiring { expires_in_ms: 30_000 }, r#"{"type":"expiring","expires_in_ms":30000}"#),
        (
            Event::Announcement { id: "a1".into(), body: Body::from_text("noon"), time: 7 },
            r#"{"type":"announcement","msg_id":"a1","body":"noon","time":7}"#,
        ),
        (Event::GoingAway { retry_after_ms: 1500 }, r#"{"type":"going_away","retry_after_ms":1500}"#),
    ] {
        assert_eq!(event(&input), text);
    }
}
