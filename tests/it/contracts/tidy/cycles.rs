//! Circles of files: library files of one crate that import each other, directly or by way of others.
//!
//! A module and its own descendants may import each other. An import of a re-export counts for the re-exporting module.

use std::collections::{BTreeMap, BTreeSet};

use super::{SourceFile, assert_none, library_sources};

/// Returns the module path of a library file: `gateway/src/hub/mod.rs` is `crate::hub`.
fn module_path(path: &str) -> String {
    let (_, inside) = path.split_once("/src/").expect("a library file");
    let name = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    match name {
        "lib" | "main" => "crate".to_owned(),
        name => format!("crate::{}", name.replace('/', "::")),
    }
}

/// Returns the paths that `use` declarations of a module name, without groups and relative to the crate.
fn imports(module: &str, source: &SourceFile) -> Vec<String> {
    let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
    let code = code.join(" ");
    let declarations = code.split(';').filter_map(|statement| {
        let at = statement.rfind("use ")?;
        let before = statement[..at].trim_end();
        (before.is_empty() || before.ends_with(['}', '{', ']', ')']) || before.ends_with("pub"))
            .then(|| &statement[at + 4..])
    });
    let mut paths = Vec::new();
    for declaration in declarations {
        expand("", declaration.trim(), &mut paths);
    }
    paths.into_iter().filter_map(|path| absolute(module, &path)).collect()
}

/// Splits `a::{b, c::{d}}` into `a::b` and `a::c::d`.
fn expand(prefix: &str, text: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = text.split_once('{') else {
        paths.push(format!("{prefix}{}", text.split(" as ").next().unwrap_or_default().trim()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut begin) = (0, 0);
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = group[begin..at].trim();
                if !item.is_empty() {
                    expand(&prefix, item, paths);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

fn absolute(module: &str, path: &str) -> Option<String> {
    let mut base = module.to_owned();
    let mut rest = path;
    if let Some(inside) = rest.strip_prefix("self::") {
        return Some(format!("{base}::{inside}"));
    }
    if !rest.starts_with("super::") {
        return rest.starts_with("crate::").then(|| rest.to_owned());
    }
    while let Some(inside) = rest.strip_prefix("super::") {
        base = base.rsplit_once("::")?.0.to_owned();
        rest = inside;
    }
    Some(format!("{base}::{rest}"))
}

fn is_ancestor(ancestor: &str, module: &str) -> bool {
    module.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the edges between modules that are not ancestors of each other.
fn import_graph(sources: &[SourceFile]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeSet<String> = sources.iter().map(|source| module_path(&source.path)).collect();
    let mut graph = BTreeMap::new();
    for source in sources {
        let module = module_path(&source.path);
        let targets: BTreeSet<String> = imports(&module, source)
            .into_iter()
            .filter_map(|path| {
                let mut target = path.as_str();
                while !modules.contains(target) {
                    target = target.rsplit_once("::")?.0;
                }
                Some(target.to_owned())
            })
            .filter(|target| !is_ancestor(target, &module) && !is_ancestor(&module, target))
            .collect();
        graph.insert(module, targets);
    }
    graph
}

/// Returns a cycle through `start`, if there is one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut paths = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop() {
        for next in &graph[path.last().expect("never empty")] {
            if next == start {
                return Some(path);
            }
            if seen.insert(next.clone()) {
                paths.push([&path[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn files_never_import_each_other_in_circles() {
    let mut offences = Vec::new();
    for program in ["gateway/", "presence/"] {
        let mut sources = library_sources();
        sources.retain(|source| source.path.starts_with(program) && !source.path.ends_with("src/main.rs"));
        let graph = import_graph(&sources);
        for module in graph.keys() {
            let circle = cycle(&graph, module);
            offences.extend(circle.map(|circle| format!("{program}: {} -> {module}", circle.join(" -> "))));
        }
    }
    assert_none(&offences);
}

#[test]
fn circle_check_detects_an_indirect_circle() {
    let source = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
    let sources = [
        source("gateway/src/a.rs", "use crate::b::{self, C};\n"),
        source("gateway/src/b.rs", "use std::fmt;\nuse super::d::{E, f::G};\n"),
        source("gateway/src/d.rs", "pub use crate::a::A;\n"),
    ];
    let graph = import_graph(&sources);
    assert_eq!(cycle(&graph, "crate::a").unwrap(), ["crate::a", "crate::b", "crate::d"]);
    assert!(cycle(&import_graph(&sources[..2]), "crate::a").is_none());
}
