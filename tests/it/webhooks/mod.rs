//! Webhooks: events reach the addresses of an application, whatever fails.

mod delivery;
mod example;
mod faults;
mod receivers;

use std::time::Duration;

use harness::cluster::ClusterBuilder;
use harness::{Cluster, ReceivedEvent, WebhookReceiver};
use serde_json::{Value, json};

/// The maximum time for a delivery without faults.
const SOON: Duration = Duration::from_secs(5);
/// The secret of all receivers.
const SECRET: &str = "a-secret-of-tests";

/// Returns the setting of a webhook that gets these events.
fn webhook(name: &str, receiver: &WebhookReceiver, events: &[&str]) -> Value {
    json!({"name": name, "url": receiver.url(), "secret": receiver.secret(), "events": events})
}

/// Returns a cluster whose presence processes send these webhooks, also to this machine.
fn cluster_with(webhooks: &Value) -> ClusterBuilder {
    Cluster::builder()
        .presence(1)
        .presence_setting("PARLEY__WEBHOOKS", &webhooks.to_string())
        .presence_setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true")
}

/// Returns the bodies of the messages among these events, in order.
fn bodies(events: &[ReceivedEvent]) -> Vec<&str> {
    events.iter().filter_map(|event| event.event["body"].as_str()).collect()
}

/// Runs `gateway ctl webhooks` with these words, and returns its JSON.
async fn ctl(cluster: &Cluster, words: &[&str]) -> Value {
    let words = ["ctl", "--json", "webhooks"].iter().chain(words).map(|word| (*word).to_owned());
    let program = harness::ChildProgram::parley("gateway", "ctl").args(words);
    let ended = program.env("PARLEY__REDIS__URL", &cluster.redis.url()).run(SOON).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}
