//! Settings that are several tables: JSON within the program, an array of tables in TOML.
//!
//! Invariant: a field whose name contains `secret` in any case is shown as `***`, and so are credentials in a URL.

use ::config::{Value, ValueKind};
use serde_json::{Map, Value as Json};

/// Returns a list of tables as JSON; `None` if it is none. An empty list is one.
pub(super) fn json(values: &[Value]) -> Option<String> {
    let is_table = |value: &Value| matches!(value.kind, ValueKind::Table(_));
    values
        .iter()
        .all(is_table)
        .then(|| Json::Array(values.iter().map(|value| json_of(&value.kind)).collect()).to_string())
}

fn json_of(kind: &ValueKind) -> Json {
    match kind {
        ValueKind::Table(table) => {
            let fields: Map<String, Json> =
                table.iter().map(|(name, value)| (name.clone(), json_of(&value.kind))).collect();
            Json::Object(fields)
        }
        ValueKind::Array(values) => Json::Array(values.iter().map(|value| json_of(&value.kind)).collect()),
        ValueKind::Boolean(flag) => Json::Bool(*flag),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::Nil => Json::Null,
        other => Json::String(other.to_string()),
    }
}

/// Returns JSON without its secrets; `***` for anything else, which may be a secret.
pub(super) fn redacted(text: &str) -> String {
    let Ok(Json::Array(mut tables)) = serde_json::from_str(text) else { return "***".to_owned() };
    for table in &mut tables {
        match table {
            Json::Object(fields) => fields.iter_mut().for_each(|(name, value)| hide(name, value)),
            other => *other = "***".into(),
        }
    }
    Json::Array(tables).to_string()
}

/// Hides the value of a field of a table: a secret, or all of a URL but scheme, host and port.
fn hide(name: &str, value: &mut Json) {
    let text = value.as_str().unwrap_or_default();
    let is_broken_url = name == "url" && !text.contains("://");
    if is_broken_url || name.to_ascii_lowercase().contains("secret") || text.contains('@') {
        *value = "***".into();
    } else if text.contains("://") {
        *value = without_path(text).into();
    }
}

/// Hides credentials, path and query of a URL, which may be secrets. Any other text stays as it is.
fn without_path(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match rest.split_once(['/', '?', '#']) {
        _ if rest.contains('@') => format!("{scheme}://***"),
        None | Some((_, "")) => text.to_owned(),
        Some((authority, _)) => format!("{scheme}://{authority}/***"),
    }
}

/// Formats JSON as TOML on one line; anything else as a text.
pub(super) fn toml(json: &str) -> String {
    fn written(value: &Json) -> String {
        match value {
            Json::Object(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name} = {}", written(value))).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            Json::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(", ")),
            other => other.to_string(),
        }
    }
    serde_json::from_str(json).map_or_else(|_| format!("{json:?}"), |value| written(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_its_path() {
        for (text, shown) in [
            ("closed", "closed"),
            ("https://x.example/", "https://x.example/"),
            ("htps://x.example:8/hooks/hunter2", "htps://x.example:8/***"),
            ("https://ann:hunter2@x.example/y", "https://***"),
            ("https://x.example/y@hunter2", "https://***"),
        ] {
            assert_eq!(without_path(text), shown, "{text}");
        }
    }

    #[test]
    fn secrets_of_tables_are_hidden() {
        let json = r#"[{"events":["join"],"previous_secret":"b","secret":"a","url":"https://x.example/"}]"#;
        let shown = toml(&redacted(json));
        let expected =
            r#"[{ events = ["join"], previous_secret = "***", secret = "***", url = "https://x.example/" }]"#;
        assert_eq!(shown, expected);
        for (text, shown) in [
            ("not json", "***"),
            ("\"secret\"", "***"),
            ("[\"secret\"]", r#"["***"]"#),
            (r#"[{"Secret":7}]"#, r#"[{"Secret":"***"}]"#),
            (r#"[{"url":"https://ann:pass@x/"}]"#, r#"[{"url":"***"}]"#),
            (r#"[{"url":"https://x/y?key=1"}]"#, r#"[{"url":"https://x/***"}]"#),
            (r#"[{"url":"https://x:1?key=1"}]"#, r#"[{"url":"https://x:1/***"}]"#),
            (r#"[{"url":"https://x:1"}]"#, r#"[{"url":"https://x:1"}]"#),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }
}
