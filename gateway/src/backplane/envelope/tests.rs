#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use presence::model::{Nick, Owner, UserId};
use proptest::prelude::*;

use super::*;

fn request(msg_id: &str, body: &str) -> PublishRequest {
    PublishRequest {
        msg_id: msg_id.to_owned(),
        key: None,
        from: Nick::parse("Ann").unwrap(),
        from_user: None,
        owner: Owner {
            incarnation: Incarnation::from_store("i1"),
            session: SessionId::from_store("s1"),
            fence: Fence(7),
        },
        moderates: false,
        body: Body::from_raw(serde_json::value::RawValue::from_string(body.to_owned()).unwrap()),
        accepted: Accepted::at(SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001)),
    }
}

fn room() -> RoomKey {
    RoomKey::from_store("lobby")
}

fn m(epoch: &str, seq: u64, time: u64, payload: &str) -> String {
    format!("M {epoch} {seq} {time} {}\n{payload}", payload.len())
}

fn read(text: &[u8]) -> (Vec<Delivery>, u64) {
    let mut deliveries = Vec::new();
    let skipped = read_room(&room(), text, |delivery| deliveries.push(delivery));
    (deliveries, skipped)
}

#[test]
fn payload_has_the_documented_json_form() {
    assert_eq!(
        payload("#Lobby", &request("m1", r#"{"b": [1,  2.50]}"#)),
        r##"{"to":"#Lobby","from":"Ann","id":"m1","fence":7,"at":1700000000000001,"body":{"b": [1,  2.50]}}"##
    );
}

#[test]
fn payload_names_user_only_behind_its_fields() {
    let request = PublishRequest { from_user: UserId::parse(r#"auth0|"5""#), ..request("m1", "1") };
    assert_eq!(
        payload("#l", &request),
        r##"{"to":"#l","from":"Ann","id":"m1","fence":7,"at":1700000000000001,"user":"auth0|\"5\"","body":1}"##
    );
}

#[test]
fn payload_of_the_server_api_is_marked() {
    let body = serde_json::value::RawValue::from_string(r#"{"b": [1,  2.50], "api":"x"}"#.to_owned()).unwrap();
    let fields = presence::registry::PayloadFields {
        to: "#Lobby",
        from: "Ann",
        msg_id: "m1",
        accepted: 1_700_000_000_000_001,
        application: "app",
        body: &body,
    };
    let text = presence::registry::payload(fields);
    assert_eq!(
        text,
        r##"{"to":"#Lobby","from":"Ann","id":"m1","at":1700000000000001,"api":"app","body":{"b": [1,  2.50], "api":"x"}}"##
    );
    let of_user = message(payload("#Lobby", &request("m1", body.get())).as_bytes(), 1, 2).unwrap();
    let of_api = message(text.as_bytes(), 1, 2).unwrap();
    assert!(of_api.from_api && !of_user.from_api, "a field of the body is no mark");
    assert_eq!(of_api, ChatMessage { from_api: true, ..of_user });
}

#[test]
fn stored_payload_without_user_still_decodes() {
    let stored = r##"{"to":"#l","from":"Ann","id":"m1","fence":7,"body":1}"##;
    let of_user = r##"{"to":"#l","from":"Ann","id":"m1","fence":7,"user":"user:1","body":{"user":"forged"}}"##;
    for (payload, user) in [(stored, None), (of_user, UserId::parse("user:1"))] {
        assert_eq!(message(payload.as_bytes(), 1, 1).unwrap().from_user, user);
    }
}

#[test]
fn frames_of_one_text_arrive_in_order() {
    let delta = r#"{"joined":[{"nick":"bob","status":"online"}]}"#;
    let text = format!(
        "{}P 4 {}\n{delta}{}",
        m("e1", 1, 10, &payload("#l", &request("m1", "\"line\\nbreak\""))),
        delta.len(),
        m("e1", 2, 11, &payload("#l", &request("m2", "2"))),
    );
    let (deliveries, skipped) = read(text.as_bytes());
    assert_eq!(skipped, 0);
    let [Delivery::Room { message: first, epoch, .. }, Delivery::Presence { version: 4, delta, .. }, last] =
        deliveries.as_slice()
    else {
        panic!("{deliveries:?}");
    };
    assert_eq!((first.seq, first.time, epoch.as_str()), (1, 10, "e1"));
    assert_eq!(first.body.text(), "line\nbreak");
    assert_eq!(delta.joined[0].nick, "bob");
    assert!(matches!(last, Delivery::Room { message, .. } if message.msg_id == "m2"));
}

#[test]
fn bad_payload_costs_itself_bad_head_the_rest() {
    let good = m("e", 1, 1, &payload("#l", &request("m1", "1")));
    for (text, delivered, skipped) in [
        (format!("{good}{}{good}", m("e", 2, 1, "{not json")), 2, 1),
        (format!("{good}X 1 2\nab{good}"), 2, 1),
        (format!("{good}M e -1 1 2\nab{good}"), 2, 1),
        (format!("{good}hello{good}"), 1, 1),
        (format!("{good}M e 2 1 99\nshort"), 1, 1),
        (format!("{good}M e 2 1 18446744073709551615\nx"), 1, 1),
        ("\n".to_owned(), 0, 1),
        (String::new(), 0, 0),
    ] {
        let (deliveries, count) = read(text.as_bytes());
        assert_eq!((deliveries.len(), count), (delivered, skipped), "{text:?}");
    }
}

#[test]
fn typing_notices_decode_on_both_channel_kinds() {
    let session = SessionId::from_store("s9");
    let frame = typing(&session, "Änn x\n");
    let (deliveries, skipped) = read(frame.repeat(2).as_bytes());
    assert_eq!((deliveries.len(), skipped), (2, 0));
    let Delivery::Typing { stream: StreamId::Room(room), by: Some(by), from } = &deliveries[0] else {
        panic!("{deliveries:?}")
    };
    assert_eq!((room.as_str(), by, from.as_str()), ("lobby", &session, "Änn x\n"));
    let delivery = read_gateway(&Incarnation::from_store("i1"), frame.as_bytes());
    let Some(Delivery::Typing { stream, by: None, from }) = delivery else { panic!("{delivery:?}") };
    assert_eq!((stream, from.as_str()), (StreamId::Inbox(session), "Änn x\n"));
}

#[test]
fn gateway_channel_carries_exactly_one_frame() {
    let own = Incarnation::from_store("i1");
    let direct = payload("bob", &request("m1", "1"));
    let direct = format!("D s9 e 3 77 {}\n{direct}", direct.len());
    let read = |text: &str| read_gateway(&own, text.as_bytes());
    assert!(matches!(read("E 12"), Some(Delivery::Echo { counter: 12, incarnation }) if incarnation == own));
    assert!(matches!(read("T s9 7"), Some(Delivery::Taken { session, fence: Fence(7) }) if session.as_str() == "s9"));
    assert!(matches!(read("B 9"), Some(Delivery::SanctionChanged { version: 9 })));
    assert!(matches!(read("K s9"), Some(Delivery::Kick { session }) if session.as_str() == "s9"));
    assert!(
        matches!(read(&direct), Some(Delivery::Direct { session, epoch, message }) if epoch == "e" && session.as_str() == "s9" && message.seq == 3)
    );
    for text in [
        "",
        "E",
        "E x",
        "E 1 2",
        "B",
        "B x",
        "K",
        "K ",
        "K a b",
        "T",
        "T s9",
        "T s9 x",
        "T s9 1 2",
        "Q 1",
        "D s9 e 3",
        "W s9",
        "W  3\nann",
        "W s9 4\nann",
        &format!("{direct}x"),
        "M e 1 1 2\n{}",
    ] {
        assert!(read(text).is_none(), "{text:?}");
    }
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|items| format!("[ {} ]", items.join(" ,")))
    })
}

#[test]
fn payload_takes_first_id_and_changes_nothing_else() {
    let body = r#"{"id":"m2","say":"\"id\":\"m2\""}"#;
    for from_user in [None, UserId::parse(r#""id":"m2""#)] {
        let encoded = |id| payload("#l", &PublishRequest { from_user: from_user.clone(), ..request(id, body) });
        assert_eq!(with_id(&encoded("m2"), "m2", "m1"), encoded("m1"));
    }
}

proptest! {
    #[test]
    fn encoded_messages_decode_unchanged(
        to in any::<String>(), id in any::<String>(), user in any::<String>(), body in json(), seq: u64, time: u64,
    ) {
        let request = PublishRequest { from_user: UserId::parse(&user), ..request(&id, &body) };
        let text = m("e", seq, time, &payload(&to, &request));
        let (deliveries, skipped) = read(text.as_bytes());
        prop_assert_eq!(skipped, 0);
        let [Delivery::Room { message, .. }] = deliveries.as_slice() else { panic!("{deliveries:?}") };
        let accepted = request.accepted;
        let (from, from_user) = ("Ann".to_owned(), request.from_user);
        let expected = ChatMessage { to, from, from_user, from_api: false, msg_id: id, seq, time, body: request.body, accepted };
        prop_assert_eq!(message, &expected);
    }

    #[test]
    fn truncated_text_keeps_its_complete_frames(bodies in prop::collection::vec(json(), 1..4), cut: prop::sample::Index) {
        let frames: Vec<String> =
            bodies.iter().zip(1..).map(|(body, seq)| m("e", seq, 1, &payload("#l", &request("m", body)))).collect();
        let text = frames.concat();
        let cut = cut.index(text.len());
        let mut whole = 0;
        let mut end = 0;
        for frame in &frames {
            end += frame.len();
            whole += usize::from(end <= cut);
        }
        let at_a_border = frames.iter().take(whole).map(String::len).sum::<usize>() == cut;
        let (deliveries, skipped) = read(&text.as_bytes()[..cut]);
        prop_assert_eq!((deliveries.len(), skipped), (whole, u64::from(!at_a_border)));
    }

    #[test]
    fn flipped_bits_and_noise_never_panic(
        body in json(), flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 1..5),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let payload = payload("#l", &request("m", &body));
        let direct = format!("D s e 1 1 {}\n{payload}", payload.len());
        for text in [m("e", 1, 1, &payload).repeat(2), direct, "E 17".to_owned()] {
            let mut bytes = text.into_bytes();
            for (at, bit) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let _ = read(&bytes);
            let _ = read_gateway(&Incarnation::from_store("i"), &bytes);
        }
        let _ = read(&noise);
        let _ = read_gateway(&Incarnation::from_store("i"), &noise);
    }
}

#[test]
fn announcement_on_gateway_channel_keeps_its_body() {
    let incarnation = Incarnation::from_store("i1");
    let framed = |json: &str| format!("A {}\n{json}", json.len());
    let json = r#"{"id":"a1","tags":["beta"],"body":{"n": 1.50},"time":7}"#;
    let Some(Delivery::Announcement(announcement)) = read_gateway(&incarnation, framed(json).as_bytes()) else {
        panic!("not an announcement")
    };
    assert_eq!((announcement.id.as_str(), announcement.time, announcement.tags.len()), ("a1", 7, 1));
    assert_eq!(announcement.body.get(), r#"{"n": 1.50}"#);
    for wrong in [framed("{}"), framed("[]"), framed(""), "A".to_owned(), format!("{}x", framed(json))] {
        assert!(read_gateway(&incarnation, wrong.as_bytes()).is_none(), "{wrong}");
    }
}
