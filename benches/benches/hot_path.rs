//! Instructions of one message in user space, step by step, without sockets and without Redis.
//!
//! `make count` runs it under Valgrind: the counts do not depend on the machine's load, and a second run shows the
//! difference to the first. `make bench` measures the cost of a delivery with its sockets.

use std::hint::black_box;
use std::time::Instant;

use bytes::BytesMut;
use gateway::backplane::{Delivery, PublishRequest, StreamId, envelope};
use gateway::hub::{FeedJoin, Hub, JoinProgress};
use gateway::message::{Accepted, Body, ChatMessage};
use gateway::metrics::Metrics;
use gateway::outbound::{Outbox, batch};
use gateway::wire::packed;
use gateway::wire::{Dialect, Event, PackedCarrier, PackedDialect, PackedFormat, Request, json};
use gungraun::{library_benchmark, library_benchmark_group, main};
use presence::model::stream::StreamEnd;
use presence::model::{Fence, Incarnation, Nick, Owner, RoomKey, RoomName, SessionId};

const MEMBERS: usize = 1000;

fn text() -> String {
    "x".repeat(128)
}

fn said(seq: u64) -> ChatMessage {
    ChatMessage {
        to: "#lobby".into(),
        from: "ann".into(),
        from_user: None,
        from_api: false,
        msg_id: "0192f0c1-2b3c-7def-8123-456789abcdef".into(),
        seq,
        time: 1_700_000_000_000,
        body: Body::from_text(&text()),
        accepted: Accepted::default(),
    }
}

fn draft() -> PublishRequest {
    let owner = Owner { incarnation: Incarnation::random(), session: SessionId::random(), fence: Fence(7) };
    let from = Nick::parse("ann").expect("a nickname");
    let (msg_id, body, accepted) = (said(1).msg_id, said(1).body, Accepted::default());
    PublishRequest { msg_id, key: None, from, from_user: None, owner, moderates: false, body, accepted }
}

