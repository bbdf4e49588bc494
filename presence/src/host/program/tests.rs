#![allow(clippy::unwrap_used)]

use super::*;

/// A program with one setting, which can be invalid.
struct SampleProgram;

impl Program for SampleProgram {
    const NAME: &'static str = "sample";
    const ABOUT: &'static str = "Nothing";
    type Config = String;
    type Server = ();

    const KEYS: &'static [Key] = &[Key::text("word").default("fine").meaning("a word")];

    fn config(settings: &Settings) -> Result<String, SettingsError> {
        settings.required("word", |word| if word == "bad" { Err("not that") } else { Ok(format!("{word}\n")) })
    }

    fn logs(_config: &String) -> &Logs {
        panic!("this test starts no server")
    }

    fn grace(_config: &String) -> Duration {
        Duration::ZERO
    }

    async fn start(_config: String) -> anyhow::Result<()> {
        Ok(())
    }

    fn listening((): &()) -> impl Serialize {}

    fn metrics((): &()) -> &prometheus::Registry {
        panic!("this test starts no server")
    }

    fn reload((): &(), _config: &String) {}

    async fn drain((): (), _grace: Duration) -> Drained {
        Drained::Complete
    }
}

#[test]
fn flags_decide_the_exit_without_starting_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("word = {name:?}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (file("good"), file("bad"));
    let (good, bad) = (good.as_str(), bad.as_str());
    let table: &[(&[&str], Result<&str, Exit>)] = &[
        (&[], Ok("fine\n")),
        (&["--config", good], Ok("good\n")),
        (&[&format!("--config={good}")], Ok("good\n")),
        (&["--config", good, "--set", "word=better"], Ok("better\n")),
        (&["--config", bad, "--set", "word=better"], Ok("better\n")),
        (&["--config", bad], Err(Exit::BadSettings)),
        (&["--set", "wort=better"], Err(Exit::BadSettings)),
        (&["--set", "word"], Ok("\n")),
        (&["--config", good, "--check"], Err(Exit::Done)),
        (&["--config", bad, "--check"], Err(Exit::BadSettings)),
        (&["--config", bad, "--example"], Err(Exit::Done)),
        (&["--version"], Err(Exit::Done)),
        (&["--help"], Err(Exit::Done)),
        (&["--config"], Err(Exit::BadSettings)),
        (&["--bogus"], Err(Exit::BadSettings)),
        (&["stray"], Err(Exit::BadSettings)),
        (&["--check", "--check"], Err(Exit::BadSettings)),
    ];
    for (flags, expected) in table {
        let given = ["sample"].iter().chain(*flags).map(OsString::from);
        let configured = configure::<SampleProgram>(given, []).map(|configured| configured.config);
        assert_eq!(configured.as_deref(), expected.as_ref().copied(), "{flags:?}");
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let exits = [Exit::Done, Exit::NotStarted, Exit::NotDrained, Exit::BadSettings];
    assert_eq!(exits.map(Exit::code), [0, 1, 2, 64]);
}

#[test]
fn listening_line_is_one_json_object() {
    #[derive(Serialize)]
    struct ListeningServer {
        node: &'static str,
        ws: std::net::SocketAddr,
    }
    let line = listening_line(ListeningServer { node: "g1", ws: ([127, 0, 0, 1], 8080).into() });
    assert_eq!(line, "{\"listening\":true,\"node\":\"g1\",\"ws\":\"127.0.0.1:8080\"}\n");
}
