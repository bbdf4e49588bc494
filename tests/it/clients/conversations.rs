//! Rooms, direct messages and requests, in each format.

use harness::{Cluster, eventually};
use parley_client::{Delivered, DirectEvent, Events, History, Message, Room, UserStatus};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ClientFormat, SOON, session_in, take};

fn member_nicks(room: &Room) -> Vec<String> {
    room.members().into_keys().collect()
}

async fn await_members(room: &Room, nicks: &[&str]) {
    eventually(SOON, "the members", || async {
        let members = member_nicks(room);
        if members == nicks { Ok(()) } else { Err(members) }
    })
    .await;
}

async fn next_direct(events: &mut Events<DirectEvent>) -> Message {
    match timeout(SOON, events.next()).await.expect("in time") {
        Some(DirectEvent::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rust_members_talk_across_two_gateways() {
    for format in ClientFormat::ALL {
        talk(format).await;
    }
}

async fn talk(format: ClientFormat) {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = session_in(format, &cluster, 0, "ann").await;
    let bob = session_in(format, &cluster, 1, "bob").await;
    let (here, there) = (ann.join("#lobby", 0).await.unwrap(), bob.join("#Lobby", 0).await.unwrap());
    await_members(&here, &["ann", "bob"]).await;
    let mut messages = there.messages();
    let sends = (0..20).map(|number| here.send(number));
    let acks = futures_util::future::try_join_all(sends).await.unwrap();
    assert_eq!(take(&mut messages, 20).await, Vec::from_iter((0..20).map(Value::from)), "in the order of the calls");
    assert_eq!(Vec::from_iter(acks.iter().map(|ack| ack.seq.unwrap())), Vec::from_iter(1..=20));
    assert_eq!((there.name(), there.seq(), there.unread(), there.read_seq()), ("#lobby", 20, 20, 0));
    there.read_up_to(5);
    assert_eq!((there.unread(), there.read_seq()), (15, 5));

    let first = there.send_once(json!({"at": [12, 30]}), "greeting").await.unwrap();
    let second = there.send_once(json!({"at": [12, 30]}), "greeting").await.unwrap();
    assert_eq!((&second.id, first.duplicate, second.duplicate), (&first.id, false, true));
    let page = here.history(History::Before(21)).await.unwrap();
    assert_eq!((page.items.len(), page.more, page.items[0].own), (20, false, true));
    assert_eq!(here.history(History::After(20)).await.unwrap().items[0].body, json!({"at": [12, 30]}));
    cluster.finish().await;
}

#[tokio::test]
async fn rust_direct_messages_reach_both_conversations() {
    for format in ClientFormat::ALL {
        talk_in_private(format).await;
    }
}

async fn talk_in_private(format: ClientFormat) {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = session_in(format, &cluster, 0, "ann").await;
    let bob = session_in(format, &cluster, 1, "bob").await;
    let (mut inbox, conversation) = (bob.directs(), bob.direct("ANN"));
    let mut both = conversation.events();
    let ack = ann.direct("bob").send("psst").await.unwrap();
    assert_eq!((ack.delivered, ack.seq), (Some(Delivered::Online), None));
    assert_eq!(next_direct(&mut inbox).await.body, "psst");
    conversation.send("what?").await.unwrap();
    let messages = [next_direct(&mut both).await, next_direct(&mut both).await];
    assert_eq!(messages.map(|message| (message.body, message.own)), [("psst".into(), false), ("what?".into(), true)]);
    assert_eq!(conversation.unread(), 1);
    conversation.read();
    assert_eq!((conversation.unread(), bob.direct("ann").read_seq()), (0, 1), "the same conversation");
    ann.direct("Bob").typing();
    let typing = timeout(SOON, both.next()).await.expect("in time");
    assert_eq!(typing, Some(DirectEvent::Typing { from: "ann".to_owned() }));
    assert_eq!(ann.direct("nobody-yet").send(1).await.unwrap_err().code(), "no_such_user");
    cluster.finish().await;
}

#[tokio::test]
async fn rust_requests_return_server_answers() {
    for format in ClientFormat::ALL {
        request(format).await;
    }
}

async fn request(format: ClientFormat) {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = session_in(format, &cluster, 0, "ann").await;
    let bob = session_in(format, &cluster, 1, "bob").await;
    let mut joins = ann.joins();
    let room = ann.join("#Garden", 0).await.unwrap();
    ann.clone().join("#garden", 0).await.unwrap();
    ann.join("#shed", 0).await.unwrap().leave().await.unwrap();
    for name in ["#Garden", "#shed"] {
        assert_eq!(timeout(SOON, joins.next()).await.expect("in time").as_deref(), Some(name));
    }
    for number in 0..3 {
        room.send(number).await.unwrap();
    }
    let other = bob.join("#garden", 2).await.unwrap();
    assert_eq!(Vec::from_iter(other.recent().into_iter().map(|message| message.body)), [1, 2]);
    assert_eq!(other.name(), "#Garden");
    assert_eq!((bob.join("#GARDEN", 0).await.unwrap().name(), bob.joined().len()), ("#Garden", 1));
    let page = ann.rooms(100, None).await.unwrap();
    assert_eq!((page.items[0].room.as_str(), page.items[0].member_count, page.next_cursor), ("#Garden", 2, None));

    ann.status(UserStatus::Away, "tea").await.unwrap();
    let user = bob.whois("ANN").await.unwrap();
    assert_eq!((user.nick.as_str(), user.online, user.status), ("ann", true, Some(UserStatus::Away)));
    ann.rename("anna").await.unwrap();
    await_members(&other, &["anna", "bob"]).await;
    assert_eq!(other.members()["anna"].text, "tea");
    assert_eq!(ann.nick(), "anna");
    assert_eq!(ann.rename("bob").await.unwrap_err().code(), "nick_in_use");
    assert_eq!(ann.join("no room", 0).await.unwrap_err().code(), "bad_room");
    assert_eq!(ann.whois("stranger").await.unwrap_err().code(), "no_such_user");
    ann.ping().await.unwrap();
    room.leave().await.unwrap();
    await_members(&other, &["bob"]).await;
    assert!(ann.joined().is_empty());
    assert_eq!(timeout(SOON, drain(&room)).await, Ok(3), "the stream ends with the room");
    ann.close().await;
    assert_eq!(timeout(SOON, joins.next()).await, Ok(None), "the stream ends with the session");
    cluster.finish().await;
}

/// Counts the messages of a room that has ended.
async fn drain(room: &Room) -> usize {
    let (mut messages, mut count) = (room.messages(), 0);
    while messages.next().await.is_some() {
        count += 1;
    }
    count
}
