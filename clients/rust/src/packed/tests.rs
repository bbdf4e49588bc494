//! The codec against the tables of the protocol page, and on malformed messages.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// Returns the rows of the table behind a heading of PROTOCOL.md.
fn page_table(heading: &str) -> BTreeMap<String, u16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../gateway/PROTOCOL.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once(heading).expect(heading);
    let lines = section.lines().skip_while(|line| !line.ends_with("| number |")).skip(2);
    let rows = lines.take_while(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_matches(['|', ' ']).split(" | ");
        (cells.next().unwrap().trim_matches('`').to_owned(), cells.next().unwrap().parse().unwrap())
    })
    .collect()
}

/// Returns the type and the payload of a request.
fn encoded(request: &Value) -> (u16, Vec<u8>) {
    let message = encode(request).unwrap();
    (u16::from_be_bytes([message[0], message[1]]), message[2..].to_vec())
}

#[test]
fn numbers_are_those_of_the_protocol() {
    let mut requests = page_table("**Requests**");
    assert_eq!(requests.remove("options"), Some(16), "not used by this client");
    assert_eq!(requests, REQUESTS.map(|(name, number)| (name.to_owned(), number)).into());
    let fields: BTreeMap<_, _> = FIELDS.iter().zip(1..).map(|(name, at)| ((*name).to_owned(), at)).collect();
    assert_eq!(page_table("### Fields"), fields);
    for (name, number) in page_table("**Replies**").into_iter().chain(page_table("**Events**")) {
        let expected = if name == "options" { "272" } else { name.as_str() };
        assert_eq!(decode(&number.to_be_bytes()), Some(json!({"type": expected})));
    }
}

#[test]
fn request_is_a_type_and_a_map() {
    assert_eq!(encoded(&json!({"type": "ping", "id": 7})), (14, vec![0x81, 1, 7]));
    assert_eq!(encoded(&json!({"type": "bye"})), (15, vec![]));
    let (_, since) = encoded(&json!({"type": "register", "since": {"#a": {"epoch": "e", "seq": 300}}}));
    assert_eq!(since, b"\x81\x10\x91\x83\x08\xa2#a\x0c\xa1e\x05\xcd\x01\x2c");
    let (_, since) = encoded(&json!({"type": "join", "since": {"epoch": "e", "seq": 1}}));
    assert_eq!(since, b"\x81\x10\x82\x0c\xa1e\x05\x01");
    for unknown in [json!({"type": "juggle"}), json!({"id": 1}), json!({"type": "ping", "news": 1}), json!([])] {
        assert_eq!(encode(&unknown), None, "{unknown}");
    }
}

#[test]
fn every_body_is_carried_unchanged() {
    let long = "x".repeat(70_000);
    let many: Vec<u64> = (0..70_000).collect();
    let wide: BTreeMap<String, u8> = (0..70_000).map(|number| (number.to_string(), 0)).collect();
    let mut bodies = vec![json!(null), json!(false), json!(true), json!(1.5), json!({"id": {"to": []}}), json!(wide)];
    bodies.extend([0, 15, 16, 31, 32, 255, 256, 65_535, 65_536].map(|end| json!([&long[..end], &many[..end]])));
    bodies.extend([0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX].map(Value::from));
    bodies.extend([-1, -32, -33, -128, -129, -40_000, i64::from(i32::MIN), i64::MIN].map(Value::from));
    for body in bodies {
        let (_, payload) = encoded(&json!({"type": "send", "to": "#a", "body": body}));
        let event = [&FIRST_EVENT.to_be_bytes()[..], &payload].concat();
        assert_eq!(decode(&event), Some(json!({"type": "message", "to": "#a", "body": body})));
    }
}

#[test]
fn reply_has_the_names_of_json() {
    let members = b"\x01\x07\x83\x01\x03\x20\x91\x82\x09\xa3ann\x1f\xa6online\xcd\x03\x84\x01";
    let expected = json!({"type": "members", "id": 3, "items": [{"nick": "ann", "status": "online"}]});
    assert_eq!(decode(members), Some(expected), "an unknown field is left out");
    assert_eq!(decode(b"\x02\xbc\x81\x01\x02"), Some(json!({"type": "700", "id": 2})));
    let numbers = [0xCA, 0x3F, 0x80, 0, 0, 0xD0, 0xFF, 0xD1, 0xFF, 0, 0xD2, 0xFF, 0, 0, 0];
    let lists = [&[1, 7, 0x81, 0x20, 0x94][..], &numbers].concat();
    assert_eq!(decode(&lists), Some(json!({"type": "members", "items": [1.0, -1, -256, -16_777_216]})));
}

#[test]
fn malformed_message_is_no_frame() {
    let deep = [&[2, 1, 0x81, 4][..], &[0x91; 10_000]].concat();
    let malformed: [&[u8]; 11] = [
        b"",
        b"\x01",
        b"\x01\x01\x90",
        b"\x01\x01\x81",
        b"\x01\x01\x80\x80",
        b"\x01\x01\xc1",
        b"\x01\x01\x81\xc0\x01",
        b"\x01\x01\x81\x09\xa1\xff",
        b"\x01\x01\x81\x20\xdd\xff\xff\xff\xff\x01",
        b"\x01\x01\x81\x09\xdb\xff\xff\xff\xff\x01",
        &deep,
    ];
    for message in malformed {
        assert_eq!(decode(message), None, "{message:?}");
    }
    let whole = encode(&json!({"type": "send", "body": [1.5, "text", {"a": 300}], "to": "#a"})).unwrap();
    for end in 0..whole.len() {
        assert_eq!(decode(&whole[..end]).is_some(), end == 2, "{end}");
    }
}
