//! Every query of every dashboard and alert, evaluated by a real Prometheus over a real cluster that is talked on.
//!
//! None may fail. Each returns numbers, or is on a list with the reason. An alert is silent while all is well, so of alerts
//! every metric that they look at has to be there.

use std::fmt;
use std::time::Duration;

use harness::prometheus::ScrapeTarget;
use harness::{Cluster, LineClient, Prometheus, WsClient, eventually, http, repository};
use serde_json::{Value, json};

use super::promql;
use super::query::{Place, Query, RULES, queries};

/// How long every query may take to have something to show: rates need two scrapes with talk between them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Queries that show nothing on a healthy cluster, and why.
const EXCUSED: &[(&str, &str)] = &[
    ("dashboard \"Parley: Gateway\", panel \"Drain\", query A", "nobody drains"),
    ("alert ParleyPresenceErrors, {status=~\"5..\"}", "no request fails"),
];

/// What came of a query.
#[derive(Debug, PartialEq)]
enum Outcome {
    Numbers,
    /// It has nothing to show (yet).
    Nothing(String),
    /// It will never have.
    Wrong(String),
}

/// Evaluates a query once.
async fn ask(prometheus: &Prometheus, query: &Query) -> Outcome {
    match prometheus.query(&query.filled_in()).await {
        Err(reason) => Outcome::Wrong(query.complain(reason)),
        Ok(series) if series.iter().any(is_number) => Outcome::Numbers,
        Ok(series) => Outcome::Nothing(query.complain(format!("shows nothing: {}", Value::Array(series)))),
    }
}

fn is_number(series: &Value) -> bool {
    let value = series["value"][1].as_str().or_else(|| series[1].as_str());
    value.and_then(|text| text.parse::<f64>().ok()).is_some_and(|number| !number.is_nan())
}

/// Everything that has to show something: queries of dashboards and records as they are, of alerts the metrics in them.
fn asked() -> Vec<Query> {
    let mut asked = Vec::new();
    for query in queries() {
        let Place::Alert(name) = &query.place else {
            asked.push(query);
            continue;
        };
        asked.push(query.clone());
        for selector in promql::names(&query.expression).selectors {
            let matchers = selector.text.strip_prefix(&selector.name).unwrap_or_default();
            let place = Place::Alert(format!("{name}, {matchers}"));
            asked.push(Query { place, expression: selector.text.clone() });
        }
    }
    asked
}

fn is_excused(query: &Query) -> bool {
    let place = query.place.to_string();
    let is_listed = EXCUSED.iter().any(|(listed, _)| place.ends_with(listed));
    is_listed || is_alert(query)
}

/// Whether it is an alert as a whole: it must evaluate, and is silent while all is well.
fn is_alert(query: &Query) -> bool {
    matches!(&query.place, Place::Alert(name) if !name.contains(','))
}

/// People who talk in every way that something counts.
struct Crowd {
    ann: WsClient,
    bob: WsClient,
    cy: LineClient,
}

impl Crowd {
    async fn arrives(cluster: &Cluster) -> Self {
        let crowd = Self { ann: cluster.ws_on(0).await, bob: cluster.ws_on(1).await, cy: cluster.line_on(1).await };
        crowd.ann.register("ann").await;
        crowd.bob.register("bob").await;
        crowd.cy.register("cy").await;
        crowd.ann.join("#lobby").await;
        crowd.bob.join("#lobby").await;
        crowd.cy.join("#lobby").await;
        crowd
    }

