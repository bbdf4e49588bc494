//! The files of Grafana: its data source, its folder, and dashboards that are complete and linked to the runbook.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::query::{DashboardFile, dashboards};
use super::runbook::leads_to_section;
use crate::operators::deploy::yaml::{document, list, text};

/// Path under which Grafana serves the runbook.
const RUNBOOK: &str = "/public/parley/RUNBOOK.md";
/// The Grafana units in use.
const UNITS: &[&str] =
    &["none", "short", "percent", "percentunit", "s", "ms", "µs", "bytes", "decbytes", "Bps", "cps", "ops", "reqps"];
/// The built-in Grafana panel types in use.
const PANEL_TYPES: &[&str] = &["row", "stat", "timeseries", "heatmap", "table"];
/// Columns of the dashboard grid.
const COLUMNS: u64 = 24;

/// Returns the defects of one dashboard.
fn complaints(dashboard: &DashboardFile) -> Vec<String> {
    let mut complaints = Vec::new();
    for key in ["uid", "title", "description"] {
        if dashboard.json[key].as_str().is_none_or(str::is_empty) {
            complaints.push(format!("{} has no {key}", dashboard.file));
        }
    }
    let mut ids = BTreeSet::new();
    for panel in dashboard.panels() {
        let place = format!("{}, panel {} \"{}\"", dashboard.file, panel["id"], panel["title"].as_str().unwrap_or(""));
        if !ids.insert(panel["id"].as_u64()) {
            complaints.push(format!("{place}: its id is not unique"));
        }
        complaints.extend(panel_defects(panel).into_iter().map(|what| format!("{place}: {what}")));
    }
    complaints.extend(overlaps(&dashboard.panels()).into_iter().map(|what| format!("{}: {what}", dashboard.file)));
    let links = list(&dashboard.json["links"]).iter();
    if !links.clone().any(|link| link["url"].as_str().is_some_and(|url| leads_to_section(url, RUNBOOK) == Some(true))) {
        complaints.push(format!("{} does not link to the runbook", dashboard.file));
    }
    let variables = list(&dashboard.json["templating"]["list"]);
    for kind in ["datasource", "query"] {
        if variables.iter().filter(|variable| variable["type"] == kind).count() != 1 {
            complaints.push(format!("{} must have one variable of kind {kind}", dashboard.file));
        }
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let name = text(&variable["name"]);
        if variable["datasource"]["uid"] != "${datasource}" {
            complaints.push(format!("{}: ${name} uses a fixed data source", dashboard.file));
        }
        if !dashboard.queries().iter().any(|query| query.expression.contains(&format!("=~\"${name}\""))) {
            complaints.push(format!("{}: ${name} is not used by any query", dashboard.file));
        }
    }
    let known: BTreeSet<String> = variables.iter().map(|variable| format!("${}", text(&variable["name"]))).collect();
    for query in dashboard.queries() {
        let used = query.expression.split("=~\"$").skip(1).map(|rest| format!("${}", rest.split('"').next().unwrap()));
        complaints.extend(used.filter(|name| !known.contains(name)).map(|name| query.complain(format!("no {name}"))));
    }
    complaints
}

fn panel_defects(panel: &Value) -> Vec<&'static str> {
    let is_row = panel["type"] == "row";
    let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
    let description = panel["description"].as_str().unwrap_or_default();
    let leads = |link: &Value| leads_to_section(link["url"].as_str().unwrap_or_default(), RUNBOOK);
    let steps = panel["fieldConfig"]["defaults"].get("thresholds").map(|thresholds| list(&thresholds["steps"]));
    let rises = |steps: &[Value]| {
        steps.first().is_some_and(|first| first["value"].is_null())
            && steps[1..].is_sorted_by(|one, other| one["value"].as_f64() < other["value"].as_f64())
    };
    let rules = [
        (panel["title"].as_str().is_none_or(str::is_empty), "no title"),
        (!PANEL_TYPES.contains(&panel["type"].as_str().unwrap_or_default()), "not a built-in panel type"),
        (!is_row && !UNITS.contains(&unit), "not a known unit"),
        // Such as `Sign: its meaning.`, after a description of the values.
        (
            !(is_row || description.contains(": ") && description.ends_with('.')),
            "no description that explains the values",
        ),
        (!is_row && panel["datasource"]["uid"] != "${datasource}", "not the selected data source"),
        (!is_row && list(&panel["targets"]).is_empty(), "no query"),
        (!are_unique(list(&panel["targets"]).iter().map(|target| &target["refId"])), "two queries with one name"),
        (list(&panel["links"]).iter().any(|link| leads(link) != Some(true)), "a link to no section"),
        (steps.is_some_and(|steps| !rises(steps)), "thresholds that do not rise"),
    ];
    rules.into_iter().filter_map(|(broken, what)| broken.then_some(what)).collect()
}

fn are_unique<'a>(mut values: impl Iterator<Item = &'a Value>) -> bool {
    let mut seen = BTreeSet::new();
    values.all(|value| seen.insert(value.to_string()))
}

