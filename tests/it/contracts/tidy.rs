//! Rules of the sources, read from their text: imports between modules, names, comments, and forbidden shortcuts.
//!
//! [`imports`] holds the import table, [`cycles`] finds files that import each other, [`crossings`] reads the scripts,
//! [`prose`] counts words, [`names`] checks the names of types and tests. Every rule is a plain test with a list of
//! offences.

mod crossings;
mod cycles;
mod imports;
mod names;
mod prose;

use std::fs;
use std::path::{Path, PathBuf};

/// Code that appears only in tests.
const TESTS_ONLY: &[&str] = &[".unwrap()", "todo!(", "unimplemented!(", "dbg!(", "unsafe "];

/// Maximum number of lines in a file.
const LINES_MAX: usize = 500;

/// Files that may sleep, with the reason.
const SLEEPING_FILES: &[(&str, &str)] = &[
    ("tests/harness/eventually.rs", "polls for all other waits"),
    ("tests/harness/fault_proxy.rs", "delays on purpose"),
    ("tests/chaos/run.rs", "keeps to the times of the plan"),
    ("tests/load/api.rs", "sends each call at its due time"),
    ("tests/it/contracts/backplane/faults.rs", "freezes Redis for a set time"),
    ("tests/it/messages/address_limits.rs", "waits as a client that is told to"),
    ("tests/it/messages/session_limits.rs", "waits as a client that is told to"),
    ("gateway/src/listen/tests/mod.rs", "polls for the waits of its suite"),
    ("gateway/src/listen/tests/pressure.rs", "paces a slow writer, and watches that nothing happens"),
    ("presence/src/service/api/tests/events.rs", "polls for the end of a task, within a deadline"),
];

/// A source file of the repository.
struct SourceFile {
    /// The path from the root of the repository.
    path: String,
    text: String,
}

impl SourceFile {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    /// The numbered lines of code: without comments, and without items that only tests have.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut test_item: Option<usize> = None;
        (1..).zip(self.text.lines()).filter_map(move |(number, line)| {
            let indent = line.len() - line.trim_start().len();
            match test_item {
                Some(begin) => {
                    let is_over = indent == begin && line.ends_with([';', '}']);
                    test_item = test_item.filter(|_| !is_over);
                    None
                }
                None if line.trim() == "#[cfg(test)]" => {
                    test_item = Some(indent);
                    None
                }
                None if line.trim_start().starts_with("//") => None,
                None => Some((number, line.split(" //").next().unwrap_or_default())),
            }
        })
    }
}

/// The files with this extension in the workspace members.
fn sources(extension: &str) -> Vec<SourceFile> {
    let root = harness::repository();
    let mut found = Vec::new();
    for folder in ["clients/rust", "gateway", "presence", "tests"] {
        collect(&root, &root.join(folder), extension, &mut found);
    }
    assert!(!found.is_empty(), "no {extension} files found");
    found
}

/// The Rust files of the libraries, without their tests.
fn library_sources() -> Vec<SourceFile> {
    let mut found = sources("rs");
    found.retain(|source| source.path.contains("/src/") && !source.is_test());
    found
}

fn collect(root: &Path, folder: &Path, extension: &str, found: &mut Vec<SourceFile>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(SourceFile { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn every_module_begins_with_documentation() {
    let undocumented = |source: &SourceFile| !source.text.starts_with("//!") && !source.path.ends_with("tests.rs");
    let offences: Vec<String> = sources("rs").into_iter().filter(undocumented).map(|source| source.path).collect();
    assert_none(&offences);
}

#[test]
fn every_script_begins_with_documentation() {
    let offences = sources("lua").into_iter().filter(|source| {
        let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        !first.starts_with("-- ")
    });
    assert_none(&offences.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn library_code_takes_no_shortcuts() {
    let mut offences = Vec::new();
    for source in sources("rs").iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            let shortcut = TESTS_ONLY.iter().find(|word| line.contains(**word));
            offences.extend(shortcut.map(|word| format!("{}:{number} {word}", source.path)));
        }
    }
    assert_none(&offences);
}

#[test]
fn tests_skip_nothing_and_wait_for_conditions() {
    let skips = [concat!("#[", "ignore"), concat!(", ", "ignore)]")];
    let sleeps = [concat!("sleep", "("), concat!("sleep_", "until("), concat!("park_", "timeout(")];
    let mut offences = Vec::new();
    for source in sources("rs") {
        if skips.iter().any(|skip| source.text.contains(skip)) {
            offences.push(format!("{} skips a test", source.path));
        }
        let may_sleep = SLEEPING_FILES.iter().any(|(path, _)| *path == source.path);
        if source.is_test() && sleeps.iter().any(|sleep| source.text.contains(sleep)) != may_sleep {
            offences.push(format!("{} sleeps: {}, allowed: {may_sleep}", source.path, !may_sleep));
        }
    }
    assert_none(&offences);
}

#[test]
fn files_stay_short_enough_to_read() {
    let lengths = sources("rs").into_iter().chain(sources("lua")).map(|file| (file.text.lines().count(), file.path));
    let long = lengths.filter(|(lines, _)| *lines > LINES_MAX);
    assert_none(&long.map(|(lines, path)| format!("{path} has {lines} lines")).collect::<Vec<_>>());
}
