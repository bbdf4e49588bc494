//! What goes out, read back by tungstenite's client, however the socket takes it.

use bytes::Bytes;
use proptest::prelude::*;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::frame::FrameWriter;

/// Writes everything, in portions of these sizes.
fn written(writer: &mut FrameWriter, portions: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut portions = portions.iter().cycle();
    while !writer.is_empty() {
        let most = *portions.next().unwrap();
        let taken = writer.show(|slices| {
            let shown: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(most).collect();
            assert!(!shown.is_empty(), "nothing is shown although something is queued");
            out.extend(&shown);
            shown.len()
        });
        writer.advance(taken);
    }
    out
}

fn read(bytes: Vec<u8>) -> Vec<Message> {
    let mut client = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Client, None);
    std::iter::from_fn(|| client.read().ok()).collect()
}

#[test]
fn nothing_follows_a_close() {
    let mut writer = FrameWriter::default();
    writer.text(Bytes::from_static(b"a"));
    writer.close(Some(1000), "bye");
    writer.text(Bytes::from_static(b"late"));
    writer.pong(b"late");
    writer.close(Some(1001), "late");
    assert_eq!(written(&mut writer, &[usize::MAX]), b"\x81\x01a\x88\x05\x03\xE8bye");
    writer.ping();
    assert!(writer.is_empty());
}

#[test]
fn a_close_may_be_empty_and_never_too_long() {
    let mut writer = FrameWriter::default();
    writer.close(None, "not without a code");
    assert_eq!(written(&mut writer, &[1]), [0x88, 0]);
    let mut writer = FrameWriter::default();
    writer.close(Some(1000), &"x".repeat(124));
    assert_eq!(written(&mut writer, &[1]), [0x88, 2, 3, 0xE8]);
}

#[test]
fn only_the_newest_ping_is_answered_and_none_is_changed_on_its_way() {
    let mut writer = FrameWriter::default();
    for payload in [&b"1"[..], b"2", b"3"] {
        writer.pong(payload);
    }
    writer.advance(1);
    writer.pong(b"4");
    writer.pong(b"5");
    writer.text(Bytes::from_static(b"t"));
    writer.pong(b"6");
    assert_eq!(written(&mut writer, &[usize::MAX]), b"\x013\x8A\x015\x81\x01t\x8A\x016");
}

proptest! {
    #[test]
    fn a_client_reads_what_was_written_in_whatever_portions(
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
        prop_assert_eq!(read(written(&mut writer, &portions)), expected);
    }
}
