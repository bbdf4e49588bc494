//! The import table: a module that names what it must not know has gained a dependency that the design does not have.
//!
//! Comments and test modules are not read. Every library file matches exactly one row.

use super::cycles::{module_path, used_paths};
use super::{SourceFile, assert_none, library_sources};

/// A row of the import table.
struct ImportRule {
    /// Paths with `*` for any text.
    files: &'static [&'static str],
    /// Words that the code must not contain.
    forbidden: &'static [&'static str],
}

const REDIS_COMMANDS: &[&str] = &["redis::aio", "redis::cmd", "redis::pipe", "redis::Client", "deadpool"];

const IMPORT_TABLE: &[ImportRule] = &[
    ImportRule {
        files: &["clients/rust/src/machine/*"],
        forbidden: &[
            "tokio",
            "async",
            "Instant",
            "SystemTime",
            "rand::",
            "std::net",
            "std::fs",
            "crate::engine",
            "crate::link",
            "crate::feed",
            "crate::handle",
        ],
    },
    ImportRule {
        files: &[
            "clients/rust/src/error.rs",
            "clients/rust/src/events.rs",
            "clients/rust/src/packed/*",
            "clients/rust/src/reading.rs",
            "clients/rust/src/wire.rs",
        ],
        forbidden: &["tokio", "async", "Instant", "SystemTime", "std::net", "std::fs", "crate::machine"],
    },
    ImportRule {
        files: &["clients/rust/src/link.rs", "clients/rust/src/tls.rs"],
        forbidden: &["std::fs", "crate::engine", "crate::feed"],
    },
    ImportRule { files: &["clients/rust/src/storage.rs"], forbidden: &["tokio", "std::net", "crate::machine"] },
    ImportRule {
        files: &[
            "clients/rust/src/cores.rs",
            "clients/rust/src/direct.rs",
            "clients/rust/src/engine.rs",
            "clients/rust/src/feed.rs",
            "clients/rust/src/handle.rs",
            "clients/rust/src/lib.rs",
            "clients/rust/src/parley.rs",
            "clients/rust/src/room.rs",
            "clients/rust/src/sign_in.rs",
            "clients/rust/src/subscription.rs",
        ],
        forbidden: &["tungstenite", "std::net", "std::fs"],
    },
    ImportRule {
        files: &["presence/src/model/*"],
        forbidden: &["tokio::", "redis::", "axum::", "registry::", "store::", "lease::", "service::"],
    },
    ImportRule {
        files: &[
            "presence/src/registry/mod.rs",
            "presence/src/registry/error.rs",
            "presence/src/registry/memory.rs",
            "presence/src/registry/retry.rs",
            "presence/src/registry/*/mod.rs",
            "presence/src/registry/*/types.rs",
            "presence/src/registry/*/memory.rs",
            "presence/src/registry/rooms/moderation/mod.rs",
            "presence/src/registry/rooms/moderation/memory.rs",
            "presence/src/registry/rooms/rules_memory.rs",
            "presence/src/registry/messages/payload.rs",
        ],
        forbidden: &["redis::aio", "redis::cmd", "redis::pipe", "deadpool", "axum::", "lease::", "service::"],
    },
    ImportRule {
        files: &[
            "presence/src/registry/redis.rs",
            "presence/src/registry/reply.rs",
            "presence/src/registry/script.rs",
            "presence/src/registry/*/redis.rs",
            "presence/src/registry/rooms/moderation/redis.rs",
            "presence/src/registry/leases/audit.rs",
            "presence/src/registry/leases/reassert.rs",
            "presence/src/registry/listing/events.rs",
            "presence/src/registry/listing/inspect.rs",
            "presence/src/registry/listing/inventory.rs",
            "presence/src/registry/listing/largest.rs",
            "presence/src/registry/listing/sessions.rs",
            "presence/src/registry/listing/user_rows.rs",
            "presence/src/registry/webhooks/tail.rs",
        ],
        forbidden: &["axum::", "crate::lease", "service::", "store::memory"],
    },
    ImportRule {
        files: &["presence/src/store/memory/*"],
        forbidden: &["redis::", "axum::", "crate::lease", "service::"],
    },
    ImportRule {
        files: &[
            "presence/src/store/redis/*",
            "presence/src/store/answers.rs",
            "presence/src/store/turns.rs",
            "presence/src/store/mod.rs",
        ],
        forbidden: &["axum::", "crate::lease", "service::", "store::memory"],
    },
    ImportRule { files: &["presence/src/lease/*"], forbidden: &["redis::", "axum::", "service::", "store::"] },
    ImportRule {
        files: &["presence/src/host/*"],
        forbidden: &["redis::aio", "redis::cmd", "redis::pipe", "deadpool", "crate::lease", "crate::service"],
    },
    ImportRule {
        files: &["presence/src/webhooks/*"],
        forbidden: &["redis::", "axum::", "crate::lease", "crate::service", "store::redis", "store::memory"],
    },
    ImportRule { files: &["presence/src/service/*"], forbidden: REDIS_COMMANDS },
    ImportRule { files: &["presence/src/lib.rs", "presence/src/main.rs"], forbidden: REDIS_COMMANDS },
    ImportRule {
        files: &["gateway/src/message.rs"],
        forbidden: &["tokio::", "std::net", "Instant", "redis::", "session::", "backplane::", "crate::listen"],
    },
    ImportRule {
        files: &["gateway/src/wire/*"],
        forbidden: &[
            "tokio::",
            "std::net",
            "SystemTime",
            "redis::",
            "session::",
            "backplane::",
            "tungstenite",
            "crate::listen",
        ],
    },
    ImportRule {
        files: &["gateway/src/identity/*"],
        forbidden: &[
            "redis::",
            "wire::",
            "session::",
            "hub::",
            "backplane",
            "registry",
            "tungstenite",
            "crate::lease",
            "crate::listen",
        ],
    },
    ImportRule {
        files: &["gateway/src/quota/*"],
        forbidden: &[
            "tokio::",
            "redis::",
            "wire::",
            "session::",
            "hub::",
            "backplane",
            "crate::lease",
            "crate::listen",
        ],
    },
    ImportRule {
        files: &["gateway/src/sanctions/*"],
        forbidden: &[
            "redis::",
            "wire::",
            "session::",
            "hub::",
            "backplane",
            "registry",
            "crate::lease",
            "crate::listen",
        ],
    },
    ImportRule {
        files: &["gateway/src/hooks/*"],
        forbidden: &[
            "redis::",
            "wire::",
            "session::",
            "hub::",
            "backplane",
            "presence::registry",
            "presence::lease",
            "tungstenite",
            "crate::lease",
            "crate::listen",
        ],
    },
    ImportRule {
        files: &["gateway/src/listen/*"],
        forbidden: &["redis::", "RoomName", "RoomKey", "Nick", "registry", "backplane", "hub::"],
    },
    ImportRule {
        files: &["gateway/src/session/*"],
        forbidden: &["serde_json", "json::", "line::", "tungstenite", "redis::", "tokio::net"],
    },
    ImportRule {
        files: &["gateway/src/hub/*"],
        forbidden: &["redis::", "session::", "std::net", "tokio::net", "crate::lease", "crate::listen"],
    },
    ImportRule {
        files: &["gateway/src/outbound/*"],
        forbidden: &["redis::", "session::", "hub::", "backplane", "registry"],
    },
    ImportRule { files: &["gateway/src/lease/*"], forbidden: &["redis::", "wire::", "axum::", "crate::listen"] },
    ImportRule {
        files: &["gateway/src/backplane/redis/*"],
        forbidden: &["wire::json", "wire::line", "wire::Dialect", "crate::session", "crate::hub", "store::memory"],
    },
    ImportRule {
        files: &[
            "gateway/src/backplane/mod.rs",
            "gateway/src/backplane/contract.rs",
            "gateway/src/backplane/delivery.rs",
            "gateway/src/backplane/envelope.rs",
            "gateway/src/backplane/key_shares.rs",
            "gateway/src/backplane/link.rs",
            "gateway/src/backplane/malformed.rs",
            "gateway/src/backplane/memory.rs",
        ],
        forbidden: &[
            "redis::aio",
            "redis::cmd",
            "redis::pipe",
            "deadpool",
            "wire::json",
            "wire::line",
            "wire::Dialect",
            "crate::session",
            "crate::hub",
        ],
    },
    ImportRule { files: &["gateway/src/metrics*", "gateway/src/trace.rs"], forbidden: REDIS_COMMANDS },
    ImportRule { files: &["gateway/src/ctl/*"], forbidden: REDIS_COMMANDS },
    ImportRule {
        files: &[
            "gateway/src/admin.rs",
            "gateway/src/config*",
            "gateway/src/lib.rs",
            "gateway/src/main.rs",
            "gateway/src/server.rs",
            "gateway/src/server/*",
        ],
        forbidden: REDIS_COMMANDS,
    },
];

