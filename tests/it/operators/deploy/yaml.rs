//! YAML files of the repository as JSON values, with anchors and merges resolved.

use std::fs;

use serde_json::Value;

/// Returns the documents of a file.
pub(crate) fn documents(path: &str) -> Vec<Value> {
    let file = harness::repository().join(path);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the only document of a file.
pub(crate) fn document(path: &str) -> Value {
    let mut documents = documents(path);
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// Returns a list, empty when the value is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a text; panics when the value is no text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Returns a number of seconds, written `40s`.
pub(crate) fn seconds(value: &Value) -> u64 {
    let text = text(value);
    text.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("not seconds: {text}"))
}
