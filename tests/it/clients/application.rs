//! Messages of the application behind the chat, as members receive them.

use harness::{Cluster, http};
use parley_client::{DirectEvent, Events, History, Message};
use presence::service::access::{ApiScope, NewKey};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{SOON, session, take_until};

async fn next_direct(directs: &mut Events<DirectEvent>) -> Message {
    match timeout(SOON, directs.next()).await.expect("in time") {
        Some(DirectEvent::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// Returns a cluster with a server API, and the function that calls it.
async fn cluster_with_api() -> (Cluster, impl AsyncFn(&str, Value) -> Value) {
    let key = NewKey::draw("backend", ApiScope::ALL).unwrap();
    let builder = Cluster::builder().gateways(2).presence(1);
    let cluster = builder.presence_setting("PARLEY__API__KEYS", &key.known.to_string()).start().await;
    let api = cluster.presence[0].api();
    let call = async move |path: &str, body: Value| {
        let body = body.to_string();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        let request = format!("{head}Authorization: Bearer {}\r\n\r\n{body}", key.secret);
        let answer = http::exchange(api, request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    (cluster, call)
}

#[tokio::test]
async fn application_under_the_own_nickname_is_another() {
    let (cluster, call) = cluster_with_api().await;
    let (ann, bob) = (session(&cluster, 0, "ann").await, session(&cluster, 1, "bob").await);
    let room = ann.join("#lobby", 0).await.unwrap();
    let mut events = room.events();
    room.send("hi").await.unwrap();
    call("/v1/messages", json!({"to": "#lobby", "from": "ann", "body": "news", "key": "k1"})).await;
    let seen = |messages: &[Message]| Vec::from_iter(messages.iter().map(|message| (message.own, message.from_api)));
    assert_eq!(seen(&take_until(&mut events, "news").await), [(true, false), (false, true)]);
    assert_eq!(seen(&room.history(History::Newest).await.unwrap().items), [(true, false), (false, true)]);

    let (mut directs, mut with_bob) = (ann.directs(), ann.direct("bob").events());
    call("/v1/messages", json!({"to": "ann", "from": "bob", "body": 1, "key": "k2"})).await;
    bob.direct("ann").send(2).await.unwrap();
    let (first, second) = (next_direct(&mut directs).await, next_direct(&mut directs).await);
    assert_eq!((first.from.as_str(), first.from_api, &first.body), ("bob", true, &json!(1)));
    assert_eq!((second.from.as_str(), second.from_api, &second.body), ("bob", false, &json!(2)));
    assert_eq!(next_direct(&mut with_bob).await.body, 2, "an answer in this conversation reaches bob");
    assert_eq!(ann.direct("bob").unread(), 1);
    cluster.finish().await;
}

#[tokio::test]
async fn announcement_reaches_every_session_once() {
    let (cluster, call) = cluster_with_api().await;
    let (ann, bob) = (session(&cluster, 0, "ann").await, session(&cluster, 1, "bob").await);
    let mut streams = [ann.announcements(), bob.announcements()];
    for (body, key) in [(json!({"at": 12}), "a1"), (json!({"at": 12}), "a1"), (json!("last"), "a2")] {
        call("/v1/announcements", json!({"body": body, "key": key})).await;
    }
    for stream in &mut streams {
        for body in [json!({"at": 12}), json!("last")] {
            let announcement = timeout(SOON, stream.next()).await.expect("in time").expect("an announcement");
            assert_eq!(announcement.body, body);
        }
    }
    ann.close().await;
    assert_eq!(timeout(SOON, streams[0].next()).await, Ok(None), "the stream ends with the session");
    cluster.finish().await;
}
