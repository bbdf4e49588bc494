//! Packed messages against what Parley promises about them: `gateway/frames.txt`, PROTOCOL.md and `parley.proto`.
//!
//! The harness reads and writes them with other libraries than the gateway. `PARLEY_RECORD_FRAMES=1` writes
//! `frames.txt` again: its diff may only add rows.

mod samples;

use std::collections::HashSet;
use std::fmt::Write as _;

use gateway::message::Body;
use gateway::wire::field::Field;
use gateway::wire::packed::{self, PackedType};
use gateway::wire::{Answer, Command, Dialect, Event, PackedFormat, Reply, json as json_dialect};
use harness::PackedWire;
use harness::packed::{decode, encode, field_numbers};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::proptest;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use samples::{answers, dialect, events, message, outputs, requests, sparse_outputs};

const FORMATS: [(PackedFormat, PackedWire); 3] = [
    (PackedFormat::Json, PackedWire::Json),
    (PackedFormat::MessagePack, PackedWire::MessagePack),
    (PackedFormat::Protobuf, PackedWire::Protobuf),
];

/// Decodes a request with the gateway's code.
fn request(format: PackedFormat, message: &[u8]) -> gateway::wire::Request {
    packed::decode(format, message).unwrap_or_else(|refused| panic!("{format:?}: {refused:?}"))
}

fn number(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

/// Returns a row of `frames.txt`: type, version, and the payload in hex or as JSON.
fn row(format: PackedFormat, message: &[u8]) -> String {
    let payload = match format {
        PackedFormat::Json => String::from_utf8(message[2..].to_vec()).unwrap(),
        _ => message[2..].iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        }),
    };
    format!("{} {} {payload}", number(message), format.version()).trim_end().to_owned()
}

#[test]
fn bytes_of_every_message_stay_frozen() {
    let mut rows = Vec::new();
    let mut types = HashSet::new();
    for object in requests() {
        for (format, wire) in FORMATS {
            let message = encode(wire, &object);
            types.insert(number(&message));
            rows.push(row(format, &message));
        }
    }
    let [json, messagepack, protobuf] = FORMATS.map(|(format, _)| outputs(format));
    for ((json, messagepack), protobuf) in json.iter().zip(&messagepack).zip(&protobuf) {
        for ((format, _), message) in FORMATS.into_iter().zip([json, messagepack, protobuf]) {
            assert_eq!(number(message), number(json));
            types.insert(number(message));
            rows.push(row(format, message));
        }
    }
    let known: HashSet<_> = PackedType::ALL.iter().map(|kind| kind.number()).collect();
    assert_eq!(types, known, "one example for each type");
    let path = harness::repository().join("gateway/frames.txt");
    if std::env::var_os("PARLEY_RECORD_FRAMES").is_some() {
        std::fs::write(&path, rows.join("\n") + "\n").unwrap();
    }
    let frozen = std::fs::read_to_string(&path).unwrap();
    for (row, frozen) in rows.iter().zip(frozen.lines()) {
        assert_eq!(row, frozen);
    }
    assert_eq!(rows.len(), frozen.lines().count());
}

#[test]
fn requests_mean_the_same_in_every_format() {
    for object in requests() {
        let expected = json_dialect::decode(&object.to_string()).unwrap();
        for (format, wire) in FORMATS {
            let read = request(format, &encode(wire, &object));
            assert_eq!(format!("{:?}", read.command), format!("{:?}", expected.command), "{format:?}: {object}");
            assert_eq!(read.id.map(|id| id.to_string()), expected.id.as_ref().map(ToString::to_string), "{object}");
        }
    }
}

