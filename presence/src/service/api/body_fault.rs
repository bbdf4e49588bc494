//! [`BodyFault`]: the field at which a JSON body is not what a path expects.
//!
//! The texts of the parser contain values of the body, so none of them is shown: only the name of a field is.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

use super::problem::refused_as;
use crate::host::problem::Problem;
use crate::model::codes::ErrorCode;
use crate::model::is_printable_text;

/// Maximum length of a field's name that is shown, in bytes.
const FIELD_BYTES: usize = 64;

/// The fault of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// It is not one JSON object.
    NoObject,
    /// A required field is missing.
    Missing(String),
    /// A field has a value of another type, or one beyond its range.
    Invalid(String),
    /// A field has no meaning.
    Unknown(String),
    /// None of these, for example a field that is written twice.
    Other,
}

impl BodyFault {
    /// Finds the fault of a text that `T` could not be read from, with the error of the parser.
    pub(super) fn find<T: DeserializeOwned>(text: &str, error: &str) -> Self {
        let Ok(fields) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text) else { return Self::NoObject };
        // With one field alone, an error that is not about a missing one is about it.
        let alone = |name: &String| {
            let value = fields.get(name)?;
            let error = serde_json::from_str::<T>(&format!("{{{}:{value}}}", json!(name))).err()?.to_string();
            match error {
                error if field_after("missing field", &error).is_some() => None,
                _ if !is_printable_text(name, FIELD_BYTES) => Some(Self::Other),
                error if field_after("unknown field", &error) == Some(name) => Some(Self::Unknown(name.clone())),
                _ => Some(Self::Invalid(name.clone())),
            }
        };
        let missing = || field_after("missing field", error).map(|name| Self::Missing(name.to_owned()));
        fields.keys().find_map(alone).or_else(missing).unwrap_or(Self::Other)
    }

    /// Returns the refusal; `what` names the object.
    pub(super) fn refusal(&self, what: &str) -> Problem {
        let detail = match self {
            Self::NoObject => format!("{what} is not a JSON object"),
            Self::Missing(field) => format!("{what} lacks the field {field}"),
            Self::Invalid(field) => {
                format!("the field {field} of {what} has a value of another type, or beyond its range")
            }
            Self::Unknown(field) => format!("{what} has an unknown field, {field}"),
            Self::Other => format!("{what} is not the JSON object that this path expects"),
        };
        refused_as(ErrorCode::BadRequest, detail)
    }
}

/// Returns the field that an error of the parser names after these words.
fn field_after<'a>(words: &str, error: &'a str) -> Option<&'a str> {
    Some(error.strip_prefix(words)?.strip_prefix(" `")?.split_once('`')?.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Part {
        #[allow(dead_code, reason = "only read")]
        nick: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Strict {
        to: Box<RawValue>,
        key: String,
        seconds: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        #[allow(dead_code, reason = "only read")]
        part: Part,
    }

    fn fault<T: DeserializeOwned>(text: &str) -> String {
        let error = serde_json::from_str::<T>(text).err().unwrap().to_string();
        BodyFault::find::<T>(text, &error).refusal("the body").detail().unwrap().to_owned()
    }

    #[test]
    fn fault_names_the_field_and_no_value() {
        for (text, detail) in [
            (r#"{"to":1}"#, "the body lacks the field key"),
            (r#"{"to":1,"key":"k","hunter2":1}"#, "the body has an unknown field, hunter2"),
            (r#"{"to":1,"key":7}"#, "the field key of the body has a value of another type, or beyond its range"),
            (
                r#"{"to":1,"seconds":"hunter2"}"#,
                "the field seconds of the body has a value of another type, or beyond its range",
            ),
            (
                r#"{"to":1,"key":"k","seconds":256}"#,
                "the field seconds of the body has a value of another type, or beyond its range",
            ),
            (
                r#"{"to":1,"key":7,"seconds":"x"}"#,
                "the field key of the body has a value of another type, or beyond its range",
            ),
            (r#"{"to":1,"key":"k","key":"k"}"#, "the body is not the JSON object that this path expects"),
            ("{\"to\":1,\"key\":\"k\",\"a\\u0007\":1}", "the body is not the JSON object that this path expects"),
            (r#"{"to":1,"#, "the body is not a JSON object"),
            (r#"{"to":1,"key":"k"} 1"#, "the body is not a JSON object"),
        ] {
            assert_eq!(fault::<Strict>(text), detail, "{text}");
        }
        assert!(fault::<Flat>(r#"{"nick":["hunter2"]}"#).starts_with("the field nick of the body"));
    }
}