/// The text as a body, alone or in an object.
fn body(is_object: bool) -> String {
    if is_object { format!(r#"{{"at":[12,30],"text":"{}"}}"#, text()) } else { format!(r#""{}""#, text()) }
}

fn request(is_object: bool) -> String {
    format!(r##"{{"type":"send","id":17,"to":"#lobby","body":{}}}"##, body(is_object))
}

#[library_benchmark]
#[bench::text(args = (false), setup = request)]
#[bench::object(args = (true), setup = request)]
fn decode_a_send(request: String) -> Request {
    json::decode(black_box(&request)).unwrap_or_else(|_| panic!("a request"))
}

/// Returns the same `send` as a packed message.
fn packed_request(format: PackedFormat, is_object: bool) -> (PackedFormat, Vec<u8>) {
    let payload = match format {
        PackedFormat::Json => request(is_object).into_bytes(),
        PackedFormat::MessagePack => {
            let object: &[u8] = if is_object { b"\x82\xa2at\x92\x0c\x1e\xa4text" } else { b"" };
            [&b"\x83\x01\x11\x02\xa6#lobby\x04"[..], object, b"\xd9\x80", text().as_bytes()].concat()
        }
        PackedFormat::Protobuf => {
            let body = body(is_object);
            [&b"\x08\x11\x12\x06#lobby\x22"[..], &[body.len() as u8, 1], body.as_bytes()].concat()
        }
    };
    let number = packed::PackedType::Send.number().to_be_bytes();
    (format, [&number[..], &payload].concat())
}

#[library_benchmark]
#[bench::json(args = (PackedFormat::Json, false), setup = packed_request)]
#[bench::messagepack_text(args = (PackedFormat::MessagePack, false), setup = packed_request)]
#[bench::messagepack_object(args = (PackedFormat::MessagePack, true), setup = packed_request)]
#[bench::protobuf_text(args = (PackedFormat::Protobuf, false), setup = packed_request)]
#[bench::protobuf_object(args = (PackedFormat::Protobuf, true), setup = packed_request)]
fn decode_a_packed_send((format, message): (PackedFormat, Vec<u8>)) -> Request {
    packed::decode(format, black_box(&message)).unwrap_or_else(|_| panic!("a request"))
}

/// Returns the dialect of TCP frames in this format.
fn frames_of(format: PackedFormat) -> Dialect {
    Dialect::Packed(PackedDialect { format, carrier: PackedCarrier::Frames, compresses: false })
}

#[library_benchmark]
#[bench::json(Dialect::Json, Event::Message(said(1)))]
#[bench::line(Dialect::Line, Event::Message(said(1)))]
#[bench::messagepack(frames_of(PackedFormat::MessagePack), Event::Message(said(1)))]
#[bench::protobuf(frames_of(PackedFormat::Protobuf), Event::Message(said(1)))]
fn encode_and_frame(format: Dialect, event: Event) -> BytesMut {
    let mut out = BytesMut::new();
    batch::frame(format, &format.encode(black_box(&event)), &mut out);
    out
}

#[library_benchmark(setup = draft)]
fn pack_for_the_script(draft: PublishRequest) -> (String, String) {
    (draft.owner.token(), envelope::payload("#lobby", black_box(&draft)))
}

fn channel_frame() -> (RoomKey, String) {
    let payload = envelope::payload("#lobby", &draft());
    (RoomKey::from_store("lobby"), format!("M e 1 1700000000000 {}\n{payload}", payload.len()))
}

#[library_benchmark(setup = channel_frame)]
fn read_from_the_channel((room, frame): (RoomKey, String)) -> u64 {
    envelope::read_room(&room, black_box(frame.as_bytes()), |delivery| drop(black_box(delivery)))
}

/// Hub with a crowd in one room and outboxes without sockets, so that only lookup and queueing remain.
struct BenchCrowd {
    hub: Hub,
    room: RoomKey,
    messages: Vec<ChatMessage>,
    _outboxes: Vec<Outbox>,
}

fn crowd(messages: u64) -> BenchCrowd {
    let hub = Hub::new(Metrics::new().counts);
    let room = RoomName::parse("#lobby").expect("a room");
    let log = StreamId::Room(room.key().clone());
    let outboxes = Vec::from_iter((0..MEMBERS).map(|_| Outbox::new(Dialect::Json)));
    for outbox in &outboxes {
        let session = SessionId::random();
        hub.start_join(&room, &session, outbox);
        hub.observe_end(&log, &StreamEnd { epoch: "e".into(), seq: 0, forks: Vec::new() });
        let request = FeedJoin { display: "#lobby", session: &session, outbox, epoch: "e", after: 0 };
        assert_eq!(hub.complete_join(&log, &request), JoinProgress::Entered);
    }
    let crowd = BenchCrowd {
        hub,
        room: room.key().clone(),
        messages: (1..=messages + 1).map(said).collect(),
        _outboxes: outboxes,
    };
    // The first batch looks up all recipients.
    give_out(crowd, 1)
}

fn give_out(mut crowd: BenchCrowd, messages: usize) -> BenchCrowd {
    for message in crowd.messages.drain(..messages) {
        crowd.hub.deliver(Delivery::Room { room: crowd.room.clone(), epoch: "e".into(), message });
    }
    let now = Instant::now();
    while crowd.hub.fan_out_portion(|| now) {}
    crowd
}

#[library_benchmark]
#[bench::one(args = (1), setup = crowd)]
#[bench::sixteen_in_a_batch(args = (16), setup = crowd)]
fn fan_out_to_1000(crowd: BenchCrowd) -> BenchCrowd {
    let messages = crowd.messages.len();
    give_out(black_box(crowd), messages)
}

library_benchmark_group!(
    name = hot_path;
    benchmarks = decode_a_send, decode_a_packed_send, encode_and_frame, pack_for_the_script, read_from_the_channel,
        fan_out_to_1000
);

main!(library_benchmark_groups = hot_path);
