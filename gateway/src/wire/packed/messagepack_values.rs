//! Single values of MessagePack, without a tree.
//!
//! [`ValueReader`] walks over values. Invariant: it reserves nothing for a length that is only claimed, and goes no
//! deeper than [`DEPTH_MAX`].

use presence::model::json_value::DEPTH_MAX;
use rmp::Marker;

use super::fields::{FieldValue, PayloadFault};

/// The head of a value: the whole of it, or the number of items that follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ValueHead<'a> {
    Nil,
    Flag(bool),
    Number(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
    Array(u32),
    Map(u32),
    /// Bytes or an extension, which JSON does not have.
    Foreign,
}

/// A reader of values that follow each other.
#[derive(Debug, Clone)]
pub(super) struct ValueReader<'a> {
    rest: &'a [u8],
}

impl<'a> ValueReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the next value whole, at this depth. A list or map is skipped and returned as it is written.
    pub(super) fn value(&mut self, depth: usize) -> Result<FieldValue<'a>, PayloadFault> {
        let start = self.rest;
        Ok(match self.head()? {
            ValueHead::Number(number) => FieldValue::Number(number),
            ValueHead::Negative(number) => FieldValue::Negative(number),
            ValueHead::Flag(flag) => FieldValue::Flag(flag),
            ValueHead::Text(text) => FieldValue::Text(text),
            head => {
                self.skip_items(head, depth)?;
                FieldValue::Other(&start[..start.len() - self.rest.len()])
            }
        })
    }

    fn skip_items(&mut self, head: ValueHead<'a>, depth: usize) -> Result<(), PayloadFault> {
        let count = match head {
            ValueHead::Array(count) => u64::from(count),
            ValueHead::Map(count) => 2 * u64::from(count),
            _ => return Ok(()),
        };
        if depth >= DEPTH_MAX {
            return Err(PayloadFault::TooDeep);
        }
        for _ in 0..count {
            let head = self.head()?;
            self.skip_items(head, depth + 1)?;
        }
        Ok(())
    }

    /// Returns the head of the next value.
    pub(super) fn head(&mut self) -> Result<ValueHead<'a>, PayloadFault> {
        let marker = Marker::from_u8(self.take(1)?[0]);
        Ok(match marker {
            Marker::Null => ValueHead::Nil,
            Marker::True => ValueHead::Flag(true),
            Marker::False => ValueHead::Flag(false),
            Marker::FixPos(number) => ValueHead::Number(number.into()),
            Marker::U8 => ValueHead::Number(self.number::<1>()?),
            Marker::U16 => ValueHead::Number(self.number::<2>()?),
            Marker::U32 => ValueHead::Number(self.number::<4>()?),
            Marker::U64 => ValueHead::Number(self.number::<8>()?),
            Marker::FixNeg(number) => ValueHead::Negative(number.into()),
            Marker::I8 => signed((self.number::<1>()? as i8).into()),
            Marker::I16 => signed((self.number::<2>()? as i16).into()),
            Marker::I32 => signed((self.number::<4>()? as i32).into()),
            Marker::I64 => signed(self.number::<8>()? as i64),
            Marker::F32 => ValueHead::Float(f32::from_bits(self.number::<4>()? as u32).into()),
            Marker::F64 => ValueHead::Float(f64::from_bits(self.number::<8>()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.long_text::<1>()?,
            Marker::Str16 => self.long_text::<2>()?,
            Marker::Str32 => self.long_text::<4>()?,
            Marker::FixArray(count) => ValueHead::Array(count.into()),
            Marker::Array16 => ValueHead::Array(self.number::<2>()? as u32),
            Marker::Array32 => ValueHead::Array(self.number::<4>()? as u32),
            Marker::FixMap(count) => ValueHead::Map(count.into()),
            Marker::Map16 => ValueHead::Map(self.number::<2>()? as u32),
            Marker::Map32 => ValueHead::Map(self.number::<4>()? as u32),
            Marker::Bin8 => self.foreign::<1>(0)?,
            Marker::Bin16 => self.foreign::<2>(0)?,
            Marker::Bin32 => self.foreign::<4>(0)?,
            Marker::Ext8 => self.foreign::<1>(1)?,
            Marker::Ext16 => self.foreign::<2>(1)?,
            Marker::Ext32 => self.foreign::<4>(1)?,
            Marker::FixExt1 => self.foreign::<0>(2)?,
            Marker::FixExt2 => self.foreign::<0>(3)?,
            Marker::FixExt4 => self.foreign::<0>(5)?,
            Marker::FixExt8 => self.foreign::<0>(9)?,
            Marker::FixExt16 => self.foreign::<0>(17)?,
            Marker::Reserved => return Err(PayloadFault::Malformed),
        })
    }

    fn text(&mut self, length: usize) -> Result<ValueHead<'a>, PayloadFault> {
        std::str::from_utf8(self.take(length)?).map(ValueHead::Text).map_err(|_| PayloadFault::Malformed)
    }

    fn long_text<const N: usize>(&mut self) -> Result<ValueHead<'a>, PayloadFault> {
        let length = self.number::<N>()? as usize;
        self.text(length)
    }

    /// Skips a value that JSON does not have: as many bytes as its length says, and `more`.
    fn foreign<const N: usize>(&mut self, more: usize) -> Result<ValueHead<'a>, PayloadFault> {
        let length = self.number::<N>()? as usize;
        self.take(length + more)?;
        Ok(ValueHead::Foreign)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, PayloadFault> {
        Ok(self.take(N)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PayloadFault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(PayloadFault::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Returns true if nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

fn signed<'a>(number: i64) -> ValueHead<'a> {
    u64::try_from(number).map_or(ValueHead::Negative(number), ValueHead::Number)
}

/// Appends a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(rmp::encode::write_str(out, text));
}

/// Takes the result of a write to a vector, which accepts every write.
pub(super) fn put<T, E: std::fmt::Debug>(written: Result<T, E>) {
    written.expect("a vector accepts every write");
}