/// The requests of the examples on the protocol page, as far as they are valid.
#[test]
fn examples_of_the_page_mean_the_same() {
    let page = std::fs::read_to_string(harness::repository().join("gateway/PROTOCOL.md")).unwrap();
    let requests = page.lines().filter_map(|line| line.split_once("> {").map(|(_, rest)| format!("{{{rest}")));
    let mut compared = 0;
    for text in requests {
        let Ok(object) = serde_json::from_str::<Value>(&text) else { continue };
        // The harness sorts the keys of a body.
        let Ok(expected) = json_dialect::decode(&object.to_string()) else { continue };
        for (format, wire) in FORMATS {
            let can_be_sent = wire != PackedWire::Protobuf || object.get("id").is_none_or(Value::is_u64);
            if can_be_sent {
                let read = request(format, &encode(wire, &object));
                assert_eq!(format!("{:?}", read.command), format!("{:?}", expected.command), "{format:?}: {text}");
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn replies_and_events_equal_their_json() {
    assert_eq!(answers().len() + events().len() + 2 + requests().len(), PackedType::ALL.len());
    for outputs in [outputs, sparse_outputs] {
        let decoded = |(format, wire): (PackedFormat, PackedWire)| -> Vec<Value> {
            outputs(format).iter().map(|output| decode(wire, output)).collect()
        };
        let [json, messagepack, protobuf] = FORMATS.map(decoded);
        for (at, json) in json.iter().enumerate() {
            assert_eq!((&messagepack[at], &protobuf[at]), (json, json));
        }
        assert_eq!((messagepack.len(), protobuf.len()), (json.len(), json.len()));
    }
}

/// Returns the tables of PROTOCOL.md with this head, as pairs of name and number.
fn page_rows(head: &str) -> Vec<(String, u64)> {
    let page = std::fs::read_to_string(harness::repository().join("gateway/PROTOCOL.md")).unwrap();
    let head = format!("\n| {head} | number |\n|---|---|\n");
    let tables = page.split(&head).skip(1);
    let lines = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    let row = |line: &str| {
        let (name, number) = line.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        (name.trim_matches('`').to_owned(), number.parse().unwrap())
    };
    lines.map(row).collect()
}

#[test]
fn tables_of_page_and_schema_match_the_code() {
    let types: Vec<_> = PackedType::ALL.iter().map(|kind| (kind.name().to_owned(), kind.number().into())).collect();
    assert_eq!(page_rows("type"), types);
    let fields: Vec<_> = Field::ALL.iter().map(|field| (field.name().to_owned(), field.number().into())).collect();
    assert_eq!(page_rows("field"), fields);
    assert_eq!(field_numbers(), fields);
    assert_eq!(harness::packed::types(), types);
    assert_eq!(harness::packed::fields_without_presence(), [""; 0]);
}

/// Returns the bytes of the header of a frame from a server for a payload of up to 64 KiB.
fn web_socket_header(payload: usize) -> usize {
    if payload < 126 { 2 } else { 4 }
}

#[test]
fn message_takes_seventy_percent_of_json() {
    let event = Event::Message(message(Body::from_text(&"x".repeat(128))));
    let text = json_dialect::encode_event(&event).len();
    let (most, most_in_frame) = ((text + web_socket_header(text)) * 7 / 10, (text + 11) * 7 / 10);
    for format in [PackedFormat::MessagePack, PackedFormat::Protobuf] {
        let message = packed::encode_event(dialect(format), &event).len();
        let (web_socket, frame) = (message + web_socket_header(message), message + 9);
        assert!(web_socket <= most, "{format:?}: {web_socket} of {most} bytes");
        assert!(frame <= most_in_frame, "{format:?}: {frame} of {most_in_frame} bytes");
    }
}

/// MessagePack writes `-0` as nine bytes.
#[test]
fn estimates_of_lists_cover_every_format() {
    let zeros = format!("[{}]", ["-0"; 20_000].join(","));
    for body in [Body::from_text(&"x".repeat(20_000)), Body::from_raw(RawValue::from_string(zeros).unwrap())] {
        let items = vec![message(body); 3];
        let answer = Answer::History { to: "#lobby".into(), items, more: false };
        let reply = Reply { id: None, answer };
        for (format, _) in FORMATS {
            let estimate = reply.answer.estimated_bytes(Dialect::Packed(dialect(format)));
            let bytes = packed::encode_reply(dialect(format), &reply).len();
            // The fields of the reply itself are no part of the estimate.
            assert!(bytes <= estimate + 256, "{format:?}: {bytes} of {estimate}");
        }
    }
}

/// The payload is an announcement: its body, an id and a time.
#[test]
fn compression_begins_above_512_bytes_of_payload() {
    let announcement = |text: &str| Event::Announcement { id: "m".into(), body: Body::from_text(text), time: 1 };
    for format in [PackedFormat::MessagePack, PackedFormat::Protobuf] {
        let mut dialect = dialect(format);
        let payload_bytes = |text: &str| packed::encode_event(samples::dialect(format), &announcement(text)).len() - 2;
        let largest = "x".repeat(300 + 512 - payload_bytes(&"x".repeat(300)));
        assert_eq!(payload_bytes(&largest), 512);
        dialect.compresses = true;
        for (text, is_compressed) in [(largest.clone(), false), (largest + "x", true)] {
            let output = packed::encode_event(dialect, &announcement(&text));
            assert_eq!(number(&output) & packed::COMPRESSED != 0, is_compressed, "{format:?}: {}", text.len());
        }
        // Text without repetitions would grow.
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let noise: String =
            (0..600).map(|_| char::from(rng.random_range(b'0'..=b'z'))).filter(|sign| *sign != '\\').collect();
        let output = packed::encode_event(dialect, &announcement(&noise));
        assert!(output.len() > 512 && number(&output) & packed::COMPRESSED == 0, "{format:?}: {noise}");
    }
}

#[test]
fn compression_is_used_if_asked() {
    for (length, compresses, is_compressed) in [(300, true, false), (4000, true, true), (4000, false, false)] {
        let event = Event::Message(message(Body::from_text(&"x".repeat(length))));
        for (format, wire) in FORMATS {
            let mut dialect = dialect(format);
            let plain = packed::encode_event(dialect, &event);
            dialect.compresses = compresses;
            let output = packed::encode_event(dialect, &event);
            assert_eq!(number(&output) & packed::COMPRESSED != 0, is_compressed, "{format:?}: {length}");
            assert_eq!(decode(wire, &output), decode(wire, &plain));
        }
    }
}

fn body() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        any::<i16>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        "[a-z\"\\\\é\u{1f600}\n]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,4}", inner, 0..20)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn bodies_survive_from_each_format_to_each(body in body()) {
        let object = json!({"type": "send", "id": 1, "to": "#lobby", "body": body});
        for (format, wire) in FORMATS {
            let Command::Send { body: read, .. } = request(format, &encode(wire, &object)).command else { panic!() };
            let event = Event::Message(message(read));
            for (format, wire) in FORMATS {
                let received = decode(wire, &packed::encode_event(dialect(format), &event));
                assert_eq!(received["body"], body);
            }
        }
    }
}
