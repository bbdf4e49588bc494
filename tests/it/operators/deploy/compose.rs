//! `compose.yaml`: its services, their settings, and the files and addresses that it names.

use std::collections::{BTreeMap, BTreeSet};

use harness::repository;
use serde_json::Value;

use super::dockerfile::Dockerfile;
use super::settings::EffectiveSettings;
use super::yaml::{document, list, seconds, text};

const GATEWAYS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];
const PRESENCES: [&str; 2] = ["presence-1", "presence-2"];

fn compose() -> Value {
    document("deploy/compose.yaml")
}

/// Returns each Parley service with its name, its program, and the settings that image and service result in.
async fn programs(compose: &Value) -> Vec<(&'static str, &'static str, EffectiveSettings)> {
    let dockerfile = Dockerfile::read();
    let mut found = Vec::new();
    let ours = GATEWAYS.map(|name| (name, "gateway")).into_iter().chain(PRESENCES.map(|name| (name, "presence")));
    for (name, binary) in ours {
        let service = &compose["services"][name];
        let image = dockerfile.environment(binary);
        let own = service["environment"].as_object().unwrap_or_else(|| panic!("no {name}"));
        let both: BTreeMap<&str, &str> = image
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .chain(own.iter().map(|(key, value)| (key.as_str(), text(value))))
            .collect();
        assert_eq!(both["PARLEY__NODE__ID"], name, "each service has its own node id");
        found.push((name, binary, EffectiveSettings::of(binary, both).await));
    }
    found
}

#[test]
fn compose_file_starts_the_whole_cluster() {
    let compose = compose();
    let names: BTreeSet<&str> = compose["services"].as_object().unwrap().keys().map(String::as_str).collect();
    let others = ["redis", "nginx", "prometheus", "alertmanager", "grafana"];
    let wanted: BTreeSet<&str> = GATEWAYS.into_iter().chain(PRESENCES).chain(others).collect();
    assert_eq!(names, wanted);
    let networks: Vec<&str> =
        names.iter().map(|name| text(&compose["services"][name]["networks"]["parley"]["ipv4_address"])).collect();
    assert_eq!(networks.iter().collect::<BTreeSet<_>>().len(), names.len(), "addresses are unique: {networks:?}");
}

