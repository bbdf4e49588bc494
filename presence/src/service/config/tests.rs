#![allow(clippy::unwrap_used)]

use std::ffi::OsString;

use super::api::SAMPLE_KEY;
use super::*;
use crate::host::settings::Sources;
use crate::host::telemetry::LogFormat;
use crate::store::redis::tls::ClientFiles;

fn load(environment: &[(&str, &str)]) -> Result<PresenceConfig, String> {
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let sources = Sources { environment, ..Sources::default() };
    let settings = Settings::load(KEYS, &sources).map_err(|report| report.to_string());
    settings.and_then(|settings| PresenceConfig::new(&settings).map_err(|error| error.to_string()))
}

#[test]
fn presence_needs_redis_url_only() {
    let config = load(&[("PARLEY__REDIS__URL", "redis://127.0.0.1:6390"), ("PARLEY__NODE__ID", "p1")]).unwrap();
    let expected = PresenceConfig {
        node: "p1".to_owned(),
        redis: "redis://127.0.0.1:6390".parse().unwrap(),
        redis_tls: TlsFiles::default(),
        prefix: "parley".to_owned(),
        api: "127.0.0.1:8090".parse().unwrap(),
        access: ApiAccess::default(),
        history: Retention::default(),
        rooms: RoomPolicies::default(),
        proxies: vec!["127.0.0.0/8".parse::<ProxyNetwork>().unwrap(), "::1".parse().unwrap()].into(),
        admin: "127.0.0.1:9190".parse().unwrap(),
        webhooks: WebhookConfig { shown: "[]".to_owned(), ..WebhookConfig::default() },
        grace: Duration::from_secs(30),
        logs: Logs {
            level: "info".to_owned(),
            addresses: true,
            format: LogFormat::Auto,
            file: None,
            kept: 5,
            size_mib: 64,
            spans: None,
        },
    };
    assert_eq!(config, expected);
    assert_eq!(
        load(&[]).unwrap_err(),
        "redis.url is not set: presence answers from the Redis that the gateways share, so it needs its URL"
    );
}

#[test]
fn webhooks_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhooks");
    let webhook = r#"[{"url":"https://a.example/","secret":"0123456789abcdef","events":["join"]}]"#;
    std::fs::write(&file, webhook).unwrap();
    let named = [("PARLEY__REDIS__URL", "redis://h"), ("PARLEY__WEBHOOKS_FILE", file.to_str().unwrap())];
    let config = load(&named).unwrap();
    assert_eq!(config.webhooks.webhooks[0].secrets, ["0123456789abcdef"]);
    assert!(!config.to_string().contains("0123456789abcdef"));
    std::fs::write(&file, "0123456789abcdef").unwrap();
    assert!(!load(&named).unwrap_err().contains("0123456789abcdef"));
}

#[test]
fn presence_refuses_keys_of_the_gateway() {
    let error = load(&[("PARLEY__REDIS__URL", "redis://h"), ("PARLEY__LISTEN__WS", "127.0.0.1:1")]).unwrap_err();
    assert_eq!(error, "unknown key PARLEY__LISTEN__WS in the environment: the option --example lists the known ones");
}

#[test]
fn api_beyond_loopback_needs_keys() {
    let open = [("PARLEY__REDIS__URL", "redis://h"), ("PARLEY__API__ADDR", "0.0.0.0:8090")];
    let error = load(&open).unwrap_err();
    let expected =
        "api.keys is not set: api.addr is not a loopback address, so the API needs keys: gateway ctl key draws one";
    assert_eq!(error, expected);
    let with_key = [&open[..], &[("PARLEY__API__KEYS", SAMPLE_KEY)]].concat();
    assert_eq!(load(&with_key).unwrap().access.keys.len(), 1);
    let open_reads = [&with_key[..], &[("PARLEY__API__OPEN_READS", "true")]].concat();
    assert!(load(&open_reads).unwrap_err().contains("expected false"));
    for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(load(&[("PARLEY__REDIS__URL", "redis://h"), ("PARLEY__API__ADDR", local)]).is_ok(), "{local}");
    }
}

#[test]
fn every_key_is_displayed() {
    let shown = load(&[("PARLEY__REDIS__URL", "redis://h"), ("PARLEY__LOG__FILE", "/x")]);
    let client = ClientFiles { cert: "/c".to_owned(), key: "/k".to_owned() };
    let redis_tls = TlsFiles { ca: Some("/a".to_owned()), client: Some(client) };
    let shown = PresenceConfig { redis_tls, ..shown.unwrap() }.to_string();
    let shown: Vec<_> = shown.lines().map(|line| line.split_once(" = ").unwrap().0).collect();
    let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(shown, known);
}
