//! Type names: each is used once in the workspace, so a name leads to one definition.

use std::collections::BTreeMap;

use super::{SourceFile, assert_none, sources};

/// Names that every program has by convention.
const CONVENTIONAL_NAMES: &[&str] = &["Config", "Metrics", "Main"];

/// Returns the types that a file defines, without associated types.
fn defined_types(source: &SourceFile) -> Vec<&str> {
    let lines = source.text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = lines.filter_map(|line| {
        let line = line.trim_start();
        let item = line.strip_prefix("pub ").unwrap_or(line);
        let item = match item.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ")?.1,
            None => item,
        };
        let kinds = ["struct ", "enum ", "trait ", "type "];
        let rest = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        let is_associated = item.starts_with("type ")
            && source.text.contains(&format!("    {}", line))
            && line.len() + 4 <= source.text.len()
            && {
                // Associated types are indented.
                source.text.lines().any(|whole| whole.trim_start() == line && whole.starts_with(' '))
            };
        (!name.is_empty() && !is_associated && name.starts_with(char::is_uppercase)).then_some(name)
    });
    names.collect()
}

#[test]
fn every_type_name_is_used_once() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources("rs") {
        for name in defined_types(&source).into_iter().filter(|name| !CONVENTIONAL_NAMES.contains(name)) {
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
