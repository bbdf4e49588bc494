//! Names that are the same to the server are the same to the client library.

use harness::{Cluster, repository};
use serde::Deserialize;

use super::session;

/// `clients/names.json`: pairs of names, and true if the server takes both for the same.
#[derive(Deserialize)]
struct NameTable {
    pairs: Vec<(String, String, bool)>,
    old_cyrillic: Vec<(String, String, bool)>,
}

#[tokio::test]
async fn rust_client_agrees_about_equal_names() {
    let text = std::fs::read_to_string(repository().join("clients/names.json")).unwrap();
    let table: NameTable = serde_json::from_str(&text).unwrap();
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob) = (session(&cluster, 0, "ann").await, session(&cluster, 1, "bob").await);
    for (name, other, is_same) in table.pairs.iter().chain(&table.old_cyrillic) {
        let what = format!("{name} {other}");
        let room = ann.join(&format!("#{name}"), 0).await.unwrap();
        let there = bob.join(&format!("#{other}"), 0).await.unwrap();
        assert_eq!(there.name() == room.name(), *is_same, "rooms of the server: {what}");
        ann.rename(name).await.unwrap();
        let found = bob.whois(other).await.map_or_else(|error| error.code().to_owned(), |user| user.nick);
        let expected = if *is_same { ann.nick() } else { "no_such_user".to_owned() };
        assert_eq!(found, expected, "nicknames of the server: {what}");
        let rooms = ann.joined().len();
        ann.join(&format!("#{other}"), 0).await.unwrap();
        assert_eq!(ann.joined().len() == rooms, *is_same, "rooms: {what}");
        assert_eq!(bob.direct(name).nick() == bob.direct(other).nick(), *is_same, "conversations: {what}");
    }
    cluster.finish().await;
}
