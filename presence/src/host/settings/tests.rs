#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;

const URL: &[Key] = &[Key::secret("redis.url")];

fn load(keys: &'static [Key], environment: &[(&str, &str)], flags: &[&str]) -> Result<Settings, String> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Settings::load(keys, &Sources { file: None, environment, flags }).map_err(|error| error.to_string())
}

#[test]
fn unsupported_redis_url_is_refused_with_reason() {
    for url in ["redis://127.0.0.1", "redis://h:6390/3", "redis://:p%40ss@h:1", "redis://u:p@[::1]:6379/0"] {
        for url in [url.to_owned(), url.replace("redis:", "rediss:")] {
            assert_eq!(RedisUrl::from_str(&url).unwrap().reveal(), url);
        }
    }
    let schemes = ["redis+sentinel", "redis-sentinel", "redis+cluster", "rediss+cluster", "redis+unix", "unix"];
    for scheme in schemes {
        let error = RedisUrl::from_str(&format!("{scheme}://h:6379")).unwrap_err();
        assert!(error.starts_with(&format!("{scheme}:// is not supported")), "{error}");
    }
    for url in ["rediss://h:6379/#insecure", "rediss://h:6379#x"] {
        let error = RedisUrl::from_str(url).unwrap_err();
        assert!(error.starts_with("#insecure is not supported"), "{error}");
    }
    for url in
        ["", "h:6379", "http://h", "REDIS://h", "redis:h", "redis://", "redis://h/x", "redis://h:x", "redis://h y"]
    {
        RedisUrl::from_str(url).unwrap_err();
    }
}

