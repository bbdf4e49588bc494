//! Every query of every dashboard and alert, evaluated by a real Prometheus on a real cluster with traffic.
//!
//! Invariant: no query fails, and each returns numbers or is excused with a reason. An alert returns nothing on a
//! healthy cluster, so each of its metrics is queried on its own.

use std::fmt;
use std::time::Duration;

use harness::prometheus::ScrapeTarget;
use harness::{Cluster, HookApplication, LineClient, Prometheus, WsClient, eventually, http, repository};
use serde_json::{Value, json};

use super::query::{LocatedQuery, QueryLocation, RULES, queries};
use super::{promql, with_webhook};
use crate::hooks::cluster_with;

/// Longest wait for data: rates need two scrapes with traffic between them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Queries that return nothing on a healthy cluster, with the reason.
const EXCUSED: &[(&str, &str)] = &[
    ("dashboard \"Parley: Gateway\", panel \"Drain\", query A", "no gateway drains"),
    ("alert ParleyPresenceErrors, {status=~\"5..\"}", "no request fails"),
];

/// The outcome of a query.
#[derive(Debug, PartialEq)]
enum QueryResult {
    Numbers,
    /// No data yet.
    Nothing(String),
    /// Never any data, with the reason.
    Wrong(String),
}

/// Evaluates a query once.
async fn evaluate(prometheus: &Prometheus, query: &LocatedQuery) -> QueryResult {
    match prometheus.query(&query.filled_in()).await {
        Err(reason) => QueryResult::Wrong(query.complain(reason)),
        Ok(series) if series.iter().any(is_number) => QueryResult::Numbers,
        Ok(series) => QueryResult::Nothing(query.complain(format!("shows nothing: {}", Value::Array(series)))),
    }
}

fn is_number(series: &Value) -> bool {
    let value = series["value"][1].as_str().or_else(|| series[1].as_str());
    value.and_then(|text| text.parse::<f64>().ok()).is_some_and(|number| !number.is_nan())
}

/// Returns all queries, and for each alert its metrics as further queries.
fn all_queries() -> Vec<LocatedQuery> {
    let mut all = Vec::new();
    for query in queries() {
        let QueryLocation::Alert(name) = &query.location else {
            all.push(query);
            continue;
        };
        all.push(query.clone());
        for selector in promql::names(&query.expression).selectors {
            let matchers = selector.text.strip_prefix(&selector.name).unwrap_or_default();
            let location = QueryLocation::Alert(format!("{name}, {matchers}"));
            all.push(LocatedQuery { location, expression: selector.text.clone() });
        }
    }
    all
}

fn is_excused(query: &LocatedQuery) -> bool {
    let location = query.location.to_string();
    let is_listed = EXCUSED.iter().any(|(listed, _)| location.ends_with(listed));
    is_listed || is_alert(query)
}

/// Returns `true` for a whole alert: it must evaluate, and returns nothing on a healthy cluster.
fn is_alert(query: &LocatedQuery) -> bool {
    matches!(&query.location, QueryLocation::Alert(name) if !name.contains(','))
}

/// Users whose traffic moves every metric.
struct UserTraffic {
    ann: WsClient,
    bob: WsClient,
    cy: LineClient,
}

impl UserTraffic {
    async fn start(cluster: &Cluster) -> Self {
        let traffic = Self { ann: cluster.ws_on(0).await, bob: cluster.ws_on(1).await, cy: cluster.line_on(1).await };
        traffic.ann.register("ann").await;
        traffic.bob.register("bob").await;
        traffic.cy.register("cy").await;
        traffic.ann.join("#lobby").await;
        traffic.bob.join("#lobby").await;
        traffic.cy.join("#lobby").await;
        traffic
    }

    /// Runs one round of every kind of traffic.
    async fn run_round(&self, cluster: &Cluster) {
        self.ann.sends("#lobby", "hi").await;
        self.cy.types("hello").await;
        self.bob.receives("#lobby", "cy", "hello").await;
        self.ann.sends("bob", "only you").await;
        for _ in 0..2 {
            let again = json!({"type": "send", "to": "#lobby", "body": "once", "key": "k"});
            self.bob.request(again).await.expect("acked");
        }
        self.bob.try_send("#elsewhere", "let me in").await.expect_err("not a member");
        self.ann.history("#lobby", 10).await;
        for path in ["/v1/users/ann", "/v1/users?online=true", "/v1/nowhere"] {
            let _ = http::get(cluster.presence[0].api(), path).await;
        }
        let guest = cluster.ws_on(0).await;
        let registered = guest.register("guest").await;
        drop(guest);
        let back = cluster.ws_on(0).await;
        back.resume(&registered, json!({})).await;
        back.bye().await;
    }
}

