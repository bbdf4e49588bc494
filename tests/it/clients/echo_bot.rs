//! The example of the README, as it is in `clients/examples`.

use harness::{Cluster, eventually, repository};
use tokio::time::timeout;

use super::{SOON, session, take};

#[path = "../../../clients/examples/echo_bot.rs"]
#[allow(dead_code)] // `main` has addresses of its own.
mod example;

#[tokio::test]
async fn echo_bot_repeats_each_message_once() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().gateways(1).start().await;
    let url = format!("ws://{}/ws", cluster.gateways[0].ws());
    let ann = session(&cluster, 0, "ann").await;
    let room = ann.join("#lobby", 0).await.unwrap();
    let mut messages = room.messages();
    let storage = folder.path().join("echo-bot.json");
    for round in ["one", "two"] {
        let bot = tokio::spawn({
            let (url, storage) = (url.clone(), storage.clone());
            async move { example::echo(&url, "#lobby", &storage).await }
        });
        eventually(SOON, "the bot is a member", || async {
            if room.members().contains_key("echo-bot") { Ok(()) } else { Err(room.members()) }
        })
        .await;
        room.send(round).await.unwrap();
        let echoes = timeout(SOON, take(&mut messages, 2)).await.unwrap();
        assert_eq!(echoes, [round, round]);
        bot.abort();
        assert!(bot.await.unwrap_err().is_cancelled());
    }
    drop((messages, room, ann));
    cluster.finish().await;
}

#[test]
fn readme_shows_the_echo_bot() {
    let page = std::fs::read_to_string(repository().join("clients/rust/README.md")).unwrap();
    let example = std::fs::read_to_string(repository().join("clients/examples/echo_bot.rs")).unwrap();
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(page.contains(&format!("```rust,no_run\n{code}```")), "the README has another text than the example");
    assert!(example.lines().count() <= 30);
}
