//! The JSON dialect `parley.v1`: one object per WebSocket text frame.
//!
//! The WebSocket transport decodes requests and encodes replies with it, the fan-out encodes events.
//! `gateway/PROTOCOL.md` describes it, and the tests here check that page. Invariant: a frame that is not a valid
//! request gets exactly one coded refusal, with the frame's `id` if it is an object with a valid one.

mod decode;
mod encode;
mod interoperable;
#[cfg(test)]
mod tests;

pub use self::decode::decode;
pub(super) use self::decode::decode_as;
pub use self::encode::{encode_event, encode_reply};
pub(super) use self::interoperable::{check as check_interoperable, not_interoperable};
