//! Crossings between units of atomicity: ARCHITECTURE.md names every one that a Lua script makes.
//!
//! The units that a script reaches are read from the key names in its text and in the functions that it calls. Keys
//! that Rust passes as KEYS are typed in `presence/src/model/keys.rs` and not read here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{assert_none, library_sources, sources};

/// The unit of each key name that scripts build.
const UNITS: &[(&str, &[&str])] = &[
    ("room", &["room", "log", "members", "member-list", "ch:room"]),
    ("nick", &["nick", "nick-rooms"]),
    ("user", &["user-nicks"]),
    ("skeleton", &["skeleton"]),
    ("session", &["session", "session-rooms", "inbox"]),
    ("webhook", &["webhook-dead"]),
    ("node", &["owned-nicks", "owned-members", "mailbox", "ch:gw"]),
];

/// A Lua file: its functions by name, and the text outside them.
struct LuaFile {
    functions: BTreeMap<String, String>,
    body: String,
}

impl LuaFile {
    fn parse(text: &str) -> Self {
        let mut file = Self { functions: BTreeMap::new(), body: String::new() };
        let mut function: Option<String> = None;
        for line in text.lines().map(|line| line.split("--").next().unwrap_or_default()) {
            if let Some(rest) = line.strip_prefix("local function ") {
                function = rest.split('(').next().map(str::to_owned);
            }
            let part = function.as_ref().map(|name| file.functions.entry(name.clone()).or_default());
            part.unwrap_or(&mut file.body).push_str(&format!("{line}\n"));
            if line == "end" {
                function = None;
            }
        }
        file
    }
}

/// Returns the text that a script runs: its body, and every function that it reaches.
fn reached_text(script: &LuaFile, shared: &BTreeMap<String, String>) -> String {
    let (mut text, mut seen) = (script.body.clone(), BTreeSet::new());
    while let Some(name) = script
        .functions
        .keys()
        .chain(shared.keys())
        .find(|name| !seen.contains(*name) && text.contains(&format!("{name}(")))
    {
        seen.insert(name.clone());
        text.push_str(script.functions.get(name).unwrap_or_else(|| &shared[name]));
    }
    text
}

/// Returns the units of the key names in a text.
fn named_units(text: &str) -> BTreeSet<&'static str> {
    let has_key = |key: &&str| text.contains(&format!("'{key}:'"));
    UNITS.iter().filter(|(_, keys)| keys.iter().any(has_key)).map(|(unit, _)| *unit).collect()
}

/// Returns the rows of the table of ARCHITECTURE.md: the scripts, their own unit, and the units that they cross into.
fn table_rows() -> Vec<[String; 3]> {
    let page = fs::read_to_string(harness::repository().join("ARCHITECTURE.md")).unwrap();
    let table = page.split_once("| script | unit | crosses into |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>();
    rows.map(|row| cells(row).try_into().unwrap()).collect()
}

/// Returns the unit of each script in the table.
fn own_units() -> BTreeMap<String, String> {
    let rows = table_rows().into_iter();
    rows.flat_map(|[scripts, unit, _]| {
        scripts.split(", ").map(|script| (script.to_owned(), unit.clone())).collect::<Vec<_>>()
    })
    .collect()
}

/// Returns the units of each script in the table, its own one included.
fn documented_units() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for cells in table_rows() {
        let units = [cells[1].as_str()].into_iter().chain(cells[2].split(", "));
        let units: BTreeSet<String> = units
            .map(|unit| unit.strip_prefix("other ").map_or(unit, |unit| unit.trim_end_matches('s')))
            .map(str::to_owned)
            .collect();
        found.extend(cells[0].split(", ").map(|script| (script.to_owned(), units.clone())));
    }
    found
}

/// Returns the units that the Rust function calling a script marks as crossed.
fn marked_units(script: &str, functions: &[String]) -> BTreeSet<&'static str> {
    let script = script.to_uppercase();
    let is_call = |function: &&String| {
        [format!("script::{script}"), format!("&{script},")].iter().any(|name| {
            function
                .match_indices(name.as_str())
                .any(|(at, _)| !function[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    let mut calls: Vec<&String> = functions.iter().filter(is_call).collect();
    if calls.iter().any(|call| call.contains(".assign_nick(")) {
        calls.extend(functions.iter().filter(|function| function.starts_with("assign_nick(")));
    }
    let is_marked = |unit: &str| {
        let (first, rest) = unit.split_at(1);
        let in_script = format!("crossing_in_script::<{}{rest}Unit>", first.to_uppercase());
        calls
            .iter()
            .flat_map(|call| call.lines())
            .any(|line| line.contains(&in_script) || (line.contains(".crossing([") && line.contains(unit)))
    };
    UNITS.iter().map(|(unit, _)| *unit).filter(|unit| is_marked(unit)).collect()
}

#[test]
fn architecture_names_every_crossing_of_units() {
    let sources_of_calls = library_sources().into_iter();
    let functions: Vec<String> =
        sources_of_calls.flat_map(|file| file.text.split("fn ").map(str::to_owned).collect::<Vec<_>>()).collect();
    let own_units = own_units();
    let mut documented = documented_units();
    let mut offences = Vec::new();
    // The scripts of the registry, then those of messages: each group has a prelude of its own.
    for of_messages in [false, true] {
        let is_of_messages =
            |path: &str| path.starts_with("gateway/") || path.starts_with("presence/src/registry/messages/");
        let files = sources("lua")
            .into_iter()
            .filter(|file| is_of_messages(&file.path) == of_messages || file.path.ends_with("script/stream.lua"));
        let (scripts, parts): (Vec<_>, Vec<_>) = files.partition(|file| file.text.starts_with("#!lua"));
        let shared = parts.iter().flat_map(|part| LuaFile::parse(&part.text).functions).collect();
        for script in scripts {
            let name = script.path.rsplit('/').next().unwrap().trim_end_matches(".lua");
            let reached = named_units(&reached_text(&LuaFile::parse(&script.text), &shared));
            let known = documented.remove(name);
            let own = own_units.get(name).map(String::as_str);
            let marked = marked_units(name, &functions);
            let unmarked =
                reached.iter().filter(|unit| known.is_some() && own != Some(**unit) && !marked.contains(*unit));
            offences.extend(unmarked.map(|unit| format!("the call of {name} does not mark {unit}")));
            let missing = reached.iter().filter(|unit| known.as_ref().is_some_and(|known| !known.contains(**unit)));
            offences.extend(missing.map(|unit| format!("{name} reaches {unit}")));
            if known.is_none() && !reached.is_empty() {
                offences.push(format!("{name} reaches {reached:?} and has no row"));
            }
        }
    }
    offences.extend(documented.into_keys().map(|name| format!("{name} has a row and no script")));
    assert_none(&offences);
}

#[test]
fn reached_text_follows_calls_into_shared_functions() {
    let shared =
        LuaFile::parse("local function free(nick)\n  redis.call('DEL', base .. 'nick:' .. nick)\nend\n").functions;
    let script = LuaFile::parse("local function all()\n  free(KEYS[1]) -- 'room:'\nend\nall()\n");
    assert_eq!(named_units(&reached_text(&script, &shared)), BTreeSet::from(["nick"]));
    assert!(named_units(&reached_text(&LuaFile::parse("return 1\n"), &shared)).is_empty());
}
