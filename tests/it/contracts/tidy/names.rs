//! Names: each type name is used once in the workspace, and a test name is a short statement.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::{SourceFile, assert_none, sources};

/// The minimum and maximum of words in a test name: subject, verb, object.
const TEST_NAME_WORDS: RangeInclusive<usize> = 4..=8;
/// First words that add nothing to a test name or hide its subject.
const FORBIDDEN_STARTS: &[&str] = &["a", "an", "the", "it", "what", "who", "how", "test"];

/// Returns the types that a file defines.
fn defined_types(source: &SourceFile) -> Vec<&str> {
    source.text.lines().filter_map(defined_type).collect()
}

/// Returns the type that a line defines. An indented `type` is an associated type and defines nothing.
fn defined_type(line: &str) -> Option<&str> {
    let indented = line.trim_start();
    let item = match indented.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => indented.strip_prefix("pub ").unwrap_or(indented),
    };
    let (kind, rest) = item.split_once(' ')?;
    let is_definition = ["struct", "enum", "trait"].contains(&kind) || (kind == "type" && indented == line);
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (is_definition && name.starts_with(char::is_uppercase)).then_some(name)
}

/// Returns the names of the tests in a file: of functions, and of a contract's list for both arms.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let attributes = text.match_indices("#[test]").chain(text.match_indices("#[tokio::test"));
    let functions = attributes.filter_map(|(at, _)| text[at..].split_once("fn ")?.1.split('(').next());
    let lists = text.split("on_both_arms! {").skip(1).filter_map(|rest| rest.split('}').next());
    let listed = lists.flat_map(|list| list.split([',', ';', ' ', '\n'])).filter(|word| !word.ends_with(':'));
    functions.chain(listed).filter(|name| !name.is_empty() && !name.starts_with('$'))
}

fn is_statement(name: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    TEST_NAME_WORDS.contains(&words.len()) && !FORBIDDEN_STARTS.contains(&words[0])
}

#[test]
fn every_type_name_is_used_once() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources("rs") {
        for name in defined_types(&source) {
            files.entry(name.to_owned()).or_default().push(source.path.clone());
        }
    }
    let shared = files.iter().filter(|(_, files)| files.len() > 1);
    let offences: Vec<String> = shared.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect();
    assert_none(&offences);
}

#[test]
fn type_definitions_are_found_in_text() {
    let text = "pub struct One {\nenum Two {\npub(super) trait Three<T>: Send {\n    type Four = u8;\n// struct Five\ntype Six = u8;\n";
    let source = SourceFile { path: "x.rs".to_owned(), text: text.to_owned() };
    assert_eq!(defined_types(&source), ["One", "Two", "Three", "Six"]);
}

#[test]
fn test_names_are_short_statements() {
    let mut offences = Vec::new();
    for source in sources("rs").iter().filter(|source| !source.path.ends_with("tidy/names.rs")) {
        let wrong = test_names(&source.text).filter(|name| !is_statement(name));
        offences.extend(wrong.map(|name| format!("{}: {name}", source.path)));
    }
    assert_none(&offences);
}

#[test]
fn test_name_check_detects_offences() {
    let text = "#[test]\nfn insists() {}\n#[tokio::test(flavor = \"x\")]\nasync fn lease_ends_after_eight_seconds() {}\n\
                on_both_arms! {\n    rooms:\n    empty_room_ends_at_once;\n}\n";
    let names: Vec<_> = test_names(text).collect();
    assert_eq!(names, ["insists", "lease_ends_after_eight_seconds", "empty_room_ends_at_once"]);
    let judged = ["insists", "a_lease_ends_late", "one_two_three_four_five_six_seven_eight_nine"];
    assert!(judged.iter().all(|name| !is_statement(name)));
    assert!(is_statement("lease_ends_after_eight_seconds"));
}
