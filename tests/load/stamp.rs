//! What the body of a measured message says: when it was due, who sent it, and the how manieth of theirs it is.
//!
//! Plain ASCII of a fixed width behind a mark, filled up to the wanted size, so that it survives every dialect (JSON,
//! lines, raw) unquoted and is found in a frame without parsing it.

use crate::clock::Nanos;

/// Nothing else that travels holds these two bytes in a row.
const MARK: &[u8] = b"@@";
const LENGTH: usize = 2 + 16 + 8 + 8;
const FILLER: u8 = b'x';

/// The stamp of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// If it was due.
    pub(crate) due: Nanos,
    /// The number of its publisher.
    pub(crate) publisher: u32,
    /// How many that publisher sent before it.
    pub(crate) number: u32,
}

impl Stamp {
    /// The body of this message, `size` bytes long but no shorter than a stamp.
    pub(crate) fn body(&self, size: usize) -> Vec<u8> {
        let mut body = format!("@@{:016x}{:08x}{:08x}", self.due, self.publisher, self.number).into_bytes();
        body.resize(size.max(LENGTH), FILLER);
        body
    }

    /// The stamp in a frame or line, if it holds one.
    pub(crate) fn find(text: &[u8]) -> Option<Self> {
        let at = text.windows(MARK.len()).position(|two| two == MARK)?;
        let fields = text.get(at + MARK.len()..at + LENGTH)?;
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
    fn a_stamp_survives_its_way() {
        let stamp = Stamp { due: u64::MAX - 1, publisher: 7, number: 0xdead_beef };
        let body = String::from_utf8(stamp.body(128)).unwrap();
        assert_eq!(body.len(), 128);
        assert_eq!(stamp.body(3).len(), LENGTH);
        let frame = serde_json::json!({"type": "message", "from": "a@b", "body": body}).to_string();
        assert_eq!(Stamp::find(frame.as_bytes()), Some(stamp));
    }

    #[test]
    fn what_is_not_a_stamp_is_none() {
        for text in ["", "@@", "hello", "@@0123", "@@zz00000000000000000000000000000000"] {
            assert_eq!(Stamp::find(text.as_bytes()), None, "{text}");
        }
    }
}
