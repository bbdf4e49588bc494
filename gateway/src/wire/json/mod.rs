//! The JSON dialect `parley.v1`: one object per WebSocket text frame.
//!
//! The WebSocket door decodes and encodes replies with it, the hub encodes events. The page of the protocol is
//! `gateway/PROTOCOL.md`; the tests here hold it to its word. Invariant: a frame that is no request gets exactly one
//! coded refusal, in our own words, with the frame's `id` wherever the frame is an object that has a readable one.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

/// The inbox, where a room would be named.
const INBOX: &str = "@";

pub use self::decode::decode;
pub use self::encode::{encode_event, encode_reply};
