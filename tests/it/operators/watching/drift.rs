//! Metric and label names: the programs, the dashboards and the rules must use the same ones.
//!
//! The exported names come from a scrape of both programs after some traffic, as an operator's Prometheus sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use harness::metrics::ScrapedMetrics;
use harness::{Cluster, http};
use serde_json::json;

use super::query::{DashboardFile, LocatedQuery, QueryLocation, dashboards, queries, rules};
use super::{promql, with_webhook};
use crate::operators::deploy::yaml::{list, text};
use crate::operators::program_sources;

/// Metrics that are on no dashboard, with the reason.
const EXCUSED: &[(&str, &str)] =
    &[("process_virtual_memory_bytes", "is address space, which costs nothing; resident memory is shown")];
/// The allowed labels: each has a fixed table of values; `le` belongs to histograms.
const LABELS: &[&str] = &[
    "action", "call", "code", "door", "hash", "hook", "kind", "le", "limit", "outcome", "reason", "route", "state",
    "status", "version", "webhook",
];
/// A nick and a room name that must not appear in a scrape.
const MARKER: &str = "xyzzy-plugh";
/// Labels that Prometheus adds to every series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];
/// Series that Prometheus itself produces.
const PROMETHEUS_SERIES: [(&str, &[&str]); 2] = [("up", &[]), ("ALERTS", &["alertname", "alertstate", "severity"])];

/// Every possible series, by name, with its labels.
struct SeriesCatalogue(BTreeMap<String, BTreeSet<String>>);

impl SeriesCatalogue {
    fn new(scrapes: &[ScrapedMetrics]) -> Self {
        let mut series: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (scrape, name) in
            scrapes.iter().flat_map(|scrape| scrape.names().into_iter().map(move |name| (scrape, name)))
        {
            series.entry(name.to_owned()).or_default().extend(scrape.labels(name).into_iter().map(str::to_owned));
        }
        for rule in rules().iter().filter(|rule| rule.get("record").is_some()) {
            series.insert(text(&rule["record"]).to_owned(), BTreeSet::new());
        }
        for (name, labels) in PROMETHEUS_SERIES {
            series.insert(name.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect());
        }
        for labels in series.values_mut() {
            labels.extend(TARGET_LABELS.map(str::to_owned));
        }
        Self(series)
    }

    /// Returns the unknown names of a query.
    fn complaints(&self, query: &LocatedQuery) -> Vec<String> {
        let names = promql::names(&query.expression);
        let mut complaints = Vec::new();
        let mut known: BTreeSet<&String> = BTreeSet::new();
        for selector in &names.selectors {
            let Some(labels) = self.0.get(&selector.name) else {
                if !is_label_of_a_variable(query, &selector.name) {
                    complaints.push(query.complain(format!("no program exports {}", selector.name)));
                }
                continue;
            };
            known.extend(labels);
            for label in selector.labels.difference(labels) {
                complaints.push(query.complain(format!("{} has no label {label}", selector.name)));
            }
        }
        for label in names.grouped.iter().filter(|label| !known.contains(label)) {
            complaints.push(query.complain(format!("groups by {label}, which none of its metrics has")));
        }
        complaints
    }
}

/// Returns `true` for the label in Grafana's `label_values(metric, label)`.
fn is_label_of_a_variable(query: &LocatedQuery, word: &str) -> bool {
    matches!(query.location, QueryLocation::Variable { .. }) && query.expression.ends_with(&format!(", {word})"))
}

/// Scrapes a gateway and a presence process after some traffic.
async fn scrapes() -> [ScrapedMetrics; 2] {
    scrape_texts().await.map(|text| ScrapedMetrics::parse(&text))
}

/// Returns the same scrapes as text.
async fn scrape_texts() -> [String; 2] {
    let cluster = with_webhook(Cluster::builder().gateways(1).presence(1)).start().await;
    let ann = cluster.ws().await;
    ann.register(MARKER).await;
    let room = format!("#{MARKER}");
    ann.join(&room).await;
    ann.sends(&room, "hi").await;
    for path in ["/v1/stats".to_owned(), format!("/v1/users/{MARKER}"), format!("/v1/{MARKER}")] {
        http::get(cluster.presence[0].api(), &path).await.unwrap();
    }
    let mut texts = Vec::new();
    for node in [&cluster.gateways[0], &cluster.presence[0]] {
        texts.push(http::get(node.admin(), "/metrics").await.unwrap().body);
    }
    cluster.finish().await;
    texts.try_into().unwrap()
}

#[tokio::test]
async fn metrics_follow_prometheus_naming_and_label_rules() {
    for text in scrape_texts().await {
        let mut promtool = Command::new("promtool");
        let promtool =
            promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        assert!(!text.contains(MARKER) && !text.contains("127.0.0.1"), "a nick, room or address: {text}");
        assert!(!text.contains(" summary\n"), "summaries cannot be aggregated: {text}");
        let scrape = ScrapedMetrics::parse(&text);
        let labels: BTreeSet<&str> = scrape.names().into_iter().flat_map(|name| scrape.labels(name)).collect();
        let others: Vec<_> = labels.iter().filter(|label| !LABELS.contains(label)).collect();
        assert!(others.is_empty(), "labels without a fixed table of values: {others:?}");
    }
}

