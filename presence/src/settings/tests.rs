#![allow(clippy::unwrap_used)]

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn a_redis_url_is_plain_or_told_why_not() {
    for url in ["redis://127.0.0.1", "redis://h:6390/3", "redis://:p%40ss@h:1", "redis://u:p@[::1]:6379/0"] {
        assert_eq!(RedisUrl::from_str(url).unwrap().reveal(), url);
    }
    let schemes = ["rediss", "redis+sentinel", "redis-sentinel", "redis+cluster", "redis+unix", "unix"];
    for scheme in schemes {
        let error = RedisUrl::from_str(&format!("{scheme}://h:6379")).unwrap_err();
        assert!(error.starts_with(&format!("{scheme}:// comes later")), "{error}");
    }
    for url in
        ["", "h:6379", "http://h", "REDIS://h", "redis:h", "redis://", "redis://h/x", "redis://h:x", "redis://h y"]
    {
        RedisUrl::from_str(url).unwrap_err();
    }
}

#[test]
fn credentials_are_shown_nowhere() {
    let table = [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://:hunter2@h:1/2", "redis://***@h:1/2"),
        ("redis://hunter2@h", "redis://***@h"),
        ("redis://ann:hunter@2/#?x@h", "redis://***@h"),
        ("redis://h/?password=hunter2", "redis://h/?***"),
        ("redis://h/?password=hunter2@x", "redis://***@x"),
        ("rediss://:hunter2@h:1", "rediss://***@h:1"),
        (":hunter2@h:1", "***"),
        ("", ""),
    ];
    for (url, shown) in table {
        assert_eq!(redacted(url), shown);
    }
}

#[test]
fn a_refused_redis_url_keeps_its_password_to_itself() {
    for url in
        ["rediss://:hunter2@h", "redis://:hunter2@h:x", "redis://:hunter2@h/x", "hunter2@h", "redis://:hunter/2@h"]
    {
        let environment = [(OsString::from("PARLEY__REDIS__URL"), OsString::from(url))];
        let error = Settings::load(&[("redis.url", None)], None, environment).unwrap().redis_url().unwrap_err();
        assert!(error.to_string().starts_with("redis.url = "), "{error}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_place_but_not_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings");
    let load = || Settings::load(&[("redis.url", None)], Some(&path), []).unwrap_err().to_string();
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
fn a_variable_of_ours_must_be_text() {
    let junk = OsString::from_vec(vec![b'g', 0xff]);
    let keys: &[Key] = &[("node.id", None)];
    let error = Settings::load(keys, None, [("PARLEY__NODE__ID".into(), junk.clone())]).unwrap_err();
    assert_eq!(error.to_string(), r#"node.id = "..": it is not UTF-8"#);
    Settings::load(keys, None, [("TERM".into(), junk.clone()), (junk, "x".into())]).unwrap();
}

#[test]
fn a_random_node_id_is_a_node_id() {
    let id = random_node_id();
    assert_eq!(parse_node_id(&id), Ok(id.clone()));
    let (_, suffix) = id.rsplit_once('-').unwrap();
    assert_eq!(suffix.len(), 8);
}
