//! The names in a PromQL expression: metrics and the labels they are asked for. No parser: whether an expression is one is
//! Prometheus' to say, here names are only found.

use std::collections::BTreeSet;

/// One look at a metric within an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// The metric, or the recording rule.
    pub(super) name: String,
    /// With its matchers, without its range.
    pub(super) text: String,
    /// The labels that its matchers name.
    pub(super) labels: BTreeSet<String>,
}

/// What an expression names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Names {
    /// In the order in which they stand there.
    pub(super) selectors: Vec<Selector>,
    /// The labels of `by`, `on`, `without`, `ignoring` and `group_left`.
    pub(super) grouped: BTreeSet<String>,
}

/// Words before a list of labels.
const BEFORE_LABELS: &[&str] = &["by", "on", "without", "ignoring", "group_left", "group_right"];
/// Words that stand where a metric could.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];

/// Finds the names.
pub(super) fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        match first {
            '"' | '\'' => rest = after_string(rest),
            '[' => rest = rest.split_once(']').map_or("", |(_, after)| after),
            first if is_start(first) => {
                let end = rest.find(|c: char| !is_start(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                rest = take(word, after, &mut names);
            }
            // The letters of 5m or 1e3 are no name.
            first if first.is_ascii_digit() => {
                rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '.')
            }
            first => rest = &rest[first.len_utf8()..],
        }
    }
    names
}

/// Takes a word in, with what belongs to it of `after`; returns what is left.
fn take<'a>(word: &str, after: &'a str, names: &mut Names) -> &'a str {
    let follows = after.trim_start();
    if BEFORE_LABELS.contains(&word) {
        let Some((list, rest)) = follows.strip_prefix('(').and_then(|list| list.split_once(')')) else { return after };
        names.grouped.extend(list.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned));
        return rest;
    }
    // `sum(..)`, `sum by (..) (..)`.
    let is_called = follows.starts_with('(') || ["by ", "by(", "without"].iter().any(|word| follows.starts_with(word));
    if is_called || WORDS.contains(&word.to_lowercase().as_str()) {
        return after;
    }
    let (matchers, rest) = match after.strip_prefix('{') {
        Some(inside) => {
            let end = end_of_matchers(inside);
            (&after[..end + 2], &inside[end + 1..])
        }
        None => ("", after),
    };
    let selector = Selector { name: word.to_owned(), text: format!("{word}{matchers}"), labels: labels(matchers) };
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

/// Where the closing brace is, strings left out.
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
    // `!~` holds no equals sign before its string.
    found.into_iter().flat_map(|label| label.split("!~").next().map(|name| name.trim().to_owned())).collect()
}

#[test]
fn finds_metrics_matchers_and_groups() {
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