#[test]
fn redacted_urls_contain_no_credentials() {
    let table = [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:hunter2@h:1/2", "redis://***@h:1/2"),
        ("redis://hunter2@h", "redis://***@h"),
        ("redis://ann:hunt@er2@h:1", "redis://***@h:1"),
        ("redis://ann:hunter@2/#?x@h", "redis://***"),
        ("redis://h/?password=hunter2", "redis://h/?***"),
        ("redis://h/?password=hun@ter2", "redis://***"),
        ("redis://h:1/hun@ter2", "redis://***"),
        ("redis://h:1#hun@ter2", "redis://***"),
        ("redis://ann@h?hun@ter2", "redis://***"),
        ("unix:///run/hun@ter2", "unix://***"),
        ("unix:///run/hunter2", "unix://***/***"),
        ("rediss://:hunter2@h:1", "rediss://***@h:1"),
        (":hunter2@h:1", "***"),
        ("redis://127.0.0.1:hunter2", "redis://***"),
        ("redis://127.0.0.1:6379:hunter2", "redis://***"),
        ("redis://:hunter2", "redis://***"),
        ("redis://h:1/hunter2", "redis://h:1/***"),
        ("redis://h:1#hunter2", "redis://h:1?***"),
        ("redis://[::1]:hunter2", "redis://***"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://[hunter2]:1", "redis://***"),
        ("redis:hunter2@h", "***"),
        ("hunter2://h", "***"),
        ("redis://h:99999", "redis://***"),
        ("", ""),
    ];
    for (url, shown) in table {
        assert_eq!(redacted(url), shown);
    }
}

#[test]
fn broken_file_error_contains_no_password() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for text in [
        "redis.url = \"redis://:hunter2@h\nnode.id = 1",
        "redis.url = redis://:hunter2@h",
        "[redis]\nurl = 'a' 'hunter2'",
    ] {
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), environment: Vec::new(), flags: Vec::new() };
        let error = Settings::load(URL, &sources).unwrap_err();
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[test]
fn redis_url_error_contains_no_password() {
    for url in [
        "rediss://:hunter2@h#insecure",
        "redis://:hunter2@h:x",
        "redis://:hunter2@h/x",
        "hunter2@h",
        "redis://:hunter/2@h",
        "redis://127.0.0.1:hunter2",
        "redis://h:1/hunter2",
        "redis://h:hunter2/0",
        "hunter2://h",
        "redis://[hunter2]:1",
        "redis://h/?protocol=hunter2",
        "redis://ann:pw@h/0?protocol=hunter2",
    ] {
        let error = load(URL, &[("PARLEY__REDIS__URL", url)], &[]).unwrap().redis_url().unwrap_err();
        assert!(error.to_string().starts_with("redis.url = "), "{error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[test]
fn file_error_names_position_without_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings");
    let sources = Sources { file: Some(path.clone()), ..Sources::default() };
    let load = || Settings::load(URL, &sources).unwrap_err().to_string();
    assert!(load().ends_with("settings: No such file or directory (os error 2)"), "{}", load());
    for text in ["[redis]\nurl = \"redis://:hunter2@h\" x", "redis.url = 'hunter2", "redis.url = hunter2"] {
        std::fs::write(&path, text).unwrap();
        let error = load();
        assert!(error.contains("settings: TOML parse error at line "), "{error}");
        assert_eq!(error.lines().count(), 1);
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn parley_variable_must_be_utf8() {
    let junk = OsString::from_vec(vec![b'g', 0xff]);
    let load = |environment: &[(OsString, OsString)]| {
        Settings::load(&[key::NODE_ID], &Sources { environment: environment.to_vec(), ..Sources::default() })
    };
    let error = load(&[("PARLEY__NODE__ID".into(), junk.clone())]).unwrap_err();
    assert_eq!(error.to_string(), r#"node.id = "..": it is not UTF-8 (set in the environment)"#);
    load(&[("TERM".into(), junk.clone()), (junk, "x".into())]).unwrap();
}

#[test]
fn random_node_id_is_valid() {
    let id = random_node_id();
    assert_eq!(parse_node_id(&id), Ok(id.clone()));
    let (_, suffix) = id.rsplit_once('-').unwrap();
    assert_eq!(suffix.len(), 8);
}

#[test]
fn secret_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    let named = path.to_str().unwrap();
    let url = |environment: &[(&str, &str)], flags: &[&str]| {
        let settings = load(URL, environment, flags)?;
        settings.redis_url().map(|url| url.unwrap().reveal().to_owned()).map_err(|error| error.to_string())
    };
    let from_file = || url(&[("PARLEY__REDIS__URL_FILE", named)], &[]);

    assert_eq!(
        from_file().unwrap_err(),
        format!("redis.url_file = {named:?}: No such file or directory (os error 2) (set in the environment)")
    );
    for text in ["redis://:hunter2@h", "redis://:hunter2@h\n", "redis://:hunter2@h\r\n"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(from_file().unwrap(), "redis://:hunter2@h");
    }
    assert_eq!(url(&[], &[&format!("redis.url_file={named}")]).unwrap(), "redis://:hunter2@h");
    assert_eq!(
        url(&[("PARLEY__REDIS__URL_FILE", named), ("PARLEY__REDIS__URL", "redis://h")], &[]).unwrap_err(),
        "redis.url and redis.url_file are both set: set only one of them"
    );
    for text in ["redis://:hunter2@h:x".as_bytes(), b"hunter2", b"", b"hunter2\xff", &[b'x'; 100_000]] {
        std::fs::write(&path, text).unwrap();
        let error = from_file().unwrap_err();
        assert!(error.starts_with("redis.url") && !error.contains("hunter2") && error.len() < 300, "{error}");
    }
}

#[test]
fn secret_on_the_command_line_is_refused() {
    let error = load(URL, &[], &["redis.url=redis://:hunter2@h"]).unwrap_err();
    assert!(error.contains("redis.url_file") && !error.contains("hunter2"), "{error}");
    let shown = format!("{:?}", load(URL, &[("PARLEY__REDIS__URL", "redis://:hunter2@h")], &[]).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn settings_change_is_applied_and_shown_without_secrets() {
    const KEYS: &[Key] = &[Key::secret("redis.url"), key::LOG_LEVEL, key::NODE_ID];
    let old = load(KEYS, &[("PARLEY__REDIS__URL", "redis://:hunter2@h")], &[]).unwrap();
    let new =
        load(KEYS, &[("PARLEY__REDIS__URL", "redis://:hunter3@i"), ("PARLEY__LOG__LEVEL", "debug")], &["node.id=g1"]);
    let new = new.unwrap();
    let changes = old.changes(&new);
    let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let expected = [
        r#"redis.url = "redis://***@h" -> "redis://***@i""#,
        r#"log.level = "info" -> "debug""#,
        r#"node.id = unset -> "g1""#,
    ];
    assert_eq!(shown, expected);

    let mut taken = old.clone();
    taken.apply(&new, changes.iter().filter(|change| change.key.live));
    assert_eq!(old.changes(&taken).len(), 1);
    taken.apply(&new, &changes);
    assert_eq!(taken.changes(&new), []);
}

#[test]
fn fingerprint_ignores_secrets_and_node_settings() {
    const KEYS: &[Key] = &[
        Key::secret("redis.url"),
        key::REDIS_PREFIX,
        Key::address("listen.ws"),
        key::LOG_LEVEL,
        key::LOG_FILE,
        key::NODE_ID,
    ];
    let of = |url: &str, flag: &str| load(KEYS, &[("PARLEY__REDIS__URL", url)], &[flag]).unwrap().fingerprint();
    let one = of("redis://:hunter2@h", "node.id=g1");
    assert_eq!(of("redis://:hunter3@h", "node.id=g1"), one);
    assert_eq!(of("redis://:hunter2@h", "node.id=g2"), one);
    assert_ne!(of("redis://:hunter2@i", "node.id=g1"), one);
    for own in ["listen.ws=127.0.0.1:8082", "log.file=/var/log/g1.log", "log.level=debug"] {
        assert_eq!(of("redis://:hunter2@h", own), one, "{own}");
    }
    assert_ne!(of("redis://:hunter2@h", "redis.prefix=blue"), one);
}

const SAMPLE_KEYS: &[Key] = &[
    Key::secret("redis.url").sample("redis://127.0.0.1:6379"),
    Key::address("listen.ws").default("127.0.0.1:8080"),
    Key::address("listen.tcp").default("127.0.0.1:9000"),
    key::DRAIN_GRACE,
    key::LOG_LEVEL,
    key::LOG_ADDRESSES,
    key::LOG_FORMAT,
    key::LOG_FILE,
    key::LOG_FILES,
    key::LOG_FILE_MIB,
];

/// Reads these sources as a program with one required key does, and returns the lines of the report.
fn reported(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let sources = Sources { file: Some(path), environment, flags };
    let read = Settings::read(SAMPLE_KEYS, &sources, |settings| {
        settings.redis_url()?.ok_or(SettingsError::Missing { key: "redis.url", reason: "it is required" })?;
        settings.address("listen.ws")?;
        settings.address("listen.tcp")?;
        settings.grace()?;
        settings.logs()?;
        settings.check_log_file()
    });
    let folder = format!("{}/", folder.path().display());
    read.err().map_or(Vec::new(), |report| report.lines().map(|line| line.replace(&folder, "")).collect())
}

#[test]
fn report_names_every_error_with_its_source() {
    let file = "drain.grace_seconds = 'soon'\nlog.levle = 'info'\nlisten.ws = 'x'\nlog.format = ['a']\n";
    let environment = [("PARLEY__LISTEN__TPC", "127.0.0.1:1"), ("PARLEY__LOG__FILE", "/no/such/folder/x.log")];
    let flags = ["log.files=0", "redis.url=redis://:hunter2@h"];
    let address = "expected IP:PORT or NAME:PORT, such as 127.0.0.1:8080, [::]:8080 or localhost:8080";
    let expected = [
        r#"log.format = "[..]": expected one value, not a list (set in settings)"#,
        "unknown key log.levle in settings: the nearest known one is log.level",
        "unknown key PARLEY__LISTEN__TPC in the environment: the nearest known one is PARLEY__LISTEN__TCP",
        "redis.url = \"***\": a command line must not contain a secret: set redis.url_file to the name of its file \
         (set in the flags)",
        &format!(r#"listen.ws = "x": {address} (set in settings)"#),
        r#"drain.grace_seconds = "soon": expected a whole number of seconds from 0 to 3600 (set in settings)"#,
        r#"log.files = "0": expected a whole number from 1 to 1000 (set in the flags)"#,
        r#"log.file = "/no/such/folder/x.log": No such file or directory (os error 2) (set in the environment)"#,
    ];
    assert_eq!(reported(file, &environment, &flags), expected);
    assert_eq!(reported("", &[], &[]), ["redis.url is not set: it is required"]);
    assert_eq!(reported("redis.url = 'redis://h'", &[], &[]), Vec::<String>::new());
    let unreadable = reported("[redis", &[("PARLEY__LISTEN__WS", "x")], &[]);
    assert_eq!(unreadable.len(), 2, "a key may be in the file that is not TOML: {unreadable:?}");
}

#[test]
fn addresses_with_one_port_are_reported() {
    let redis = "redis.url = 'redis://h'\n";
    let equal = |address: &str| reported(redis, &[("PARLEY__LISTEN__TCP", address)], &[]);
    let line =
        |address: &str| format!("listen.tcp = {address:?}: listen.ws has the same port (set in the environment)");
    for address in ["127.0.0.1:8080", "localhost:8080", "0.0.0.0:8080", "[::]:8080"] {
        assert_eq!(equal(address), [line(address)]);
    }
    assert_eq!(equal("127.0.0.2:8080"), Vec::<String>::new());
    assert_eq!(equal("127.0.0.1:0"), Vec::<String>::new());
}

#[test]
fn similar_variables_are_named_with_their_setting() {
    let names = [
        "PARLEY_LISTEN_WS",
        "PARLEY_REDIS__URL_FILE",
        "PARLEY_LOGLEVEL",
        "PARLEY_DEBUG",
        "PARLEY__LISTEN__WS",
        "PARLEY_FAILPOINT",
        "PARLEY_PORT",
        "PARLEY_SERVICE_HOST",
        "PARLEY_GATEWAY_SERVICE_PORT_LINES",
        "PARLEY_GATEWAY_PORT_9000_TCP_ADDR",
        "PATH",
    ];
    let environment = names.iter().map(|name| (name.into(), "x".into())).collect();
    let ignored = Sources { environment, ..Sources::default() }.ignored_variables(SAMPLE_KEYS);
    let shown: Vec<String> = ignored.iter().map(ToString::to_string).collect();
    let expected = [
        "variable PARLEY_DEBUG ignored",
        "variable PARLEY_LISTEN_WS ignored: the nearest setting is PARLEY__LISTEN__WS",
        "variable PARLEY_LOGLEVEL ignored: the nearest setting is PARLEY__LOG__LEVEL",
        "variable PARLEY_REDIS__URL_FILE ignored: the nearest setting is PARLEY__REDIS__URL_FILE",
    ];
    assert_eq!(shown, expected);
}
