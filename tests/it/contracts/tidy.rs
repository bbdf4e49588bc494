//! The rules of the house, read from the sources: who may know whom, and what every file must have.
//!
//! The table is DESIGN's: a part that names what it must not know has grown a door that nobody decided on. Comments and
//! test modules are not looked at, tests may know everything.

use std::fs;
use std::path::{Path, PathBuf};

/// Paths (of files, or of folders with all in them) and the words that their code must not hold.
const ROOMS: &[(&[&str], &[&str])] = &[
    (
        &[
            "presence/src/model.rs",
            "presence/src/model",
            "presence/src/log.rs",
            "presence/src/codes.rs",
            "presence/src/keys.rs",
        ],
        &["tokio::", "redis::", "axum::"],
    ),
    (&["gateway/src/message.rs"], &["tokio::", "redis::", "axum::"]),
    (&["gateway/src/wire"], &["tokio::", "std::net", "Instant", "SystemTime", "redis::", "session::", "backplane::"]),
    (&["gateway/src/session/core.rs", "gateway/src/session/core"], &["tokio::", "redis::", "metrics::", "serde_json"]),
    (
        &["gateway/src/session/driver.rs", "gateway/src/session/driver", "gateway/src/session/outbox.rs"],
        &["serde_json", "json::", "line::", "irc::", "tungstenite", "redis::"],
    ),
    (&["gateway/src/listen"], &["redis::", "RoomName", "RoomKey", "Nick", "registry", "backplane", "hub::"]),
    (&["gateway/src/hub", "gateway/src/hub.rs"], &["redis::", "std::net", "tokio::net"]),
    (
        &["gateway/src/backplane/mod.rs", "gateway/src/backplane/memory.rs", "gateway/src/backplane/memory"],
        &["crate::redis", "presence::store::redis", "redis::aio", "redis::cmd", "redis::Client", "deadpool"],
    ),
    (&["gateway/src/backplane"], &["wire::json", "wire::line", "wire::Format", "crate::session", "crate::hub"]),
    (
        &["presence/src/registry/mod.rs", "presence/src/registry/memory.rs", "presence/src/memory"],
        &["crate::redis", "presence::store::redis", "redis::aio", "redis::cmd", "redis::Client", "deadpool"],
    ),
    (&["presence/src/beat.rs", "presence/src/reaper.rs", "presence/src/reaper"], &["redis::", "gateway::", "axum::"]),
    (
        &["gateway/src/admin.rs", "presence/src/admin.rs", "presence/src/api"],
        &["redis::aio", "redis::cmd", "redis::Client", "deadpool"],
    ),
    // The arrow runs from the gateway to the presence library, never back.
    (&["presence/src"], &["gateway::"]),
];

/// Code words that nobody uses outside tests.
const NEVER: &[&str] = &[".unwrap()", "todo!(", "unimplemented!(", "dbg!(", "unsafe "];

/// Lines of a file above which it is to be split.
const LONG: usize = 500;
/// Files that may be longer, and why.
const MAY_BE_LONG: &[(&str, &str)] = &[];

/// The one place that waits for the world, and files that wait by the clock for a reason of their own.
const MAY_SLEEP: &[(&str, &str)] = &[
    ("tests/harness/eventually.rs", "polls, so that nobody else has to"),
    ("tests/harness/fault_proxy.rs", "is slow on purpose"),
    ("tests/chaos/run.rs", "keeps to the times of the plan"),
];

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("tests.rs") || self.path.contains("/tests/")
    }

    fn is_in(&self, room: &str) -> bool {
        self.path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The lines of code with their numbers: without comments, and up to the test module.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &&str| line.trim() != "#[cfg(test)]";
        let lines = self.text.lines().take_while(is_code).map(|line| line.split("//").next().unwrap_or_default());
        (1..).zip(lines)
    }
}

/// Every file of the repository with this ending that is ours.
fn sources(ending: &str) -> Vec<Source> {
    let root = harness::repository();
    let mut found = Vec::new();
    for folder in ["gateway", "presence", "tests"] {
        collect(&root, &root.join(folder), ending, &mut found);
    }
    assert!(!found.is_empty(), "no {ending} found");
    found
}

fn collect(root: &Path, folder: &Path, ending: &str, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, ending, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// Whether the code holds the word as a word of its own: `redis::` is not in `crate_redis::`.
fn holds(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !word.starts_with(char::is_alphanumeric) || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn no_room_knows_what_it_must_not() {
    let sources = sources("rs");
    let mut offences = Vec::new();
    for (rooms, words) in ROOMS {
        let inside = |source: &&Source| rooms.iter().any(|room| source.is_in(room)) && !source.is_test();
        let inhabited = sources.iter().filter(inside).inspect(|source| {
            for (number, line) in source.code() {
                for word in words.iter().filter(|word| holds(line, word)) {
                    offences.push(format!("{}:{number} must not know `{word}`: {}", source.path, line.trim()));
                }
            }
        });
        assert!(inhabited.count() > 0, "there is no {rooms:?} any more: bring the table up to date");
    }
    none(&offences);
}

#[test]
fn every_module_says_what_it_is() {
    let silent = |source: &Source| !source.text.starts_with("//!") && !source.path.ends_with("tests.rs");
    let offences: Vec<String> = sources("rs").into_iter().filter(silent).map(|source| source.path).collect();
    none(&offences);
}

#[test]
fn every_script_says_what_it_is() {
    let offences = sources("lua").into_iter().filter(|source| {
        let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        !first.starts_with("-- ")
    });
    none(&offences.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn no_code_takes_a_short_cut() {
    let mut offences = Vec::new();
    for source in sources("rs").iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            let cut = NEVER.iter().find(|word| line.contains(**word));
            offences.extend(cut.map(|word| format!("{}:{number} {word}", source.path)));
        }
    }
    none(&offences);
}

#[test]
fn no_test_is_skipped_and_none_waits_by_the_clock() {
    let (skips, sleeps) = (concat!("#[", "ignore"), concat!("sleep", "("));
    let mut offences = Vec::new();
    for source in sources("rs") {
        if source.text.contains(skips) {
            offences.push(format!("{} skips a test", source.path));
        }
        let excused = MAY_SLEEP.iter().any(|(path, _)| *path == source.path);
        if source.path.starts_with("tests/") && source.text.contains(sleeps) != excused {
            offences.push(format!("{} sleeps instead of waiting for something, excused: {excused}", source.path));
        }
    }
    none(&offences);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let mut offences = Vec::new();
    for source in sources("rs").iter().chain(&sources("lua")) {
        let lines = source.text.lines().count();
        let excused = MAY_BE_LONG.iter().any(|(path, _)| *path == source.path);
        if (lines > LONG) != excused {
            offences.push(format!("{} has {lines} lines, excused: {excused}", source.path));
        }
    }
    none(&offences);
}

#[test]
fn the_rules_bite() {
    let source = |text: &str| Source { path: "gateway/src/wire/x.rs".to_owned(), text: text.to_owned() };
    let bad = source("use tokio::net;\n// redis:: in words\nlet a = my_redis::x;\n#[cfg(test)]\nuse redis::aio;\n");
    let known = |word: &str| bad.code().filter(|(_, line)| holds(line, word)).count();
    assert_eq!((known("tokio::"), known("redis::")), (1, 0));
    assert!(bad.is_in("gateway/src/wire") && !bad.is_in("gateway/src/wi") && !bad.is_in("presence/src"));
}
