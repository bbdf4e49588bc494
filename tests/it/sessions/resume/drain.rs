//! Gateways that end in order while their clients come back by token: nobody else sees anything of it.

use std::time::{Duration, Instant};

use harness::{Cluster, Node, WsClient, eventually};
use serde_json::json;

use super::{HOLD, SOON, is_of_lobby, member, since, stirs, until_given};

#[tokio::test]
async fn a_rolling_restart_is_seen_by_nobody() {
    const PEOPLE: usize = 12;
    let mut cluster = Cluster::builder().gateways(2).nginx(true).start().await;
    let watchtower = Node::gateway("g3").redis(&cluster.redis).start().await;
    let observer = WsClient::connect(watchtower.ws()).await;
    observer.register("observer").await;
    let joined = observer.join("#lobby").await;
    let mut people = Vec::new();
    for number in 0..PEOPLE {
        let person = cluster.ws().await;
        let registered = person.register(&format!("p{number}")).await;
        person.join("#lobby").await;
        people.push((person, registered, 0_u64));
    }
    let nicks = observer.members("#lobby").await;
    assert_eq!(nicks.len(), PEOPLE + 1);
    eventually(SOON, "everybody was seen to come", || async {
        if stirs(&observer) == PEOPLE { Ok(()) } else { Err(stirs(&observer)) }
    })
    .await;

    let mut told: Vec<Vec<u64>> = vec![Vec::new(); PEOPLE];
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
            let given = person.received(|event| is_of_lobby(event) && event["type"] == "message");
            told[number].extend(given.iter().map(|message| message["seq"].as_u64().unwrap()));
            *last = told[number].last().copied().unwrap_or(*last);
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
        until_given(person, end).await;
        let given = person.received(|event| is_of_lobby(event) && event["type"] == "message");
        told[number].extend(given.iter().map(|message| message["seq"].as_u64().unwrap()));
        assert_eq!(told[number], Vec::from_iter(1..=end), "p{number} has everything once and in order");
    }
    assert_eq!(stirs(&observer), PEOPLE, "nobody was seen to leave, come or change");
    assert_eq!(observer.members("#lobby").await, nicks);
    cluster.finish().await;
}

#[tokio::test]
async fn who_does_not_come_back_after_a_drain_is_seen_to_leave_when_the_hold_is_over() {
    let mut cluster =
        Cluster::builder().gateways(2).presence(1).gateway_setting("PARLEY__SESSION__HOLD_SECONDS", HOLD).start().await;
    let (ann, _) = member(&cluster, 0, "ann").await;
    let (bob, _) = member(&cluster, 1, "bob").await;
    ann.sends("#lobby", "hi").await;
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    let ended = Instant::now();
    let hold = Duration::from_secs(HOLD.parse().unwrap());
    let left = bob.sees(hold + Duration::from_secs(6), "#lobby", "left", |entry| entry["nick"] == "ann").await;
    assert!(left.at.duration_since(ended) >= hold - Duration::from_secs(2), "{:?}", left.at.duration_since(ended));
    assert_eq!(left.what["left"], json!([{"nick": "ann", "reason": "closed"}]));
    cluster.finish().await;
}
