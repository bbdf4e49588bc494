//! Habits of the scripts, kept by reading them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

/// File name -> text of every `.lua` file.
fn files() -> BTreeMap<String, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    files.collect()
}

fn scripts() -> impl Iterator<Item = (String, String)> {
    let shared = ["generation", "log", "prelude", "departures", "claims", "lease_table", "open_generation", "restore"];
    files().into_iter().filter(move |(name, _)| !shared.contains(&name.trim_end_matches(".lua")))
}

#[test]
fn every_script_says_what_a_full_redis_does_with_it() {
    let grows = ["claim.lua", "resume.lua", "join.lua", "open_lease.lua", "status.lua"];
    let reads = ["audit.lua", "leases.lua", "rooms.lua", "users.lua"];
    for (name, text) in scripts() {
        let expected = match name.as_str() {
            name if grows.contains(&name) => "#!lua",
            name if reads.contains(&name) => "#!lua flags=no-writes",
            _ => "#!lua flags=allow-oom",
        };
        assert_eq!(text.lines().next(), Some(expected), "{name}");
    }
}

#[test]
fn every_script_opens_with_its_keys_arguments_reply_and_caller() {
    for (name, text) in scripts() {
        for word in ["-- KEYS: 1 generation, 2 leases", "-- ARGV: 1 base", "-- Reply: {'OK'", "-- Called by Registry::"]
        {
            assert!(text.contains(word), "{name} does not say {word:?}");
        }
    }
}

#[test]
fn every_script_that_writes_enters_the_generation_first() {
    for (name, text) in scripts() {
        let writes = !text.starts_with("#!lua flags=no-writes");
        assert_eq!(text.contains("\nenter_generation()\n"), writes, "{name}");
        let at = |word: &str| text.find(word).unwrap_or(usize::MAX);
        assert!(!writes || at("enter_generation()") < at("redis.call"), "{name}");
    }
}

#[test]
fn names_of_keys_are_those_of_the_key_table() {
    let table = include_str!("../../model/keys.rs");
    let mut seen = 0;
    for (name, text) in files() {
        for built in text.split("base .. '").skip(1) {
            let word = built.split(['\'', ':']).next().unwrap();
            let channel = built.split('\'').next().unwrap().trim_end_matches(':');
            let known = [word, channel].iter().any(|name| table.contains(&format!("=> \"{name}\";")));
            assert!(known, "{name}: {word}");
            seen += 1;
        }
    }
    assert!(seen > 20, "the search finds them");
}

#[test]
fn no_script_reads_a_whole_room_or_everybody() {
    let whole = ["HGETALL", "HKEYS", "HVALS", "SMEMBERS", "SCAN", "'KEYS'", "'ZRANGE'", "SORT"];
    let allowed = [
        ("lease_table.lua", "HGETALL"),
        ("open_generation.lua", "HKEYS"),
        ("users.lua", "SMEMBERS"),
        ("resume.lua", "SMEMBERS"),
    ];
    for (name, text) in files() {
        for command in whole {
            assert!(!text.contains(command) || allowed.contains(&(name.as_str(), command)), "{name}: {command}");
        }
    }
}
