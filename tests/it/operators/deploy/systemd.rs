//! The systemd units: they start the right programs, wait for the drain, and are hardened.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::repository;
use presence::host::program::Exit;

use super::settings::EffectiveSettings;

/// Units, the program each runs, and the file with its settings.
const UNITS: &[(&str, &str, &str)] = &[
    ("parley-gateway@.service", "gateway", "gateway-g1.env"),
    ("parley-presence.service", "presence", "presence.env"),
];

/// Keys that a unit may have in addition to the hardening.
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

/// Keys that every unit must have: no privileges, no writable files, no view of other processes.
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

/// Highest exposure score of `systemd-analyze security`: 0 is best, 100 is worst.
const EXPOSURE_MAX: &str = "15";

fn read(name: &str) -> String {
    let path = repository().join("deploy/systemd").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the `KEY=VALUE` lines.
fn pairs(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    lines.map(|line| line.split_once('=').unwrap_or_else(|| panic!("not KEY=VALUE: {line}"))).collect()
}

/// Returns the values of a key.
fn all<'a>(unit: &[(&str, &'a str)], key: &str) -> Vec<&'a str> {
    unit.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value).collect()
}

/// Returns the value of a key that must occur once.
fn one<'a>(unit: &[(&str, &'a str)], key: &str) -> &'a str {
    let values = all(unit, key);
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

#[tokio::test]
async fn units_start_programs_with_enough_stop_time() {
    for (name, binary, settings) in UNITS {
        let (text, file) = (read(name), read(settings));
        let unit = pairs(&text);
        assert_eq!(one(&unit, "ExecStart"), format!("/usr/local/bin/{binary} --config /etc/parley/{binary}.toml"));
        assert_eq!(one(&unit, "ExecReload"), "/bin/kill -HUP $MAINPID", "{name}");
        assert_eq!(one(&unit, "EnvironmentFile").replace("%i", "g1"), format!("/etc/parley/{settings}"), "{name}");

        let of_unit = all(&unit, "Environment").into_iter().map(|pair| pair.split_once('=').unwrap());
        let environment: Vec<(&str, String)> = of_unit
            .chain(pairs(&file))
            .map(|(key, value)| (key, value.replace("%H", "host").replace("%i", "g1")))
            .collect();
        let url = environment.iter().find(|(key, _)| *key == "PARLEY__REDIS__URL_FILE").expect("a secret");
        let credentials: Vec<&str> =
            all(&unit, "LoadCredential").into_iter().map(|pair| pair.split_once(':').unwrap().0).collect();
        assert_eq!(url.1, format!("%d/{}", credentials[0]), "{name}");
        let keys = environment.iter().find(|(key, _)| *key == "PARLEY__API__KEYS_FILE");
        assert_eq!(keys.map(|(_, path)| path.as_str()), credentials.get(1).map(|_| "%d/api_keys"), "{name}");
        let effective =
            EffectiveSettings::of(binary, environment.iter().map(|(key, value)| (*key, value.as_str()))).await;
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
fn units_are_hardened_without_unknown_keys() {
    for (name, ..) in UNITS {
        let text = read(name);
        let unit = pairs(&text);
        for wanted in HARDENING {
            assert!(unit.contains(wanted), "{name} lacks {}={}", wanted.0, wanted.1);
        }
        for (key, value) in &unit {
            let is_known = KEYS.contains(key) || HARDENING.contains(&(*key, *value));
            assert!(is_known, "{name}: {key}={value} is misspelled, or missing in KEYS");
        }
    }
}

/// Runs systemd's own checker where it is installed; the tests above do not need it.
#[test]
fn systemd_analyze_accepts_the_units() {
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
        [&["verify", "--man=no", "--recursive-errors=no"], &["security", "--offline=yes", "--threshold", EXPOSURE_MAX]];
    for check in checks {
        let Some(complaints) = systemd_analyze(check, root.path(), &names) else { return };
        assert_eq!(complaints, "", "systemd-analyze {check:?}");
    }
}

/// Returns the complaints of `systemd-analyze`; `None` when it is not installed.
fn systemd_analyze(check: &[&str], root: &Path, units: &[String]) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    command.args(check).arg("--root").arg(root).args(units).env("SYSTEMD_PAGER", "");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("systemd-analyze: {error}"),
    };
    let mut complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        complaints.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    Some(complaints)
}
