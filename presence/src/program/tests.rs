#![allow(clippy::unwrap_used)]

use super::*;

/// A program whose only setting is whether its settings are good.
struct Sample;

impl Program for Sample {
    const NAME: &'static str = "sample";
    const ABOUT: &'static str = "Nothing";
    type Config = String;
    type Server = ();

    fn load(
        file: Option<&Path>,
        _environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<String, SettingsError> {
        match file {
            Some(file) if file == Path::new("bad") => Err(SettingsError::Missing { key: "a", reason: "b" }),
            file => Ok(format!("{file:?}\n")),
        }
    }

    fn log_level(_config: &String) -> &str {
        "info"
    }

    fn grace(_config: &String) -> Duration {
        Duration::ZERO
    }

    async fn start(_config: String) -> anyhow::Result<()> {
        Ok(())
    }

    fn ready((): &()) -> impl Serialize {}

    async fn drain((): (), _grace: Duration) -> Drained {
        Drained::Whole
    }
}

#[test]
fn flags_decide_how_it_ends_without_starting() {
    let table: &[(&[&str], Result<&str, Exit>)] = &[
        (&[], Ok("None\n")),
        (&["--config", "good"], Ok("Some(\"good\")\n")),
        (&["--config=good"], Ok("Some(\"good\")\n")),
        (&["--config", "bad"], Err(Exit::BadSettings)),
        (&["--config", "good", "--check"], Err(Exit::Done)),
        (&["--config", "bad", "--check"], Err(Exit::BadSettings)),
        (&["--version"], Err(Exit::Done)),
        (&["--help"], Err(Exit::Done)),
        (&["--config"], Err(Exit::BadSettings)),
        (&["--bogus"], Err(Exit::BadSettings)),
        (&["stray"], Err(Exit::BadSettings)),
        (&["--check", "--check"], Err(Exit::BadSettings)),
    ];
    for (flags, expected) in table {
        let flags = ["sample"].iter().chain(*flags).map(OsString::from);
        assert_eq!(configure::<Sample>(flags, []).as_deref(), expected.as_ref().copied());
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let exits = [Exit::Done, Exit::NotStarted, Exit::GraceRanOut, Exit::BadSettings];
    assert_eq!(exits.map(Exit::code), [0, 1, 2, 64]);
}

#[test]
fn the_ready_line_is_one_json_object_with_ready_first() {
    #[derive(Serialize)]
    struct Server {
        node: &'static str,
        ws: std::net::SocketAddr,
    }
    let line = ready_line(Server { node: "g1", ws: ([127, 0, 0, 1], 8080).into() });
    assert_eq!(line, "{\"ready\":true,\"node\":\"g1\",\"ws\":\"127.0.0.1:8080\"}\n");
}