/// The session's decisions. In a verb they are everything before its module `perform`.
const DECISIONS: ImportRule = ImportRule {
    files: &[
        "gateway/src/session/core.rs",
        "gateway/src/session/state.rs",
        "gateway/src/session/liveness.rs",
        "gateway/src/session/rate_meter.rs",
        "gateway/src/session/small_map.rs",
        "gateway/src/session/stream_entry.rs",
        "gateway/src/session/token_expiry.rs",
        "gateway/src/session/typing_limiter.rs",
        "gateway/src/session/verbs/*",
    ],
    forbidden: &[
        "tokio",
        "async",
        "metrics::",
        "performer::",
        "services::",
        "registry::Registry",
        "backplane::Backplane",
        "std::fs",
        "std::net",
        "std::process",
        "SystemTime",
        "Instant::now",
        "rand::",
    ],
};

/// Returns true if a path matches a pattern in which `*` stands for any text.
fn matches(path: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => path == pattern,
        Some((before, after)) => path.strip_prefix(before).is_some_and(|rest| {
            let mut ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
            ends.any(|at| {
                matches(&rest[at..], after) && !rest[..at].contains(if after.is_empty() { '\0' } else { '/' })
            })
        }),
    }
}

/// Returns true if code contains the word with no letter in front: `redis::` is not in `my_redis::`.
fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !word.starts_with(char::is_alphanumeric) || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Returns the forbidden words in the code of a file and in its imports, which may be grouped or renamed.
fn known_words(source: &SourceFile, forbidden: &[&str]) -> Vec<String> {
    let lines = source.code().map(|(number, line)| (format!(":{number}"), line.to_owned()));
    let paths = used_paths(&module_path(&source.path), source).into_iter();
    let code = lines.chain(paths.map(|path| (" imports".to_owned(), format!("{path}::"))));
    code.flat_map(|(place, code)| {
        let words = forbidden.iter().filter(|word| contains_word(&code, word)).copied().collect::<Vec<_>>();
        words
            .into_iter()
            .map(move |word| format!("{place} must not know `{word}`: {}", code.trim()))
            .collect::<Vec<_>>()
    })
    .map(|offence| format!("{}{offence}", source.path))
    .collect()
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut offences = Vec::new();
    for source in library_sources() {
        for rule in IMPORT_TABLE.iter().filter(|rule| rule.files.iter().any(|files| matches(&source.path, files))) {
            offences.extend(known_words(&source, rule.forbidden));
        }
    }
    assert_none(&offences);
}

