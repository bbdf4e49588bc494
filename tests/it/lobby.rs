//! Members of the room `#lobby` and the stream events that they receive.
//!
//! Stream events are messages and the reports of gaps, rewinds and new epochs. They are never replies, so none has a
//! request id. Clients of other rooms and direct messages are not covered.

use std::time::Duration;

use harness::{Cluster, WsClient};
use serde_json::Value;

/// The maximum time for an expected message.
const DELIVERY_MAX: Duration = Duration::from_secs(3);

/// Registers a client and joins the lobby.
pub(crate) async fn lobby_member(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    resumable_lobby_member(cluster, gateway, nick).await.0
}

/// Registers a client and joins the lobby. Returns the client and its registration, for a resume.
pub(crate) async fn resumable_lobby_member(cluster: &Cluster, gateway: usize, nick: &str) -> (WsClient, Value) {
    let person = cluster.ws_on(gateway).await;
    let registered = person.register(nick).await;
    person.join("#lobby").await;
    (person, registered)
}

/// Returns `true` for a stream event of the lobby.
pub(crate) fn is_stream_event(event: &Value) -> bool {
    let is_event = ["message", "gap", "rewound", "epoch"].iter().any(|kind| event["type"] == *kind);
    is_event && event["to"] == "#lobby"
}

/// Returns the stream events of the lobby that this client received, in order: `3`, or `gap 4-6`.
pub(crate) fn stream_events(person: &WsClient) -> Vec<String> {
    let word = |event: &Value| {
        assert_eq!(event.get("id"), None, "an event has no request id: {event}");
        match event["type"].as_str().unwrap() {
            "message" => event["seq"].to_string(),
            "gap" => format!("gap {}-{}", event["from_seq"], event["to_seq"]),
            kind => format!("{kind} {}", event["seq"]),
        }
    };
    person.received(is_stream_event).iter().map(word).collect()
}

/// Returns the words of [`stream_events`] for messages with these seqs.
pub(crate) fn seq_words(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter().map(|seq| seq.to_string()).collect()
}

/// Waits until the client receives this message of the lobby.
pub(crate) async fn await_message(person: &WsClient, seq: u64) {
    await_message_within(DELIVERY_MAX, person, seq).await;
}

/// Waits at most this time until the client receives this message of the lobby.
pub(crate) async fn await_message_within(limit: Duration, person: &WsClient, seq: u64) {
    let what = format!("message {seq}");
    person.expect_event(limit, &what, |event| is_stream_event(event) && event["seq"] == seq).await;
}
