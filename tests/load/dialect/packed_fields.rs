//! Fields of packed messages by number, without trees: a [`FieldWriter`] writes a payload, [`fields`] walks over one.
//!
//! Only the outermost fields have values; objects inside are skipped. Invariant: the walk ends at the first byte that
//! its format does not allow. Knows no types of messages.

use super::LoadFormat;

/// Value of an outermost field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadFieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// An object, a list, or another value without use here.
    Skipped,
}

/// Payload in the making: all numbers below 128, and texts.
#[derive(Debug)]
pub(super) struct FieldWriter {
    format: LoadFormat,
    fields: u8,
    bytes: Vec<u8>,
}

impl FieldWriter {
    pub(super) fn new(format: LoadFormat) -> Self {
        let head = (format == LoadFormat::MessagePack).then_some(0x80);
        Self { format, fields: 0, bytes: head.into_iter().collect() }
    }

    pub(super) fn number(mut self, field: u8, value: u64) -> Self {
        self.begin(field, 0);
        put_varint(value, &mut self.bytes);
        self
    }

    pub(super) fn text(mut self, field: u8, text: &str) -> Self {
        self.begin(field, 2);
        match self.format {
            LoadFormat::MessagePack => {
                // A text of 16 bits of length: longer than necessary for short ones, and allowed.
                self.bytes.push(0xda);
                self.bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            }
            _ => put_varint(text.len() as u64, &mut self.bytes),
        }
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.format == LoadFormat::MessagePack {
            self.bytes[0] |= self.fields;
        }
        self.bytes
    }

    fn begin(&mut self, field: u8, wire_type: u8) {
        self.fields += 1;
        match self.format {
            LoadFormat::MessagePack => self.bytes.push(field),
            _ => put_varint(u64::from(field) << 3 | u64::from(wire_type), &mut self.bytes),
        }
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Returns the outermost fields of a payload in MessagePack or Protobuf.
pub(super) fn fields(format: LoadFormat, payload: &[u8]) -> impl Iterator<Item = (u64, LoadFieldValue<'_>)> {
    let mut rest = payload;
    let mut left = match format {
        LoadFormat::MessagePack => pack_head(&mut rest).map_or(0, |head| head.children / 2),
        _ => u64::MAX,
    };
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        match format {
            LoadFormat::MessagePack => {
                let LoadFieldValue::Number(field) = pack_head(&mut rest)?.value else { return None };
                Some((field, pack_value(&mut rest)?))
            }
            _ => proto_field(&mut rest),
        }
    })
}

/// First element of a value in MessagePack, and the number of values inside it.
struct PackHead<'a> {
    value: LoadFieldValue<'a>,
    children: u64,
}

/// Reads a value with all values inside it.
fn pack_value<'a>(rest: &mut &'a [u8]) -> Option<LoadFieldValue<'a>> {
    let PackHead { value, children: mut open } = pack_head(rest)?;
    while open > 0 {
        open = open - 1 + pack_head(rest)?.children;
    }
    Some(value)
}

fn pack_head<'a>(rest: &mut &'a [u8]) -> Option<PackHead<'a>> {
    let marker = take(rest, 1)?[0];
    let (value, children) = match marker {
        0x00..=0x7f => (LoadFieldValue::Number(marker.into()), 0),
        0x80..=0x8f => (LoadFieldValue::Skipped, 2 * u64::from(marker & 0x0f)),
        0x90..=0x9f => (LoadFieldValue::Skipped, u64::from(marker & 0x0f)),
        0xa0..=0xbf => (LoadFieldValue::Bytes(take(rest, usize::from(marker & 0x1f))?), 0),
        0xc4..=0xc6 => (LoadFieldValue::Bytes(pack_bytes(rest, 1 << (marker - 0xc4))?), 0),
        0xca => (skip(rest, 4)?, 0),
        0xcb => (skip(rest, 8)?, 0),
        0xcc..=0xcf => (LoadFieldValue::Number(number(rest, 1 << (marker - 0xcc))?), 0),
        0xd0..=0xd3 => (skip(rest, 1 << (marker - 0xd0))?, 0),
        0xd9..=0xdb => (LoadFieldValue::Bytes(pack_bytes(rest, 1 << (marker - 0xd9))?), 0),
        0xdc | 0xdd => (LoadFieldValue::Skipped, number(rest, 2 << (marker - 0xdc))?),
        0xde | 0xdf => (LoadFieldValue::Skipped, 2 * number(rest, 2 << (marker - 0xde))?),
        0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (LoadFieldValue::Skipped, 0),
        _ => return None,
    };
    Some(PackHead { value, children })
}

fn pack_bytes<'a>(rest: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let length = number(rest, length_bytes)?;
    take(rest, usize::try_from(length).ok()?)
}

fn proto_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, LoadFieldValue<'a>)> {
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => LoadFieldValue::Number(varint(rest)?),
        1 => skip(rest, 8)?,
        2 => {
            let length = varint(rest)?;
            LoadFieldValue::Bytes(take(rest, usize::try_from(length).ok()?)?)
        }
        5 => skip(rest, 4)?,
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn number(rest: &mut &[u8], bytes: usize) -> Option<u64> {
    Some(take(rest, bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn skip<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<LoadFieldValue<'a>> {
    take(rest, bytes).map(|_| LoadFieldValue::Skipped)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(taken)
}
