//! Bodies between JSON, in which the store keeps them, and MessagePack. No tree is built in either direction.
//!
//! Invariant: what [`from_messagepack`] accepts is JSON that every reader accepts, and [`to_messagepack`] accepts every
//! stored body. A number beyond 64 bits becomes a double.

use std::cell::{OnceCell, RefCell};
use std::fmt;

use presence::model::json_value::{DEPTH_MAX, UniqueKeys};
use rmp::Marker;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, Serializer};
use serde_json::value::to_raw_value;

use crate::message::Body;
use crate::wire::Refusal;
use crate::wire::json::not_interoperable;
use crate::wire::syntax::bad_request;

use super::fields::{FieldValue, PayloadFault};
use super::messagepack_values::{ValueHead, ValueReader, put, put_text};

/// Reads the body of a request.
pub(super) fn from_messagepack(value: FieldValue<'_>) -> Result<Body, Refusal> {
    let raw = match value {
        FieldValue::Number(number) => to_raw_value(&number),
        FieldValue::Negative(number) => to_raw_value(&number),
        FieldValue::Flag(flag) => to_raw_value(&flag),
        FieldValue::Text(text) => to_raw_value(text),
        FieldValue::Bytes(_) => return Err(PayloadFault::Malformed.into()),
        FieldValue::Other(written) => {
            let values = BodyValues { reader: RefCell::new(ValueReader::new(written)), refusal: OnceCell::new() };
            // The payload around the body counts.
            let raw = to_raw_value(&NextValue { values: &values, depth: 1 });
            if let Some(refusal) = values.refusal.into_inner() {
                return Err(refusal);
            }
            if !values.reader.into_inner().is_at_end() {
                return Err(PayloadFault::Trailing.into());
            }
            raw
        }
    };
    raw.map(Body::from_raw).map_err(|_| PayloadFault::Malformed.into())
}

/// The values of a body in MessagePack, read while they are written as JSON.
struct BodyValues<'a> {
    reader: RefCell<ValueReader<'a>>,
    /// The reason for which writing has ended early.
    refusal: OnceCell<Refusal>,
}

/// The value that the reader has reached. It is serialized once.
struct NextValue<'v, 'a> {
    values: &'v BodyValues<'a>,
    depth: usize,
}

impl<'a> NextValue<'_, 'a> {
    fn head<E: ser::Error>(&self) -> Result<ValueHead<'a>, E> {
        let head = self.values.reader.borrow_mut().head().map_err(|fault| self.refuse(fault.into()))?;
        match head {
            ValueHead::Array(_) | ValueHead::Map(_) if self.depth >= DEPTH_MAX => {
                Err(self.refuse(PayloadFault::TooDeep.into()))
            }
            head => Ok(head),
        }
    }

    /// Keeps the refusal, and returns the error that ends the writing.
    fn refuse<E: ser::Error>(&self, refusal: Refusal) -> E {
        self.values.refusal.get_or_init(|| refusal);
        E::custom("refused")
    }
}

impl Serialize for NextValue<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = NextValue { values: self.values, depth: self.depth + 1 };
        match self.head()? {
            ValueHead::Nil => serializer.serialize_unit(),
            ValueHead::Flag(flag) => serializer.serialize_bool(flag),
            ValueHead::Number(number) => serializer.serialize_u64(number),
            ValueHead::Negative(number) => serializer.serialize_i64(number),
            ValueHead::Float(number) if number.is_finite() => serializer.serialize_f64(number),
            ValueHead::Float(_) => Err(self.refuse(bad_request("`body` contains a number that is not finite"))),
            ValueHead::Text(text) => serializer.serialize_str(text),
            ValueHead::Foreign => {
                Err(self.refuse(bad_request("`body` contains bytes or an extension, which JSON does not have")))
            }
            ValueHead::Array(count) => serializer.collect_seq((0..count).map(|_| &inner)),
            ValueHead::Map(count) => {
                let (mut map, mut keys) = (serializer.serialize_map(None)?, UniqueKeys::default());
                for _ in 0..count {
                    let ValueHead::Text(key) = self.head()? else {
                        let problem = "`body` contains an object with a key that is not a string";
                        return Err(self.refuse(bad_request(problem)));
                    };
                    if !keys.insert(key) {
                        return Err(self.refuse(not_interoperable("body")));
                    }
                    map.serialize_entry(key, &inner)?;
                }
                map.end()
            }
        }
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