    /// One round of everything.
    async fn talks(&self, cluster: &Cluster) {
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

async fn start(cluster: &Cluster) -> Prometheus {
    let gateways = cluster.gateways.iter().map(|node| ("gateway", node));
    let targets: Vec<ScrapeTarget<'_>> = gateways
        .chain(cluster.presence.iter().map(|node| ("presence", node)))
        .map(|(job, node)| ScrapeTarget { job, instance: node.name(), address: node.admin() })
        .collect();
    Prometheus::start(&targets, &repository().join(RULES)).await
}

/// Those that show nothing; a wrong one ends it at once.
async fn silent(prometheus: &Prometheus, queries: Vec<Query>) -> Vec<(Query, String)> {
    let mut silent = Vec::new();
    for query in queries {
        match ask(prometheus, &query).await {
            Outcome::Numbers => {}
            Outcome::Nothing(complaint) => silent.push((query, complaint)),
            Outcome::Wrong(complaint) => panic!("\n{complaint}\n"),
        }
    }
    silent
}

/// Shown as lines of their own.
struct Lines(Vec<String>);

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

#[tokio::test]
async fn every_query_of_every_panel_and_alert_shows_something() {
    let cluster = Cluster::builder().gateways(2).presence(2).start().await;
    let prometheus = start(&cluster).await;
    let crowd = Crowd::arrives(&cluster).await;
    let (excused, mut waiting): (Vec<Query>, Vec<Query>) = asked().into_iter().partition(is_excused);
    assert!(waiting.len() > 100, "{}", waiting.len());
    eventually(PATIENCE, "every query shows something", async || {
        crowd.talks(&cluster).await;
        let left = silent(&prometheus, std::mem::take(&mut waiting)).await;
        let complaints = Lines(left.iter().map(|(_, complaint)| complaint.clone()).collect());
        waiting = left.into_iter().map(|(query, _)| query).collect();
        if waiting.is_empty() { Ok(()) } else { Err(complaints) }
    })
    .await;

    // A busy machine may bring some near to firing, a slow delivery and the like: only what is listed must be silent.
    let (alerts, listed): (Vec<Query>, Vec<Query>) = excused.into_iter().partition(is_alert);
    let count = listed.len();
    assert_eq!((silent(&prometheus, listed).await.len(), count), (EXCUSED.len(), EXCUSED.len()), "excused for nothing");
    silent(&prometheus, alerts).await;
    let rules = prometheus.rules().await.unwrap();
    let ill: Vec<&Value> = rules.iter().filter(|rule| rule["health"] != "ok" || rule["state"] == "firing").collect();
    assert!(ill.is_empty() && rules.len() > 20, "all is well: {ill:?}");
    drop(crowd);
    cluster.finish().await;
}

#[tokio::test]
async fn a_broken_query_is_told_with_dashboard_panel_and_query() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let prometheus = start(&cluster).await;
    let query = |expression: &str| Query {
        place: Place::Panel { dashboard: "Here".to_owned(), panel: "Who".to_owned(), query: "A".to_owned() },
        expression: expression.to_owned(),
    };
    eventually(PATIENCE, "a whole query shows something", async || {
        match ask(&prometheus, &query("parley_sessions{instance=~\"$instance\"}")).await {
            Outcome::Numbers => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for (broken, words) in [
        ("rate(parley_sessions[$__rate_interval]", "unclosed left parenthesis"),
        ("rate(parley_sessions)", "expected type range vector"),
        ("$nowhere", "unexpected character"),
    ] {
        let Outcome::Wrong(told) = ask(&prometheus, &query(broken)).await else {
            panic!("{broken} is not found wrong")
        };
        assert!(told.starts_with("dashboard \"Here\", panel \"Who\", query A: "), "{told}");
        assert!(told.contains(words) && told.ends_with(&format!("in: {broken}")), "{told}");
    }
    for silent in ["parley_sesions", "parley_sessions{instance=\"g9\"}", "parley_sessions * on (door) parley_rooms < 0"]
    {
        let outcome = ask(&prometheus, &query(silent)).await;
        let Outcome::Nothing(told) = &outcome else { panic!("{silent}: {outcome:?}") };
        assert!(told.starts_with("dashboard \"Here\", panel \"Who\", query A: shows nothing"), "{told}");
    }
    cluster.finish().await;
}
