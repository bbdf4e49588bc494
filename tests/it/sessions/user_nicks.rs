//! Nicknames of users: messages, members and presence name the user, and a nickname follows its user.
//!
//! Stories on clusters. The rules of the store have a contract in `contracts::registry`.

use std::time::Duration;

use harness::client::RequestResult;
use harness::{Cluster, WsClient, eventually, http};
use serde_json::{Value, json};

use super::identity::{cluster, token};

const SOON: Duration = Duration::from_secs(10);

async fn signs_in(client: &WsClient, nick: &str, user: &str) -> RequestResult {
    client.request(json!({"type": "register", "nick": nick, "token": token(user, &json!({}))})).await
}

/// Returns an item of the list of members, without its status.
async fn member(client: &WsClient, room: &str, nick: &str) -> Value {
    let reply = client.must(json!({"type": "members", "room": room})).await;
    reply["items"].as_array().unwrap().iter().find(|item| item["nick"] == nick).unwrap()["user"].clone()
}

#[tokio::test]
async fn messages_and_members_name_their_user() {
    let cluster = cluster("mixed", 2).await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    signs_in(&ann, "ann", "user:1").await.unwrap();
    let guest = bob.register("bob").await;
    bob.join("#lobby").await;
    ann.join("#lobby").await;
    let seen = bob.sees_join("#lobby", "ann").await.value;
    let joined = seen["joined"].as_array().unwrap();
    let users: Vec<_> = joined.iter().map(|item| (item["nick"].as_str().unwrap(), item.get("user"))).collect();
    assert!(users.contains(&("ann", Some(&json!("user:1")))) && !users.contains(&("bob", Some(&json!("user:1")))));
    // A client that names a user itself names nobody.
    ann.must(json!({"type": "send", "to": "#lobby", "body": "of ann", "from_user": "user:0"})).await;
    bob.must(json!({"type": "send", "to": "#lobby", "body": "of bob", "from_user": "user:0"})).await;
    ann.sends("bob", "in private").await;
    for client in [&ann, &bob] {
        assert_eq!(client.receives("#lobby", "ann", "of ann").await["from_user"], "user:1");
        assert_eq!(client.receives("#lobby", "bob", "of bob").await.get("from_user"), None);
    }
    assert_eq!(bob.receives_privately("ann", "in private").await["from_user"], "user:1");
    assert_eq!(bob.history("#lobby", 10).await[0]["from_user"], "user:1");
    assert_eq!(bob.history("#lobby", 10).await[1].get("from_user"), None);
    assert_eq!(member(&bob, "#lobby", "ann").await, "user:1");
    assert_eq!(member(&bob, "#lobby", "bob").await, Value::Null);
    assert_eq!(bob.must(json!({"type": "whois", "nick": "ANN"})).await["user"], "user:1");
    assert_eq!(ann.must(json!({"type": "whois", "nick": "bob"})).await.get("user"), None);

    // A resume replays the messages with their user, and a rename keeps it.
    bob.cut();
    ann.rename("anna").await;
    ann.away("tea").await;
    ann.sends("#lobby", "missed").await;
    let again = cluster.ws_on(0).await;
    let position = json!({"#lobby": {"epoch": ann.join("#lobby").await["epoch"], "seq": 0}});
    again.resume(&guest, position).await;
    for (from, text) in [("ann", "of ann"), ("anna", "missed")] {
        assert_eq!(again.receives("#lobby", from, text).await["from_user"], "user:1");
    }
    assert_eq!(member(&again, "#lobby", "anna").await, "user:1");
    let line = cluster.line_on(1).await;
    line.register("carl").await;
    line.types("/whois anna").await;
    line.reads("* anna is away: tea").await;
    line.reads("* anna is the user user:1").await;
    cluster.finish().await;
}

