//! Payloads in MessagePack: a map with the numbers of the fields as keys.
//!
//! [`MessagePack`] finds the fields of requests; [`MapWriter`] writes the maps of replies and events. Invariant:
//! reading reserves nothing for a length that is only claimed.

use rmp::Marker;

use crate::message::Body;
use crate::wire::Refusal;
use crate::wire::field::Field;

use super::body;
use super::fields::{FieldValue, PayloadFault, PayloadFormat};
use super::messagepack_values::{ValueHead, ValueReader, put, put_text};
use super::payload_writer::PayloadWriter;

/// Number of fields for which space is reserved at once.
const USUAL_FIELDS: usize = 8;

/// The MessagePack format.
pub(super) struct MessagePack;

impl PayloadFormat for MessagePack {
    const REPEATS_FIELDS: bool = false;

    fn split(payload: &[u8]) -> Result<Vec<(Field, FieldValue<'_>)>, PayloadFault> {
        let mut reader = ValueReader::new(payload);
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        let ValueHead::Map(count) = reader.head()? else { return Err(PayloadFault::Malformed) };
        let mut values = Vec::with_capacity(USUAL_FIELDS.min(count as usize));
        for _ in 0..count {
            let FieldValue::Number(key) = reader.value(1)? else { return Err(PayloadFault::Key) };
            let value = reader.value(1)?;
            values.extend(Field::of_number(key).map(|field| (field, value)));
        }
        if reader.is_at_end() { Ok(values) } else { Err(PayloadFault::Trailing) }
    }

    fn body(value: FieldValue<'_>) -> Result<Body, Refusal> {
        body::from_messagepack(value)
    }

    fn flag(value: FieldValue<'_>) -> Option<bool> {
        match value {
            FieldValue::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    fn list<'a>(values: Vec<FieldValue<'a>>) -> Option<Vec<FieldValue<'a>>> {
        let [FieldValue::Other(written)] = values[..] else { return None };
        let mut reader = ValueReader::new(written);
        let Ok(ValueHead::Array(count)) = reader.head() else { return None };
        (0..count).map(|_| reader.value(2).ok()).collect()
    }

    fn nested(value: FieldValue<'_>) -> Option<&[u8]> {
        match value {
            FieldValue::Other(written) => Some(written),
            _ => None,
        }
    }
}

/// A map under construction: it has at most 15 fields, so its length has a place of one byte.
pub(super) struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    /// The place of the length.
    start: usize,
}

impl<'a> MapWriter<'a> {
    /// Begins a map at the end of the buffer.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        let mut map = Self { out, start: 0 };
        map.open();
        map
    }

    fn open(&mut self) {
        self.start = self.out.len();
        self.out.push(Marker::FixMap(0).to_u8());
    }

    /// Writes a map inside of this one.
    fn nested(&mut self, write: impl FnOnce(&mut Self)) {
        let outer = self.start;
        self.open();
        write(self);
        self.start = outer;
    }

    fn key(&mut self, field: Field) {
        self.out[self.start] += 1;
        debug_assert!(self.out[self.start] <= Marker::FixMap(15).to_u8(), "at most 15 fields");
        self.out.push(Marker::FixPos(field.number()).to_u8());
    }
}

impl PayloadWriter for MapWriter<'_> {
    fn text(&mut self, field: Field, text: &str) {
        self.key(field);
        put_text(self.out, text);
    }

    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        self.key(field);
        put(rmp::encode::write_bin(self.out, bytes));
    }

    fn number(&mut self, field: Field, number: u64) {
        self.key(field);
        put(rmp::encode::write_uint(self.out, number));
    }

    fn negative(&mut self, field: Field, number: i64) {
        self.key(field);
        put(rmp::encode::write_sint(self.out, number));
    }

    fn flag(&mut self, field: Field, flag: bool) {
        self.key(field);
        put(rmp::encode::write_bool(self.out, flag));
    }

    fn body(&mut self, field: Field, json: &str) {
        self.key(field);
        body::to_messagepack(json, self.out);
    }

    fn object(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.key(field);
        self.nested(write);
    }

    fn list<T>(&mut self, field: Field, items: &[T], write: impl Fn(&mut Self, &T)) {
        self.key(field);
        put(rmp::encode::write_array_len(self.out, u32::try_from(items.len()).unwrap_or(u32::MAX)));
        for item in items {
            self.nested(|map| write(map, item));
        }
    }

    fn texts(&mut self, field: Field, texts: &[String]) {
        self.key(field);
        put(rmp::encode::write_array_len(self.out, u32::try_from(texts.len()).unwrap_or(u32::MAX)));
        for text in texts {
            put_text(self.out, text);
        }
    }
}
