//! The fields of a payload in MessagePack or Protobuf, found but not read yet.
//!
//! Each format splits a payload into [`PackedFields`]; `request.rs` reads the fields that a request needs through them.
//! Invariant: a field is there at most once, and everything borrows from the payload.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde_json::value::to_raw_value;

use crate::message::Body;
use crate::wire::field::Field;
use crate::wire::request::{self, PositionsFault, RequestFields};
use crate::wire::syntax::bad_request;
use crate::wire::{CorrelationId, INBOX, RESUMED_ROOMS_MAX, Refusal, Since};

/// Maximum length of an `id` as JSON writes it, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The value of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldValue<'a> {
    /// A whole number that is not negative.
    Number(u64),
    /// A whole number below 0.
    Negative(i64),
    /// A boolean of MessagePack.
    Flag(bool),
    /// A text of MessagePack.
    Text(&'a str),
    /// Bytes of Protobuf: a text, a body or a message.
    Bytes(&'a [u8]),
    /// A value of another kind, as it is written.
    Other(&'a [u8]),
}

/// The part of a format that is its own.
pub(super) trait PayloadFormat {
    /// Splits the payload, or a message in it, into its fields. Unknown ones are skipped, and a repeated field is there
    /// once for each value.
    fn split(payload: &[u8]) -> Result<Vec<(Field, FieldValue<'_>)>, PayloadFault>;
    /// Reads a body.
    fn body(value: FieldValue<'_>) -> Result<Body, Refusal>;
    /// Reads a boolean.
    fn flag(value: FieldValue<'_>) -> Option<bool>;
    /// Returns the values of a list: those of its field.
    fn list<'a>(values: Vec<FieldValue<'a>>) -> Option<Vec<FieldValue<'a>>>;
    /// Returns the bytes of a message or map.
    fn nested(value: FieldValue<'_>) -> Option<&[u8]>;
    /// True if a field may be given more than once, as the values of a list.
    const REPEATS_FIELDS: bool;
}

/// The fault of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadFault {
    /// It is not a value of its format, or not a whole one.
    Malformed,
    /// A key is not the number of a field.
    Key,
    /// A field is given twice.
    Repeated,
    /// Values are nested too deep.
    TooDeep,
    /// Bytes follow the payload.
    Trailing,
}

impl From<PayloadFault> for Refusal {
    fn from(fault: PayloadFault) -> Self {
        bad_request(match fault {
            PayloadFault::Malformed => "the payload is malformed",
            PayloadFault::Key => "a key of the payload is not the number of a field",
            PayloadFault::Repeated => "a field is given twice",
            PayloadFault::TooDeep => "the payload is nested deeper than 32 levels",
            PayloadFault::Trailing => "the payload is followed by other bytes",
        })
    }
}

/// The fields of a payload.
pub(super) struct PackedFields<'a, F> {
    values: Vec<(Field, FieldValue<'a>)>,
    /// The first field that is given twice.
    repeated: Option<Field>,
    format: PhantomData<F>,
}

impl<'a, F: PayloadFormat> PackedFields<'a, F> {
    /// Splits a payload.
    pub(super) fn split(payload: &'a [u8]) -> Result<Self, PayloadFault> {
        let values = F::split(payload)?;
        let (mut seen, mut repeated) = (0_u64, None);
        for (field, _) in &values {
            let bit = 1 << field.number();
            let may_repeat = F::REPEATS_FIELDS && *field == Field::Since;
            if seen & bit != 0 && !may_repeat {
                repeated.get_or_insert(*field);
            }
            seen |= bit;
        }
        Ok(Self { values, repeated, format: PhantomData })
    }

    /// Refuses a field that is given twice.
    pub(super) fn check(&self) -> Result<(), PayloadFault> {
        if self.repeated.is_none() { Ok(()) } else { Err(PayloadFault::Repeated) }
    }

    fn all(&self, field: Field) -> impl Iterator<Item = FieldValue<'a>> {
        self.values.iter().filter(move |(known, _)| *known == field).map(|(_, value)| *value)
    }

    fn get(&self, field: Field) -> Option<FieldValue<'a>> {
        self.all(field).next()
    }

    /// Returns the correlation value as JSON writes it.
    pub(super) fn id(&self) -> Result<CorrelationId, Refusal> {
        let written = match self.get(Field::Id) {
            None => return Ok(None),
            Some(_) if self.all(Field::Id).count() > 1 => return Err(bad_request("`id` is given twice")),
            Some(FieldValue::Number(number)) => to_raw_value(&number),
            Some(FieldValue::Negative(number)) => to_raw_value(&number),
            Some(FieldValue::Text(text)) => to_raw_value(text),
            Some(_) => return Err(bad_request("`id` must be a string or a whole number")),
        };
        match written {
            Ok(id) if id.get().len() <= ID_BYTES_MAX => Ok(Some(id)),
            _ => Err(bad_request(format!("`id` must be at most {ID_BYTES_MAX} bytes"))),
        }
    }

    fn text_of(value: FieldValue<'a>) -> Option<&'a str> {
        match value {
            FieldValue::Text(text) => Some(text),
            FieldValue::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Reads a position, and the room that it names if it does.
    fn position_of(value: FieldValue<'a>) -> Option<(Option<&'a str>, Since)> {
        let fields = Self::split(F::nested(value)?).ok()?;
        fields.check().ok()?;
        let room = match fields.get(Field::Room) {
            Some(room) => Some(Self::text_of(room)?),
            None => None,
        };
        let epoch = Self::text_of(fields.get(Field::Epoch)?)?.to_owned();
        let FieldValue::Number(seq) = fields.get(Field::Seq)? else { return None };
        Some((room, Since { epoch, seq }))
    }
}

impl<F: PayloadFormat> RequestFields for PackedFields<'_, F> {
    fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    fn optional_text(&self, field: Field) -> Result<Option<Cow<'_, str>>, Refusal> {
        match self.get(field) {
            None => Ok(None),
            Some(FieldValue::Text(text)) => Ok(Some(Cow::Borrowed(text))),
            // MessagePack checks the text of each field, Protobuf that of a field that is read.
            Some(FieldValue::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(_) => Err(PayloadFault::Malformed.into()),
            },
            Some(_) => Err(request::not_a_string(field)),
        }
    }

    fn optional_number(&self, field: Field) -> Option<Option<u64>> {
        match self.get(field) {
            None => Some(None),
            Some(FieldValue::Number(number)) => Some(Some(number)),
            Some(_) => None,
        }
    }

    fn optional_flag(&self, field: Field) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.get(field) else { return Ok(None) };
        F::flag(value).map(Some).ok_or_else(|| request::not_a_boolean(field))
    }

    fn body(&self) -> Result<Option<Body>, Refusal> {
        self.get(Field::Body).map(F::body).transpose()
    }

    fn position(&self) -> Option<Option<Since>> {
        let mut values = self.all(Field::Since);
        let Some(value) = values.next() else { return Some(None) };
        if values.next().is_some() {
            return None;
        }
        Self::position_of(value).map(|(_, since)| Some(since))
    }

    fn positions(&self) -> Result<Vec<(Cow<'_, str>, Since)>, PositionsFault> {
        let values: Vec<_> = self.all(Field::Since).collect();
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let values = F::list(values).ok_or(PositionsFault::Malformed)?;
        // One more for the inbox.
        if values.len() > RESUMED_ROOMS_MAX + 1 {
            return Err(PositionsFault::TooMany);
        }
        let mut positions = Vec::with_capacity(values.len());
        for value in values {
            let Some((Some(room), since)) = Self::position_of(value) else { return Err(PositionsFault::Malformed) };
            positions.push((Cow::Borrowed(room), since));
        }
        let rooms = positions.iter().filter(|(room, _)| room != INBOX).count();
        if rooms > RESUMED_ROOMS_MAX { Err(PositionsFault::TooMany) } else { Ok(positions) }
    }
}
