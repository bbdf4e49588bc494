//! Malformed packed messages: each has one coded answer, and none reserves what it only claims.
//!
//! The rows play on the decoder alone; `listen::tests::packed` of the gateway shows that the connection lives on.

use gateway::wire::PackedFormat::{self, Json, MessagePack, Protobuf};
use gateway::wire::packed::{COMPRESSED, decode};
use gateway::wire::{Command, REQUEST_BYTES_MAX, Request};
use harness::PackedWire;
use harness::packed::{compressed, encode};
use presence::model::codes::ErrorCode;
use proptest::prelude::*;
use serde_json::{Value, json};

const SEND: u16 = 4;
const JOIN: u16 = 2;
const PING: u16 = 14;
const READ: u16 = 11;
const WHOIS: u16 = 9;
const OPTIONS: u16 = 16;

const MALFORMED: &str = "the payload is malformed";
const KEY: &str = "a key of the payload is not the number of a field";
const TWICE: &str = "a field is given twice";
const SEQ: &str = "`seq` must be a whole number from 0 to 9007199254740991";
const POSITION: &str = "`since` must be {\"epoch\": a string, \"seq\": a whole number}";
const DEEP: &str = "the payload is nested deeper than 32 levels";

fn packed(number: u16, payload: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], payload].concat()
}

/// Returns the code and the text of a refusal, and the id of its request.
fn refusal(format: PackedFormat, message: &[u8]) -> (Option<String>, ErrorCode, String) {
    match decode(format, message) {
        Err((id, refusal)) => (id.map(|id| id.to_string()), refusal.code, refusal.message().to_owned()),
        Ok(input) => panic!("{format:?} {}: {input:?}", message.escape_ascii()),
    }
}