#[test]
fn session_decisions_do_no_io() {
    let mut offences = Vec::new();
    for SourceFile { path, text } in library_sources() {
        if DECISIONS.files.iter().any(|files| matches(&path, files)) {
            let text = text.split("\nmod perform {").next().unwrap_or_default().to_owned();
            offences.extend(known_words(&SourceFile { path, text }, DECISIONS.forbidden));
        }
    }
    assert_none(&offences);
}

#[test]
fn every_file_matches_exactly_one_row() {
    let sources = library_sources();
    let patterns = || IMPORT_TABLE.iter().flat_map(|rule| rule.files);
    let mut offences = Vec::new();
    for source in &sources {
        let rows = patterns().filter(|files| matches(&source.path, files)).count();
        if rows != 1 {
            offences.push(format!("{} matches {rows} rows", source.path));
        }
    }
    for files in patterns().filter(|files| !sources.iter().any(|source| matches(&source.path, files))) {
        offences.push(format!("{files} matches no file"));
    }
    assert_none(&offences);
}

#[test]
fn presence_never_imports_the_gateway() {
    assert_none(&imports_of("presence/", &["gateway::"]));
}

#[test]
fn rust_client_never_imports_the_servers() {
    assert_none(&imports_of("clients/rust/", &["gateway::", "presence::"]));
}

/// Returns the lines of a crate's code that name one of these crates.
fn imports_of(folder: &str, crates: &[&str]) -> Vec<String> {
    let sources = library_sources();
    let sources = sources.iter().filter(|source| source.path.starts_with(folder));
    let lines = sources.flat_map(|source| source.code().map(move |(number, line)| (&source.path, number, line)));
    lines
        .filter(|(.., line)| crates.iter().any(|name| contains_word(line, name)))
        .map(|(path, number, line)| format!("{path}:{number} {}", line.trim()))
        .collect()
}

#[test]
fn rule_checks_detect_offences() {
    let text = "use tokio::net;\n// redis:: in prose\nlet a = my_redis::x;\n#[cfg(test)]\nuse redis::aio;\n\
                #[cfg(test)]\nfn f() {\n    redis::cmd();\n}\nuse crate::{listen as l, hub::{Hub, a::B}};\n\
                let url = \"redis://a\"; x.unwrap();\n";
    let source = SourceFile { path: "gateway/src/wire/x.rs".to_owned(), text: text.to_owned() };
    let count = |word: &str| known_words(&source, &[word]).len();
    assert_eq!((count("tokio::"), count("redis::")), (2, 0), "the line and its import");
    assert_eq!((count("crate::listen"), count("crate::hub::a"), count(".unwrap()")), (1, 1, 1));
    assert!(matches("gateway/src/wire/json/x.rs", "gateway/src/wire/*"));
    assert!(matches("presence/src/registry/names/mod.rs", "presence/src/registry/*/mod.rs"));
    assert!(!matches("presence/src/registry/mod.rs", "presence/src/registry/*/mod.rs"));
    assert!(!matches("gateway/src/wired.rs", "gateway/src/wire/*"));
}
