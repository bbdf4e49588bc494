//! The contract of the event stream: all events in order, and none lost between two reads.

use std::time::{Duration, Instant};

use harness::eventually;

use super::{PATIENCE, RegistryArm, on_both_arms};

on_both_arms! {
    events_are_recorded_in_order,
    event_reader_continues_from_its_position,
    event_reader_waits_for_next_event,
    invalid_event_position_means_from_now,
}

async fn events_are_recorded_in_order(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("Ann").await;
    ann.join("#Lobby").await;
    ann.leave("#lobby").await;
    ann.release().await;
    let expected = ["online Ann", "join #Lobby Ann", "leave #Lobby Ann left", "offline Ann closed"];
    assert_eq!(arm.history().await, expected);
}

async fn event_reader_continues_from_its_position(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    for number in 0..25 {
        node.user(&format!("user{number}")).await;
    }
    let all = arm.events().await;
    let mut read = Vec::new();
    let mut position = Some("0".to_owned());
    while read.len() < 25 {
        let (events, next) = arm.registry.events(position.as_deref(), 4).await.unwrap();
        assert!(!events.is_empty() && events.len() <= 4);
        assert_eq!(next.as_deref(), events.last().map(|event| event.id.as_str()));
        read.extend(events);
        position = next;
    }
    assert_eq!(read, all);
}

async fn event_reader_waits_for_next_event(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    node.user("ann").await;
    let started = Instant::now();
    let (none, position) = arm.registry.events(None, 10).await.unwrap();
    assert!(none.is_empty(), "earlier events are not returned");
    assert!(started.elapsed() >= Duration::from_secs(4), "the read waited");
    let position = position.unwrap();

    // An event between two reads.
    node.user("bob").await;
    let (events, position) = arm.registry.events(Some(&position), 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert!(events[0].data.contains("\"bob\""));

    // An event while two readers wait.
    let waiting = [0, 1].map(|_| {
        let (registry, position) = (arm.registry.clone(), position.clone());
        tokio::spawn(async move { registry.events(position.as_deref(), 10).await.unwrap().0 })
    });
    node.user("eve").await;
    for reader in waiting {
        assert!(reader.await.unwrap()[0].data.contains("\"eve\""));
    }
}

async fn invalid_event_position_means_from_now(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    node.user("ann").await;
    for nonsense in ["$", "", "-", "1-2-3", "+1-0", "99999999999999999999-0", "abc"] {
        let (registry, nonsense) = (arm.registry.clone(), nonsense.to_owned());
        let reader = tokio::spawn(async move { registry.events(Some(&nonsense), 10).await.unwrap().0 });
        eventually(PATIENCE, "the reader receives an event", || async {
            node.user("bob").await.release().await;
            if reader.is_finished() { Ok(()) } else { Err("still waiting") }
        })
        .await;
        let events = reader.await.unwrap();
        assert!(events[0].data.contains("\"bob\""), "{events:?}");
    }
}
