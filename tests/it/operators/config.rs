//! Configuration of both programs: layers, secret files, and example files.
//!
//! Invariant: an example file lists every setting with its default, and a secret never reaches an output.

use std::path::Path;
use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{Authority, ChildProgram, Node, Redis, Validity, http, repository};

const SOON: Duration = Duration::from_secs(10);
const PROGRAMS: [&str; 2] = ["gateway", "presence"];
/// A public key of ES256, whose private half was thrown away.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEb8Bqb0R2zl2JW5ultyfJti/Ks2kA
CAoFbdSjvbobFSFwIuUBduCJdcQUk9k2He6KmeuI4nhp30A3DDZGgVpKQw==
-----END PUBLIC KEY-----
";

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
        // The empty list below the example of a list would set it twice.
        let is_twice = with_samples && sample.is_none() && rest.ends_with(" = []");
        let is_setting =
            !is_twice && hash == "#" && !setting.starts_with(' ') && setting.split(' ').nth(1) == Some("=");
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
    let authority = Authority::create();
    authority.issue("redis-client", "DNS:client", Validity::Current);
    std::fs::copy(authority.file("ca.pem"), authority.file("redis-ca.pem")).unwrap();
    std::fs::write(folder.path().join("es256.pem"), PUBLIC_KEY).unwrap();
    authority.issue("site", "DNS:site", Validity::Current);
    std::fs::copy(authority.file("site.pem"), folder.path().join("fullchain.pem")).unwrap();
    std::fs::copy(authority.file("site.key"), folder.path().join("privkey.pem")).unwrap();
    // The files and folders of the samples may be missing here, and `--check` looks for them.
    let here = |text: &str| {
        let folder = format!("{}/", folder.path().display());
        let text = text.replace("/etc/parley/redis-", &format!("{}/redis-", authority.path().display()));
        text.replace("/var/log/parley/", &folder).replace("/etc/parley/", &folder).replace("redis://", "rediss://")
    };
    // A gateway has Redis, or the settings that the presence program has otherwise.
    let alone: &[&str] = &["api.", "webhook", "callbacks."];
    for (binary, without) in [("gateway", &["redis."][..]), ("gateway", alone), ("presence", &[])] {
        let is_left_out = |key: &str| without.iter().any(|start| key.starts_with(start));
        let lines = uncommented(&here(&example(binary)), true);
        let lines: Vec<&str> = lines.lines().filter(|line| !is_left_out(line)).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let shown = check(binary, &file).await;
        let keys = match binary {
            "gateway" => gateway::config::KEYS,
            _ => presence::service::config::KEYS,
        };
        for key in keys.iter().filter(|key| !is_left_out(key.name)) {
            let value = key.toml(key.default.unwrap_or(key.sample));
            let value = match key.name {
                "node.id" => "\"n1\"".to_owned(),
                "auth.secret" | "hooks.secret" => "\"***\"".to_owned(),
                "hooks.register" | "hooks.join" | "hooks.send" => "\"https://app.example.org/***\"".to_owned(),
                "webhooks" => value.replace("at-least-16-characters", "***").replace("/parley\"", "/***\""),
                _ => here(&value),
            };
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

#[tokio::test]
async fn check_and_start_report_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mistakes.toml");
    let text = "log.levle = 'info'\nlisten.ws = '127.0.0.1:9000'\nlimits.connections = 0\n\
                rooms = [{ match = '#hall', members_max = 0 }]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let settings = [("PARLEY__LOG__FILE", "/no/such/folder/g1.log"), ("PARLEY_NODE_ID", "g1")];
    for flags in [&["--check", "--config", file][..], &["--config", file]] {
        let refused = run("gateway", flags, &settings).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(64), ""), "{refused:?}");
        let expected = [
            format!("unknown key log.levle in {file}: the nearest known one is log.level"),
            format!("limits.connections = \"0\": expected a whole number from 1 to 1000000 (set in {file})"),
            format!(
                "rooms = \"[{{\\\"match\\\":\\\"#hall\\\",\\\"members_max\\\":0}}]\": table 1: members_max = 0: \
                 expected a whole number from 1 to 1000000 (set in {file})"
            ),
            "log.file = \"/no/such/folder/g1.log\": No such file or directory (os error 2) (set in the environment)"
                .to_owned(),
            "listen.tcp = \"127.0.0.1:9000\": listen.ws has the same port".to_owned(),
            "variable PARLEY_NODE_ID ignored: the nearest setting is PARLEY__NODE__ID".to_owned(),
        ];
        let expected: Vec<String> = expected.iter().map(|line| format!("gateway: {line}")).collect();
        assert_eq!(refused.stderr.lines().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn addresses_of_both_programs_accept_names() {
    let redis = [("PARLEY__REDIS__URL", "redis://localhost:1")];
    for (binary, keys) in [("gateway", &["listen.ws", "listen.tcp", "admin.addr"][..]), ("presence", &["api.addr"])] {
        let flags =
            keys.iter().zip(8001..).flat_map(|(key, port)| ["--set".to_owned(), format!("{key}=localhost:{port}")]);
        let flags: Vec<String> = flags.chain(["--check".to_owned()]).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let checked = run(binary, &flags, &redis).await;
        for (key, port) in keys.iter().zip(8001..) {
            assert!(checked.stdout.contains(&format!("{key} = \"127.0.0.1:{port}\"")), "{checked:?}");
        }
    }
    let mut node = Node::gateway("g1").setting("PARLEY__LISTEN__WS", "localhost:0").start().await;
    assert_eq!(node.end().await, Some(0));
}

#[tokio::test]
async fn ignored_variables_are_named_at_the_start() {
    let redis = Redis::running().await;
    for node in [Node::gateway("g1"), Node::presence("p1")] {
        let node = node.redis(&redis).setting("PARLEY_NODE_ID", "x").setting("PARLEY_PORT", "tcp://10.0.0.1:80");
        let node = node.start().await;
        let lines = node.log().lines();
        let warned: Vec<&String> = lines.iter().filter(|line| line.contains("environment variable ignored")).collect();
        assert!(matches!(warned.as_slice(), [line] if line.contains("PARLEY__NODE__ID")), "{lines:?}");
    }
    let checked = run("gateway", &["--check"], &[("PARLEY_NODE_ID", "x"), ("PARLEY_FAILPOINT", "fence")]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(checked.stderr, "gateway: variable PARLEY_NODE_ID ignored: the nearest setting is PARLEY__NODE__ID");
}

/// Returns the line of the settings fingerprint in a scrape.
async fn fingerprint(node: &Node) -> String {
    let scrape = http::get(node.admin(), "/metrics").await.unwrap().body;
    let lines: Vec<&str> = scrape.lines().filter(|line| line.starts_with("parley_config_info{")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_owned()
}

#[tokio::test]
async fn gateways_of_one_host_share_a_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::running().await;
    let gateway = |name: &str| {
        let file = folder.path().join(name).to_str().unwrap().to_owned();
        Node::gateway(name).redis(&redis).fixed_ports().setting("PARLEY__LOG__FILE", &file)
    };
    let (g1, g2) = (gateway("g1").start().await, gateway("g2").setting("PARLEY__LOG__LEVEL", "debug").start().await);
    let other = gateway("g3").setting("PARLEY__HISTORY__MAX_MESSAGES", "9999").start().await;
    let expected = fingerprint(&g1).await;
    assert_eq!(fingerprint(&g2).await, expected);
    assert_ne!(fingerprint(&other).await, expected);
}

#[tokio::test]
async fn documented_settings_pass_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let row = format!("house:publish+moderate=sha256:{}", "0".repeat(64));
    for (page, programs) in [
        ("docs/HOOKS.md", &["gateway"][..]),
        ("docs/WEBHOOKS.md", &["gateway", "presence"]),
        ("clients/examples/app/README.md", &["gateway"]),
    ] {
        let text = std::fs::read_to_string(repository().join(page)).unwrap();
        let (_, rest) = text.split_once("```toml\n").unwrap_or_else(|| panic!("{page} has no settings"));
        let settings = rest.split_once("```").unwrap().0.replace("house:publish+moderate=sha256:..", &row);
        let file = folder.path().join("documented.toml");
        std::fs::write(&file, settings).unwrap();
        for program in programs {
            // Only presence needs Redis.
            let redis = [("PARLEY__REDIS__URL", "redis://127.0.0.1:1/")];
            let settings = if *program == "presence" { &redis[..] } else { &[] };
            let checked = run(program, &["--check", "--config", file.to_str().unwrap()], settings).await;
            assert_eq!(checked.code, Some(0), "{page}: {checked:?}");
        }
    }
}
