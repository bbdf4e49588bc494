//! The alerts: promtool accepts the rules and their tests; every alert is tested both ways and has a runbook section.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use harness::{ChildProgram, repository};
use serde_json::Value;

use super::query::{RULES, rules};
use super::runbook::{leads_to_section, sections};
use crate::operators::deploy::yaml::{document, list, text};

const TESTS: &str = "deploy/prometheus/alerts.test.yml";
/// The first part of every `runbook_url`; the configuration of Prometheus sets this label.
const RUNBOOK_BASE: &str = "{{ $externalLabels.runbook }}";
/// The configurations of Prometheus for `make run`, compose and Kubernetes.
const CONFIGURATIONS: [&str; 3] =
    ["deploy/prometheus/prometheus.yml.in", "deploy/prometheus/prometheus.yml", "deploy/k8s/prometheus/prometheus.yml"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the rules that are alerts.
fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

async fn promtool(subcommand: &str, file: &std::path::Path) -> Result<(), String> {
    let ran = ChildProgram::system("promtool", "promtool").args([subcommand, "rules"]).args([file]).run(PATIENCE).await;
    if ran.code == Some(0) { Ok(()) } else { Err(format!("{}\n{}", ran.stdout, ran.stderr)) }
}

#[tokio::test]
async fn promtool_accepts_rules_and_their_tests() {
    promtool("check", &repository().join(RULES)).await.unwrap_or_else(|output| panic!("{RULES}: {output}"));
    promtool("test", &repository().join(TESTS)).await.unwrap_or_else(|output| panic!("{TESTS}: {output}"));
}

#[tokio::test]
async fn promtool_accepts_every_prometheus_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let rules = repository().join(RULES);
    let runner = fs::read_to_string(repository().join("deploy/run")).unwrap();
    assert!(runner.contains("RULES=\"$PWD/deploy/prometheus/alerts.yml\""), "deploy/run does not set the rules");
    for configuration in CONFIGURATIONS {
        let shipped = fs::read_to_string(repository().join(configuration)).unwrap();
        let place = ["@RULES@", "/etc/prometheus/alerts.yml"].into_iter().find(|place| shipped.contains(place));
        let place = place.unwrap_or_else(|| panic!("{configuration} names no rules"));
        let text = shipped.replace(place, rules.to_str().unwrap());
        // The Prometheus of Debian is built without Kubernetes.
        let text = text.replace("kubernetes_sd_configs: [{ role: pod }]", "static_configs: [{ targets: [\"h:1\"] }]");
        // Every remaining placeholder between at-signs is an address.
        let text: String = text.split('@').enumerate().map(|(n, part)| if n % 2 == 0 { part } else { "h:1" }).collect();
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, text).unwrap();
        let ran =
            ChildProgram::system("promtool", "promtool").args(["check", "config"]).args([&file]).run(PATIENCE).await;
        assert_eq!(ran.code, Some(0), "{configuration}: {}\n{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("rules found"), "{configuration}: {}", ran.stdout);
    }
}

#[test]
fn every_configuration_sets_interval_and_runbook() {
    for configuration in CONFIGURATIONS {
        let global = &document(configuration)["global"];
        assert_eq!(global["evaluation_interval"], document(TESTS)["evaluation_interval"], "{configuration}");
        let runbook = text(&global["external_labels"]["runbook"]);
        let is_absolute = runbook.contains("://") && runbook.ends_with("RUNBOOK.md");
        assert!(is_absolute || runbook == "@RUNBOOK@", "{configuration}: {runbook}");
    }
    let runner = fs::read_to_string(repository().join("deploy/run")).unwrap();
    assert!(runner.contains("RUNBOOK=\"file://$PWD/docs/RUNBOOK.md\""), "deploy/run does not set the runbook");
}

#[tokio::test]
async fn silent_alert_fails_its_rule_test() {
    let [mut rules, tests] = [RULES, TESTS].map(|file| fs::read_to_string(repository().join(file)).unwrap());
    for alert in alerts() {
        let (before, from) = rules.split_once(&format!("- alert: {}\n", text(&alert["alert"]))).unwrap();
        let (_, after) = from.split_at(from.find("        labels:").unwrap());
        rules = format!("{before}- alert: {}\n        expr: vector(1) > 2\n{after}", text(&alert["alert"]));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alerts.yml"), rules).unwrap();
    fs::write(folder.path().join("tests.yml"), tests).unwrap();
    let output = promtool("test", &folder.path().join("tests.yml")).await.expect_err("no alert fires");
    for alert in alerts() {
        let failure = format!("alertname: {}, time", text(&alert["alert"]));
        assert!(output.contains(&failure), "{failure}: {output}");
    }
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tests = document(TESTS);
    let checks: Vec<&Value> = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])).collect();
    for alert in alerts() {
        let own_checks = checks.iter().filter(|check| check["alertname"] == alert["alert"]);
        let fires: BTreeSet<bool> = own_checks.map(|check| !list(&check["exp_alerts"]).is_empty()).collect();
        assert_eq!(
            fires,
            BTreeSet::from([false, true]),
            "{TESTS} must show when {} fires and when not",
            alert["alert"]
        );
    }
}

#[test]
fn alerts_and_runbook_sections_match() {
    let mut named = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let runbook = text(&alert["annotations"]["runbook_url"]);
        assert_eq!(leads_to_section(runbook, RUNBOOK_BASE), Some(true), "{name}: {runbook}");
        assert_eq!(runbook, format!("{RUNBOOK_BASE}#{}", name.to_lowercase()), "each alert has its own section");
        assert!(!text(&alert["annotations"]["summary"]).is_empty(), "{name} has no summary");
        assert!(["warning", "critical"].contains(&text(&alert["labels"]["severity"])), "{name}");
        named.insert(name.to_lowercase());
    }
    assert_eq!(sections().into_keys().collect::<BTreeSet<_>>(), named);
}
