//! Killed, frozen and rolled gateways under clients that send: nothing is lost, doubled or pending.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Cluster, eventually};
use parley_client::{Message, Parley, RoomEvent, State};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{SOON, session, take_until};

/// Sends numbered messages one after another until it is told to stop. Returns the ids by body.
fn talk(chat: Parley, stop: watch::Receiver<bool>) -> JoinHandle<BTreeMap<String, String>> {
    tokio::spawn(async move {
        let room = chat.join("#lobby", 0).await.unwrap();
        let mut sent = BTreeMap::new();
        while !*stop.borrow() {
            let body = format!("{} {}", chat.nick(), sent.len());
            let ack = timeout(SOON, room.send(&body)).await.expect("no send is left pending").unwrap();
            sent.insert(body, ack.id);
        }
        sent
    })
}

fn by_body(messages: &[Message]) -> BTreeMap<String, String> {
    messages.iter().map(|message| (message.body.as_str().unwrap().to_owned(), message.id.clone())).collect()
}

#[tokio::test]
async fn kill_and_roll_lose_no_rust_message() {
    let mut cluster = Cluster::builder().gateways(3).presence(1).start().await;
    cluster.allow("fenced");
    cluster.allow("lease");
    let reader = session(&cluster, 0, "reader").await;
    let lobby = reader.join("#lobby", 0).await.unwrap();
    let mut events = lobby.events();
    let reading = tokio::spawn(async move { take_until(&mut events, "end").await });
    let (stop, stopped) = watch::channel(false);
    let mut talkers = Vec::new();
    let mut chats = Vec::new();
    for number in 0..6 {
        let chat = session(&cluster, number % 3, &format!("p{number}")).await;
        talkers.push(talk(chat.clone(), stopped.clone()));
        chats.push(chat);
    }
    let advances = async |lobby: &parley_client::Room| {
        let seq = lobby.seq();
        eventually(SOON, "messages arrive", || async { if lobby.seq() > seq + 30 { Ok(()) } else { Err(seq) } }).await;
    };
    advances(&lobby).await;
    cluster.gateways[0].process().kill9();
    eventually(SOON, "all moved to another gateway", || async {
        let away = chats.iter().filter(|chat| !matches!(chat.state(), State::Online { ref node, .. } if node != "g1"));
        let away = away.count();
        if away == 0 { Ok(()) } else { Err(away) }
    })
    .await;
    cluster.gateways[0].process().wait();
    cluster.gateways[0].restart().await;
    for gateway in [1, 2] {
        advances(&lobby).await;
        cluster.gateways[gateway].process().terminate();
        assert_eq!(cluster.gateways[gateway].process().exit_code(Duration::from_secs(30)).await, Some(0));
        cluster.gateways[gateway].restart().await;
    }
    advances(&lobby).await;
    stop.send(true).unwrap();
    let mut sent = BTreeMap::new();
    for talker in talkers {
        sent.extend(talker.await.unwrap());
    }
    lobby.send("end").await.unwrap();
    let messages = timeout(SOON, reading).await.expect("in time").unwrap();
    let seqs: Vec<u64> = messages.iter().map(|message| message.seq.unwrap()).collect();
    assert_eq!(seqs, Vec::from_iter(1..=seqs.len() as u64), "each once and in order");
    sent.insert("end".to_owned(), messages.last().unwrap().id.clone());
    assert_eq!(messages.len(), sent.len(), "as many as were sent");
    assert_eq!(by_body(&messages), sent, "the acknowledged ones");
    cluster.finish().await;
}

#[tokio::test]
async fn frozen_gateway_is_left_after_unanswered_ping() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    for text in ["fenced", "lease lost", "subscription lost"] {
        cluster.allow(text);
    }
    let ann = session(&cluster, 0, "ann").await;
    let room = ann.join("#lobby", 0).await.unwrap();
    room.send("before").await.unwrap();
    cluster.gateways[0].process().stop_signal().await;
    // The gateway holds the session until the other one has fenced it.
    let ack = timeout(Duration::from_secs(60), room.send("during")).await.expect("in time").unwrap();
    assert_eq!((ack.seq, ack.duplicate), (Some(2), false));
    assert!(matches!(ann.state(), State::Online { node, .. } if node == "g2"));
    let mut messages = room.events();
    let bodies: Vec<Value> =
        take_until(&mut messages, "during").await.into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, ["before", "during"]);
    cluster.gateways[0].process().cont();
    drop((messages, room, ann));
    cluster.finish().await;
}

#[tokio::test]
async fn rust_retry_leaves_a_stopped_gateway_soon() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    let ann = session(&cluster, 0, "ann").await;
    cluster.gateways[0].process().stop_signal().await;
    ann.retry();
    // Without the check, silence of the gateway is noticed after its heartbeat.
    eventually(Duration::from_secs(6), "the other gateway", || async {
        match ann.state() {
            State::Online { node, .. } if node == "g2" => Ok(()),
            state => Err(state),
        }
    })
    .await;
}

#[tokio::test]
async fn rust_session_outlives_an_absent_cluster() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    let ann = session(&cluster, 0, "ann").await;
    let room = ann.join("#lobby", 0).await.unwrap();
    assert_eq!(cluster.gateways[0].end().await, Some(0));
    let sending = tokio::spawn({
        let room = room.clone();
        async move { room.send("during").await }
    });
    eventually(SOON, "an attempt has failed", || async {
        match ann.state() {
            State::Offline { will_retry: true, retry_in: Some(_), .. } => Ok(()),
            state => Err(state),
        }
    })
    .await;
    cluster.gateways[0].restart().await;
    assert_eq!(timeout(SOON, sending).await.expect("in time").unwrap().map(|ack| ack.seq), Ok(Some(1)));
    let mut events = room.events();
    let next = async { events.next().await.is_some_and(|event| matches!(event, RoomEvent::Message(_))) };
    let arrives = timeout(SOON, next).await;
    assert!(arrives.is_ok());
    cluster.finish().await;
}
