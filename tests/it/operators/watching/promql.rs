//! Extracts metric and label names from a PromQL expression. It is no parser: Prometheus itself checks the syntax.

use std::collections::BTreeSet;

/// A metric with its matchers within an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetricSelector {
    /// The metric or recording rule.
    pub(super) name: String,
    /// The name with its matchers, without a range.
    pub(super) text: String,
    /// The labels in its matchers.
    pub(super) labels: BTreeSet<String>,
}

/// The names in an expression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ExpressionNames {
    /// Selectors in order of appearance.
    pub(super) selectors: Vec<MetricSelector>,
    /// The labels of `by`, `on`, `without`, `ignoring` and `group_left`.
    pub(super) grouped: BTreeSet<String>,
}

/// Words that precede a list of labels.
const BEFORE_LABELS: &[&str] = &["by", "on", "without", "ignoring", "group_left", "group_right"];
/// Keywords that stand where a metric could.
const KEYWORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// Returns the names in an expression.
pub(super) fn names(expression: &str) -> ExpressionNames {
    let mut names = ExpressionNames::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        match first {
            '"' | '\'' => rest = after_string(rest),
            '[' => rest = rest.split_once(']').map_or("", |(_, after)| after),
            first if is_start(first) => {
                let end = rest.find(|c: char| !is_start(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = take_word(word, after, &mut names);
            }
            // The letters of `5m` or `1e3` are no name.
            first if first.is_ascii_digit() => {
                rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '.')
            }
            first => rest = &rest[first.len_utf8()..],
        }
    }
    names
}

/// Adds a word with its matchers or labels from `after`, and returns the rest.
fn take_word<'a>(word: &str, after: &'a str, names: &mut ExpressionNames) -> &'a str {
    let follows = after.trim_start();
    if BEFORE_LABELS.contains(&word) {
        let Some((list, rest)) = follows.strip_prefix('(').and_then(|list| list.split_once(')')) else { return after };
        names.grouped.extend(list.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned));
        return rest;
    }
    // `sum(..)`, `sum by (..) (..)`.
    let is_called = follows.starts_with('(') || ["by ", "by(", "without"].iter().any(|word| follows.starts_with(word));
    if is_called || KEYWORDS.contains(&word.to_lowercase().as_str()) {
        return after;
    }
    let (matchers, rest) = match after.strip_prefix('{') {
        Some(inside) => {
            let end = end_of_matchers(inside);
            (&after[..end + 2], &inside[end + 1..])
        }
        None => ("", after),
    };
    let selector =
        MetricSelector { name: word.to_owned(), text: format!("{word}{matchers}"), labels: labels(matchers) };
    names.selectors.push(selector);
    rest
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

fn after_string(text: &str) -> &str {
    let quote = text.chars().next().unwrap_or_default();
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or("", |(at, _)| &text[at + 1..])
}

/// Returns the position of the closing brace, ignoring strings.
fn end_of_matchers(inside: &str) -> usize {
    let mut rest = inside;
    while let Some(first) = rest.chars().next() {
        match first {
            '}' => return inside.len() - rest.len(),
            '"' | '\'' => rest = after_string(rest),
            first => rest = &rest[first.len_utf8()..],
        }
    }
    panic!("no closing brace: {inside}")
}

fn labels(matchers: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = matchers.trim_matches(['{', '}']);
    while let Some((label, after)) = rest.split_once('=') {
        found.insert(label.trim().trim_end_matches('!').trim_start_matches(',').trim().to_owned());
        rest = after_string(after.trim_start_matches(['~', ' ']));
    }
    // `!~` has no equals sign before its string.
    found.into_iter().flat_map(|label| label.split("!~").next().map(|name| name.trim().to_owned())).collect()
}

#[test]
fn names_finds_metrics_matchers_and_groups() {
    let found = names(
        "histogram_quantile(0.99, sum by (le, instance) (rate(a_bucket{instance=~\"$instance\", x=\"}by(z)\"}[5m])))\n\
         > on (job) group_left () b:c:d offset 1h unless vector(2) == c_total",
    );
    let selectors: Vec<&str> = found.selectors.iter().map(|selector| selector.name.as_str()).collect();
    assert_eq!(selectors, ["a_bucket", "b:c:d", "c_total"]);
    assert_eq!(found.selectors[0].text, "a_bucket{instance=~\"$instance\", x=\"}by(z)\"}");
    assert_eq!(found.selectors[0].labels, BTreeSet::from(["instance", "x"].map(str::to_owned)));
    assert_eq!(found.grouped, BTreeSet::from(["le", "instance", "job"].map(str::to_owned)));
}
