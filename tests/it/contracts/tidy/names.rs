//! Type names: each is used once in the workspace, so a name leads to one definition.

use std::collections::BTreeMap;

use super::{SourceFile, assert_none, sources};

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
