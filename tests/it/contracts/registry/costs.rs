//! The cost of a login in Redis, as numbers of commands.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::RegistryArm;

impl RegistryArm {
    /// Returns the numbers of calls of each command since the last reset.
    async fn command_counts(&self) -> BTreeMap<String, u64> {
        let stats: String = self.ask(&["INFO", "commandstats"]).await;
        let rows = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        rows.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap())).collect()
    }
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
