//! The command line of the programs: flags, settings, exit codes, the listening line.

use std::net::SocketAddr;
use std::time::Duration;

use harness::process::ExitedProcess;
use harness::{ChildProgram, Node, eventually};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);

async fn gateway(args: &[&str], settings: &[(&str, &str)]) -> ExitedProcess {
    let program = ChildProgram::parley("gateway", "gateway").args(args.iter().map(|arg| (*arg).to_owned()));
    settings.iter().fold(program, |program, (key, value)| program.env(key, value)).run(SOON).await
}

/// Checks for exit code 64, one line on stderr with all these words, and no listening line.
async fn assert_refused(args: &[&str], settings: &[(&str, &str)], words: &[&str]) {
    let finished = gateway(args, settings).await;
    assert_eq!(finished.code, Some(64), "{args:?} {settings:?}: {finished:?}");
    assert_eq!(finished.stdout, "", "{args:?} {settings:?}: {finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{args:?} {settings:?}: {finished:?}");
    for word in words {
        assert!(finished.stderr.contains(word), "{args:?} {settings:?}: no {word} in {finished:?}");
    }
}

#[tokio::test]
async fn bad_settings_exit_64_naming_the_key() {
    assert_refused(&[], &[("PARLEY__LISTEN__WS", "here:8080")], &["listen.ws", "here:8080", "IP:PORT"]).await;
    assert_refused(&[], &[("PARLEY__LISTEN__TCP", "")], &["listen.tcp"]).await;
    assert_refused(&[], &[("PARLEY__ADMIN__ADDR", "127.0.0.1:99999")], &["admin.addr", "127.0.0.1:99999"]).await;
    assert_refused(&[], &[("PARLEY__REDIS__URL", "http://127.0.0.1/")], &["redis.url", "redis://"]).await;
    assert_refused(&[], &[("PARLEY__REDIS__URL", "rediss://127.0.0.1/#insecure")], &["redis.url", "insecure"]).await;
    assert_refused(&[], &[("PARLEY__REDIS__PREFIX", "a{b}")], &["redis.prefix", "a{b}"]).await;
    assert_refused(&[], &[("PARLEY__NODE__ID", "two words")], &["node.id", "two words"]).await;
}

#[tokio::test]
async fn unknown_keys_and_flags_exit_64() {
    assert_refused(&[], &[("PARLEY__LISTEN__WSS", "127.0.0.1:1")], &["PARLEY__LISTEN__WSS", "PARLEY__LISTEN__WS"])
        .await;
    assert_refused(&["--set", "listen.tpc=127.0.0.1:1"], &[], &["listen.tpc", "listen.tcp", "the flags"]).await;
    assert_refused(&["--colour"], &[], &["--colour"]).await;
    assert_refused(&["--config", "/no/such/file.toml"], &[], &["/no/such/file.toml"]).await;
}

#[tokio::test]
async fn bad_file_is_named_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let broken = write("broken.toml", "[listen\n");
    assert_refused(&["--config", &broken], &[], &["broken.toml"]).await;
    let unknown = write("unknown.toml", "listen.wss = \"127.0.0.1:1\"\n");
    assert_refused(&["--config", &unknown], &[], &["unknown.toml", "listen.wss", "listen.ws"]).await;
    let wrong = write("wrong.toml", "[listen]\nws = 8080\n");
    assert_refused(&["--config", &wrong], &[], &["listen.ws", "8080"]).await;
}

#[tokio::test]
async fn check_shows_the_settings_in_effect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, "node.id = \"from-file\"\nredis.prefix = \"from-file\"\n").unwrap();
    let settings = [("PARLEY__NODE__ID", "from-env"), ("PARLEY__REDIS__URL", "redis://ann:secret@127.0.0.1:1/")];
    let finished = gateway(&["--check", "--config", path.to_str().unwrap()], &settings).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("from-env") && finished.stdout.contains("from-file"), "{finished:?}");
    assert!(!finished.stdout.contains("secret") && !finished.stderr.contains("secret"), "{finished:?}");
}

#[tokio::test]
async fn check_warns_of_rules_without_effect() {
    let rules =
        r##"[{"match":"#team-*","create":"token"},{"match":"#api","create":"api"},{"match":"#*"},{"match":"#b"}]"##;
    let hidden = "rooms: table 4 (#b) is never used: table 3 (#*) has all its rooms";
    let no_token =
        "rooms: nobody can create the rooms of table 1 (#team-*): auth.mode is open, so no client has a token";
    let no_key = "rooms: nobody can create the rooms of table 2 (#api): no key of api.keys has the scope publish";
    for (binary, expected) in [("gateway", [no_token, hidden]), ("presence", [no_key, hidden])] {
        let program = ChildProgram::parley(binary, binary).args(["--check"]).env("PARLEY__ROOMS", rules);
        let finished = program.env("PARLEY__REDIS__URL", "redis://127.0.0.1:1").run(SOON).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let lines: Vec<_> = finished.stderr.lines().filter(|line| line.contains("rooms:")).collect();
        assert_eq!(lines, expected.map(|line| format!("{binary}: {line}")));
    }
}

#[tokio::test]
async fn both_programs_print_their_version() {
    for binary in ["gateway", "presence"] {
        let finished = ChildProgram::parley(binary, binary).args(["--version"]).run(SOON).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_eq!(finished.stdout, format!("{binary} {}", env!("CARGO_PKG_VERSION")));
    }
}

/// Lines for people are printed only to people.
#[tokio::test]
async fn gateway_at_terminal_prints_its_addresses() {
    let free = "127.0.0.1:0";
    let program = ChildProgram::parley_on_a_terminal("gateway", "terminal").env("PARLEY__LISTEN__WS", "0.0.0.0:0");
    let gateway = program.env("PARLEY__LISTEN__TCP", free).env("PARLEY__ADMIN__ADDR", free).spawn();
    let expected = ["chat page: http://127.0.0.1:", "text lines: nc 127.0.0.1 ", "no Redis: this node alone"];
    eventually(SOON, "the terminal shows the addresses", async || {
        let shown = gateway.output().lines();
        let is_shown = |words: &&str| shown.iter().any(|line| line.starts_with(words));
        if expected.iter().all(is_shown) { Ok(()) } else { Err(shown) }
    })
    .await;
    let lines_port =
        gateway.output().lines().iter().find_map(|line| line.strip_prefix(expected[1])?.trim().parse::<u16>().ok());
    let lines = SocketAddr::from(([127, 0, 0, 1], lines_port.expect("a port")));
    drop(gateway);
    eventually(SOON, "the gateway ends with its terminal", async || match TcpStream::connect(lines).await {
        Ok(_) => Err("it still listens"),
        Err(_) => Ok(()),
    })
    .await;

    let mut piped = Node::gateway("g1").start().await;
    assert_eq!(piped.end().await, Some(0));
    assert!(!piped.log().holds("chat page"), "{}", piped.log().tail(20));
}

#[tokio::test]
async fn listening_line_names_node_and_bound_ports() {
    let mut gateway = Node::gateway("g1").launch().await;
    assert_eq!(gateway.listening_line()["node"], "g1");
    for address in [gateway.ws(), gateway.tcp(), gateway.admin()] {
        assert_ne!(address.port(), 0);
    }
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.process().output().lines().len(), 1, "exactly one line on stdout");
}
