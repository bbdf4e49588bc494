//! The JSON dialect as frozen tables: requests, and refusals of malformed frames. Replies and events are in [`encode`].
#![allow(clippy::unwrap_used)]

mod encode;

use presence::model::moderation::ModerationTarget;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{decode, encode_reply};
use crate::wire::{Answer, REQUEST_BYTES_MAX, Reply};

#[test]
fn decoder_accepts_every_request_type() {
    for (frame, command) in [
        (r#"{"type":"register","nick":"Ann","color":7}"#, r#"Register { nick: "Ann" }"#),
        (r#"{"type":"register","token":"a.b.c"}"#, r#"Register { nick: None, token: "a.b.c" }"#),
        (
            r#"{"type":"register","nick":"ann","resume":"s.\u0061"}"#,
            r#"Register { nick: "ann", resume: "s.a", rooms: [], inbox: None }"#,
        ),
        (
            r##"{"type":"register","nick":"ann","since":{"@":{"epoch":"e2","seq":3},"#Lobby":{"seq":9,"epoch":"e1"}},"resume":""}"##,
            r##"Register { nick: "ann", resume: "", rooms: [("#Lobby", Since { epoch: "e1", seq: 9 })], inbox: Some(Since { epoch: "e2", seq: 3 }) }"##,
        ),
        (r#"{"type":"read","to":"@","seq":0}"#, "Read { seq: 0 }"),
        (r##"{"type":"join","room":"#Lobby"}"##, r##"Join { room: "#Lobby", since: None }"##),
        (
            r##"{"type":"join","room":"#a","since":{"seq":9,"epoch":"e1","x":[]}}"##,
            r##"Join { room: "#a", since: Some(Since { epoch: "e1", seq: 9 }) }"##,
        ),
        (r##"{"type":"leave","room":"#lobby"}"##, r##"Leave { room: "#lobby" }"##),
        (r##"{"type":"send","to":"#lobby","body":"hi"}"##, r##"Send { to: "#lobby", body: "hi", key: None }"##),
        (r#"{"type":"send","to":"bob","body":"hi","key":"k"}"#, r#"Send { to: "bob", body: "hi", key: Some("k") }"#),
        (r#"{"type":"nick","nick":"\u0061nn"}"#, r#"Nick { nick: "ann" }"#),
        (r#"{"type":"status","status":"online"}"#, r#"Status(Status { status: Online, text: "" })"#),
        (r#"{"type":"status","status":"away","text":"é"}"#, r#"Status(Status { status: Away, text: "é" })"#),
        (r##"{"type":"members","room":"#a"}"##, r##"Members { room: "#a", limit: 100, cursor: None }"##),
        (
            r##"{"type":"members","room":"#a","limit":1000,"cursor":"7"}"##,
            r##"Members { room: "#a", limit: 1000, cursor: Some("7") }"##,
        ),
        (r#"{"type":"whois","nick":"Bob"}"#, r#"Whois { nick: "Bob" }"#),
        (r#"{"type":"rooms"}"#, "Rooms { limit: 100, cursor: None }"),
        (r#"{"type":"rooms","limit":1,"cursor":""}"#, r#"Rooms { limit: 1, cursor: Some("") }"#),
        (r##"{"type":"history","to":"#a"}"##, r##"History { room: "#a", range: Newest, limit: 50 }"##),
        (
            r##"{"type":"history","to":"#a","before":9007199254740991,"limit":200}"##,
            r##"History { room: "#a", range: Before(9007199254740991), limit: 200 }"##,
        ),
        (r##"{"type":"history","to":"#a","after":0}"##, r##"History { room: "#a", range: After(0), limit: 50 }"##),
        (r#"{"type":"refresh","token":"a.b.c"}"#, "Refresh { token: Token(..) }"),
        (
            r##"{"type":"kick","room":"#a","nick":"Bob","reason":"spam","seconds":1}"##,
            r##"Kick in #a: Some(Nick("Bob")), Some(1) s, "spam", Moderator"##,
        ),
        (r##"{"type":"ban","room":"#a","user":"u 1"}"##, r##"Ban in #a: Some(User("u 1")), None s, "", Moderator"##),
        (
            r##"{"type":"op","room":"#a","nick":"bob","role":"owner"}"##,
            r##"Op in #a: Some(Nick("bob")), None s, "", Owner"##,
        ),
        (r##"{"type":"topic","room":"#a","text":""}"##, r##"Topic in #a: None, None s, "", Moderator"##),
        (r#"{"type":"ping"}"#, "Ping"),
        ("\t{ \"t\\u0079pe\" : \"bye\" , \"__proto__\" : { } }\r\n", "Bye"),
    ] {
        assert_eq!(plain(decode(frame).unwrap().command), command, "{frame}");
    }
}

/// Shows a command with its names and bodies as texts.
fn plain(command: crate::wire::Command) -> String {
    use crate::wire::Command::{History, Join, Leave, Members, Moderate, Nick, Register, Send, Whois};
    match command {
        Register { nick: Some(nick), resume: None, token: None } => format!("Register {{ nick: {:?} }}", nick.as_str()),
        Register { nick, resume: None, token: Some(token) } => {
            format!("Register {{ nick: {nick:?}, token: {:?} }}", token.reveal())
        }
        Register { nick: Some(nick), resume: Some(resume), .. } => {
            let rooms: Vec<_> = resume.rooms.iter().map(|(room, since)| (room.as_str(), since)).collect();
            let (nick, token, inbox) = (nick.as_str(), resume.token.reveal(), resume.inbox);
            format!("Register {{ nick: {nick:?}, resume: {token:?}, rooms: {rooms:?}, inbox: {inbox:?} }}")
        }
        Nick { nick } => format!("Nick {{ nick: {:?} }}", nick.as_str()),
        Join { room, since } => format!("Join {{ room: {:?}, since: {since:?} }}", room.as_str()),
        Leave { room } => format!("Leave {{ room: {:?} }}", room.as_str()),
        Send { to, body, key } => format!("Send {{ to: {:?}, body: {}, key: {key:?} }}", to.as_str(), body.json()),
        Members { room, limit, cursor } => {
            let cursor = cursor.map(|cursor| cursor.to_string());
            format!("Members {{ room: {:?}, limit: {limit}, cursor: {cursor:?} }}", room.as_str())
        }
        Moderate(command) => {
            let crate::wire::ModerationCommand { room, order } = *command;
            let target = order.target.map(|target| match target {
                ModerationTarget::Nick(nick) => format!("Nick({:?})", nick.as_str()),
                ModerationTarget::User(user) => format!("User({:?})", user.as_str()),
            });
            let target = target.map_or_else(|| "None".to_owned(), |target| format!("Some({target})"));
            format!("{:?} in {room}: {target}, {:?} s, {:?}, {:?}", order.action, order.seconds, order.text, order.role)
        }
        Whois { nick } => format!("Whois {{ nick: {:?} }}", nick.as_str()),
        History { room, range, limit } => {
            format!("History {{ room: {:?}, range: {range:?}, limit: {limit} }}", room.as_str())
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn body_passes_byte_for_byte() {
    let nested = format!("{}{}", "[".repeat(31), "]".repeat(31));
    let brackets = format!(r#""\"{}""#, "[".repeat(40));
    for body in [
        "null",
        "false",
        "0",
        "-0",
        "1e300",
        "\"\"",
        "\"\\ud83d\\ude00 \\\\ud800\"",
        "{ \"a\" :\t1, \"b\":2 }",
        &brackets,
        &nested,
    ] {
        let frame = format!(r#"{{"type":"send","to":"bob","body": {body} }}"#);
        let crate::wire::Command::Send { body: decoded, .. } = decode(&frame).unwrap().command else {
            panic!("{frame} is a send");
        };
        assert_eq!(decoded.json(), body);
    }
}

/// Shows the refusal of a frame: `<id or -> <code>: <message>`.
fn refused(frame: &str) -> String {
    let (id, refusal) = decode(frame).expect_err(frame);
    format!("{} {}: {}", id.as_deref().map_or("-", RawValue::get), refusal.code.slug(), refusal.message())
}

#[test]
fn refusal_without_valid_id_has_no_id() {
    let not_an_object = "- bad_request: the frame is not one JSON object";
    for frame in [
        "",
        " ",
        "ping",
        "null",
        "7",
        "[]",
        r#""ping""#,
        "{",
        r#"{"type":"ping""#,
        r#"{"type":"ping",}"#,
        r#"{'type':'ping'}"#,
        r#"{type:"ping"}"#,
        r#"{"type":"ping"}{"#,
        r#"{"type":"ping"} x"#,
        "\u{feff}{\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"a\":\"\n\"}",
        "{\"type\":\"ping\",\"a\":\"\0\"}",
        r#"{"id":1,"type":"send","to":"bob","body":NaN}"#,
        r#"{"id":1,"type":"send","to":"bob","body":Infinity}"#,
        r#"{"id":1,"type":"send","to":"bob","body":01}"#,
        r#"{"id":1,"type":"send","to":"bob","body":"\x"}"#,
        r#"{"id":1,"type":"ping","\ud800":1}"#,
        &"[".repeat(REQUEST_BYTES_MAX),
        &format!(r#"{{"id":1,"a":{}"#, "[".repeat(60_000)),
    ] {
        assert_eq!(refused(frame), not_an_object, "{frame:.80}");
    }
    for (frame, refusal) in [
        (r#"{"id":null,"type":"ping"}"#, "- bad_request: `id` must be a string or a number"),
        (r#"{"id":true,"type":"ping"}"#, "- bad_request: `id` must be a string or a number"),
        (r#"{"id":[1],"type":"ping"}"#, "- bad_request: `id` must be a string or a number"),
        (r#"{"id":{},"type":"nope"}"#, "- bad_request: `id` must be a string or a number"),
        (r#"{"id":1,"type":"ping","id":1}"#, "- bad_request: `id` is given twice"),
        (r#"{"type":"ping","type":"bye","id":1,"\u0069d":2}"#, "- bad_request: `id` is given twice"),
        (r#"{"id":"\ud800","type":"ping"}"#, "- bad_request: `id` contains half of a surrogate pair"),
    ] {
        assert_eq!(refused(frame), refusal, "{frame}");
    }
    let id = |bytes: usize| format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(bytes - 2));
    assert!(decode(&id(128)).is_ok());
    assert_eq!(refused(&id(129)), "- bad_request: `id` must be at most 128 bytes");
}

#[test]
fn frame_over_the_limit_is_too_large() {
    let ping = r#"{"type":"ping","id":1}"#;
    let frame = |bytes: usize| format!("{ping}{}", " ".repeat(bytes - ping.len()));
    assert!(decode(&frame(REQUEST_BYTES_MAX)).is_ok());
    assert_eq!(refused(&frame(REQUEST_BYTES_MAX + 1)), "- too_large: the message exceeds the size limit");
}

#[test]
fn frame_is_decoded_alike_every_time() {
    let resume = |positions: &str| {
        let start = r#"{"type":"register","nick":"ann","resume":"t","since":"#;
        match decode(&format!("{start}{{{positions}}}}}")) {
            Ok(request) => plain(request.command),
            Err((_, refusal)) => refusal.message().to_owned(),
        }
    };
    let position = |room: &str| format!(r#""{room}":{{"epoch":"e","seq":1}}"#);
    let rooms = ["#a", "#b", "#c", "#d", "#e", "#f"].map(position).join(",");
    let two_faults = format!(r##"{},"#y":0"##, position("no room"));
    for positions in [rooms, two_faults] {
        let first = resume(&positions);
        for _ in 0..64 {
            assert_eq!(resume(&positions), first, "{positions}");
        }
    }
}

#[test]
fn refusal_keeps_the_id_and_names_the_field() {
    let deep = format!(r#""type":"send","to":"bob","body":{}{}"#, "[".repeat(32), "]".repeat(32));
    let deeper = format!(r#""type":"ping","a":{}1{}"#, "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let key = format!(r#""type":"send","to":"bob","body":1,"key":"{}""#, "k".repeat(65));
    let cursor = format!(r#""type":"rooms","cursor":"{}""#, "c".repeat(1147));
    let text = format!(r#""type":"status","status":"away","text":"{}""#, "é".repeat(129));
    let rows = "bad_request: `limit` must be a whole number from 1 to 1000";
    let history_rows = "bad_request: `limit` must be a whole number from 1 to 200";
    let since = "bad_request: `since` must be {\"epoch\": a string, \"seq\": a whole number}";
    let seq = "must be a whole number from 0 to 9007199254740991";
    let positions = "bad_request: `since` must be {a room or \"@\": {\"epoch\": a string, \"seq\": a whole number}}";
    let position = |name: &str| format!(r#""{name}":{{"epoch":"e","seq":1}}"#);
    let resume = |positions: &str| format!(r#""type":"register","nick":"ann","resume":"t","since":{{{positions}}}"#);
    let twice = |one: &str, other: &str| resume(&[position(one), position(other)].join(","));
    let thousand = resume(&(0..1000).map(|n| position(&format!("#r{n}"))).collect::<Vec<_>>().join(","));
    let many = resume(&(0..129).map(|n| position(&format!("#r{n}"))).collect::<Vec<_>>().join(","));
    let unreadable =
        "bad_request: `body` contains a number that does not fit a double, or an object with a key given twice";
    for (fields, refusal) in [
        ("", "bad_request: `type` is missing"),
        (r#""type":7"#, "bad_request: `type` must be a string"),
        (r#""type":null"#, "bad_request: `type` must be a string"),
        (r#""type":"""#, "unknown_type: the request type is unknown"),
        (r##""type":"join","room":"#a","since":null"##, since),
        (r##""type":"join","room":"#a","since":["e",1]"##, since),
        (r##""type":"join","room":"#a","since":{"epoch":"e"}"##, since),
        (r##""type":"join","room":"#a","since":{"epoch":"e","seq":-1}"##, since),
        (r##""type":"join","room":"#a","since":{"epoch":"e","seq":9007199254740992}"##, since),
        (r##""type":"join","room":"#a","since":{"epoch":1,"seq":1}"##, since),
        (r#""type":"PING""#, "unknown_type: the request type is unknown"),
        (r#""type":"typing","to":7"#, "bad_request: `to` must be a string"),
        (r#""type":"ping","type":"ping""#, "bad_request: a field is given twice"),
        (r#""type":"ping","t\u0079pe":"bye""#, "bad_request: a field is given twice"),
        (r#""type":"ping","x":1,"x":1"#, "bad_request: a field is given twice"),
        (&deep, "bad_request: the frame is nested deeper than 32 levels"),
        (&deeper, "bad_request: the frame is nested deeper than 32 levels"),
        (r#""type":"send","to":"bob","body":["\udc00"]"#, "bad_request: the frame contains half of a surrogate pair"),
        (
            r#""type":"send","to":"bob","body":"\ud800\u0061""#,
            "bad_request: the frame contains half of a surrogate pair",
        ),
        (r#""type":"ping","x":"\ud83d""#, "bad_request: the frame contains half of a surrogate pair"),
        (r#""type":"register","nick":"a","token":7"#, "bad_request: `token` must be a string"),
        (r#""type":"register","token":null"#, "bad_request: `token` must be a string"),
        (r#""type":"register","nick":"ann","resume":7"#, "bad_request: `resume` must be a string"),
        (r#""type":"register","nick":"ann","resume":null"#, "bad_request: `resume` must be a string"),
        (r#""type":"register","nick":"ann","since":{}"#, "bad_request: `since` needs `resume`"),
        (r#""type":"register","nick":"ann","resume":"t","since":[]"#, positions),
        (r#""type":"register","nick":"ann","resume":"t","since":null"#, positions),
        (r##""type":"register","nick":"ann","resume":"t","since":{"#a":7}"##, positions),
        (r##""type":"register","nick":"ann","resume":"t","since":{"#a":["e",7]}"##, positions),
        (r##""type":"register","nick":"ann","resume":"t","since":{"#a":{"epoch":"e","seq":-1}}"##, positions),
        (r##""type":"register","nick":"ann","resume":"t","since":{"@":{"epoch":7,"seq":1}}"##, positions),
        (
            r##""type":"register","nick":"ann","resume":"t","since":{"lobby":{"epoch":"e","seq":1}}"##,
            "bad_room: a room name must begin with #",
        ),
        (&twice("#a", "#a"), "bad_request: `since` names a room twice"),
        (&twice("#a", "#A"), "bad_request: `since` names a room twice"),
        (&twice("@", "@"), "bad_request: `since` names a room twice"),
        (&thousand, "bad_request: `since` must name at most 128 rooms"),
        (r#""type":"read""#, "bad_request: `to` is missing"),
        (r##""type":"read","to":"#lobby","seq":1"##, "bad_request: `to` must be \"@\""),
        (r#""type":"read","to":"@""#, "bad_request: `seq` is missing"),
        (r#""type":"read","to":"@","seq":-1"#, "bad_request: `seq` must be a whole number from 0 to 9007199254740991"),
        (r#""type":"register","nick":7"#, "bad_request: `nick` must be a string"),
        (r#""type":"register","nick":"""#, "bad_nick: the name is empty"),
        (r#""type":"register","nick":"a b""#, "bad_nick: the name contains a space, which is not allowed"),
        (r#""type":"nick","nick":["ann"]"#, "bad_request: `nick` must be a string"),
        (r#""type":"nick","nick":"\u0000""#, "bad_nick: the name contains U+0000, which is not allowed"),
        (r#""type":"whois""#, "bad_request: `nick` is missing"),
        (r#""type":"refresh""#, "bad_request: `token` is missing"),
        (r##""type":"whois","nick":"#lobby""##, "bad_nick: the name contains the character #, which is not allowed"),
        (r#""type":"join""#, "bad_request: `room` is missing"),
        (r#""type":"join","room":{}"#, "bad_request: `room` must be a string"),
        (r#""type":"join","room":"lobby""#, "bad_room: a room name must begin with #"),
        (r##""type":"leave","room":"#""##, "bad_room: the name is empty"),
        (r#""type":"send","body":1"#, "bad_request: `to` is missing"),
        (r#""type":"send","to":7,"body":1"#, "bad_request: `to` must be a string"),
        (r##""type":"send","to":"#a b","body":1"##, "bad_room: the name contains a space, which is not allowed"),
        (r#""type":"send","to":"","body":1"#, "bad_nick: the name is empty"),
        (r#""type":"send","to":"bob""#, "bad_request: `body` is missing"),
        (r#""type":"send","to":"bob","body":-1e999"#, unreadable),
        (r#""type":"send","to":"bob","body":{"a":[{"b":1,"\u0062":2}]}"#, unreadable),
        (&many, "bad_request: `since` must name at most 128 rooms"),
        (r#""type":"send","to":"bob","body":1,"key":"""#, "bad_request: `key` must be 1 to 64 bytes"),
        (&key, "bad_request: `key` must be 1 to 64 bytes"),
        (r#""type":"send","to":"bob","body":1,"key":7"#, "bad_request: `key` must be a string"),
        (r#""type":"send","to":"bob","body":1,"key":null"#, "bad_request: `key` must be a string"),
        (r#""type":"status""#, "bad_request: `status` is missing"),
        (r#""type":"status","status":true"#, "bad_request: `status` must be a string"),
        (r#""type":"status","status":"Away""#, "bad_request: `status` must be \"online\" or \"away\""),
        (r#""type":"status","status":"away","text":1"#, "bad_request: `text` must be a string"),
        (
            r#""type":"status","status":"away","text":"\n""#,
            "bad_request: `text` must not contain control and invisible characters",
        ),
        (
            r#""type":"status","status":"away","text":"\u0085""#,
            "bad_request: `text` must not contain control and invisible characters",
        ),
        (&text, "bad_request: `text` must be at most 256 bytes"),
        (r#""type":"members""#, "bad_request: `room` is missing"),
        (r##""type":"members","room":"#a","limit":0"##, rows),
        (r##""type":"members","room":"#a","limit":1001"##, rows),
        (r#""type":"rooms","limit":-1"#, rows),
        (r#""type":"rooms","limit":1.0"#, rows),
        (r#""type":"rooms","limit":1e400"#, rows),
        (r#""type":"rooms","limit":18446744073709551616"#, rows),
        (r#""type":"rooms","limit":"1""#, rows),
        (r#""type":"rooms","limit":null"#, rows),
        (r#""type":"rooms","cursor":7"#, "bad_request: `cursor` must be a string"),
        (
            r##""type":"members","room":"#a","cursor":"ann""##,
            "bad_request: `cursor` must be a `next_cursor` of this list",
        ),
        (&cursor, "bad_request: `cursor` must be at most 1146 bytes"),
        (r#""type":"history""#, "bad_request: `to` is missing"),
        (r#""type":"history","to":"bob""#, "bad_room: a room name must begin with #"),
        (r##""type":"history","to":"#a","limit":0"##, history_rows),
        (r##""type":"history","to":"#a","limit":201"##, history_rows),
        (r##""type":"history","to":"#a","before":-0"##, &format!("bad_request: `before` {seq}")),
        (r##""type":"history","to":"#a","before":"1""##, &format!("bad_request: `before` {seq}")),
        (r##""type":"history","to":"#a","after":9007199254740992"##, &format!("bad_request: `after` {seq}")),
        (
            r##""type":"history","to":"#a","before":9,"after":1"##,
            "bad_request: `before` and `after` exclude each other",
        ),
    ] {
        for id in ["7", r#""\u0061 b""#] {
            let comma = if fields.is_empty() { "" } else { "," };
            for frame in [format!("{{\"id\": {id} {comma}{fields}}}"), format!("{{{fields}{comma}\"id\":{id}}}")] {
                assert_eq!(refused(&frame), format!("{id} {refusal}"), "{frame:.120}");
            }
        }
    }
}

const VALID: &[&str] = &[
    r##"{"type":"register","id":1,"nick":"ann","resume":"t","since":{"#a":{"epoch":"e","seq":1},"@":{"epoch":"e","seq":2}}}"##,
    r##"{"type":"join","id":"\u0061","room":"#lobby","since":{"epoch":"e","seq":1}}"##,
    r##"{"type":"send","id":3,"to":"#lobby","body":{"a":["\ud83d\ude00",1e300,null]},"key":"k"}"##,
    r#"{"type":"status","status":"away","text":"lunch","id":-1.5e3}"#,
    r##"{"type":"history","id":4,"to":"#lobby","before":17,"limit":20}"##,
    r##"{"type":"members","room":"#lobby","limit":5,"cursor":"a%20b"}"##,
];

/// Decodes a frame and encodes a reply: always one JSON object with the same id.
fn check_reply(frame: &str) {
    let (id, answer) = match decode(frame) {
        Ok(request) => (request.id, Answer::Pong),
        Err((id, refusal)) => (id, Answer::Refused(refusal)),
    };
    let text = encode_reply(&Reply { id: id.clone(), answer });
    let object: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_slice(&text).unwrap();
    assert_eq!(object.get("id").map(|id| id.get()), id.as_deref().map(RawValue::get));
}

proptest! {
    #[test]
    fn any_text_gets_one_reply(text in any::<String>()) {
        check_reply(&text);
    }

    #[test]
    fn damaged_frame_gets_one_reply(
        frame in prop::sample::select(VALID),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<char>()), 1..4),
    ) {
        let mut chars: Vec<char> = frame.chars().collect();
        for (at, edit, with) in edits {
            let at = at.index(chars.len() + 1);
            match edit {
                0 => drop(chars.splice(at..(at + 1).min(chars.len()), None)),
                1 => chars.insert(at, with),
                _ => chars.truncate(at),
            }
        }
        check_reply(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn random_punctuation_gets_one_reply(text in r#"[\[\]{}":,\\u0-9a-fd8+eE. -]{0,64}"#) {
        check_reply(&text);
        check_reply(&format!(r#"{{"id":1,"type":"send","to":"bob","body":{text}}}"#));
    }

    #[test]
    fn id_is_echoed_byte_for_byte(id in r#""([ -!#-\[\]-~é安]|\\u00[0-9a-f]{2}|\\n){0,10}"|-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?"#) {
        let request = decode(&format!(r#"{{"type":"ping","id":{id}}}"#)).unwrap();
        prop_assert_eq!(request.id.as_deref().map(RawValue::get), Some(id.as_str()));
        let pong = encode_reply(&Reply { id: request.id, answer: Answer::Pong });
        prop_assert_eq!(pong, format!(r#"{{"type":"pong","id":{id}}}"#));
    }

    #[test]
    fn body_is_unchanged_by_decoding(text in any::<String>()) {
        let body = serde_json::to_string(&text).unwrap();
        let command = decode(&format!(r#"{{"type":"send","to":"bob","body":{body}}}"#)).unwrap().command;
        let crate::wire::Command::Send { body: decoded, .. } = command else { panic!("a send") };
        prop_assert_eq!((decoded.json(), decoded.text()), (body.as_str(), text));
    }
}
