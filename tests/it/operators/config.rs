//! Configuration of both programs: layers, secret files, and example files.
//!
//! Invariant: an example file lists every setting with its default, and a secret never reaches an output.

use std::path::Path;
use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{ChildProgram, repository};

const SOON: Duration = Duration::from_secs(10);
const PROGRAMS: [&str; 2] = ["gateway", "presence"];

/// Runs a program with these flags and environment variables.
async fn run(binary: &str, args: &[&str], settings: &[(&str, &str)]) -> ExitedProcess {
    let program = ChildProgram::parley(binary, binary).args(args.iter().map(|arg| (*arg).to_owned()));
    settings.iter().fold(program, |program, (key, value)| program.env(key, value)).run(SOON).await
}

/// Runs `--check` on a valid file, and returns the settings in effect.
async fn check(binary: &str, file: &Path) -> String {
    let checked = run(binary, &["--check", "--config", file.to_str().unwrap()], &[("PARLEY__NODE__ID", "n1")]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    checked.stdout
}

fn example(binary: &str) -> String {
    let path = repository().join(binary).join(format!("{binary}.example.toml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the settings of an example, uncommented; `with_samples` adds those without a default.
fn uncommented(example: &str, with_samples: bool) -> String {
    let setting = |line: &str| {
        let (hash, rest) = line.split_at_checked(1)?;
        let sample = rest.strip_prefix(' ');
        let setting = if with_samples { sample.unwrap_or(rest) } else { rest };
        let is_setting = hash == "#" && !setting.starts_with(' ') && setting.split(' ').nth(1) == Some("=");
        is_setting.then(|| setting.to_owned())
    };
    example.lines().filter_map(setting).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn example_files_match_program_output() {
    for binary in PROGRAMS {
        let printed = run(binary, &["--example"], &[]).await;
        assert_eq!(printed.code, Some(0), "{printed:?}");
        assert!(
            printed.stdout.trim_end() == example(binary).trim_end(),
            "{binary}/{binary}.example.toml is not up to date: target/debug/{binary} --example > \
             {binary}/{binary}.example.toml"
        );
    }
}

#[tokio::test]
async fn uncommented_example_equals_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    for binary in PROGRAMS {
        // Presence has one required setting.
        let required = if binary == "presence" { "redis.url = 'redis://h'\n" } else { "" };
        let (empty, full) = (folder.path().join("empty"), folder.path().join("full"));
        std::fs::write(&empty, required).unwrap();
        let settings = uncommented(&example(binary), false);
        std::fs::write(&full, format!("{required}{settings}")).unwrap();
        assert_eq!(check(binary, &full).await, check(binary, &empty).await, "{settings}");
        assert!(settings.lines().count() >= 6, "{settings}");
    }
}

#[tokio::test]
async fn every_example_line_is_a_valid_setting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all");
    for binary in PROGRAMS {
        let example = example(binary);
        std::fs::write(&file, uncommented(&example.replace("#listen.origins = []", ""), true)).unwrap();
        let shown = check(binary, &file).await;
        let keys = match binary {
            "gateway" => gateway::config::KEYS,
            _ => presence::service::config::KEYS,
        };
        for key in keys {
            let value = key.toml(key.default.unwrap_or(key.sample));
            let value = if key.name == "node.id" { "\"n1\"".to_owned() } else { value };
            assert!(shown.contains(&format!("{} = {value}", key.name)), "{} in {shown}", key.name);
        }
    }
}

#[tokio::test]
async fn flags_override_environment_which_overrides_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "node.id = 'file'\nredis.prefix = 'file'\nlog.level = 'warn'\n").unwrap();
    let flags = ["--check", "--config", file.to_str().unwrap(), "--set", "node.id=flag"];
    let environment = [("PARLEY__NODE__ID", "environment"), ("PARLEY__REDIS__PREFIX", "environment")];
    let shown = run("gateway", &flags, &environment).await.stdout;
    for line in ["node.id = \"flag\"", "redis.prefix = \"environment\"", "log.level = \"warn\""] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[tokio::test]
async fn secret_file_is_read_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redis-url");
    let named = file.to_str().unwrap();
    let missing = run("gateway", &["--check"], &[("PARLEY__REDIS__URL_FILE", named)]).await;
    assert_eq!(missing.code, Some(64), "{missing:?}");
    assert!(missing.stderr.contains("redis.url_file") && missing.stderr.contains(named), "{missing:?}");

    std::fs::write(&file, "redis://ann:hunter2@127.0.0.1:1/3\n").unwrap();
    let shown = run("gateway", &["--check"], &[("PARLEY__REDIS__URL_FILE", named)]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("redis.url = \"redis://***@127.0.0.1:1/3\""), "{shown:?}");
    assert!(!shown.stdout.contains("hunter2") && !shown.stderr.contains("hunter2"), "{shown:?}");

    let both = [("PARLEY__REDIS__URL_FILE", named), ("PARLEY__REDIS__URL", "redis://h")];
    let twice = run("gateway", &["--check"], &both).await;
    assert_eq!(twice.code, Some(64), "{twice:?}");
    assert!(twice.stderr.contains("redis.url and redis.url_file are both set"), "{twice:?}");

    std::fs::write(&file, "hunter2").unwrap();
    let wrong = run("gateway", &[], &[("PARLEY__REDIS__URL_FILE", named)]).await;
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    assert!(!wrong.stderr.contains("hunter2"), "{wrong:?}");
}
