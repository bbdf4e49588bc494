//! Drains with resuming clients: other members see no membership change.

use std::time::{Duration, Instant};

use harness::{Cluster, Node, WsClient, eventually};
use serde_json::json;

use super::{HOLD, SOON, membership_changes, since};
use crate::lobby::{await_message, is_stream_event, lobby_member};

/// Returns the seqs of the lobby's messages that this client received, in order.
fn message_seqs(person: &WsClient) -> Vec<u64> {
    let messages = person.received(|event| is_stream_event(event) && event["type"] == "message");
    messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn rolling_restart_shows_no_membership_change() {
    const CLIENTS: usize = 12;
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    let observer_gateway = Node::gateway("g3").redis(&cluster.redis).start().await;
    let observer = WsClient::connect(observer_gateway.ws()).await;
    observer.register("observer").await;
    let joined = observer.join("#lobby").await;
    let mut people = Vec::new();
    for number in 0..CLIENTS {
        let person = cluster.ws().await;
        let registered = person.register(&format!("p{number}")).await;
        person.join("#lobby").await;
        people.push((person, registered, 0_u64));
    }
    let nicks = observer.members("#lobby").await;
    assert_eq!(nicks.len(), CLIENTS + 1);
    eventually(SOON, "every join received", || async {
        if membership_changes(&observer) == CLIENTS { Ok(()) } else { Err(membership_changes(&observer)) }
    })
    .await;

    let mut received_seqs: Vec<Vec<u64>> = vec![Vec::new(); CLIENTS];
    for gateway in 0..2 {
        let home = format!("g{}", gateway + 1);
        let mut said = 0;
        cluster.gateways[gateway].process().terminate();
        for (number, (person, registered, last)) in people.iter_mut().enumerate() {
            if registered["node"] != home.as_str() {
                continue;
            }
            while person.has_ended().is_none() {
                observer.sends("#lobby", "still there?").await;
                said += 1;
            }
            assert_eq!(person.closed().await.code, Some(1012));
            received_seqs[number].extend(message_seqs(person));
            *last = received_seqs[number].last().copied().unwrap_or(*last);
            let again = cluster.ws().await;
            *registered = again.resume(registered, since(&joined, *last)).await;
            assert_ne!(registered["node"], home.as_str());
            *person = again;
        }
        assert!(said > 0);
        assert_eq!(cluster.gateways[gateway].process().exit_code(Duration::from_secs(30)).await, Some(0));
        cluster.gateways[gateway].restart().await;
    }
    let end = observer.sends("#lobby", "the end").await["seq"].as_u64().unwrap();
    for (number, (person, ..)) in people.iter().enumerate() {
        await_message(person, end).await;
        received_seqs[number].extend(message_seqs(person));
        assert_eq!(received_seqs[number], Vec::from_iter(1..=end), "p{number} has each message once and in order");
    }
    assert_eq!(membership_changes(&observer), CLIENTS, "no leave, join or rename");
    assert_eq!(observer.members("#lobby").await, nicks);
    cluster.finish().await;
}

#[tokio::test]
async fn drained_session_leaves_after_its_hold_expires() {
    let mut cluster =
        Cluster::builder().gateways(2).presence(1).gateway_setting("PARLEY__SESSION__HOLD_SECONDS", HOLD).start().await;
    let ann = lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    ann.sends("#lobby", "hi").await;
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    let ended = Instant::now();
    let hold = Duration::from_secs(HOLD.parse().unwrap());
    let left = bob.sees(hold + Duration::from_secs(6), "#lobby", "left", |entry| entry["nick"] == "ann").await;
    assert!(left.at.duration_since(ended) >= hold - Duration::from_secs(2), "{:?}", left.at.duration_since(ended));
    assert_eq!(left.value["left"], json!([{"nick": "ann", "reason": "closed"}]));
    cluster.finish().await;
}