#[test]
fn malformed_payloads_are_refused_with_their_cause() {
    for (format, number, payload, text) in [
        (MessagePack, PING, &b"\x90"[..], MALFORMED),
        (MessagePack, PING, b"\xc0", MALFORMED),
        (MessagePack, PING, b"\xc1", MALFORMED),
        (MessagePack, PING, b"\x81\x01", MALFORMED),
        (MessagePack, PING, b"\x81\x09\xa1\xff", MALFORMED),
        (MessagePack, PING, b"\xdf\xff\xff\xff\xff\x01\x01", MALFORMED),
        (MessagePack, PING, b"\x81\x09\xdb\xff\xff\xff\xff", MALFORMED),
        (MessagePack, PING, b"\x81\xcd\x03\xe8\xdd\xff\xff\xff\xff", MALFORMED),
        (MessagePack, PING, b"\x81\xa2id\x01", KEY),
        (MessagePack, PING, b"\x81\xff\x01", KEY),
        (MessagePack, PING, b"\x82\x01\x01\x01\x02", "`id` is given twice"),
        (MessagePack, PING, b"\x80\x00", "the payload is followed by other bytes"),
        (MessagePack, PING, b"\x81\x01\xc0", "`id` must be a string or a whole number"),
        (MessagePack, JOIN, b"\x81\x08\x05", "`room` must be a string"),
        (MessagePack, JOIN, b"\x81\x08\xc0", "`room` must be a string"),
        (MessagePack, JOIN, b"\x80", "`room` is missing"),
        (MessagePack, JOIN, b"\x81\x08\xc4\x01#", "`room` must be a string"),
        (MessagePack, PING, b"\x81\x01\xca\x00\x00\x00\x00", "`id` must be a string or a whole number"),
        (MessagePack, READ, b"\x82\x02\xa1@\x05\xff", SEQ),
        (MessagePack, JOIN, b"\x82\x08\xa2#a\x10\x83\x0c\xa1e\x05\x01\x05\x01", POSITION),
        (MessagePack, OPTIONS, b"\x81\x36\x01", "`snappy` must be true or false"),
        (Protobuf, PING, b"\x08", MALFORMED),
        (Protobuf, PING, b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", MALFORMED),
        (Protobuf, PING, b"\x0b", MALFORMED),
        (Protobuf, PING, b"\x0f", MALFORMED),
        (Protobuf, PING, b"\x4a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", MALFORMED),
        (Protobuf, PING, b"\x00\x01", KEY),
        (Protobuf, PING, b"\x08\x01\x08\x02", "`id` is given twice"),
        (Protobuf, PING, b"\x0a\x01a", "`id` must be a string or a whole number"),
        (Protobuf, JOIN, b"\x40\x05", "`room` must be a string"),
        (Protobuf, JOIN, b"\x42\x01\xff", MALFORMED),
        (Protobuf, JOIN, b"", "`room` is missing"),
        (Protobuf, READ, b"\x12\x01@\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", SEQ),
        (Protobuf, JOIN, b"\x42\x02#a\x82\x01\x07\x62\x01e\x28\x01\x28\x01", POSITION),
        (Protobuf, JOIN, b"\x42\x02#a\x82\x01\x05\x62\x01e\x28\x01\x82\x01\x05\x62\x01e\x28\x01", POSITION),
        (Protobuf, OPTIONS, b"\xb0\x03\x02", "`snappy` must be true or false"),
        (Json, PING, b"{}{}", "the frame is not one JSON object"),
        (Json, PING, b"\xff", "the frame is not one JSON object"),
        (Json, PING, br#"{"type":"bye"}"#, "`type` differs from that of the frame"),
    ] {
        let (id, code, message) = refusal(format, &packed(number, payload));
        assert_eq!((code, message.as_str()), (ErrorCode::BadRequest, text), "{format:?} {}", payload.escape_ascii());
        assert_eq!(id, None);
    }
}

#[test]
fn repeated_fields_are_refused_with_the_id() {
    for (format, payload) in [
        (Json, &br#"{"id":7,"nick":"a","nick":"b"}"#[..]),
        (MessagePack, b"\x83\x01\x07\x09\xa1a\x09\xa1b"),
        (Protobuf, b"\x08\x07\x4a\x01a\x4a\x01b"),
    ] {
        let (id, code, message) = refusal(format, &packed(WHOIS, payload));
        assert_eq!((code, message.as_str()), (ErrorCode::BadRequest, TWICE), "{format:?}");
        assert_eq!(id.as_deref(), Some("7"), "{format:?}");
    }
}

#[test]
fn foreign_values_in_bodies_are_refused() {
    for (body, text) in [
        (&b"\xc4\x01x"[..], "`body` contains bytes or an extension, which JSON does not have"),
        (b"\x91\xd4\x01x", "`body` contains bytes or an extension, which JSON does not have"),
        (b"\xca\x7f\xc0\x00\x00", "`body` contains a number that is not finite"),
        (b"\x91\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", "`body` contains a number that is not finite"),
        (b"\x81\x01\x02", "`body` contains an object with a key that is not a string"),
    ] {
        let payload = [&b"\x83\x01\x07\x02\xa6#lobby\x04"[..], body].concat();
        let (id, code, message) = refusal(MessagePack, &packed(SEND, &payload));
        assert_eq!((code, message.as_str()), (ErrorCode::BadRequest, text), "{}", body.escape_ascii());
        assert_eq!(id.as_deref(), Some("7"));
    }
    let twice = b"\x83\x01\x07\x02\xa6#lobby\x04\x82\xa1a\x01\xa1a\x02";
    let json = br##"{"id":7,"to":"#lobby","body":{"a":1,"a":2}}"##;
    let protobuf = [&b"\x08\x07\x12\x06#lobby\x22\x0d"[..], br#"{"a":1,"a":2}"#].concat();
    let expected = refusal(Json, &packed(SEND, json));
    assert_eq!(expected.1, ErrorCode::BadRequest);
    assert_eq!(refusal(MessagePack, &packed(SEND, twice)), expected);
    assert_eq!(refusal(Protobuf, &packed(SEND, &protobuf)), expected);
}

/// A control character takes one byte in MessagePack and six in JSON, a short float 5 and 22.
#[test]
fn bodies_that_grow_as_json_are_refused() {
    let text = [&b"\xda\x4e\x20"[..], &[1; 20_000]].concat();
    let floats = [&b"\xdc\x2e\xe0"[..], &b"\xca\x7f\x7f\xff\xff".repeat(12_000)].concat();
    for body in [text, floats] {
        let payload = [&b"\x83\x01\x07\x02\xa6#lobby\x04"[..], &body].concat();
        assert!(payload.len() <= REQUEST_BYTES_MAX);
        let (id, code, _) = refusal(MessagePack, &packed(SEND, &payload));
        assert_eq!((id.as_deref(), code), (Some("7"), ErrorCode::TooLarge));
    }
}

/// Returns a `send` with a list in a list, this many deep.
fn nested(levels: usize) -> Value {
    let body = (0..levels).fold(json!(1), |inner, _| json!([inner]));
    json!({"type": "send", "id": 1, "to": "#lobby", "body": body})
}

#[test]
fn nesting_over_32_levels_is_refused_everywhere() {
    for (format, wire) in
        [(Json, PackedWire::Json), (MessagePack, PackedWire::MessagePack), (Protobuf, PackedWire::Protobuf)]
    {
        // The payload is the first level.
        assert!(decode(format, &encode(wire, &nested(31))).is_ok(), "{format:?}");
        assert_eq!(refusal(format, &encode(wire, &nested(32))).1, ErrorCode::BadRequest, "{format:?}");
    }
    assert_eq!(refusal(MessagePack, &encode(PackedWire::MessagePack, &nested(32))).2, DEEP);
    // A field that is skipped counts too, and recursion ends.
    let deep = [&b"\x81\xcd\x03\xe8"[..], &[0x91; 60_000]].concat();
    assert_eq!(refusal(MessagePack, &packed(PING, &deep)).2, DEEP);
}

#[test]
fn unknown_fields_are_skipped() {
    for (format, payload) in [
        (MessagePack, &b"\x83\xcd\x03\xe8\x91\x80\x01\x05\x78\xc4\x01x"[..]),
        (Protobuf, b"\xc0\x3e\x01\x08\x05\xc2\x3e\x01x\xc5\x3eabcd\xc1\x3eabcdefgh\xc0\x3e\x02"),
        (Json, br#"{"id":5,"new":[{}]}"#),
    ] {
        let Ok(Request { id, command: Command::Ping }) = decode(format, &packed(PING, payload)) else {
            panic!("{format:?}")
        };
        assert_eq!(id.unwrap().get(), "5");
    }
}

/// Returns requests with objects inside.
fn whole_requests() -> [Value; 2] {
    [
        json!({"type": "register", "id": 1, "nick": "ann", "resume": "r", "since":
            {"#lobby": {"epoch": "7c1e", "seq": 300}, "@": {"epoch": "0f3a", "seq": 0}}}),
        json!({"type": "send", "id": 1, "to": "#lobby", "body": {"a": [1.5, "b", {}], "c": -70_000}}),
    ]
}

#[test]
fn cut_messages_are_refused_at_every_byte() {
    for object in whole_requests() {
        for (format, wire) in
            [(Json, PackedWire::Json), (MessagePack, PackedWire::MessagePack), (Protobuf, PackedWire::Protobuf)]
        {
            for message in [encode(wire, &object), compressed(&encode(wire, &object))] {
                assert!(decode(format, &message).is_ok(), "{format:?}");
                let is_plain = message[0] & 0x80 == 0;
                for end in 0..message.len() {
                    let read = decode(format, &message[..end]);
                    // Protobuf may end after each field. An empty payload is a `register` without fields.
                    let may_be_whole = is_plain && (format == Protobuf || end == 2);
                    assert!(read.is_err() || may_be_whole, "{format:?}: {end} of {}", message.escape_ascii());
                }
            }
        }
    }
}

#[test]
fn types_without_a_request_are_unknown() {
    for (format, payload) in [(Json, &br#"{"id":7}"#[..]), (MessagePack, b"\x81\x01\x07"), (Protobuf, b"\x08\x07")] {
        for number in [0, 17, 41, 255, 256, 260, 511, 513, 769, 770, 0x7FFF] {
            let (id, code, _) = refusal(format, &packed(number, payload));
            assert_eq!((id.as_deref(), code), (Some("7"), ErrorCode::UnknownType), "{format:?}: {number}");
        }
    }
    for short in [&b""[..], b"\x00"] {
        assert_eq!(refusal(Protobuf, short).1, ErrorCode::BadRequest);
    }
}

#[test]
fn compressed_bombs_are_refused_by_their_claim() {
    let of_length = |length: usize| {
        let send = json!({"type": "send", "id": 1, "to": "#lobby", "body": "x".repeat(length)});
        compressed(&encode(PackedWire::MessagePack, &send))
    };
    assert!(decode(MessagePack, &of_length(REQUEST_BYTES_MAX - 100)).is_ok());
    let bomb = of_length(1_000_000);
    assert_eq!(refusal(MessagePack, &bomb).1, ErrorCode::TooLarge);
    let small_bomb = of_length(REQUEST_BYTES_MAX);
    assert!(small_bomb.len() < 4000);
    assert_eq!(refusal(MessagePack, &small_bomb).1, ErrorCode::TooLarge);
    // Four GiB are claimed by five bytes.
    let claim = packed(PING | COMPRESSED, b"\xff\xff\xff\xff\x0f");
    assert_eq!(refusal(MessagePack, &claim).1, ErrorCode::TooLarge);
    for corrupt in [&b""[..], b"\x05", b"\x05\x00", b"\x04\x0d\x01", b"\xff\xff\xff\xff\xff\xff"] {
        let (_, code, text) = refusal(MessagePack, &packed(PING | COMPRESSED, corrupt));
        assert_eq!((code, text.as_str()), (ErrorCode::BadRequest, "the compressed payload is corrupt"));
    }
    let long = packed(PING, &vec![0; REQUEST_BYTES_MAX + 1]);
    for format in PackedFormat::ALL {
        assert_eq!(refusal(format, &long).1, ErrorCode::TooLarge);
    }
}

fn check(format: PackedFormat, message: &[u8]) {
    let id = match decode(format, message) {
        Ok(request) => request.id,
        Err((id, _)) => id,
    };
    assert!(id.is_none_or(|id| id.get().len() <= 128));
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_refused(kind in 0_u16..50, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in PackedFormat::ALL {
            check(format, &packed(kind, &payload));
            check(format, &packed(kind | COMPRESSED, &payload));
        }
    }

    #[test]
    fn damaged_requests_are_requests_or_refused(at in any::<usize>(), byte in any::<u8>(), length in any::<usize>()) {
        for (format, wire) in [(MessagePack, PackedWire::MessagePack), (Protobuf, PackedWire::Protobuf)] {
            for object in whole_requests() {
                let mut message = encode(wire, &object);
                let at = 2 + at % (message.len() - 2);
                message[at] = byte;
                check(format, &message);
                message.truncate(2 + length % (message.len() - 1));
                check(format, &message);
            }
        }
    }
}
