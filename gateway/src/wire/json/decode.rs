//! Text of a frame to [`Request`].
//!
//! The frame is read once into its fields, each still raw JSON; `request.rs` then takes the fields it needs. So the
//! `id` survives errors in other fields, unknown fields cost nothing, and no tree of a body is built. Reading raw
//! JSON does not recurse (serde_json skips values with a loop); the depth is checked before a body is read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use presence::model::codes::ErrorCode;
use presence::model::json_value::{DEPTH_MAX, JsonString, depth, has_lone_surrogate};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::Body;
use crate::wire::field::Field;
use crate::wire::request::{self, PositionsFault, RequestFields};
use crate::wire::syntax::bad_request;
use crate::wire::{CorrelationId, INBOX, REQUEST_BYTES_MAX, RESUMED_ROOMS_MAX, Refusal, Request, Since};

use super::interoperable;

/// Maximum length of an `id` as it is written, quotes and escapes included, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Decodes one text frame.
///
/// # Errors
/// The refusal to reply with, and the request's id if one could be read.
pub fn decode(text: &str) -> Result<Request, (CorrelationId, Refusal)> {
    decode_as(None, text)
}

/// Decodes a frame whose type is already known, unless `kind` is `None`. The frame may name its type again.
pub(in crate::wire) fn decode_as(kind: Option<&str>, text: &str) -> Result<Request, (CorrelationId, Refusal)> {
    if text.len() > REQUEST_BYTES_MAX {
        return Err((None, ErrorCode::TooLarge.into()));
    }
    let fields: JsonFields<'_> =
        serde_json::from_str(text).map_err(|_| (None, bad_request("the frame is not one JSON object")))?;
    let id = fields.id().map_err(|refusal| (None, refusal))?;
    let command = fields.check(text).and_then(|()| request::command(&fields.kind(kind)?, &fields));
    match command {
        Ok(command) => Ok(Request { id, command }),
        Err(refusal) => Err((id, refusal)),
    }
}

/// The fields of one JSON object, by name, as they were written. Sorted, so that a frame with two faults is always
/// refused for the same one.
struct JsonFields<'a> {
    values: BTreeMap<Cow<'a, str>, &'a RawValue>,
    repeated: Vec<Cow<'a, str>>,
}

impl<'a> JsonFields<'a> {
    fn id(&self) -> Result<CorrelationId, Refusal> {
        if self.repeated.iter().any(|name| name == "id") {
            return Err(bad_request("`id` is given twice"));
        }
        let Some(id) = self.values.get("id") else { return Ok(None) };
        if !id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
            return Err(bad_request("`id` must be a string or a number"));
        }
        if id.get().len() > ID_BYTES_MAX {
            return Err(bad_request(format!("`id` must be at most {ID_BYTES_MAX} bytes")));
        }
        if has_lone_surrogate(id.get()) {
            return Err(bad_request("`id` contains half of a surrogate pair"));
        }
        interoperable::check("id", id)?;
        Ok(Some((*id).to_owned()))
    }

    /// Returns the type: that of the binary frame if there is one, which the text must not contradict.
    fn kind<'b>(&'b self, known: Option<&'b str>) -> Result<Cow<'b, str>, Refusal> {
        let Some(raw) = self.values.get("type") else {
            return known.map(Cow::Borrowed).ok_or_else(|| bad_request("`type` is missing"));
        };
        let Ok(JsonString(named)) = serde_json::from_str(raw.get()) else {
            return Err(bad_request("`type` must be a string"));
        };
        match known {
            Some("") => Ok(Cow::Borrowed("")),
            Some(known) if known != named => Err(bad_request("`type` differs from that of the frame")),
            _ => Ok(named),
        }
    }

    /// Checks the frame as a whole.
    fn check(&self, text: &str) -> Result<(), Refusal> {
        if !self.repeated.is_empty() {
            return Err(bad_request("a field is given twice"));
        }
        if depth(text) > DEPTH_MAX {
            return Err(bad_request(format!("the frame is nested deeper than {DEPTH_MAX} levels")));
        }
        if has_lone_surrogate(text) {
            return Err(bad_request("the frame contains half of a surrogate pair"));
        }
        Ok(())
    }
}

impl RequestFields for JsonFields<'_> {
    fn has(&self, field: Field) -> bool {
        self.values.contains_key(field.name())
    }

    fn optional_text(&self, field: Field) -> Result<Option<Cow<'_, str>>, Refusal> {
        let Some(raw) = self.values.get(field.name()) else { return Ok(None) };
        match serde_json::from_str(raw.get()) {
            Ok(JsonString(text)) => Ok(Some(text)),
            Err(_) => Err(request::not_a_string(field)),
        }
    }

    fn optional_number(&self, field: Field) -> Option<Option<u64>> {
        let Some(raw) = self.values.get(field.name()) else { return Some(None) };
        serde_json::from_str(raw.get()).ok().map(Some)
    }

    fn optional_flag(&self, field: Field) -> Result<Option<bool>, Refusal> {
        let Some(raw) = self.values.get(field.name()) else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| request::not_a_boolean(field))
    }

    fn body(&self) -> Result<Option<Body>, Refusal> {
        let Some(body) = self.values.get(Field::Body.name()) else { return Ok(None) };
        interoperable::check(Field::Body.name(), body)?;
        Ok(Some(Body::from_raw((*body).to_owned())))
    }

    fn position(&self) -> Option<Option<Since>> {
        let Some(raw) = self.values.get(Field::Since.name()) else { return Some(None) };
        position(raw).map(Some)
    }

    fn positions(&self) -> Result<Vec<(Cow<'_, str>, Since)>, PositionsFault> {
        let Some(raw) = self.values.get(Field::Since.name()) else { return Ok(Vec::new()) };
        let named: JsonFields<'_> = serde_json::from_str(raw.get()).map_err(|_| PositionsFault::Malformed)?;
        if named.values.keys().filter(|name| *name != INBOX).count() > RESUMED_ROOMS_MAX {
            return Err(PositionsFault::TooMany);
        }
        let positions = named.values.into_iter().map(|(name, raw)| Some((name, position(raw)?)));
        let positions = positions.collect::<Option<_>>().ok_or(PositionsFault::Malformed)?;
        if named.repeated.is_empty() { Ok(positions) } else { Err(PositionsFault::Repeated) }
    }
}

fn position(raw: &RawValue) -> Option<Since> {
    let since: Since = serde_json::from_str(raw.get()).ok()?;
    // serde reads an array as well, which the protocol does not allow.
    raw.get().starts_with('{').then_some(since)
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(JsonFieldsVisitor)
    }
}

struct JsonFieldsVisitor;

impl<'de> Visitor<'de> for JsonFieldsVisitor {
    type Value = JsonFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = JsonFields { values: BTreeMap::new(), repeated: Vec::new() };
        while let Some((JsonString(name), value)) = map.next_entry()? {
            match fields.values.entry(name) {
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
                Entry::Occupied(first) => fields.repeated.push(first.key().clone()),
            }
        }
        Ok(fields)
    }
}
