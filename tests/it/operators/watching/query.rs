//! Every query of every dashboard and of the rules, each with its location for error messages.

use std::fmt;
use std::fs;

use serde_json::Value;

use crate::operators::deploy::yaml::{document, list, text};

/// The rules file of Prometheus.
pub(super) const RULES: &str = "deploy/prometheus/alerts.yml";
const DASHBOARDS: &str = "grafana/dashboards";

/// A query and its location.
#[derive(Debug, Clone)]
pub(super) struct LocatedQuery {
    pub(super) location: QueryLocation,
    /// The expression as written.
    pub(super) expression: String,
}

/// The location of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueryLocation {
    Panel { dashboard: String, panel: String, query: String },
    Variable { dashboard: String, variable: String },
    Mark { dashboard: String, mark: String },
    Record(String),
    Alert(String),
}

impl fmt::Display for QueryLocation {
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

impl LocatedQuery {
    /// Formats a complaint about this query.
    pub(super) fn complain(&self, what: impl fmt::Display) -> String {
        format!("{}: {what}\n    in: {}", self.location, self.expression)
    }

    /// Returns the expression as Grafana sends it, with every value selected.
    pub(super) fn filled_in(&self) -> String {
        let Self { expression, .. } = self;
        let inner = expression.strip_prefix("label_values(").and_then(|inside| inside.rsplit_once(','));
        let filled = inner.map_or(expression.as_str(), |(series, _)| series);
        filled.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$presence", ".*")
    }
}

/// A dashboard: its file name and its JSON.
#[derive(Debug, Clone)]
pub(super) struct DashboardFile {
    pub(super) file: String,
    pub(super) json: Value,
}

impl DashboardFile {
    pub(super) fn title(&self) -> &str {
        text(&self.json["title"])
    }

    /// Returns its panels, including those in rows.
    pub(super) fn panels(&self) -> Vec<&Value> {
        let outer = list(&self.json["panels"]).iter();
        outer.flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"]))).collect()
    }

    pub(super) fn queries(&self) -> Vec<LocatedQuery> {
        let dashboard = || self.title().to_owned();
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in list(&panel["targets"]) {
                let (panel, query) = (text(&panel["title"]).to_owned(), text(&target["refId"]).to_owned());
                let location = QueryLocation::Panel { dashboard: dashboard(), panel, query };
                queries.push(LocatedQuery { location, expression: text(&target["expr"]).to_owned() });
            }
        }
        for variable in list(&self.json["templating"]["list"]).iter().filter(|variable| variable["type"] == "query") {
            let location =
                QueryLocation::Variable { dashboard: dashboard(), variable: text(&variable["name"]).to_owned() };
            queries.push(LocatedQuery { location, expression: text(&variable["query"]["query"]).to_owned() });
        }
        for mark in list(&self.json["annotations"]["list"]) {
            let location = QueryLocation::Mark { dashboard: dashboard(), mark: text(&mark["name"]).to_owned() };
            queries.push(LocatedQuery { location, expression: text(&mark["expr"]).to_owned() });
        }
        queries
    }
}

/// Returns the dashboards, sorted by file name.
pub(super) fn dashboards() -> Vec<DashboardFile> {
    let folder = harness::repository().join(DASHBOARDS);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut dashboards: Vec<DashboardFile> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{DASHBOARDS}/{file}: {error}"));
            DashboardFile { file, json }
        })
        .collect();
    dashboards.sort_by(|one, other| one.file.cmp(&other.file));
    dashboards
}

/// Returns the rules, both alerts and records.
pub(super) fn rules() -> Vec<Value> {
    let groups = document(RULES);
    list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

/// Returns every query.
pub(super) fn queries() -> Vec<LocatedQuery> {
    let of_rules = rules().into_iter().map(|rule| {
        let location = match rule.get("alert") {
            Some(name) => QueryLocation::Alert(text(name).to_owned()),
            None => QueryLocation::Record(text(&rule["record"]).to_owned()),
        };
        LocatedQuery { location, expression: text(&rule["expr"]).to_owned() }
    });
    dashboards().iter().flat_map(DashboardFile::queries).chain(of_rules).collect()
}
