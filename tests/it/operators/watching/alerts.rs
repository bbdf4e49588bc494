//! The alerts: promtool takes the rules and their tests, every alert is tested both ways, and says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use harness::{Program, repository};
use serde_json::Value;

use super::query::{RULES, rules};
use super::runbook::{leads_to_section, sections};
use crate::operators::deploy::yaml::{document, list, text};

const TESTS: &str = "deploy/prometheus/alerts.test.yml";
const PATIENCE: Duration = Duration::from_secs(60);

/// The alerts of the rules.
fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect()
}

async fn promtool(what: &str, file: &std::path::Path) -> Result<(), String> {
    let ran = Program::system("promtool", "promtool").args([what, "rules"]).args([file]).run(PATIENCE).await;
    if ran.code == Some(0) { Ok(()) } else { Err(format!("{}\n{}", ran.stdout, ran.stderr)) }
}

#[tokio::test]
async fn promtool_takes_the_rules_and_their_tests() {
    promtool("check", &repository().join(RULES)).await.unwrap_or_else(|said| panic!("{RULES}: {said}"));
    promtool("test", &repository().join(TESTS)).await.unwrap_or_else(|said| panic!("{TESTS}: {said}"));
}

#[tokio::test]
async fn prometheus_takes_both_configurations_with_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let rules = repository().join(RULES);
    let of_run = fs::read_to_string(repository().join("deploy/prometheus/prometheus.yml.in")).unwrap();
    let of_compose = fs::read_to_string(repository().join("deploy/prometheus/prometheus.yml")).unwrap();
    let runner = fs::read_to_string(repository().join("deploy/run")).unwrap();
    assert!(runner.contains("RULES=\"$PWD/deploy/prometheus/alerts.yml\""), "make run says where they are");
    for (name, text, place) in [("run", of_run, "@RULES@"), ("compose", of_compose, "/etc/prometheus/alerts.yml")] {
        assert!(text.contains(place), "{name} watches no rules");
        let text = text.replace(place, rules.to_str().unwrap());
        // What is left between at-signs is an address.
        let text: String = text.split('@').enumerate().map(|(n, part)| if n % 2 == 0 { part } else { "h:1" }).collect();
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let ran = Program::system("promtool", "promtool").args(["check", "config"]).args([&file]).run(PATIENCE).await;
        assert_eq!(ran.code, Some(0), "{name}: {}\n{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("rules found"), "{name}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn an_alert_that_never_fires_fails_its_test() {
    let [mut rules, tests] = [RULES, TESTS].map(|file| fs::read_to_string(repository().join(file)).unwrap());
    for alert in alerts() {
        let (before, from) = rules.split_once(&format!("- alert: {}\n", text(&alert["alert"]))).unwrap();
        let (_, after) = from.split_at(from.find("        labels:").unwrap());
        rules = format!("{before}- alert: {}\n        expr: vector(1) > 2\n{after}", text(&alert["alert"]));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("alerts.yml"), rules).unwrap();
    fs::write(folder.path().join("tests.yml"), tests).unwrap();
    let said = promtool("test", &folder.path().join("tests.yml")).await.expect_err("nothing fires");
    for alert in alerts() {
        let told = format!("alertname: {}, time", text(&alert["alert"]));
        assert!(said.contains(&told), "{told}: {said}");
    }
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tests = document(TESTS);
    let checks: Vec<&Value> = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])).collect();
    for alert in alerts() {
        let of_it = checks.iter().filter(|check| check["alertname"] == alert["alert"]);
        let fires: BTreeSet<bool> = of_it.map(|check| !list(&check["exp_alerts"]).is_empty()).collect();
        assert_eq!(fires, BTreeSet::from([false, true]), "{TESTS} shows when {} fires and when not", alert["alert"]);
    }
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() {
    let mut named = BTreeSet::new();
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let runbook = text(&alert["annotations"]["runbook"]);
        assert_eq!(leads_to_section(runbook, "docs/RUNBOOK.md"), Some(true), "{name}: {runbook}");
        assert_eq!(runbook, format!("docs/RUNBOOK.md#{}", name.to_lowercase()), "a section of its own");
        assert!(!text(&alert["annotations"]["summary"]).is_empty(), "{name} says what is wrong");
        assert!(["warning", "critical"].contains(&text(&alert["labels"]["severity"])), "{name}");
        named.insert(name.to_lowercase());
    }
    assert_eq!(sections().into_keys().collect::<BTreeSet<_>>(), named);
}
