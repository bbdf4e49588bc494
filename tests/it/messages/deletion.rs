//! Messages that an application deletes: late members get gaps in their place, and the room continues.

use harness::{Cluster, http};
use presence::service::access::{ApiScope, NewKey};
use serde_json::{Value, json};

use crate::lobby::{await_message, lobby_member, stream_events};

#[tokio::test]
async fn late_member_receives_gaps_for_deleted_messages() {
    let key = NewKey::draw("backend", ApiScope::ALL).unwrap();
    let builder = Cluster::builder().gateways(2).presence(1);
    let cluster = builder.presence_setting("PARLEY__API__KEYS", &key.known.to_string()).start().await;
    let delete = async |messages: &str| {
        let request = format!(
            "DELETE /v1/rooms/lobby/{messages} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            key.secret
        );
        http::exchange(cluster.presence[0].api(), request.as_bytes()).await.unwrap()
    };
    let ann = lobby_member(&cluster, 0, "ann").await;
    let epoch = ann.join("#lobby").await["epoch"].clone();
    for text in ["1", "2", "3", "4", "5"] {
        ann.sends("#lobby", text).await;
    }
    let late = async |gateway: usize, nick: &str| {
        let person = cluster.ws_on(gateway).await;
        person.register(nick).await;
        let since = json!({"epoch": epoch, "seq": 1});
        let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        person
    };
    assert_eq!(delete("messages/3").await.status, 204);
    let bob = late(1, "bob").await;
    await_message(&bob, 5).await;
    assert_eq!(stream_events(&bob), ["2", "gap 3-3", "4", "5"]);

    assert_eq!(delete("messages").await.json(), json!({"deleted": 4}));
    let cat = late(0, "cat").await;
    ann.sends("#lobby", "6").await;
    for (person, seen) in [(&ann, vec!["1", "2", "3", "4", "5", "6"]), (&cat, vec!["gap 2-5", "6"])] {
        await_message(person, 6).await;
        assert_eq!(stream_events(person), seen);
    }
    let history: Value = ann.must(json!({"type": "history", "to": "#lobby"})).await;
    assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
    cluster.finish().await;
}
