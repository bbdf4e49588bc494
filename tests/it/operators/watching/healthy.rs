//! A healthy cluster of `make run` raises no alert, and the faults that once raised one without need are seen.
//!
//! The shipped rules run with a shortened `for:`: minutes last as many seconds, and seconds at most fifteen.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::prometheus::ScrapeTarget;
use harness::{Cluster, LineClient, Node, Prometheus, WsClient, eventually, http, repository, stays};
use serde_json::Value;

use super::query::RULES;
use crate::operators::deploy::runner::{CLUSTER_PATIENCE, ClusterFolder};

/// Longer than the longest shortened `for:`, with a scrape and an evaluation each second.
const WATCH: Duration = Duration::from_secs(25);
const PATIENCE: Duration = Duration::from_secs(60);

/// Alerts that measure the speed of this machine. They keep their `for:`, so they may be pending on a busy machine.
const MEASURE_SPEED: [&str; 4] = ["ParleyBeatStale", "ParleyEventLoopLate", "ParleyDeliverySlow", "ParleyRedisSlow"];

/// Returns the rules with shortened durations.
fn shortened(rules: &str) -> String {
    let mut alert = "";
    let mut text = String::new();
    for line in rules.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alert = name;
        }
        let duration = line.trim().strip_prefix("for: ").filter(|_| !MEASURE_SPEED.contains(&alert));
        let seconds = duration.map(|duration| {
            let (number, unit) = duration.split_at(duration.len() - 1);
            assert!(["s", "m"].contains(&unit), "{alert}: {duration}");
            number.parse::<u64>().unwrap().min(15)
        });
        text += &seconds.map_or_else(|| line.to_owned(), |seconds| format!("        for: {seconds}s"));
        text.push('\n');
    }
    text
}

/// Returns each alert that is firing or pending, with its state.
fn raised(alerts: &Value) -> BTreeSet<(String, String)> {
    let alerts = alerts["data"]["alerts"].as_array().expect("alerts").iter();
    alerts.map(|alert| (alert["labels"]["alertname"].to_string(), alert["state"].to_string())).collect()
}

#[tokio::test]
async fn healthy_cluster_of_make_run_raises_no_alert() {
    let folder = ClusterFolder::new();
    folder.edit("deploy/prometheus/alerts.yml", |rules| shortened(&rules));
    folder.edit("deploy/prometheus/prometheus.yml.in", |configuration| {
        let quick = configuration.replace("_interval: 15s", "_interval: 1s").replace("_interval: 5s", "_interval: 1s");
        quick.replace("scrape_timeout: 4s", "scrape_timeout: 1s")
    });
    let mut runner = folder.start().await;
    let ann = WsClient::connect(folder.address("HTTP_PORT")).await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    let bob = LineClient::connect(folder.address("LINES_PORT")).await;
    bob.register("bob").await;
    bob.join("#lobby").await;
    let prometheus = folder.address("PROMETHEUS_PORT");
    let rules = || async { http::get(prometheus, "/api/v1/rules").await.map(|answer| answer.json()) };
    eventually(PATIENCE, "every program is scraped and every rule is evaluated", async || {
        let up = http::get(prometheus, "/api/v1/query?query=sum(up)").await?.json();
        let groups = rules().await?["data"]["groups"].as_array().cloned().unwrap_or_default();
        let all = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let unknown = all.filter(|rule| rule["health"] != "ok").count();
        if up["data"]["result"][0]["value"][1] == "3" && !groups.is_empty() && unknown == 0 {
            Ok(())
        } else {
            Err(format!("{unknown} rules without an evaluation, up: {up}"))
        }
    })
    .await;

    let mut pending = BTreeSet::new();
    let mut round = 0;
    stays(WATCH, "no alert fires", async || {
        round += 1;
        // Bob stays within the limits of a session.
        if round % 4 == 0 {
            bob.types(&format!("hello {round}")).await;
            ann.receives("#lobby", "bob", &format!("hello {round}")).await;
        }
        pending = raised(&http::get(prometheus, "/api/v1/alerts").await.unwrap().json());
        if pending.iter().any(|(_, state)| state.contains("firing")) { Err(pending.clone()) } else { Ok(()) }
    })
    .await;
    pending.retain(|(alert, _)| !MEASURE_SPEED.contains(&alert.trim_matches('"')));
    assert_eq!(pending, BTreeSet::new(), "alerts of a healthy cluster");
    runner.terminate();
    assert_eq!(runner.exit_code(CLUSTER_PATIENCE).await, Some(0));
}

/// Starts a Prometheus for these nodes; `job` is the job of the gateways.
async fn watch(nodes: &[&Node], job: &str, rules: &Path) -> Prometheus {
    let targets: Vec<ScrapeTarget<'_>> =
        nodes.iter().map(|node| ScrapeTarget { job, instance: node.name(), address: node.admin() }).collect();
    Prometheus::start(&targets, rules).await
}

async fn until_firing(prometheus: &Prometheus, alert: &str) {
    eventually(PATIENCE, &format!("{alert} fires"), async || {
        let rules = prometheus.rules().await?;
        let rule = rules.into_iter().find(|rule| rule["name"] == alert).ok_or("no such rule")?;
        if rule["state"] == "firing" { Ok(()) } else { Err(rule.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn each_false_alarm_of_old_setups_is_seen() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let folder = tempfile::tempdir().unwrap();
    let shipped = fs::read_to_string(repository().join(RULES)).unwrap();
    let (rules, fixed) = (folder.path().join("rules.yml"), folder.path().join("fixed.yml"));
    fs::write(&rules, shortened(&shipped)).unwrap();
    let gateways = [&cluster.gateways[0], &cluster.gateways[1]];

    // A number of gateways that does not know how many run.
    let (before, after) = shipped.split_once("        expr: >-\n          clamp_min(count(up").unwrap();
    let after = after.split_once('\n').unwrap().1;
    fs::write(&fixed, shortened(&format!("{before}        expr: vector(3)\n{after}"))).unwrap();
    until_firing(&watch(&gateways, "gateway", &fixed).await, "ParleyGatewaysMissing").await;

    // The job that scrape annotations give.
    until_firing(&watch(&gateways, "kubernetes-pods", &rules).await, "ParleyGatewaysMissing").await;

    // A gateway with another limit.
    let g3 = Node::gateway("g3").redis(&cluster.redis).setting("PARLEY__LIMITS__WRITE_STALL_SECONDS", "31");
    let mut other = g3.start().await;
    let three = [gateways[0], gateways[1], &other];
    until_firing(&watch(&three, "gateway", &rules).await, "ParleySettingsDiffer").await;
    assert_eq!(other.end().await, Some(0));
    cluster.finish().await;
}
