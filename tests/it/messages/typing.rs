//! Typing notices: they reach the room or the recipient on every gateway, and are never stored.

use std::slice;
use std::time::Duration;

use harness::{Cluster, WsClient};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

async fn person(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let person = cluster.ws_on(gateway).await;
    person.register(nick).await;
    person
}

async fn sends_typing(person: &WsClient, to: &str) {
    let answer = person.must(json!({"type": "typing", "to": to})).await;
    assert_eq!(answer["to"], to);
}

/// Returns the received typing notices as (recipient, sender) pairs.
fn typing_notices(person: &WsClient) -> Vec<(Value, Value)> {
    let events = person.received(|event| event["type"] == "typing" && event.get("from").is_some());
    events.into_iter().map(|event| (event["to"].clone(), event["from"].clone())).collect()
}

#[tokio::test]
async fn room_sees_typing_but_writer_does_not() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob, carl) =
        (person(&cluster, 0, "Ann").await, person(&cluster, 1, "bob").await, person(&cluster, 0, "carl").await);
    for member in [&ann, &bob, &carl] {
        member.join("#Lobby").await;
    }
    let terminal = cluster.line_on(1).await;
    terminal.register("tom").await;
    terminal.join("#Lobby").await;
    let outsider = person(&cluster, 1, "eve").await;
    assert_eq!(outsider.request(json!({"type": "typing", "to": "#lobby"})).await.unwrap_err().code, "not_in_room");

    for _ in 0..20 {
        sends_typing(&ann, "#lobby").await;
    }
    sends_typing(&bob, "#lobby").await;
    let said = ann.sends("#lobby", "here it is").await;
    assert_eq!(said["seq"], 1, "typing notices take no position in the stream");
    bob.sends("#lobby", "and mine").await;
    // A later message arrives after the notices, on every gateway.
    for member in [&ann, &bob, &carl] {
        member.receives("#Lobby", "bob", "and mine").await;
    }
    terminal.reads("[#Lobby] <bob> and mine").await;
    let (ann_writes, bob_writes) = ((json!("#Lobby"), json!("Ann")), (json!("#Lobby"), json!("bob")));
    assert_eq!(typing_notices(&ann), slice::from_ref(&bob_writes));
    assert_eq!(typing_notices(&bob), slice::from_ref(&ann_writes), "repeated notices are merged into one");
    assert_eq!(typing_notices(&carl), [ann_writes, bob_writes]);
    assert_eq!(typing_notices(&outsider), []);
    cluster.finish().await;
}

#[tokio::test]
async fn direct_typing_notice_reaches_only_its_recipient() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob, carl) =
        (person(&cluster, 0, "ann").await, person(&cluster, 1, "Bob").await, person(&cluster, 1, "carl").await);
    sends_typing(&ann, "bob").await;
    sends_typing(&ann, "nobody").await;
    ann.sends("bob", "psst").await;
    ann.sends("carl", "psst").await;
    bob.expect_event(SOON, "psst", |event| event["body"] == "psst").await;
    carl.expect_event(SOON, "psst", |event| event["body"] == "psst").await;
    assert_eq!(
        (typing_notices(&ann), typing_notices(&bob), typing_notices(&carl)),
        (vec![], vec![(json!("Bob"), json!("ann"))], vec![])
    );
    bob.bye().await;
    sends_typing(&carl, "bob").await;
    cluster.finish().await;
}