#[tokio::test]
async fn compose_programs_get_valid_settings_and_stop_time() {
    let compose = compose();
    for (name, binary, effective) in programs(&compose).await {
        let service = &compose["services"][name];
        effective.assert_is_member();
        let stop = seconds(&service["stop_grace_period"]);
        assert!(
            stop >= effective.grace() + 5,
            "{name} is killed after {stop} s, its drain takes {}",
            effective.grace()
        );
        assert_eq!(text(&service["image"]), format!("parley-{binary}:{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(text(&service["build"]["target"]), binary);
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(text(&service["cap_drop"][0]), "ALL", "{name}");
        assert_eq!(text(&service["depends_on"]["redis"]["condition"]), "service_healthy", "{name}");
        assert!(service.get("healthcheck").is_none(), "{name} uses the health check of its image");
        let url = text(&service["environment"]["PARLEY__REDIS__URL_FILE"]);
        let secret = url.strip_prefix("/run/secrets/").unwrap();
        assert!(list(&service["secrets"]).iter().any(|mounted| mounted == secret), "{name} lacks the secret {secret}");
    }
}

#[tokio::test]
async fn nginx_and_prometheus_targets_have_listeners() {
    let compose = compose();
    let mut listening = BTreeSet::new();
    for (name, _, effective) in programs(&compose).await {
        for key in ["listen.ws", "listen.tcp", "api.addr", "admin.addr"] {
            if effective.has(key) {
                listening.insert(format!("{name}:{}", effective.port(key)));
            }
        }
        for port in list(&compose["services"][name]["ports"]) {
            let inside = text(port).rsplit_once(':').unwrap().1;
            assert!(listening.contains(&format!("{name}:{inside}")), "{name} does not listen on {inside}");
            assert!(text(port).starts_with("127.0.0.1:"), "{name}: {port} must bind to loopback");
        }
    }
    let nginx = std::fs::read_to_string(repository().join("deploy/nginx/parley.conf")).unwrap();
    let servers = nginx.lines().filter_map(|line| line.trim().strip_prefix("server ")?.split_once(' '));
    let servers: Vec<&str> = servers.map(|(address, _)| address).filter(|address| *address != "{").collect();
    let prometheus = document("deploy/prometheus/prometheus.yml");
    let jobs = list(&prometheus["scrape_configs"]).iter();
    let targets: Vec<&str> = jobs.flat_map(|job| list(&job["static_configs"][0]["targets"])).map(text).collect();
    assert_eq!(list(&prometheus["rule_files"]), ["/etc/prometheus/alerts.yml"], "the rules are mounted there");
    assert_eq!((servers.len(), targets.len()), (8, 5), "two ports per gateway, one per presence, each program scraped");
    let unknown: Vec<_> = servers.iter().chain(&targets).filter(|address| !listening.contains(**address)).collect();
    assert!(unknown.is_empty(), "no listener at {unknown:?}, only at {listening:?}");

    for port in list(&compose["services"]["nginx"]["ports"]) {
        let inside = text(port).rsplit_once(':').unwrap().1;
        assert!(nginx.contains(&format!("listen {inside} ssl")), "nginx does not listen on {inside}");
    }
}

#[test]
fn every_mounted_file_is_in_repository() {
    let compose = compose();
    let named: BTreeSet<&str> = compose["volumes"].as_object().unwrap().keys().map(String::as_str).collect();
    let ignored = std::fs::read_to_string(repository().join(".gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "/deploy/secrets.d"), "secrets are never committed");
    let secrets = compose["secrets"].as_object().unwrap().values().map(|secret| text(&secret["file"]));
    let mounts = compose["services"].as_object().unwrap().values().flat_map(|service| list(&service["volumes"]));
    let sources = mounts.map(|mount| text(mount).split(':').next().unwrap()).chain(secrets);
    for source in sources {
        if named.contains(source) {
            continue;
        }
        if let Some(secret) = source.strip_prefix("./secrets.d/") {
            let maker = std::fs::read_to_string(repository().join("deploy/secrets")).unwrap();
            assert!(maker.contains(&format!(" {secret}")), "deploy/secrets makes no {secret}");
            continue;
        }
        let path = repository().join("deploy").join(source);
        assert!(path.exists(), "{source} is missing");
    }
}

#[test]
fn redis_starts_with_shipped_settings_and_rights() {
    let compose = compose();
    let redis = &compose["services"]["redis"];
    let command = text(&redis["command"][0]);
    let mounts: Vec<&str> = list(&redis["volumes"]).iter().map(text).collect();
    for word in command.split_whitespace().filter(|word| word.starts_with("/etc/parley/")) {
        assert!(mounts.iter().any(|mount| mount.split(':').nth(1) == Some(word)), "{word} is not mounted");
    }
    assert!(mounts.iter().any(|mount| mount.ends_with(":/etc/parley/users.acl.in:ro")), "deploy/redis/acl reads it");
    for secret in list(&redis["secrets"]).iter().map(text) {
        assert!(command.contains(&format!(" /run/secrets/{secret} ")), "{command:?} does not use {secret}");
    }
    for word in [
        "/run/secrets/redis_password /run/secrets/redis_admin_password",
        "--aclfile /run/parley/users.acl",
        "exec valkey-server",
        "--dir /data",
    ] {
        assert!(command.contains(word), "{command:?} lacks {word}");
    }
    assert!(mounts.contains(&"redis:/data"), "the data of Redis outlives its container");
}

#[test]
fn alertmanager_receives_alerts_and_routes_each_severity() {
    let compose = compose();
    let prometheus = document("deploy/prometheus/prometheus.yml");
    let target = text(&prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0]);
    let (host, port) = target.split_once(':').unwrap();
    let service = &compose["services"][host];
    assert_eq!(service["ports"], serde_json::json!([format!("127.0.0.1:{port}:{port}")]));
    let routes = document("deploy/prometheus/alertmanager.yml");
    let receivers: BTreeSet<&str> = list(&routes["receivers"]).iter().map(|receiver| text(&receiver["name"])).collect();
    let nested = list(&routes["route"]["routes"]).iter().map(|route| text(&route["receiver"]));
    let used: BTreeSet<&str> = nested.chain([text(&routes["route"]["receiver"])]).collect();
    assert_eq!(used, receivers);
    let rules = std::fs::read_to_string(repository().join("deploy/prometheus/alerts.yml")).unwrap();
    let rule = &routes["inhibit_rules"][0];
    let named = ["source_matchers", "target_matchers"].map(|side| text(&rule[side][0])).join(" ");
    for alert in named.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.starts_with("Parley")) {
        assert!(rules.contains(&format!("- alert: {alert}\n")), "no alert {alert}");
    }
}
