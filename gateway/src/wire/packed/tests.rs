//! Packed messages, as far as each format needs no other reader.
#![allow(clippy::unwrap_used)]

use super::{PackedFormat, PackedType, decode};
use crate::wire::Command;

#[test]
fn empty_payload_is_a_request_without_fields() {
    for format in PackedFormat::ALL {
        let ping = PackedType::Ping.number().to_be_bytes();
        let request = decode(format, &ping).unwrap();
        assert!(matches!(request.command, Command::Ping), "{format:?}");
        assert!(request.id.is_none(), "{format:?}");
    }
}
