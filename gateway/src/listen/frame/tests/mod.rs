//! Tests of the framing against the RFC, against itself in pieces, and against tungstenite.
#![allow(clippy::unwrap_used, clippy::panic)]

mod compare;
mod corpus;
mod differential;
mod socket;
mod table;
mod writer;

use super::super::frame;

/// Encodes a masked frame with the given first byte.
fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with_length(first, &shortest_length(payload.len() as u64), payload)
}

/// Encodes a payload length in its shortest form, with the mask bit set.
fn shortest_length(length: u64) -> Vec<u8> {
    match length {
        0..126 => vec![0x80 | length as u8],
        126..65536 => [&[0xFE], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[0xFF], &length.to_be_bytes()[..]].concat(),
    }
}

fn frame_with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0xA1, 0x02, 0xF3, 0x54];
    let mut bytes = vec![first];
    bytes.extend(length);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