/// Returns `true` when this name is a series of the metric family.
fn is_series_of(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| ["", "_bucket", "_count", "_sum"].contains(&rest))
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[tokio::test]
async fn queries_use_exported_metrics_and_show_all() {
    let scrapes = scrapes().await;
    let catalogue = SeriesCatalogue::new(&scrapes);
    let mut complaints: Vec<String> = queries().iter().flat_map(|query| catalogue.complaints(query)).collect();

    let on_dashboards: BTreeSet<String> = dashboards()
        .iter()
        .flat_map(DashboardFile::queries)
        .flat_map(|query| promql::names(&query.expression).selectors)
        .map(|selector| selector.name)
        .collect();
    let families: BTreeSet<&String> = scrapes.iter().flat_map(ScrapedMetrics::families).collect();
    for family in &families {
        let is_shown =
            on_dashboards.iter().any(|name| is_series_of(name, family)) || is_recorded(family, &on_dashboards);
        let is_excused = EXCUSED.iter().any(|(name, _)| name == *family);
        if is_shown == is_excused {
            complaints.push(format!("{family} is on a dashboard: {is_shown}, excused in this file: {is_excused}"));
        }
    }
    for (name, _) in EXCUSED.iter().filter(|(name, _)| !families.contains(&(*name).to_owned())) {
        complaints.push(format!("{name} is excused, and no program exports it"));
    }
    for name in source_names().iter().filter(|name| !families.contains(name)) {
        complaints.push(format!("{name} is in the sources, and in no scrape"));
    }
    assert_none(&complaints);
}

/// Returns `true` when a dashboard shows a recording rule that uses this metric.
fn is_recorded(family: &str, on_dashboards: &BTreeSet<String>) -> bool {
    rules().iter().filter(|rule| on_dashboards.contains(rule["record"].as_str().unwrap_or_default())).any(|rule| {
        promql::names(text(&rule["expr"])).selectors.iter().any(|selector| is_series_of(&selector.name, family))
    })
}

/// Returns the metric names in the sources of the programs.
fn source_names() -> BTreeSet<String> {
    let code = program_sources("rs");
    let quoted = code.split("\"parley_").skip(1).filter_map(|rest| rest.split_once('"'));
    let names: BTreeSet<String> = quoted.map(|(rest, _)| format!("parley_{rest}")).collect();
    assert!(names.len() > 30, "the sources were not found: {names:?}");
    names
}

/// Legends name labels in `{{..}}`.
#[tokio::test]
async fn legends_use_labels_of_their_queries() {
    let scrapes = scrapes().await;
    let catalogue = SeriesCatalogue::new(&scrapes);
    let mut complaints = Vec::new();
    for dashboard in dashboards() {
        for (panel, target) in
            dashboard.panels().into_iter().flat_map(|panel| list(&panel["targets"]).iter().map(move |t| (panel, t)))
        {
            let names = promql::names(text(&target["expr"]));
            let of_metrics = names.selectors.iter().filter_map(|selector| catalogue.0.get(&selector.name)).flatten();
            // An aggregation keeps only its grouping labels.
            let labels: BTreeSet<&String> = if text(&target["expr"]).contains(" by (") {
                names.grouped.iter().collect()
            } else {
                of_metrics.collect()
            };
            let legend = text(&target["legendFormat"]);
            let named = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(name, _)| name);
            for name in named.filter(|name| !labels.contains(&(*name).to_owned())) {
                complaints.push(format!("{}, {}: {legend} names {name}", dashboard.file, panel["title"]));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn wrong_name_is_reported_with_its_location() {
    let scrape =
        ScrapedMetrics::parse("# TYPE parley_sessions gauge\nparley_sessions 1\nparley_refusals_total{code=\"x\"} 1\n");
    let catalogue = SeriesCatalogue::new(&[scrape]);
    let complaints = |expression: &str| {
        let panel = json!({"title": "Who", "targets": [{"refId": "B", "expr": expression}]});
        let json = json!({"title": "Here", "panels": [panel]});
        let dashboard = DashboardFile { file: "here.json".to_owned(), json };
        dashboard.queries().iter().flat_map(|query| catalogue.complaints(query)).collect::<Vec<_>>()
    };
    let whole = "sum by (code, instance) (rate(parley_refusals_total{job=\"gateway\"}[5m])) / on () parley_sessions";
    assert_eq!(complaints(whole), Vec::<String>::new());
    for (broken, words) in [
        ("sum(parley_sesions)", "no program exports parley_sesions"),
        ("parley:no_such_record", "no program exports parley:no_such_record"),
        ("parley_sessions{nick=\"ann\"}", "parley_sessions has no label nick"),
        ("sum by (room) (parley_sessions)", "groups by room, which none of its metrics has"),
    ] {
        let found = complaints(broken);
        let expected = format!("dashboard \"Here\", panel \"Who\", query B: {words}\n    in: {broken}");
        assert_eq!(found, [expected]);
    }
}
