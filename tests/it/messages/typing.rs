//! Who is writing is seen by those whom it concerns, on every gateway, and by nobody else; nothing of it stays.

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

async fn types_to(person: &WsClient, to: &str) {
    let answer = person.must(json!({"type": "typing", "to": to})).await;
    assert_eq!(answer["to"], to);
}

/// Who was seen writing, and to whom.
fn seen(person: &WsClient) -> Vec<(Value, Value)> {
    let events = person.received(|event| event["type"] == "typing" && event.get("from").is_some());
    events.into_iter().map(|event| (event["to"].clone(), event["from"].clone())).collect()
}

#[tokio::test]
async fn a_room_sees_who_is_writing_and_the_writer_does_not() {
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
        types_to(&ann, "#lobby").await;
    }
    types_to(&bob, "#lobby").await;
    let said = ann.sends("#lobby", "here it is").await;
    assert_eq!(said["seq"], 1, "nothing else has a place in the log");
    bob.sends("#lobby", "and mine").await;
    // What is said later arrives later, on every gateway.
    for member in [&ann, &bob, &carl] {
        member.receives("#Lobby", "bob", "and mine").await;
    }
    terminal.reads("[#Lobby] <bob> and mine").await;
    let (ann_writes, bob_writes) = ((json!("#Lobby"), json!("Ann")), (json!("#Lobby"), json!("bob")));
    assert_eq!(seen(&ann), slice::from_ref(&bob_writes));
    assert_eq!(seen(&bob), slice::from_ref(&ann_writes), "once, however often");
    assert_eq!(seen(&carl), [ann_writes, bob_writes]);
    assert_eq!(seen(&outsider), []);
    cluster.finish().await;
}

#[tokio::test]
async fn somebody_sees_who_is_writing_to_them_alone() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let (ann, bob, carl) =
        (person(&cluster, 0, "ann").await, person(&cluster, 1, "Bob").await, person(&cluster, 1, "carl").await);
    types_to(&ann, "bob").await;
    types_to(&ann, "nobody").await;
    ann.sends("bob", "psst").await;
    ann.sends("carl", "psst").await;
    bob.expect_event(SOON, "psst", |event| event["body"] == "psst").await;
    carl.expect_event(SOON, "psst", |event| event["body"] == "psst").await;
    assert_eq!((seen(&ann), seen(&bob), seen(&carl)), (vec![], vec![(json!("Bob"), json!("ann"))], vec![]));
    bob.bye().await;
    types_to(&carl, "bob").await;
    cluster.finish().await;
}
