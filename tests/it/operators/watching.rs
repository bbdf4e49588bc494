//! What operators watch Parley by: numbers, alerts, dashboards, runbook. Each names the others, and names drift apart
//! unless something compares them.
//!
//! `numbers` sees in them what happens, `alerts` runs promtool, `dashboards` reads what Grafana is given, `drift` compares
//! names with what the programs export, `live` evaluates every query in a real Prometheus that scrapes a real cluster.
//! `promql` finds the names in a query, `query` the queries in the files, `runbook` the sections.

mod alerts;
mod dashboards;
mod drift;
mod live;
mod numbers;
mod promql;
mod query;
mod runbook;
