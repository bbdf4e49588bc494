//! The cost of a login in Redis, as numbers of commands: a command is what a script pays for.
//!
//! The bounds are the present numbers. A change that needs more commands states its reason here.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::{NickSession, RegistryArm};

/// Commands of connections and of this test, which no script runs.
const AROUND: [&str; 7] = ["evalsha", "config|resetstat", "hello", "auth", "select", "ping", "client|setinfo"];

impl RegistryArm {
    /// Returns the numbers of calls of each command since the last reset.
    async fn command_counts(&self) -> BTreeMap<String, u64> {
        let stats: String = self.ask(&["INFO", "commandstats"]).await;
        let rows = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        rows.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap())).collect()
    }

    /// Returns the commands that one script runs within `call`, by name.
    async fn script_commands<T>(&self, call: impl Future<Output = T>) -> (T, BTreeMap<String, u64>) {
        let () = self.ask(&["CONFIG", "RESETSTAT"]).await;
        let answer = call.await;
        let mut counts = self.command_counts().await;
        assert_eq!(counts.get("evalsha"), Some(&1), "{counts:?}");
        counts.retain(|name, _| !AROUND.contains(&name.as_str()));
        (answer, counts)
    }
}

#[track_caller]
fn assert_at_most(bound: u64, counts: &BTreeMap<String, u64>) {
    let count: u64 = counts.values().sum();
    assert!(count <= bound, "{count} commands: {counts:?}");
}

#[tokio::test]
async fn login_and_logout_run_few_commands() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    // The first calls load the scripts.
    let warm: NickSession = node.user("warm").await;
    warm.join("#lobby").await;
    node.user("first").await.leave("#lobby").await;
    node.user("second").await.release().await;

    let (ann, claim) = arm.script_commands(node.user("ann")).await;
    assert_at_most(16, &claim);
    let (_, join) = arm.script_commands(ann.join("#lobby")).await;
    assert_at_most(19, &join);
    let (_, first_join) = arm.script_commands(ann.join("#hall")).await;
    assert_at_most(23, &first_join);
    let (released, release) = arm.script_commands(ann.release()).await;
    assert!(released);
    assert_at_most(17, &release);
    let (left, leave) = arm.script_commands(ann.leave("#lobby")).await;
    assert!(left);
    assert_at_most(17, &leave);
}

#[tokio::test]
async fn waiting_callers_load_a_script_once() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let () = arm.ask(&["CONFIG", "RESETSTAT"]).await;
    let mut claims = JoinSet::new();
    for number in 0..50 {
        let node = node.clone();
        claims.spawn(async move { node.user(&format!("user{number}")).await });
    }
    assert_eq!(claims.join_all().await.len(), 50);
    let counts = arm.command_counts().await;
    assert_eq!(counts.get("script|load"), Some(&1), "{counts:?}");
}
