//! The rules of `deny.toml` for forbidden and repeated crates, checked in every Cargo.lock. `make deny` checks licences
//! and sources too, but needs cargo-deny.

use std::fs;

/// A rule of `[bans]`.
#[derive(Debug)]
struct CrateBan {
    name: String,
    /// True if one version is allowed.
    is_allowed_once: bool,
    /// Crates that may name it: Cargo.lock lists optional dependencies that nothing turns on.
    wrappers: Vec<String>,
}

/// A package of a Cargo.lock.
#[derive(Debug)]
struct LockedPackage {
    name: String,
    version: String,
    dependencies: Vec<String>,
}

/// Returns the texts in quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the bans, each of which is one line.
fn bans(text: &str) -> Vec<CrateBan> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("{ crate = "));
    lines
        .map(|line| CrateBan {
            name: quoted(line).remove(0),
            is_allowed_once: line.contains("deny-multiple-versions = true"),
            wrappers: line
                .split_once("wrappers = [")
                .map_or_else(Vec::new, |(_, list)| quoted(list.split(']').next().unwrap_or_default())),
        })
        .collect()
}

fn locked_packages(text: &str) -> Vec<LockedPackage> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|line| quoted(line).remove(0)).unwrap_or_default()
    };
    let blocks = text.split("[[package]]\n").skip(1);
    blocks
        .map(|block| LockedPackage {
            name: value(block, "name"),
            version: value(block, "version"),
            dependencies: block.split_once("dependencies = [").map_or_else(Vec::new, |(_, list)| {
                // A dependency with several versions has its version behind the name.
                let names = quoted(list).into_iter();
                names.map(|name| name.split(' ').next().unwrap_or_default().to_owned()).collect()
            }),
        })
        .collect()
}

/// Returns the offences of a Cargo.lock against the bans.
fn offences(bans: &[CrateBan], packages: &[LockedPackage]) -> Vec<String> {
    let mut found = Vec::new();
    for ban in bans {
        let versions: Vec<_> = packages.iter().filter(|package| package.name == ban.name).collect();
        if ban.is_allowed_once {
            if versions.len() > 1 {
                found.push(format!("{}: {:?}", ban.name, versions.iter().map(|one| &one.version).collect::<Vec<_>>()));
            }
            continue;
        }
        let users = packages.iter().filter(|package| package.dependencies.contains(&ban.name));
        let users: Vec<_> = users.map(|user| &user.name).filter(|user| !ban.wrappers.contains(user)).collect();
        if !users.is_empty() || (!versions.is_empty() && ban.wrappers.is_empty()) {
            found.push(format!("{}: used by {users:?}", ban.name));
        }
    }
    found
}

#[test]
fn lock_files_contain_no_forbidden_crates() {
    let read = |path: &str| fs::read_to_string(harness::repository().join(path)).unwrap();
    let bans = bans(&read("deny.toml"));
    for name in ["ring", "rustls", "redis", "tungstenite", "openssl-sys", "native-tls", "rustls-pemfile"] {
        assert!(bans.iter().any(|ban| ban.name == name), "deny.toml has no rule for {name}");
    }
    for path in ["Cargo.lock", "benches/Cargo.lock", "fuzz/Cargo.lock"] {
        let packages = locked_packages(&read(path));
        assert!(packages.len() > 100, "{path}");
        assert_eq!(offences(&bans, &packages), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn check_of_lock_files_detects_offences() {
    let bans = bans(
        "deny = [\n    { crate = \"a\", reason = \"x\" },\n    { crate = \"b\", deny-multiple-versions = true },\n    \
         { crate = \"c\", wrappers = [\"d\", \"e\"], reason = \"y\" },\n]\n",
    );
    let package = |name: &str, version: &str, uses: &str| {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\ndependencies = [\n \"{uses}\",\n]\n\n")
    };
    for (text, expected) in [
        (package("b", "1.0.0", "z") + &package("c", "1.0.0", "z") + &package("d", "1.0.0", "c"), &[][..]),
        (package("a", "1.0.0", "z"), &["a: used by []"]),
        (package("f", "1.0.0", "a 1.0.0"), &["a: used by [\"f\"]"]),
        (package("b", "1.0.0", "z") + &package("b", "2.0.0", "z"), &["b: [\"1.0.0\", \"2.0.0\"]"]),
        (package("e", "1.0.0", "c") + &package("f", "1.0.0", "c"), &["c: used by [\"f\"]"]),
    ] {
        assert_eq!(offences(&bans, &locked_packages(&text)), expected, "{text}");
    }
}
