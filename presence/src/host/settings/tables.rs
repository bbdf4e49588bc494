//! Settings that are lists of tables: their values are kept as JSON, which the environment has too.
//!
//! Converts between JSON and the TOML of a settings file. Checks no names and no bounds; each setting does.

use ::config::{Value, ValueKind};
use serde_json::Value as Json;

/// Returns the JSON of a list of tables; `None` if one of the values is no table.
pub(super) fn to_json(values: &[Value]) -> Option<String> {
    let are_tables = values.iter().all(|value| matches!(value.kind, ValueKind::Table(_)));
    are_tables.then(|| Json::Array(values.iter().map(json_of).collect()).to_string())
}

fn json_of(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => Json::from(*flag),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::Float(number) => Json::from(*number),
        // No setting has numbers of this size.
        ValueKind::I128(_) | ValueKind::U128(_) => Json::from(value.kind.to_string()),
        ValueKind::String(text) => Json::from(text.as_str()),
        ValueKind::Array(values) => Json::Array(values.iter().map(json_of).collect()),
        ValueKind::Table(table) => {
            let mut fields: Vec<_> = table.iter().map(|(name, value)| (name.clone(), json_of(value))).collect();
            // The table of a file has no order; the text of a setting has one.
            fields.sort_by(|(one, _), (other, _)| one.cmp(other));
            Json::Object(fields.into_iter().collect())
        }
    }
}

/// Returns the TOML of a JSON text. A text that is not JSON is shown as a string.
pub(super) fn to_toml(text: &str) -> String {
    serde_json::from_str(text).map_or_else(|_| format!("{text:?}"), |value| toml_of(&value))
}

fn toml_of(value: &Json) -> String {
    match value {
        Json::Array(values) => format!("[{}]", values.iter().map(toml_of).collect::<Vec<_>>().join(", ")),
        Json::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name} = {}", toml_of(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        // The quoting of JSON is also that of TOML.
        plain => plain.to_string(),
    }
}
