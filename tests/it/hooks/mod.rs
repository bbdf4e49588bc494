//! Hooks: the application decides about registrations, joins and messages before the fact.

mod decisions;
mod ends;
mod failures;
mod order;
mod settings;

use std::time::Duration;

use harness::client::RequestResult;
use harness::cluster::ClusterBuilder;
use harness::{Cluster, HookApplication, Node};
use serde_json::Value;

/// The maximum time for anything without faults.
const SOON: Duration = Duration::from_secs(10);
/// The secret of all applications.
const SECRET: &str = "a-secret-of-tests";

/// Returns the settings of these hooks, asked of an application on this machine.
fn hook_settings(application: &HookApplication, hooks: &[&str]) -> Vec<(String, String)> {
    let hook = |hook: &&str| (format!("PARLEY__HOOKS__{}", hook.to_uppercase()), application.url());
    let secret = ("PARLEY__HOOKS__SECRET".to_owned(), application.secret().to_owned());
    let private = ("PARLEY__CALLBACKS__ALLOW_PRIVATE".to_owned(), "true".to_owned());
    hooks.iter().map(hook).chain([secret, private]).collect()
}

/// Returns a cluster whose gateways ask an application.
pub(crate) fn cluster_with(application: &HookApplication, hooks: &[&str]) -> ClusterBuilder {
    let settings = hook_settings(application, hooks);
    settings.iter().fold(Cluster::builder(), |cluster, (key, value)| cluster.gateway_setting(key, value))
}

/// Returns the outcome of a request, its code if it was refused, and the message of the refusal.
fn refusal(result: RequestResult) -> (String, String) {
    let refused = result.expect_err("a refusal");
    let message = refused.reply["message"].as_str().unwrap_or_default().to_owned();
    (refused.code, message)
}

/// Returns the number of questions of a hook with this outcome.
async fn questions(gateway: &Node, hook: &str, outcome: &str) -> f64 {
    let labels = [("hook", hook), ("outcome", outcome)];
    gateway.metrics().await.get("parley_hook_questions_total", &labels).unwrap_or_else(|| panic!("{labels:?}"))
}

/// Returns the values of a field of these questions.
fn field<'a>(questions: &'a [Value], name: &str) -> Vec<&'a str> {
    questions.iter().filter_map(|question| question[name].as_str()).collect()
}
