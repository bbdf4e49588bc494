//! The check of JSON values that travel on byte for byte: the interoperable subset of RFC 7493 (I-JSON).
//!
//! A number must fit a double, and an object must name each key once. A reader in another language could otherwise fail
//! on the frame. The value is read once and no tree is built; a string is not read at all. The caller bounds the depth.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::Refusal;
use crate::wire::syntax::bad_request;

/// Number of keys of an object that are compared one by one. More keys are hashed.
const COMPARED_KEYS_MAX: usize = 8;

/// Refuses a value that some JSON readers cannot read. `field` names it to the client.
pub(super) fn check(field: &str, value: &RawValue) -> Result<(), Refusal> {
    // Strings, `true`, `false` and `null` are read alike everywhere.
    if !value.get().starts_with(|c: char| c == '{' || c == '[' || c == '-' || c.is_ascii_digit()) {
        return Ok(());
    }
    serde_json::from_str(value.get()).map(|InteroperableJson| ()).map_err(|_| {
        bad_request(format!(
            "`{field}` contains a number that does not fit a double, or an object with a key given twice"
        ))
    })
}

/// A string, borrowed from the frame unless it contains escapes.
#[derive(Deserialize)]
pub(super) struct JsonString<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A value that every JSON reader can read. Its content is dropped.
struct InteroperableJson;

impl<'de> Deserialize<'de> for InteroperableJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InteroperableVisitor)
    }
}

struct InteroperableVisitor;

impl<'de> Visitor<'de> for InteroperableVisitor {
    type Value = InteroperableJson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(InteroperableJson)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<InteroperableJson>()?.is_some() {}
        Ok(InteroperableJson)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut compared, mut hashed) = (Vec::new(), HashSet::new());
        while let Some(JsonString(key)) = fields.next_key()? {
            let is_repeated = compared.contains(&key) || hashed.contains(&key);
            if is_repeated {
                return Err(A::Error::custom("a key is given twice"));
            }
            if compared.len() < COMPARED_KEYS_MAX {
                compared.push(key);
            } else {
                hashed.insert(key);
            }
            fields.next_value::<InteroperableJson>()?;
        }
        Ok(InteroperableJson)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_accepted(json: &str) -> bool {
        check("body", &RawValue::from_string(json.to_owned()).unwrap()).is_ok()
    }

    #[test]
    fn readable_values_pass_the_check() {
        for json in [
            "null",
            "0",
            "-0",
            "1e308",
            "1e-999",
            "123456789012345678901234567890",
            r#""1e999""#,
            r#"{"a":{"a":[{"a":1},{"a":2}]},"b":null}"#,
            "[]",
        ] {
            assert!(is_accepted(json), "{json}");
        }
    }

    #[test]
    fn unreadable_values_are_refused_at_any_depth() {
        for json in [
            "1e999",
            "-1e999",
            "[1,[2e400]]",
            r#"{"a":{"b":1E+309}}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"x":{"é":1,"\u00e9":2}}]"#,
            r#"{"":0,"":0}"#,
        ] {
            assert!(!is_accepted(json), "{json}");
        }
    }

    #[test]
    fn repeated_key_is_found_among_many() {
        let keys: Vec<String> = (0..1000).map(|i| format!("\"k{i}\":{i}")).collect();
        assert!(is_accepted(&format!("{{{}}}", keys.join(","))));
        for repeated in [0, 7, 8, 9, 999] {
            assert!(!is_accepted(&format!("{{{},\"k{repeated}\":0}}", keys.join(","))), "{repeated}");
        }
    }
}
