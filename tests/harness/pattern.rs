//! Patterns of documents and tests: `*` in text stands for any run of characters, `"*"` in JSON for any value.

use serde_json::Value;

/// Returns true if the whole text fits the pattern. Each `*` stands for any run of characters, also an empty one.
#[must_use]
pub fn text_fits(pattern: &str, text: &str) -> bool {
    let Some((head, mut pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    while let Some((middle, rest)) = pattern.split_once('*') {
        let Some(at) = text.find(middle) else { return false };
        text = &text[at + middle.len()..];
        pattern = rest;
    }
    text.ends_with(pattern)
}

/// Returns true if the value has exactly the fields and items of the pattern; `"*"` fits any value.
#[must_use]
pub fn json_fits(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::String(any), _) if any == "*" => true,
        (Value::Object(pattern), Value::Object(value)) => {
            pattern.len() == value.len()
                && pattern.iter().all(|(name, pattern)| value.get(name).is_some_and(|value| json_fits(pattern, value)))
        }
        (Value::Array(pattern), Value::Array(value)) => {
            pattern.len() == value.len() && pattern.iter().zip(value).all(|(pattern, value)| json_fits(pattern, value))
        }
        (pattern, value) => pattern == value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn star_in_text_matches_any_run() {
        assert!(text_fits("* bob joined *", "-- bob joined #lobby"));
        assert!(text_fits("*", ""));
        assert!(text_fits("a*a", "aa"));
        assert!(!text_fits("a*a", "a"));
        assert!(!text_fits("hi", "hi there"));
        assert!(!text_fits("*there*", "hi"));
        assert!(!text_fits("*ab*b", "ab"));
    }

    #[test]
    fn json_pattern_matches_values_but_no_extra_fields() {
        let pattern = json!({"type": "ack", "msg_id": "*", "list": ["*", 2]});
        assert!(json_fits(&pattern, &json!({"type": "ack", "msg_id": "m1", "list": [{"a": 1}, 2]})));
        assert!(!json_fits(&pattern, &json!({"type": "ack", "msg_id": "m1", "list": [1, 2], "more": 1})));
        assert!(!json_fits(&pattern, &json!({"type": "ack", "list": [1, 2]})));
        assert!(!json_fits(&pattern, &json!({"type": "ack", "msg_id": "m1", "list": [1, 3]})));
    }
}
