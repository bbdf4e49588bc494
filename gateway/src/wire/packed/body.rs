//! Bodies between JSON, in which the store keeps them, and MessagePack. No tree is built in either direction.
//!
//! Invariant: what [`from_messagepack`] accepts is JSON that every reader accepts, and [`to_messagepack`] accepts every
//! stored body. A number beyond 64 bits becomes a double.

use std::fmt;

use presence::model::json_value::DEPTH_MAX;
use rmp::Marker;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::Body;
use crate::wire::syntax::bad_request;
use crate::wire::{Refusal, json};

use super::fields::{FieldValue, PayloadFault};
use super::messagepack_values::{ValueHead, ValueReader, put, put_text};

/// Reads the body of a request.
pub(super) fn from_messagepack(value: FieldValue<'_>) -> Result<Body, Refusal> {
    let mut text = Vec::with_capacity(128);
    let mut has_keys = false;
    match value {
        FieldValue::Number(number) => json_of(&mut text, &number),
        FieldValue::Negative(number) => json_of(&mut text, &number),
        FieldValue::Flag(flag) => json_of(&mut text, &flag),
        FieldValue::Text(value) => json_of(&mut text, value),
        FieldValue::Bytes(_) => return Err(PayloadFault::Malformed.into()),
        FieldValue::Other(written) => {
            has_keys = JsonWriter { out: &mut text, has_keys: false }.write(&mut ValueReader::new(written))?;
        }
    }
    let text = String::from_utf8(text).map_err(|_| PayloadFault::Malformed)?;
    let raw = RawValue::from_string(text).map_err(|_| PayloadFault::Malformed)?;
    if has_keys {
        json::check_interoperable("body", &raw)?;
    }
    Ok(Body::from_raw(raw))
}

fn json_of<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    put(serde_json::to_writer(out, value));
}

/// Writes values of MessagePack as JSON.
struct JsonWriter<'a> {
    out: &'a mut Vec<u8>,
    has_keys: bool,
}

impl JsonWriter<'_> {
    /// Writes one value. Returns true if it contains an object.
    fn write(mut self, reader: &mut ValueReader<'_>) -> Result<bool, Refusal> {
        // The payload around the body counts.
        self.value(reader, 1)?;
        if reader.is_at_end() { Ok(self.has_keys) } else { Err(PayloadFault::Trailing.into()) }
    }

    fn value(&mut self, reader: &mut ValueReader<'_>, depth: usize) -> Result<(), Refusal> {
        let head = reader.head()?;
        if depth >= DEPTH_MAX && matches!(head, ValueHead::Array(_) | ValueHead::Map(_)) {
            return Err(PayloadFault::TooDeep.into());
        }
        match head {
            ValueHead::Nil => self.out.extend_from_slice(b"null"),
            ValueHead::Flag(flag) => json_of(self.out, &flag),
            ValueHead::Number(number) => json_of(self.out, &number),
            ValueHead::Negative(number) => json_of(self.out, &number),
            ValueHead::Float(number) if number.is_finite() => json_of(self.out, &number),
            ValueHead::Float(_) => return Err(bad_request("`body` contains a number that is not finite")),
            ValueHead::Text(text) => json_of(self.out, text),
            ValueHead::Foreign => {
                return Err(bad_request("`body` contains bytes or an extension, which JSON does not have"));
            }
            ValueHead::Array(count) => {
                self.out.push(b'[');
                for index in 0..count {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.value(reader, depth + 1)?;
                }
                self.out.push(b']');
            }
            ValueHead::Map(count) => {
                self.has_keys = true;
                self.out.push(b'{');
                for index in 0..count {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    let ValueHead::Text(key) = reader.head()? else {
                        return Err(bad_request("`body` contains an object with a key that is not a string"));
                    };
                    json_of(self.out, key);
                    self.out.push(b':');
                    self.value(reader, depth + 1)?;
                }
                self.out.push(b'}');
            }
        }
        Ok(())
    }
}

/// Appends a body as MessagePack. A text that is not JSON, which the store never has, becomes a string.
pub(super) fn to_messagepack(json: &str, out: &mut Vec<u8>) {
    let start = out.len();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    if (BodyWriter { out: &mut *out }).deserialize(&mut deserializer).is_err() {
        out.truncate(start);
        put_text(out, json);
    }
}

/// Writes a value of JSON as MessagePack.
struct BodyWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl BodyWriter<'_> {
    /// Writes the length of a list or map in front of its items, which are written.
    fn finish(self, start: usize, count: usize, is_map: bool) {
        let mut header = Vec::with_capacity(5);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        put(if is_map {
            rmp::encode::write_map_len(&mut header, count)
        } else {
            rmp::encode::write_array_len(&mut header, count)
        });
        // Most have at most 15 items, and then only the place of the length changes.
        self.out.splice(start..=start, header);
    }
}

impl<'de> DeserializeSeed<'de> for BodyWriter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodyWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        put(rmp::encode::write_nil(self.out));
        Ok(())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        put(rmp::encode::write_bool(self.out, flag));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        put(rmp::encode::write_uint(self.out, number));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        put(rmp::encode::write_sint(self.out, number));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        put(rmp::encode::write_f64(self.out, number));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        put_text(self.out, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (start, mut count) = (self.out.len(), 0);
        self.out.push(Marker::Null.to_u8());
        while items.next_element_seed(BodyWriter { out: &mut *self.out })?.is_some() {
            count += 1;
        }
        self.finish(start, count, false);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let (start, mut count) = (self.out.len(), 0);
        self.out.push(Marker::Null.to_u8());
        while fields.next_key_seed(BodyWriter { out: &mut *self.out })?.is_some() {
            fields.next_value_seed(BodyWriter { out: &mut *self.out })?;
            count += 1;
        }
        self.finish(start, count, true);
        Ok(())
    }
}
