//! The messages of a room as an event stream.

use serde_json::{Value, json};

use super::events::StreamClient;
use super::keys::GuardedApi;
use crate::model::RoomName;
use crate::service::access::ApiScope;

impl GuardedApi {
    async fn say(&self, room: &str, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let key = format!("{room} {number}");
            let message = json!({ "to": room, "from": "news", "body": { "n": number }, "key": key });
            assert_eq!(self.publish(&message).await.status, 200);
        }
    }

    async fn follow(&self, query: &str, last_id: Option<&str>) -> StreamClient {
        let last_id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let headers = format!("{}{last_id}", self.key(ApiScope::Read));
        StreamClient::open_with(&self.served, query, &headers).await
    }
}

/// Reads the seqs of the next messages.
async fn seqs(stream: &mut StreamClient, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let (kind, data) = stream.next().await.unwrap();
        assert_eq!((kind.as_str(), &data["body"]["n"]), ("message", &data["seq"]), "{data}");
        seqs.push(data["seq"].as_u64().unwrap());
    }
    seqs
}

const LOBBY: &str = "?messages=true&room=LOBBY";

#[tokio::test]
async fn stream_of_messages_follows_its_room() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#Lobby", "#attic"]).await;
    api.say("#lobby", 1..=1).await;
    let mut stream = api.follow(LOBBY, None).await;
    let mut second = api.follow("?messages=true&room=lobby&nick=bob", None).await;
    api.say("#attic", 1..=1).await;
    api.served.user("eve", &["#lobby"]).await;
    api.say("#lobby", 2..=2).await;
    let (kind, mut data) = stream.next().await.unwrap();
    for field in ["msg_id", "time"] {
        assert!(!data[field].is_null(), "{data}");
        data[field] = Value::Null;
    }
    let expected = json!({ "room": "#Lobby", "from": "news", "from_api": true, "msg_id": null, "seq": 2, "time": null,
        "body": { "n": 2 } });
    assert_eq!((kind.as_str(), data), ("message", expected), "neither an older message nor another event");
    let message = json!({ "to": "#lobby", "from": "bob", "body": { "n": 3 }, "key": "b" });
    assert_eq!(api.publish(&message).await.status, 200);
    assert_eq!(seqs(&mut stream, 1).await, [3]);
    assert_eq!(seqs(&mut second, 1).await, [3], "only messages of the nickname");
}

#[tokio::test]
async fn stream_of_messages_resumes_by_id() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    api.say("#lobby", 1..=40).await;
    let mut stream = api.follow(LOBBY, Some("0")).await;
    assert_eq!(seqs(&mut stream, 20).await, (1..=20).collect::<Vec<_>>(), "from the beginning");
    let at_20 = stream.last_id.clone();
    assert_eq!(at_20.split('-').next(), Some("20"));
    drop(stream);
    api.say("#lobby", 41..=41).await;
    let mut resumed = api.follow(LOBBY, Some(&at_20)).await;
    assert_eq!(seqs(&mut resumed, 21).await, (21..=41).collect::<Vec<_>>());
    let mut of_seq = api.follow(LOBBY, Some("40")).await;
    assert_eq!(seqs(&mut of_seq, 1).await, [41], "a seq of the history is a position");
}

#[tokio::test]
async fn lost_position_of_messages_is_a_gap() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    api.say("#lobby", 1..=3).await;
    let mut stream = api.follow(LOBBY, Some("0")).await;
    assert_eq!(seqs(&mut stream, 3).await, [1, 2, 3]);
    let at_3 = stream.last_id.clone();
    let lobby = RoomName::parse("#lobby").unwrap();
    // Another room of the name, whose epoch is another one.
    assert!(api.served.registry.end_room(&lobby).await.unwrap());
    api.served.user("bob", &["#lobby"]).await;
    api.say("#lobby", 4..=4).await;
    let first = json!({ "to": "#lobby", "body": { "n": 2 }, "key": "second" });
    assert_eq!(api.publish(&first).await.status, 200);
    for last_id in [at_3.as_str(), "1-77", "9"] {
        let mut resumed = api.follow(LOBBY, Some(last_id)).await;
        resumed.expect("gap", json!({})).await;
        resumed.expect("message", json!({ "seq": 1 })).await;
        resumed.expect("message", json!({ "seq": 2 })).await;
    }
    stream.expect("unavailable", json!({})).await;
    stream.expect("gap", json!({})).await;
}

#[tokio::test]
async fn malformed_streams_of_messages_are_refused() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    for (query, status, code) in [
        ("?messages=true", 400, "bad_request"),
        ("?messages=yes&room=lobby", 400, "bad_request"),
        ("?messages=true&room=a%20b", 400, "bad_room"),
        ("?messages=true&room=attic", 404, "no_such_room"),
    ] {
        let answer = api.ask("GET", &format!("/v1/events{query}"), &api.key(ApiScope::Read)).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{query}");
    }
    let answer = api.ask("GET", &format!("/v1/events{LOBBY}"), &api.key(ApiScope::Publish)).await;
    assert_eq!(answer.status, 403);
}
