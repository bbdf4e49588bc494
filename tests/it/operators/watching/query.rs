//! Every query of every dashboard and of the rules, each with the words that say where it stands.

use std::fmt;
use std::fs;

use serde_json::Value;

use crate::operators::deploy::yaml::{document, list, text};

/// The rules that Prometheus watches.
pub(super) const RULES: &str = "deploy/prometheus/alerts.yml";
const DASHBOARDS: &str = "grafana/dashboards";

/// A query and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) place: Place,
    /// As it is written.
    pub(super) expression: String,
}

/// Where a query stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Panel { dashboard: String, panel: String, query: String },
    Variable { dashboard: String, variable: String },
    Mark { dashboard: String, mark: String },
    Record(String),
    Alert(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panel { dashboard, panel, query } => {
                write!(f, "dashboard \"{dashboard}\", panel \"{panel}\", query {query}")
            }
            Self::Variable { dashboard, variable } => write!(f, "dashboard \"{dashboard}\", variable ${variable}"),
            Self::Mark { dashboard, mark } => write!(f, "dashboard \"{dashboard}\", annotation \"{mark}\""),
            Self::Record(name) => write!(f, "{RULES}, record {name}"),
            Self::Alert(name) => write!(f, "{RULES}, alert {name}"),
        }
    }
}

impl Query {
    /// A complaint about it.
    pub(super) fn complain(&self, what: impl fmt::Display) -> String {
        format!("{}: {what}\n    in: {}", self.place, self.expression)
    }

    /// As Grafana sends it with everything selected, at one moment.
    pub(super) fn filled_in(&self) -> String {
        let Self { expression, .. } = self;
        let inner = expression.strip_prefix("label_values(").and_then(|inside| inside.rsplit_once(','));
        let asked = inner.map_or(expression.as_str(), |(series, _)| series);
        asked.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$presence", ".*")
    }
}

/// A dashboard: the name of its file, and what it holds.
#[derive(Debug, Clone)]
pub(super) struct Dashboard {
    pub(super) file: String,
    pub(super) json: Value,
}

impl Dashboard {
    pub(super) fn title(&self) -> &str {
        text(&self.json["title"])
    }

    /// Its panels, those of rows included.
    pub(super) fn panels(&self) -> Vec<&Value> {
        let outer = list(&self.json["panels"]).iter();
        outer.flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"]))).collect()
    }

    pub(super) fn queries(&self) -> Vec<Query> {
        let dashboard = || self.title().to_owned();
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in list(&panel["targets"]) {
                let (panel, query) = (text(&panel["title"]).to_owned(), text(&target["refId"]).to_owned());
                let place = Place::Panel { dashboard: dashboard(), panel, query };
                queries.push(Query { place, expression: text(&target["expr"]).to_owned() });
            }
        }
        for variable in list(&self.json["templating"]["list"]).iter().filter(|variable| variable["type"] == "query") {
            let place = Place::Variable { dashboard: dashboard(), variable: text(&variable["name"]).to_owned() };
            queries.push(Query { place, expression: text(&variable["query"]["query"]).to_owned() });
        }
        for mark in list(&self.json["annotations"]["list"]) {
            let place = Place::Mark { dashboard: dashboard(), mark: text(&mark["name"]).to_owned() };
            queries.push(Query { place, expression: text(&mark["expr"]).to_owned() });
        }
        queries
    }
}

/// The dashboards, by the names of their files.
pub(super) fn dashboards() -> Vec<Dashboard> {
    let folder = harness::repository().join(DASHBOARDS);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut dashboards: Vec<Dashboard> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{DASHBOARDS}/{file}: {error}"));
            Dashboard { file, json }
        })
        .collect();
    dashboards.sort_by(|one, other| one.file.cmp(&other.file));
    dashboards
}

/// The rules, alerts and records alike.
pub(super) fn rules() -> Vec<Value> {
    let groups = document(RULES);
    list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

/// Every query there is.
pub(super) fn queries() -> Vec<Query> {
    let of_rules = rules().into_iter().map(|rule| {
        let place = match rule.get("alert") {
            Some(name) => Place::Alert(text(name).to_owned()),
            None => Place::Record(text(&rule["record"]).to_owned()),
        };
        Query { place, expression: text(&rule["expr"]).to_owned() }
    });
    dashboards().iter().flat_map(Dashboard::queries).chain(of_rules).collect()
}
