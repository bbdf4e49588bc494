//! A value to MessagePack. [`PackedRequestWriter`] holds the bytes that are written.
//!
//! Objects of the protocol have numbers as keys, and those of a body have names.

use serde_json::{Map, Value};

use super::FIELDS;

/// The bytes so far.
pub(super) struct PackedRequestWriter(pub(super) Vec<u8>);

impl PackedRequestWriter {
    fn bytes(&mut self, first: u8, rest: &[u8]) {
        self.0.push(first);
        self.0.extend_from_slice(rest);
    }

    /// Writes the length of a map, array or text: in the first byte, or behind one of two others.
    pub(super) fn length(&mut self, length: usize, first: u8, first_max: u8, [two, four]: [u8; 2]) {
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short <= first_max => self.0.push(first | short),
            (_, Ok(length)) => self.bytes(two, &length.to_be_bytes()),
            _ => self.bytes(four, &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()),
        }
    }

    fn text(&mut self, text: &str) {
        self.length(text.len(), 0xA0, 31, [0xDA, 0xDB]);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn unsigned(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(small) if small < 0x80 => self.0.push(small),
            Ok(small) => self.bytes(0xCC, &[small]),
            Err(_) => match (u16::try_from(number), u32::try_from(number)) {
                (Ok(number), _) => self.bytes(0xCD, &number.to_be_bytes()),
                (_, Ok(number)) => self.bytes(0xCE, &number.to_be_bytes()),
                _ => self.bytes(0xCF, &number.to_be_bytes()),
            },
        }
    }

    pub(super) fn field_name(&mut self, name: &str) -> Option<()> {
        let number = FIELDS.iter().position(|field| *field == name)? + 1;
        self.unsigned(number as u64);
        Some(())
    }

    /// Writes the rooms of `since` as a list of positions.
    pub(super) fn positions(&mut self, since: &Map<String, Value>) -> Option<()> {
        self.length(since.len(), 0x90, 15, [0xDC, 0xDD]);
        for (room, position) in since {
            let position = position.as_object()?;
            self.length(position.len() + 1, 0x80, 15, [0xDE, 0xDF]);
            self.field_name("room")?;
            self.text(room);
            for (name, value) in position {
                self.field_name(name)?;
                self.value(value, false)?;
            }
        }
        Some(())
    }

    /// Writes a value. Its objects have names in a body, and numbers everywhere else.
    pub(super) fn value(&mut self, value: &Value, is_body: bool) -> Option<()> {
        match value {
            Value::Null => self.0.push(0xC0),
            Value::Bool(value) => self.0.push(0xC2 | u8::from(*value)),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => self.unsigned(number),
                (_, Some(number), _) => match i8::try_from(number) {
                    Ok(small @ -32..) => self.0.extend(small.to_be_bytes()),
                    _ => self.bytes(0xD3, &number.to_be_bytes()),
                },
                (.., number) => self.bytes(0xCB, &number?.to_be_bytes()),
            },
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.length(items.len(), 0x90, 15, [0xDC, 0xDD]);
                items.iter().try_for_each(|item| self.value(item, is_body))?;
            }
            Value::Object(fields) => {
                self.length(fields.len(), 0x80, 15, [0xDE, 0xDF]);
                for (name, value) in fields {
                    if is_body {
                        self.text(name)
                    } else {
                        self.field_name(name)?
                    }
                    self.value(value, is_body)?;
                }
            }
        }
        Some(())
    }
}
