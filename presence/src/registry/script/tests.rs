//! Conventions of the scripts, checked in their text.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

/// File name -> text of every `.lua` file of the registry, without those of messages: their prelude and replies differ.
fn files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry");
    let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let folders = folders.filter(|path| path.is_dir() && !path.ends_with("messages"));
    let paths = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let scripts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "lua"));
    scripts
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

fn scripts() -> impl Iterator<Item = (String, String)> {
    let shared = [
        "generation",
        "webhook_log",
        "stream",
        "prelude",
        "owners",
        "free_nick",
        "user_nicks",
        "present_nick",
        "order_kick",
        "end_session",
        "take_over",
        "assign_nick",
        "drop_member",
        "end_room",
        "order_removal",
        "rules",
        "lease_table",
        "open_generation",
        "restore",
        "roles",
        "user_rows",
        "sanction_list",
    ];
    files().into_iter().filter(move |(name, _)| !shared.contains(&name.trim_end_matches(".lua")))
}

#[test]
fn every_script_states_its_flags_for_full_redis() {
    let grows = ["claim.lua", "resume.lua", "join.lua", "open_lease.lua", "status.lua"];
    let grows = [&grows[..], &["set_rules.lua", "replay_webhook.lua", "announce.lua", "order_entry.lua"]].concat();
    let reads = ["audit.lua", "leases.lua", "members.lua", "online.lua", "rooms.lua", "users.lua"];
    let reads =
        [&reads[..], &["renamed.lua", "sanctions.lua", "show_webhooks.lua", "take_webhook_events.lua"]].concat();
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
fn every_script_documents_keys_arguments_reply_and_caller() {
    for (name, text) in scripts() {
        let words =
            ["-- KEYS: 1 generation, 2 leases", "-- ARGV: 1 base", "-- Reply: {'OK'", "-- Called by ", "Registry::"];
        for word in words {
            assert!(text.contains(word), "{name} lacks {word:?}");
        }
    }
}

#[test]
fn writing_scripts_enter_the_generation_first() {
    for (name, text) in scripts() {
        let writes = !text.starts_with("#!lua flags=no-writes");
        assert_eq!(text.contains("\nenter_generation()\n"), writes, "{name}");
        let at = |word: &str| text.find(word).unwrap_or(usize::MAX);
        assert!(!writes || at("enter_generation()") < at("redis.call"), "{name}");
    }
}

#[test]
fn scripts_build_only_keys_of_the_table() {
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
    assert!(seen > 20, "keys found in the scripts");
}

#[test]
fn scripts_never_read_whole_rooms_or_listings() {
    let whole = ["HGETALL", "HKEYS", "HVALS", "SMEMBERS", "SCAN", "'KEYS'", "'ZRANGE'", "SORT"];
    let allowed = [
        ("lease_table.lua", "HGETALL"),
        // The lease table, for its gateways.
        ("sanction_list.lua", "HGETALL"),
        ("announce.lua", "HGETALL"),
        ("open_generation.lua", "HKEYS"),
        ("show_webhooks.lua", "HGETALL"),
        ("user_rows.lua", "SMEMBERS"),
        ("resume.lua", "SMEMBERS"),
        ("take_over.lua", "SMEMBERS"),
        // Lists of at most 1,000 entries, when one is full or an owner loses the role.
        ("moderate.lua", "HGETALL"),
    ];
    for (name, text) in files() {
        for command in whole {
            assert!(!text.contains(command) || allowed.contains(&(name.as_str(), command)), "{name}: {command}");
        }
    }
}
