//! The printed settings: every setting of the mode in use, in the order of the table.

use super::*;

#[test]
fn every_key_is_printed() {
    let shown = changed(|c| {
        c.redis = Some("redis://h".parse().unwrap());
        let client = ClientFiles { cert: "/c".to_owned(), key: "/k".to_owned() };
        c.redis_tls = TlsFiles { ca: Some("/a".to_owned()), client: Some(client) };
        c.logs.file = Some("/x".into());
        c.auth = AuthConfig::full();
        c.hooks = HookSettings::full();
        c.certificate = Some(ServerCertificate::self_signed().1);
    });
    let keys = |config: &GatewayConfig| -> Vec<String> {
        let text = config.to_string();
        text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned()).collect()
    };
    let alone = GatewayConfig {
        redis: None,
        redis_tls: TlsFiles::default(),
        api: EmbeddedApiConfig { address: Some("127.0.0.1:8090".parse().unwrap()), ..api_of("[]") },
        ..shown.clone()
    };
    let is_of_cluster = |key: &&str| key.starts_with("redis.") && *key != "redis.prefix";
    let is_of_one = |key: &&str| ["api", "webhook"].iter().any(|start| key.starts_with(start));
    let known = || KEYS.iter().map(|key| key.name);
    assert_eq!(keys(&shown), known().filter(|key| !is_of_one(key)).collect::<Vec<_>>());
    assert_eq!(keys(&alone), known().filter(|key| !is_of_cluster(key)).collect::<Vec<_>>());
}
