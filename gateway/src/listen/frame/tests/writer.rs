//! Output of the frame writer, written in portions and decoded by tungstenite's client.

use bytes::Bytes;
use proptest::prelude::*;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::frame::FrameWriter;

/// Writes all queued output in portions of the given sizes.
fn write_in_portions(writer: &mut FrameWriter, portions: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut portions = portions.iter().cycle();
    while !writer.is_empty() {
        let portion = *portions.next().unwrap();
        let taken = writer.show(|slices| {
            let shown: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(portion).collect();
            assert!(!shown.is_empty(), "the writer returned no bytes of its queued output");
            out.extend(&shown);
            shown.len()
        });
        writer.advance(taken);
    }
    out
}

fn read_messages(bytes: Vec<u8>) -> Vec<Message> {
    let mut client = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Client, None);
    std::iter::from_fn(|| client.read().ok()).collect()
}

#[test]
fn writer_sends_no_frame_after_close() {
    let mut writer = FrameWriter::default();
    writer.text(Bytes::from_static(b"a"));
    writer.close(Some(1000), "bye");
    writer.text(Bytes::from_static(b"late"));
    writer.pong(b"late");
    writer.close(Some(1001), "late");
    assert_eq!(write_in_portions(&mut writer, &[usize::MAX]), b"\x81\x01a\x88\x05\x03\xE8bye");
    writer.ping();
    assert!(writer.is_empty());
}

#[test]
fn writer_omits_a_close_reason_too_long() {
    let mut writer = FrameWriter::default();
    writer.close(None, "not without a code");
    assert_eq!(write_in_portions(&mut writer, &[1]), [0x88, 0]);
    let mut writer = FrameWriter::default();
    writer.close(Some(1000), &"x".repeat(124));
    assert_eq!(write_in_portions(&mut writer, &[1]), [0x88, 2, 3, 0xE8]);
}

#[test]
fn writer_sends_newest_pong_without_changing_started_one() {
    let mut writer = FrameWriter::default();
    for payload in [&b"1"[..], b"2", b"3"] {
        writer.pong(payload);
    }
    writer.advance(1);
    writer.pong(b"4");
    writer.pong(b"5");
    writer.text(Bytes::from_static(b"t"));
    writer.pong(b"6");
    assert_eq!(write_in_portions(&mut writer, &[usize::MAX]), b"\x013\x8A\x015\x81\x01t\x8A\x016");
}

proptest! {
    #[test]
    fn client_decodes_output_written_in_any_portions(
        sizes in proptest::collection::vec(prop_oneof![0usize..300, 65530usize..65540], 0..80),
        portions in proptest::collection::vec(1usize..5000, 1..10),
    ) {
        let mut writer = FrameWriter::default();
        let mut expected = Vec::new();
        for (i, size) in sizes.into_iter().enumerate() {
            let payload = vec![b'a' + (i % 26) as u8; size];
            if i % 2 == 0 {
                expected.push(Message::text(String::from_utf8(payload.clone()).unwrap()));
                writer.text(payload.into());
            } else {
                expected.push(Message::binary(payload.clone()));
                writer.binary(payload.into());
            }
        }
        prop_assert_eq!(read_messages(write_in_portions(&mut writer, &portions)), expected);
    }
}
