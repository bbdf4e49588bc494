//! The units of systemd: what they start exists, what they wait fits the drain, and the hardening is there.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::repository;
use presence::host::program::Exit;

use super::settings::Effective;

/// Units, the program each runs, and the file with its settings.
const UNITS: &[(&str, &str, &str)] = &[
    ("parley-gateway@.service", "gateway", "gateway-g1.env"),
    ("parley-presence.service", "presence", "presence.env"),
];

/// Keys that a unit may have beside the hardening.
const KEYS: &[&str] = &[
    "Description",
    "Wants",
    "After",
    "StartLimitIntervalSec",
    "Type",
    "ExecStart",
    "ExecReload",
    "Environment",
    "EnvironmentFile",
    "LoadCredential",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "KillSignal",
    "TimeoutStopSec",
    "LimitNOFILE",
    "WantedBy",
];

/// What a unit must have: nothing to gain, nothing to write, nothing to see of others.
const HARDENING: &[(&str, &str)] = &[
    ("DynamicUser", "yes"),
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("UMask", "0077"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("PrivateDevices", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateUsers", "yes"),
    ("DevicePolicy", "closed"),
    ("KeyringMode", "private"),
    ("RemoveIPC", "yes"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallFilter", "@system-service"),
    ("SystemCallFilter", "~@privileged @resources"),
    ("SystemCallErrorNumber", "EPERM"),
];

/// `systemd-analyze security`: 0 is best, 100 is worst.
const MOST_EXPOSED: &str = "15";

fn read(name: &str) -> String {
    let path = repository().join("deploy/systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `KEY=VALUE` lines.
fn pairs(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    lines.map(|line| line.split_once('=').unwrap_or_else(|| panic!("not KEY=VALUE: {line}"))).collect()
}

/// The values of a key.
fn all<'a>(unit: &[(&str, &'a str)], key: &str) -> Vec<&'a str> {
    unit.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value).collect()
}

/// The value of a key that stands there once.
fn one<'a>(unit: &[(&str, &'a str)], key: &str) -> &'a str {
    let values = all(unit, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

#[tokio::test]
async fn units_start_what_there_is_and_give_it_the_time_it_needs() {
    for (name, binary, settings) in UNITS {
        let (text, file) = (read(name), read(settings));
        let unit = pairs(&text);
        assert_eq!(one(&unit, "ExecStart"), format!("/usr/local/bin/{binary} --config /etc/parley/{binary}.toml"));
        assert_eq!(one(&unit, "ExecReload"), "/bin/kill -HUP $MAINPID", "{name}");
        assert_eq!(one(&unit, "EnvironmentFile").replace("%i", "g1"), format!("/etc/parley/{settings}"), "{name}");

        let given = all(&unit, "Environment").into_iter().map(|given| given.split_once('=').unwrap());
        let environment: Vec<(&str, String)> = given
            .chain(pairs(&file))
            .map(|(key, value)| (key, value.replace("%H", "host").replace("%i", "g1")))
            .collect();
        let url = environment.iter().find(|(key, _)| *key == "PARLEY__REDIS__URL_FILE").expect("a secret");
        let credential = one(&unit, "LoadCredential").split_once(':').unwrap().0;
        assert_eq!(url.1, format!("%d/{credential}"), "{name}");
        let effective = Effective::of(binary, environment.iter().map(|(key, value)| (*key, value.as_str()))).await;
        effective.assert_is_member();
        effective.port("admin.addr");

        let stop: u64 = one(&unit, "TimeoutStopSec").parse().unwrap();
        assert!(stop >= effective.grace() + 5, "{name} kills after {stop} s, the drain takes {} s", effective.grace());
        assert_eq!(one(&unit, "KillSignal"), "SIGTERM");
        assert_eq!(one(&unit, "Restart"), "always");
        assert_eq!(one(&unit, "RestartPreventExitStatus"), Exit::BadSettings.code().to_string(), "{name}");
    }
}

#[test]
fn units_are_hardened_and_hold_no_unknown_key() {
    for (name, ..) in UNITS {
        let text = read(name);
        let unit = pairs(&text);
        for wanted in HARDENING {
            assert!(unit.contains(wanted), "{name} lacks {}={}", wanted.0, wanted.1);
        }
        for (key, value) in &unit {
            let is_known = KEYS.contains(key) || HARDENING.contains(&(*key, *value));
            assert!(is_known, "{name}: {key}={value}: a typing error, or new to this test");
        }
    }
}

/// Asks systemd's own checker where it is installed; the tests above do without.
#[test]
fn systemd_finds_nothing_wrong() {
    let root = tempfile::tempdir().unwrap();
    let [units, programs, tools] =
        ["etc/systemd/system", "usr/local/bin", "bin"].map(|folder| root.path().join(folder));
    for folder in [&units, &programs, &tools] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy("/bin/true", tools.join("kill")).unwrap();
    for (name, binary, _) in UNITS {
        fs::write(units.join(name), read(name)).unwrap();
        fs::copy("/bin/true", programs.join(binary)).unwrap();
    }
    let names: Vec<String> = UNITS.iter().map(|(name, ..)| name.replace("@.", "@g1.")).collect();
    let checks: [&[&str]; 2] =
        [&["verify", "--man=no", "--recursive-errors=no"], &["security", "--offline=yes", "--threshold", MOST_EXPOSED]];
    for check in checks {
        let Some(said) = systemd_analyze(check, root.path(), &names) else { return };
        assert_eq!(said, "", "systemd-analyze {check:?}");
    }
}

/// What it complains about; `None` when it is not installed.
fn systemd_analyze(check: &[&str], root: &Path, units: &[String]) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    command.args(check).arg("--root").arg(root).args(units).env("SYSTEMD_PAGER", "");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("systemd-analyze: {error}"),
    };
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    Some(said)
}
