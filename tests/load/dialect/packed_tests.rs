#![allow(clippy::unwrap_used)]

use super::*;

const STAMP: Stamp = Stamp { due: 5, publisher: 2, number: 9 };

fn frames(format: LoadFormat) -> LoadDialect {
    LoadDialect::Packed(LoadPacking { format, carrier: LoadCarrier::Frames })
}

fn websocket(format: LoadFormat) -> LoadDialect {
    LoadDialect::Packed(LoadPacking { format, carrier: LoadCarrier::WebSocket })
}

fn written(dialect: LoadDialect, write: impl Fn(&mut DialectWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut dialect.writer(&mut bytes));
    bytes
}

fn interpret(dialect: LoadDialect, unit: &[u8]) -> (ServerMessage, Vec<u8>) {
    let mut answer = Vec::new();
    let message = dialect.interpret(unit, &|| vec!["#r".to_owned()], &mut dialect.writer(&mut answer));
    (message, answer)
}

/// Returns a `message` whose raw `msg_id` has the mark of a stamp.
fn delivery(format: LoadFormat, body: &[u8]) -> Vec<u8> {
    let mut unit = vec![0x02, 0x01];
    let length = u8::try_from(body.len()).unwrap();
    match format {
        LoadFormat::MessagePack => {
            unit.extend_from_slice(&[0x85, 2, 0xa2, b'#', b'r', 5, 0xcd, 0x01, 0x2c, 7, 0xc4, 16]);
            unit.extend_from_slice(&[b'@'; 16]);
            // A field with values inside it, before the body.
            unit.extend_from_slice(&[
                27, 0x82, 15, 0xa1, b't', 6, 0x92, 1, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0xd9, length,
            ]);
        }
        _ => {
            unit.extend_from_slice(&[0x12, 2, b'#', b'r', 0x28, 0xac, 0x02, 0x3a, 16]);
            unit.extend_from_slice(&[b'@'; 16]);
            unit.extend_from_slice(&[0x22, length]);
        }
    }
    [unit.as_slice(), body].concat()
}

#[test]
fn packed_requests_have_numbers_of_protocol() {
    let ping = |dialect: LoadDialect| written(dialect, |out| dialect.ping(out));
    assert_eq!(ping(frames(LoadFormat::MessagePack)), b"\xca\xfe\xba\xbe\x02\0\0\0\x03\0\x0e\x81\x01\x04");
    assert_eq!(ping(frames(LoadFormat::Protobuf)), b"\xca\xfe\xba\xbe\x03\0\0\0\x02\0\x0e\x08\x04");
    assert_eq!(ping(frames(LoadFormat::Json)), b"\xca\xfe\xba\xbe\x01\0\0\0\x16\0\x0e{\"type\":\"ping\",\"id\":4}");
    assert_eq!(ping(websocket(LoadFormat::Protobuf)), b"\x82\x84\0\0\0\0\0\x0e\x08\x04");
    let send = |dialect: LoadDialect| written(dialect, |out| dialect.publish("#r", "hi", out))[9..].to_vec();
    assert_eq!(send(frames(LoadFormat::Protobuf)), b"\0\x04\x08\x03\x12\x02#r\x22\x04\"hi\"");
    assert_eq!(send(frames(LoadFormat::MessagePack)), b"\0\x04\x83\x01\x03\x02\xda\0\x02#r\x04\xda\0\x02hi");
    let identity = ClientIdentity { nick: "ann", rooms: &["#r".to_owned()], resume: None };
    let dialect = frames(LoadFormat::Protobuf);
    let login = written(dialect, |out| dialect.log_in(&identity, out));
    let first = dialect.unit(&login).unwrap();
    assert_eq!(&login[9..first], b"\0\x01\x08\x01\x4a\x03ann");
    assert_eq!(&login[first + 9..], b"\0\x02\x08\x02\x42\x02#r");
}

#[test]
fn packed_deliveries_have_seq_and_stamp_of_body() {
    let body = STAMP.body(40);
    let quoted = [b"\"", body.as_slice(), b"\""].concat();
    let expected = ServerMessage::Delivery { seq: Some(300), stamp: Some(STAMP) };
    for (format, body) in [(LoadFormat::MessagePack, &body), (LoadFormat::Protobuf, &quoted)] {
        let unit = delivery(format, body);
        assert_eq!(interpret(websocket(format), &unit).0, expected, "{format:?}");
        let cut = interpret(websocket(format), &unit[..unit.len() - 1]).0;
        assert!(matches!(cut, ServerMessage::Delivery { stamp: None, .. }), "{format:?}: {cut:?}");
    }
}

#[test]
fn packed_answers_differ_from_refusals() {
    let pack = |unit: &[u8]| interpret(websocket(LoadFormat::MessagePack), unit).0;
    assert_eq!(pack(b"\x01\x01\x80"), ServerMessage::Registered { resume: None, restored: false });
    assert_eq!(pack(b"\x01\x02\x82\x01\x02\x05\x06"), ServerMessage::Joined { next: 7, epoch: None });
    assert_eq!(pack(b"\x01\x04\x82\x01\x03\x05\x04"), ServerMessage::Acked { seq: Some(4) });
    assert_eq!(pack(b"\x01\x0e\x81\x01\x04"), ServerMessage::Pong);
    let refused = |step, code: &str| ServerMessage::Refused { step, code: code.to_owned() };
    assert_eq!(pack(b"\x01\xff\x82\x01\x03\x0b\xa4code"), refused(RequestPurpose::Publish, "code"));
    assert_eq!(pack(b"\x02\x03\x82\x02\xa2#r\x29\x08"), ServerMessage::Moved { kind: "gap".to_owned(), next: 9 });
    assert_eq!(pack(b"\x02\x05\x82\x02\xa2#x\x05\x08"), ServerMessage::Nothing);
    assert_eq!(pack(b"\x02"), refused(RequestPurpose::Login, "not_parley"));
}

#[test]
fn frame_client_skips_greeting_and_answers_heartbeats() {
    let dialect = frames(LoadFormat::MessagePack);
    let heartbeat = b"\xca\xfe\xba\xbe\x02\0\0\0\0\x03\x02";
    let stream = [b"* this is parley\n".as_slice(), heartbeat].concat();
    let greeting = dialect.unit(&stream).unwrap();
    assert_eq!(interpret(dialect, &stream[..greeting]), (ServerMessage::Nothing, Vec::new()));
    assert!((greeting..stream.len()).all(|cut| dialect.unit(&stream[greeting..cut]).is_none()));
    assert_eq!(dialect.unit(&stream[greeting..]), Some(heartbeat.len()));
    assert_eq!(interpret(dialect, heartbeat), (ServerMessage::Nothing, heartbeat.to_vec()));
    let refused = |code: &str| ServerMessage::Refused { step: RequestPurpose::Login, code: code.to_owned() };
    assert_eq!(interpret(dialect, b"\xca\xfe\xba\xbe\x02\0\0\0\x01\x03\x01\x80").0, refused("closing"));
    assert_eq!(interpret(dialect, b"! banned\n").0, refused("not_parley"));
}
