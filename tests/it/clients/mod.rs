//! The client library for Rust on real clusters. Those for JavaScript and Python have tests of their own.

mod application;
mod conversations;
mod echo_bot;
mod faults;
mod formats;
mod frames;
mod names;
mod restarts;
mod sign_in;
pub(crate) mod tls;

use std::time::Duration;

use harness::Cluster;
use parley_client::{Events, Message, Options, Parley, RoomEvent, RoomMessages};
use serde_json::Value;
use tokio::time::timeout;

/// The maximum time for an expected event, also over a lost connection.
const SOON: Duration = Duration::from_secs(20);

/// Returns the addresses of the gateways, beginning with this one; 0 is g1.
fn urls(cluster: &Cluster, first: usize) -> Vec<String> {
    let mut urls: Vec<String> = cluster.gateways.iter().map(|node| format!("ws://{}/ws", node.ws())).collect();
    urls.rotate_left(first);
    urls
}

/// The format of a session's messages.
#[derive(Debug, Clone, Copy)]
enum ClientFormat {
    Json,
    MessagePack,
}

impl ClientFormat {
    const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    fn options(self, nick: &str) -> Options {
        match self {
            Self::Json => Options::new(nick),
            Self::MessagePack => Options::new(nick).msgpack(),
        }
    }
}

/// Begins a session on this gateway, which knows all others.
async fn session(cluster: &Cluster, gateway: usize, nick: &str) -> Parley {
    session_in(ClientFormat::Json, cluster, gateway, nick).await
}

async fn session_in(format: ClientFormat, cluster: &Cluster, gateway: usize, nick: &str) -> Parley {
    connect(urls(cluster, gateway), format.options(nick)).await
}

async fn connect(urls: Vec<String>, options: Options) -> Parley {
    timeout(SOON, Parley::connect(urls, options)).await.expect("registered in time").unwrap()
}

/// Takes the next messages of a room, and returns their bodies.
async fn take(messages: &mut RoomMessages, count: usize) -> Vec<Value> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let message = timeout(SOON, messages.next()).await;
        bodies.push(message.unwrap_or_else(|_| panic!("{} of {count}", bodies.len())).expect("a message").body);
    }
    bodies
}

/// Takes events of a room up to the message with this body. Returns all messages.
async fn take_until(events: &mut Events<RoomEvent>, body: &str) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    while messages.last().is_none_or(|message| message.body != body) {
        let event = timeout(SOON, events.next()).await.unwrap_or_else(|_| panic!("{body} after {messages:?}"));
        match event.expect("an event") {
            RoomEvent::Message(message) => messages.push(message),
            loss @ (RoomEvent::Gap { .. } | RoomEvent::Rewind { .. }) => panic!("{loss:?} after {messages:?}"),
            _ => {}
        }
    }
    messages
}
