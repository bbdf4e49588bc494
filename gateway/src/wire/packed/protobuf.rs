//! Payloads in Protobuf: a message with the numbers of the fields, as `parley.proto` describes it.
//!
//! Only the wire format is here (varints and lengths); the schema is one number for each name. Invariant: reading
//! reserves nothing for a length that is only claimed. Unknown fields are skipped, groups are refused.

use presence::model::json_value::{DEPTH_MAX, depth, has_lone_surrogate};
use serde_json::value::RawValue;

use crate::message::Body;
use crate::wire::Refusal;
use crate::wire::field::Field;
use crate::wire::json;
use crate::wire::syntax::bad_request;

use super::fields::{FieldValue, PayloadFault, PayloadFormat};
use super::payload_writer::PayloadWriter;

/// Kinds of values on the wire.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;
/// The largest number that a field may have.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// The Protobuf format.
pub(super) struct Protobuf;

impl PayloadFormat for Protobuf {
    const REPEATS_FIELDS: bool = true;

    fn split(payload: &[u8]) -> Result<Vec<(Field, FieldValue<'_>)>, PayloadFault> {
        let mut rest = payload;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let tag = take_varint(&mut rest)?;
            let (number, kind) = (tag >> 3, tag & 7);
            if number == 0 || number > NUMBER_MAX {
                return Err(PayloadFault::Key);
            }
            let value = match kind {
                VARINT => FieldValue::Number(take_varint(&mut rest)?),
                LENGTH => {
                    let length = take_varint(&mut rest)?;
                    FieldValue::Bytes(take(&mut rest, length)?)
                }
                FIXED_64 => FieldValue::Other(take(&mut rest, 8)?),
                FIXED_32 => FieldValue::Other(take(&mut rest, 4)?),
                _ => return Err(PayloadFault::Malformed),
            };
            values.extend(Field::of_number(number).map(|field| (field, value)));
        }
        Ok(values)
    }

    fn body(value: FieldValue<'_>) -> Result<Body, Refusal> {
        let FieldValue::Bytes(bytes) = value else {
            return Err(bad_request("`body` must be the bytes of a JSON value"));
        };
        let text = std::str::from_utf8(bytes).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let raw = text.ok_or_else(|| bad_request("`body` must be the bytes of a JSON value"))?;
        // The payload around it counts.
        if depth(raw.get()) >= DEPTH_MAX {
            return Err(PayloadFault::TooDeep.into());
        }
        if has_lone_surrogate(raw.get()) {
            return Err(bad_request("the frame contains half of a surrogate pair"));
        }
        json::check_interoperable(Field::Body.name(), &raw)?;
        Ok(Body::from_raw(raw))
    }

    fn flag(value: FieldValue<'_>) -> Option<bool> {
        match value {
            FieldValue::Number(flag @ (0 | 1)) => Some(flag == 1),
            _ => None,
        }
    }

    fn list<'a>(values: Vec<FieldValue<'a>>) -> Option<Vec<FieldValue<'a>>> {
        Some(values)
    }

    fn nested(value: FieldValue<'_>) -> Option<&[u8]> {
        match value {
            FieldValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Reads a number of at most ten bytes, seven bits each.
fn take_varint(rest: &mut &[u8]) -> Result<u64, PayloadFault> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(PayloadFault::Malformed)?;
        *rest = after;
        if shift == 63 && *byte > 1 {
            return Err(PayloadFault::Malformed);
        }
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(PayloadFault::Malformed)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], PayloadFault> {
    let length = usize::try_from(length).map_err(|_| PayloadFault::Malformed)?;
    let (taken, after) = rest.split_at_checked(length).ok_or(PayloadFault::Malformed)?;
    *rest = after;
    Ok(taken)
}

/// A message under construction.
pub(super) struct MessageWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> MessageWriter<'a> {
    /// Begins a message at the end of the buffer.
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    fn tag(&mut self, field: Field, kind: u64) {
        put_varint(self.out, u64::from(field.number()) << 3 | kind);
    }
}

impl PayloadWriter for MessageWriter<'_> {
    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        self.tag(field, LENGTH);
        put_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, field: Field, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn number(&mut self, field: Field, number: u64) {
        self.tag(field, VARINT);
        put_varint(self.out, number);
    }

    fn negative(&mut self, field: Field, number: i64) {
        self.number(field, number as u64);
    }

    fn flag(&mut self, field: Field, flag: bool) {
        self.number(field, flag.into());
    }

    fn body(&mut self, field: Field, json: &str) {
        self.bytes(field, json.as_bytes());
    }

    fn object(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH);
        let start = self.out.len();
        write(self);
        // The length precedes the message, and is known after it.
        let mut length = Vec::new();
        put_varint(&mut length, (self.out.len() - start) as u64);
        self.out.splice(start..start, length);
    }

    fn list<T>(&mut self, field: Field, items: &[T], write: impl Fn(&mut Self, &T)) {
        for item in items {
            self.object(field, |message| write(message, item));
        }
    }

    fn texts(&mut self, field: Field, texts: &[String]) {
        texts.iter().for_each(|text| self.text(field, text));
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