async fn start_prometheus(cluster: &Cluster) -> Prometheus {
    let gateways = cluster.gateways.iter().map(|node| ("gateway", node));
    let targets: Vec<ScrapeTarget<'_>> = gateways
        .chain(cluster.presence.iter().map(|node| ("presence", node)))
        .map(|(job, node)| ScrapeTarget { job, instance: node.name(), address: node.admin() })
        .collect();
    Prometheus::start(&targets, &repository().join(RULES)).await
}

/// Returns the queries without data; panics at a query that fails.
async fn silent(prometheus: &Prometheus, queries: Vec<LocatedQuery>) -> Vec<(LocatedQuery, String)> {
    let mut silent = Vec::new();
    for query in queries {
        match evaluate(prometheus, &query).await {
            QueryResult::Numbers => {}
            QueryResult::Nothing(complaint) => silent.push((query, complaint)),
            QueryResult::Wrong(complaint) => panic!("\n{complaint}\n"),
        }
    }
    silent
}

/// Complaints, shown one per line.
struct ComplaintLines(Vec<String>);

impl fmt::Debug for ComplaintLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

#[tokio::test]
async fn every_panel_and_alert_query_returns_data() {
    let application = HookApplication::start("a-secret-of-tests").await;
    let builder = with_webhook(cluster_with(&application, &["register", "join", "send"]).gateways(2).presence(2));
    let cluster = builder.start().await;
    let prometheus = start_prometheus(&cluster).await;
    let traffic = UserTraffic::start(&cluster).await;
    let (excused, mut waiting): (Vec<LocatedQuery>, Vec<LocatedQuery>) =
        all_queries().into_iter().partition(is_excused);
    assert!(waiting.len() > 100, "{}", waiting.len());
    eventually(PATIENCE, "every query returns data", async || {
        traffic.run_round(&cluster).await;
        let left = silent(&prometheus, std::mem::take(&mut waiting)).await;
        let complaints = ComplaintLines(left.iter().map(|(_, complaint)| complaint.clone()).collect());
        waiting = left.into_iter().map(|(query, _)| query).collect();
        if waiting.is_empty() { Ok(()) } else { Err(complaints) }
    })
    .await;

    // On a busy machine an alert may come close to firing, so only the listed queries must return nothing.
    let (alerts, listed): (Vec<LocatedQuery>, Vec<LocatedQuery>) = excused.into_iter().partition(is_alert);
    let count = listed.len();
    assert_eq!(
        (silent(&prometheus, listed).await.len(), count),
        (EXCUSED.len(), EXCUSED.len()),
        "a query is excused without need"
    );
    silent(&prometheus, alerts).await;
    let rules = prometheus.rules().await.unwrap();
    let failing: Vec<&Value> =
        rules.iter().filter(|rule| rule["health"] != "ok" || rule["state"] == "firing").collect();
    assert!(failing.is_empty() && rules.len() > 20, "rules that fail or fire: {failing:?}");
    drop(traffic);
    cluster.finish().await;
}

#[tokio::test]
async fn broken_query_is_reported_with_its_location() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let prometheus = start_prometheus(&cluster).await;
    let query = |expression: &str| LocatedQuery {
        location: QueryLocation::Panel { dashboard: "Here".to_owned(), panel: "Who".to_owned(), query: "A".to_owned() },
        expression: expression.to_owned(),
    };
    eventually(PATIENCE, "an intact query returns data", async || {
        match evaluate(&prometheus, &query("parley_sessions{instance=~\"$instance\"}")).await {
            QueryResult::Numbers => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for (broken, words) in [
        ("rate(parley_sessions[$__rate_interval]", "unclosed left parenthesis"),
        ("rate(parley_sessions)", "expected type range vector"),
        ("$nowhere", "unexpected character"),
    ] {
        let QueryResult::Wrong(complaint) = evaluate(&prometheus, &query(broken)).await else {
            panic!("{broken} is accepted")
        };
        assert!(complaint.starts_with("dashboard \"Here\", panel \"Who\", query A: "), "{complaint}");
        assert!(complaint.contains(words) && complaint.ends_with(&format!("in: {broken}")), "{complaint}");
    }
    for silent in ["parley_sesions", "parley_sessions{instance=\"g9\"}", "parley_sessions * on (door) parley_rooms < 0"]
    {
        let outcome = evaluate(&prometheus, &query(silent)).await;
        let QueryResult::Nothing(complaint) = &outcome else { panic!("{silent}: {outcome:?}") };
        assert!(complaint.starts_with("dashboard \"Here\", panel \"Who\", query A: shows nothing"), "{complaint}");
    }
    cluster.finish().await;
}
