//! Metrics, alerts, dashboards and runbook: each names the others, and these tests keep the names in step.
//!
//! `numbers` compares metrics with events on a cluster, `alerts` runs promtool, `dashboards` checks the Grafana files.
//! `drift` compares names with the exported metrics, and `live` evaluates every query in a real Prometheus.
//! `healthy` starts a cluster as `make run` does, and sees no alert. `promql` extracts names from a query, `query`
//! queries from the files, `runbook` sections and quoted words.

mod alerts;
mod dashboards;
mod drift;
mod healthy;
mod live;
mod numbers;
mod promql;
mod query;
mod runbook;

use harness::cluster::ClusterBuilder;

/// Gives the presence processes a webhook, without which they export no metrics of webhooks. Nothing is sent to it.
fn with_webhook(builder: ClusterBuilder) -> ClusterBuilder {
    let webhook =
        r#"[{"name":"app","url":"https://app.invalid/","secret":"a-secret-of-tests","events":["moderation"]}]"#;
    builder.presence_setting("PARLEY__WEBHOOKS", webhook)
}
