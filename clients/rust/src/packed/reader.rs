//! MessagePack to a value. [`PackedFrameReader`] holds the bytes that are not read yet.
//!
//! Invariant: no input panics, recurses deeper than [`NESTING_MAX`], or allocates more than its length allows.

use serde_json::{Map, Value};

use super::FIELDS;

/// Levels of a message: those of a body, and of the objects around it.
const NESTING_MAX: usize = 64;

/// The rest of a message.
pub(super) struct PackedFrameReader<'a>(pub(super) &'a [u8]);

impl<'a> PackedFrameReader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length16(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(self.fixed()?)))
    }

    fn length32(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.fixed()?)).ok()
    }

    /// Reads the next value. `level`: the number of lists and maps around it.
    pub(super) fn value(&mut self, level: usize) -> Option<Value> {
        if level > NESTING_MAX {
            return None;
        }
        Some(match self.fixed::<1>()?[0] {
            small @ 0..=0x7F => small.into(),
            small @ 0xE0..=0xFF => i8::from_be_bytes([small]).into(),
            first @ 0x80..=0x8F => return self.map(usize::from(first & 15), level),
            first @ 0x90..=0x9F => return self.array(usize::from(first & 15), level),
            first @ 0xA0..=0xBF => return self.text(usize::from(first & 31)),
            0xC0 => Value::Null,
            0xC2 => false.into(),
            0xC3 => true.into(),
            0xCA => f32::from_be_bytes(self.fixed()?).into(),
            0xCB => f64::from_be_bytes(self.fixed()?).into(),
            0xCC => u8::from_be_bytes(self.fixed()?).into(),
            0xCD => u16::from_be_bytes(self.fixed()?).into(),
            0xCE => u32::from_be_bytes(self.fixed()?).into(),
            0xCF => u64::from_be_bytes(self.fixed()?).into(),
            0xD0 => i8::from_be_bytes(self.fixed()?).into(),
            0xD1 => i16::from_be_bytes(self.fixed()?).into(),
            0xD2 => i32::from_be_bytes(self.fixed()?).into(),
            0xD3 => i64::from_be_bytes(self.fixed()?).into(),
            0xD9 => {
                let length = usize::from(self.fixed::<1>()?[0]);
                return self.text(length);
            }
            0xDA => {
                let length = self.length16()?;
                return self.text(length);
            }
            0xDB => {
                let length = self.length32()?;
                return self.text(length);
            }
            0xDC => {
                let length = self.length16()?;
                return self.array(length, level);
            }
            0xDD => {
                let length = self.length32()?;
                return self.array(length, level);
            }
            0xDE => {
                let length = self.length16()?;
                return self.map(length, level);
            }
            0xDF => {
                let length = self.length32()?;
                return self.map(length, level);
            }
            0xC4 => {
                let length = usize::from(self.fixed::<1>()?[0]);
                uuid(self.take(length)?)
            }
            // Fields of later servers may have other `bin` and `ext`.
            0xC5 => {
                let length = self.length16()?;
                self.skip(length)?
            }
            0xC6 => {
                let length = self.length32()?;
                self.skip(length)?
            }
            0xC7 => {
                let length = usize::from(self.fixed::<1>()?[0]);
                self.skip(length + 1)?
            }
            0xC8 => {
                let length = self.length16()?;
                self.skip(length + 1)?
            }
            0xC9 => {
                let length = self.length32()?;
                self.skip(length.checked_add(1)?)?
            }
            first @ 0xD4..=0xD8 => self.skip(1 + (1 << (first - 0xD4)))?,
            0xC1 => return None,
        })
    }

    fn skip(&mut self, length: usize) -> Option<Value> {
        self.take(length).map(|_| Value::Null)
    }

    fn text(&mut self, length: usize) -> Option<Value> {
        std::str::from_utf8(self.take(length)?).ok().map(Value::from)
    }

    fn array(&mut self, length: usize, level: usize) -> Option<Value> {
        let mut items = Vec::with_capacity(length.min(self.0.len()));
        for _ in 0..length {
            items.push(self.value(level + 1)?);
        }
        Some(items.into())
    }

    /// Reads a map: its keys are names in a body, and numbers of fields everywhere else.
    fn map(&mut self, length: usize, level: usize) -> Option<Value> {
        let mut fields = Map::new();
        for _ in 0..length {
            let name = match self.value(NESTING_MAX)? {
                Value::String(name) => Some(name),
                Value::Number(number) => {
                    let at = number.as_u64().and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
                    at.and_then(|at| FIELDS.get(at)).map(|name| (*name).to_owned())
                }
                _ => return None,
            };
            let value = self.value(level + 1)?;
            fields.extend(name.map(|name| (name, value)));
        }
        Some(fields.into())
    }
}

/// Returns the id of a message as JSON writes it, and null for other bytes.
fn uuid(bytes: &[u8]) -> Value {
    if bytes.len() != 16 {
        return Value::Null;
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-").into()
}