#[tokio::test]
async fn user_takes_its_nickname_over() {
    let cluster = cluster("mixed", 2).await;
    let (phone, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    let first = signs_in(&phone, "ann", "user:1").await.unwrap();
    bob.register("bob").await;
    bob.join("#lobby").await;
    phone.join("#lobby").await;
    bob.sees_join("#lobby", "ann").await;
    let other = cluster.ws_on(1).await;
    for user in ["user:2", ""] {
        let request = match user {
            "" => json!({"type": "register", "nick": "ann"}),
            user => json!({"type": "register", "nick": "ann", "token": token(user, &json!({}))}),
        };
        let refused = other.request(request).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.reply.get("retry_after_ms")), ("nick_in_use", None));
    }

    // Another device, on another gateway: the first one ends, with a code after which clients stay away.
    let laptop = cluster.ws_on(1).await;
    let second = signs_in(&laptop, "ann", "user:1").await.unwrap();
    assert_ne!(first["session"], second["session"]);
    let ending = phone.closed_within(SOON).await;
    assert_eq!((ending.code, ending.reason.as_str()), (Some(4004), "taken_over"));
    bob.sees_left("#lobby", "ann", "closed").await;
    laptop.join("#lobby").await;
    assert_eq!(bob.members("#lobby").await, ["ann", "bob"]);
    bob.sends("ann", "to the laptop").await;
    let is_private = |event: &Value| event["to"] == "ann" && event["body"] == "to the laptop";
    laptop.next(SOON, is_private).await.unwrap();
    laptop.sends("#lobby", "from the laptop").await;
    bob.receives("#lobby", "ann", "from the laptop").await;

    // The first device comes back with its session, and its inbox and rooms.
    let back = cluster.ws_on(0).await;
    let resume = json!({
        "type": "register", "nick": "ann", "resume": first["resume"], "token": token("user:1", &json!({})),
    });
    let resumed = back.must(resume).await;
    assert_eq!((&resumed["session"], &resumed["rooms"][0]["room"]), (&first["session"], &json!("#lobby")));
    assert_eq!(laptop.closed_within(SOON).await.code, Some(4004));
    back.join("#lobby").await;
    bob.sends("#lobby", "welcome").await;
    back.receives("#lobby", "bob", "welcome").await;
    assert_eq!(bob.members("#lobby").await, ["ann", "bob"]);
    cluster.finish().await;
}

#[tokio::test]
async fn detached_session_yields_to_its_user() {
    let cluster = cluster("token", 2).await;
    let (phone, bob) = (cluster.ws_on(0).await, cluster.ws_on(0).await);
    signs_in(&phone, "ann", "user:1").await.unwrap();
    signs_in(&bob, "bob", "user:2").await.unwrap();
    bob.join("#lobby").await;
    phone.join("#lobby").await;
    bob.sees_join("#lobby", "ann").await;
    phone.cut();
    // On the gateway of the lost connection, whose end may be under way.
    let laptop = cluster.ws_on(0).await;
    signs_in(&laptop, "ann", "user:1").await.unwrap();
    bob.sees_left("#lobby", "ann", "closed").await;
    laptop.join("#lobby").await;
    bob.sees_join("#lobby", "ann").await;
    // A text client takes it over as well.
    let line = cluster.line_on(1).await;
    line.types(&format!("/auth {}", token("user:1", &json!({})))).await;
    line.register("ann").await;
    assert_eq!(laptop.closed_within(SOON).await.code, Some(4004));
    line.join("#lobby").await;
    bob.sends("#lobby", "hello").await;
    line.receives("#lobby", "bob", "hello").await;
    assert_eq!(bob.members("#lobby").await, ["ann", "bob"]);
    cluster.finish().await;
}

#[tokio::test]
async fn api_finds_nicknames_of_a_user() {
    let cluster = Cluster::builder().gateways(2).presence(1);
    let cluster = super::identity::secured(cluster, "mixed").start().await;
    let api = cluster.presence[0].api();
    let get = async |path: &str| http::get(api, path).await.unwrap();
    assert_eq!(get("/v1/users/id/user:1").await.status, 404);
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    signs_in(&ann, "ann", "auth0|1/2").await.unwrap();
    bob.register("bob").await;
    let found = get("/v1/users/id/auth0%7C1%2F2").await.json();
    let items = found["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["nick"], &items[0]["user"]), (1, &json!("ann"), &json!("auth0|1/2")));
    assert_eq!(found["next_cursor"], Value::Null);
    assert_eq!(get("/v1/users/bob").await.json().get("user"), None);
    ann.bye().await;
    eventually(SOON, "ann is offline", || async {
        let found = get("/v1/users/id/auth0%7C1%2F2").await;
        if found.status == 200 && found.json()["items"] == json!([]) { Ok(()) } else { Err(found.status) }
    })
    .await;
    cluster.finish().await;
}
