//! Circles of files: library files of one crate that import each other, directly or by way of others.
//!
//! A module and its own descendants may import each other. An import of a re-export counts for the defining module.

use std::collections::{BTreeMap, BTreeSet};

use super::{SourceFile, assert_none, library_sources};

/// Returns the module path of a library file: `gateway/src/hub/mod.rs` is `crate::hub`.
pub(super) fn module_path(path: &str) -> String {
    let (_, inside) = path.split_once("/src/").expect("a library file");
    let name = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    match name {
        "lib" | "main" => "crate".to_owned(),
        name => format!("crate::{}", name.replace('/', "::")),
    }
}

/// Returns the paths in the crate that a module names: in `use` declarations, and elsewhere from `crate::` on.
fn imports(module: &str, source: &SourceFile) -> Vec<String> {
    let is_inside = |path: &String| path.starts_with("crate::");
    let mut paths: Vec<String> = used_paths(module, source).into_iter().filter(is_inside).collect();
    for (_, line) in source.code().filter(|(_, line)| !line.contains("use ")) {
        let begins = line.match_indices("crate::").filter(|(at, _)| !line[..*at].ends_with('$'));
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        paths.extend(begins.map(|(at, _)| line[at..].split(|c| !is_part(c)).next().unwrap_or_default().to_owned()));
    }
    paths
}

/// Returns the paths that `use` declarations name, without groups and new names. Those of the crate begin with
/// `crate::`.
pub(super) fn used_paths(module: &str, source: &SourceFile) -> Vec<String> {
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
    paths.into_iter().map(|path| absolute(module, &path).unwrap_or(path)).collect()
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

/// The names that each module imports, with their paths. A module passes on what it imports.
type ImportedNames = BTreeMap<String, BTreeMap<String, String>>;

/// Returns the module that defines an item, by way of any re-exports.
fn defining_module(path: &str, names: &ImportedNames) -> Option<String> {
    let mut path = path.to_owned();
    loop {
        let mut module = path.as_str();
        while !names.contains_key(module) {
            module = module.rsplit_once("::")?.0;
        }
        let item = path.strip_prefix(module)?.trim_start_matches("::");
        let passed_on = names[module].get(item.split("::").next()?).filter(|origin| !origin.starts_with(&path));
        match passed_on {
            Some(origin) => path = origin.clone(),
            None => return Some(module.to_owned()),
        }
    }
}

/// Returns the edges between modules that are not ancestors of each other.
fn import_graph(sources: &[SourceFile]) -> BTreeMap<String, BTreeSet<String>> {
    let of_module = |source: &SourceFile| {
        let module = module_path(&source.path);
        let paths = imports(&module, source).into_iter();
        let named = paths.filter_map(|path| Some((path.rsplit_once("::")?.1.to_owned(), path.clone())));
        (module, named.collect())
    };
    let names: ImportedNames = sources.iter().map(of_module).collect();
    let mut graph = BTreeMap::new();
    for source in sources {
        let module = module_path(&source.path);
        let imported = imports(&module, source).into_iter();
        let targets = imported.filter_map(|path| defining_module(&path, &names));
        let others = targets.filter(|target| !is_ancestor(target, &module) && !is_ancestor(&module, target));
        let others = others.collect::<BTreeSet<String>>();
        graph.insert(module, others);
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
    for program in ["clients/rust/", "gateway/", "presence/"] {
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

    let reexported = [
        source("gateway/src/e/mod.rs", "pub use self::x::X;\n"),
        source("gateway/src/e/x.rs", "use crate::h::H;\n"),
        source("gateway/src/h.rs", "use super::e::X;\n"),
    ];
    assert_eq!(cycle(&import_graph(&reexported), "crate::h").unwrap(), ["crate::h", "crate::e::x"]);

    let qualified = [
        source("gateway/src/k.rs", "use crate::l::Thing as L;\nuse crate::m::Thing as M;\n"),
        source("gateway/src/l.rs", "#[cfg(test)]\nmod tests;\nfn f() { crate::k::g(); }\n"),
        source("gateway/src/m.rs", "\n"),
    ];
    assert_eq!(cycle(&import_graph(&qualified), "crate::k").unwrap(), ["crate::k", "crate::l"]);
}
