//! Stamp in the body of a measured message: its due time, its publisher and its number.
//!
//! The stamp is plain ASCII of a fixed width after a mark, padded to the requested size. It therefore survives every
//! dialect (JSON, lines, raw) unquoted and is found in a frame without parsing.

use crate::clock::Nanos;

/// Mark of a stamp; no other traffic contains these two bytes in a row.
const MARK: &[u8] = b"@@";
const STAMP_BYTES: usize = 2 + 16 + 8 + 8;
const FILLER: u8 = b'x';

/// Stamp of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Time at which the message was due.
    pub(crate) due: Nanos,
    /// Number of the publisher.
    pub(crate) publisher: u32,
    /// Number of messages that the publisher sent before.
    pub(crate) number: u32,
}

impl Stamp {
    /// Returns the body of this message: `size` bytes, but at least as long as a stamp.
    pub(crate) fn body(&self, size: usize) -> Vec<u8> {
        let mut body = format!("@@{:016x}{:08x}{:08x}", self.due, self.publisher, self.number).into_bytes();
        body.resize(size.max(STAMP_BYTES), FILLER);
        body
    }

    /// Returns the stamp in a frame or line, if there is one.
    pub(crate) fn find(text: &[u8]) -> Option<Self> {
        let at = text.windows(MARK.len()).position(|two| two == MARK)?;
        let fields = text.get(at + MARK.len()..at + STAMP_BYTES)?;
        let (due, rest) = fields.split_at(16);
        let (publisher, number) = rest.split_at(8);
        Some(Self {
            due: hex(due)?,
            publisher: u32::try_from(hex(publisher)?).ok()?,
            number: u32::try_from(hex(number)?).ok()?,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parser_finds_stamp_in_every_body() {
        let stamp = Stamp { due: u64::MAX - 1, publisher: 7, number: 0xdead_beef };
        let body = String::from_utf8(stamp.body(128)).unwrap();
        assert_eq!(body.len(), 128);
        assert_eq!(stamp.body(3).len(), STAMP_BYTES);
        let frame = serde_json::json!({"type": "message", "from": "a@b", "body": body}).to_string();
        assert_eq!(Stamp::find(frame.as_bytes()), Some(stamp));
    }

    #[test]
    fn parser_rejects_bytes_without_a_stamp() {
        for text in ["", "@@", "hello", "@@0123", "@@zz00000000000000000000000000000000"] {
            assert_eq!(Stamp::find(text.as_bytes()), None, "{text}");
        }
    }
}