fn overlaps(panels: &[&Value]) -> Vec<String> {
    let mut taken: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut overlaps = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a grid position"));
        let id = panel["id"].as_u64().expect("an id");
        if w == 0 || h == 0 || x + w > COLUMNS {
            overlaps.insert(format!("panel {id} does not fit in the grid"));
        }
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            if let Some(other) = taken.insert(cell, id) {
                overlaps.insert(format!("panels {other} and {id} overlap"));
            }
        }
    }
    overlaps.into_iter().collect()
}

#[test]
fn every_dashboard_passes_all_checks() {
    let dashboards = dashboards();
    let titles: Vec<&str> = dashboards.iter().map(DashboardFile::title).collect();
    assert_eq!(titles, ["Parley: Cluster", "Parley: Gateway", "Parley: Redis and presence"]);
    let uids: BTreeSet<&str> = dashboards.iter().map(|dashboard| text(&dashboard.json["uid"])).collect();
    assert_eq!(uids.len(), dashboards.len(), "uids are unique");
    // Links between dashboards carry the selected values, so a variable means the same everywhere.
    let mut meanings: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for variable in dashboards.iter().flat_map(|dashboard| list(&dashboard.json["templating"]["list"])) {
        meanings.entry(text(&variable["name"])).or_default().insert(variable["query"].to_string());
    }
    assert!(meanings.values().all(|queries| queries.len() == 1), "{meanings:?}");
    let complaints: Vec<String> = dashboards.iter().flat_map(complaints).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn dashboard_checks_find_each_defect() {
    let intact = dashboards().swap_remove(0);
    type DashboardEdit = fn(&mut Value);
    let cases: &[(DashboardEdit, &str)] = &[
        (|json| json["uid"] = "".into(), "no uid"),
        (|json| json["panels"][2]["id"] = json["panels"][1]["id"].clone(), "not unique"),
        (|json| json["panels"][1]["description"] = "".into(), "no description"),
        (|json| json["panels"][1]["fieldConfig"]["defaults"]["unit"] = "parsecs".into(), "not a known unit"),
        (|json| json["panels"][1]["datasource"]["uid"] = "mine".into(), "not the selected data source"),
        (|json| json["panels"][2]["gridPos"]["x"] = 1.into(), "overlap"),
        (|json| json["panels"][1]["links"][0]["url"] = "/public/parley/RUNBOOK.md#nowhere".into(), "no section"),
        (|json| json["panels"][1]["targets"] = Value::Array(Vec::new()), "no query"),
        (|json| json["links"] = Value::Array(Vec::new()), "does not link to the runbook"),
        (|json| json["panels"][1]["description"] = "Ready gateways.".into(), "no description that explains the values"),
        (|json| json["panels"][10]["targets"][1]["refId"] = "A".into(), "two queries with one name"),
        (|json| json["templating"]["list"] = Value::Array(Vec::new()), "one variable of kind query"),
        (|json| json["templating"]["list"][1]["name"] = "node".into(), "$node is not used by any query"),
        (|json| json["templating"]["list"][1]["name"] = "node".into(), "no $instance"),
    ];
    for (edit, words) in cases {
        let mut broken = intact.clone();
        edit(&mut broken.json);
        let complaints = complaints(&broken);
        assert!(complaints.iter().any(|complaint| complaint.contains(words)), "{words}: {complaints:?}");
    }
}

#[test]
fn grafana_finds_dashboards_and_compose_prometheus() {
    let compose = document("deploy/compose.yaml");
    let mounts: Vec<&str> = list(&compose["services"]["grafana"]["volumes"]).iter().map(text).collect();
    let provider = document("grafana/provisioning/dashboards/parley.yml");
    assert_eq!(provider["providers"][0]["folder"], "Parley");
    let path = text(&provider["providers"][0]["options"]["path"]);
    assert!(mounts.contains(&format!("../grafana/dashboards:{path}:ro").as_str()), "{mounts:?}");
    assert!(mounts.contains(&"../grafana/provisioning:/etc/grafana/provisioning:ro"), "{mounts:?}");
    let runbook = format!("../docs/RUNBOOK.md:/usr/share/grafana{RUNBOOK}:ro");
    assert!(mounts.contains(&runbook.as_str()), "the dashboards link to {runbook}: {mounts:?}");

    let source = document("grafana/provisioning/datasources/prometheus.yml");
    let source = &source["datasources"][0];
    let host = text(&source["url"]).strip_prefix("http://").and_then(|rest| rest.split_once(':')).expect("a URL").0;
    assert_eq!(compose["services"][host]["image"].as_str().map(|image| image.contains("prometheus")), Some(true));
    let scraped = document("deploy/prometheus/prometheus.yml");
    assert_eq!(
        source["jsonData"]["timeInterval"], scraped["global"]["scrape_interval"],
        "the scrape interval of Grafana and Prometheus must agree"
    );
}
