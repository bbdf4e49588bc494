//! The check of JSON values that travel on byte for byte: the interoperable subset of RFC 7493 (I-JSON).
//!
//! A number must fit a double, and an object must name each key once. A reader in another language could otherwise fail
//! on the frame. The value is read once and no tree is built; a string is not read at all. The caller bounds the depth.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum nesting of a value of a client.
pub const DEPTH_MAX: usize = 32;
/// Number of keys of an object that are compared one by one. More keys are hashed.
const COMPARED_KEYS_MAX: usize = 8;

/// Returns true if every JSON reader can read the value.
#[must_use]
pub fn is_interoperable(value: &RawValue) -> bool {
    // Strings, `true`, `false` and `null` are read alike everywhere.
    let is_simple = !value.get().starts_with(|c: char| c == '{' || c == '[' || c == '-' || c.is_ascii_digit());
    is_simple || serde_json::from_str(value.get()).map(|InteroperableJson| ()).is_ok()
}

/// Returns the maximum nesting of a well-formed JSON text.
#[must_use]
pub fn depth(json: &str) -> usize {
    if !json.trim_start().starts_with(['{', '[']) {
        return 0;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns true if a well-formed JSON text contains `\uD800`-`\uDFFF` outside a pair. The grammar allows it, but many
/// parsers fail on it, and one sender must not be able to break them.
#[must_use]
pub fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let Some(unit) = escaped_unit(&rest[at..]) else {
            // Any other escape is two ASCII bytes long.
            rest = rest.get(at + 2..).unwrap_or_default();
            continue;
        };
        rest = &rest[at + 6..];
        match unit {
            0xD800..=0xDBFF => match escaped_unit(rest) {
                Some(0xDC00..=0xDFFF) => rest = &rest[6..],
                _ => return true,
            },
            0xDC00..=0xDFFF => return true,
            _ => {}
        }
    }
    false
}

/// Returns the UTF-16 unit of the `\uXXXX` that a text begins with.
fn escaped_unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// The keys of one object so far.
#[derive(Debug)]
pub struct UniqueKeys<K> {
    compared: Vec<K>,
    hashed: HashSet<K>,
}

impl<K> Default for UniqueKeys<K> {
    fn default() -> Self {
        Self { compared: Vec::new(), hashed: HashSet::new() }
    }
}

impl<K: Hash + Eq> UniqueKeys<K> {
    /// Adds a key. Returns false if the object has it already.
    pub fn insert(&mut self, key: K) -> bool {
        if self.compared.contains(&key) {
            return false;
        }
        if self.compared.len() >= COMPARED_KEYS_MAX {
            return self.hashed.insert(key);
        }
        self.compared.push(key);
        true
    }
}

/// A string, borrowed from the text unless it contains escapes.
#[derive(Debug, Deserialize)]
pub struct JsonString<'a>(#[serde(borrow)] pub Cow<'a, str>);

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
        let mut keys = UniqueKeys::default();
        while let Some(JsonString(key)) = fields.next_key()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key is given twice"));
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
        is_interoperable(&RawValue::from_string(json.to_owned()).unwrap())
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
