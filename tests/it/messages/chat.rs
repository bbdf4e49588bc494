//! Room and direct messages between clients on different gateways, behind nginx, in both dialects.
//!
//! Clients see one cluster: placement on a gateway changes no message, order or membership event.

use std::time::Duration;

use futures_util::future::join_all;
use harness::{Cluster, LineClient, Person, WsClient};
use parley_client::{Delivered, Member, UserStatus};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const SOON: Duration = Duration::from_secs(5);

async fn cluster() -> Cluster {
    Cluster::builder().gateways(2).presence(1).nginx(true).start().await
}

/// Registers a person and a client on different gateways. nginx spreads connections, so a few attempts are enough.
async fn register_apart(cluster: &Cluster, first: &str, second: &str) -> (Person, WsClient) {
    let one = cluster.person(first).await;
    let home = one.node();
    for _ in 0..10 {
        let other = cluster.ws().await;
        if other.register(second).await["node"] != home.as_str() {
            return (one, other);
        }
        other.bye().await;
        harness::eventually(SOON, "nickname released", || async {
            if cluster.is_online(second).await { Err("online") } else { Ok(()) }
        })
        .await;
    }
    panic!("nginx routes every connection to {home}");
}

/// Registers a line client and joins the room.
async fn join_by_line(cluster: &Cluster, nick: &str, room: &str) -> LineClient {
    let person = cluster.line().await;
    person.register(nick).await;
    person.join(room).await;
    person
}

#[tokio::test]
async fn room_message_reaches_every_gateway_and_both_dialects() {
    let cluster = cluster().await;
    let (ann, bob) = register_apart(&cluster, "ann", "bob").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let carl = join_by_line(&cluster, "carl", "#lobby").await;

    let ack = ann.sends("#lobby", "hi").await;
    let delivered_message = bob.receives("#lobby", "ann", "hi").await;
    carl.receives("#lobby", "ann", "hi").await;
    assert_eq!(
        (&delivered_message["msg_id"], &delivered_message["seq"], &delivered_message["time"]),
        (&json!(ack.id), &json!(ack.seq), &json!(ack.time))
    );
    let own = ann.receives("#lobby", "ann", "hi").await;
    assert_eq!((own.id, own.seq, own.time), (ack.id, ack.seq, ack.time), "the sender receives the same message");

    carl.types("hello from a terminal").await;
    ann.receives("#lobby", "carl", "hello from a terminal").await;
    bob.receives("#lobby", "carl", "hello from a terminal").await;
    carl.receives("#lobby", "carl", "hello from a terminal").await;

    bob.must(json!({"type": "send", "to": "#lobby", "body": {"any": ["json", 1, null]}})).await;
    ann.receives("#lobby", "bob", json!({"any": ["json", 1, null]})).await;
    carl.receives("#lobby", "bob", r#"{"any":["json",1,null]}"#).await;

    let said = ann.history("#lobby").await;
    assert_eq!(said.iter().map(|message| message.seq.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(said[0].body, "hi");
    cluster.finish().await;
}

#[tokio::test]
async fn direct_message_reaches_only_its_recipient() {
    let cluster = cluster().await;
    let (ann, bob) = register_apart(&cluster, "ann", "bob").await;
    let carl = join_by_line(&cluster, "carl", "#lobby").await;

    let ack = ann.sends("bob", "just for you").await;
    assert_eq!((ack.delivered, ack.seq), (Some(Delivered::Online), None), "{ack:?}");
    let delivered_message = bob.receives_privately("ann", "just for you").await;
    assert_eq!((&delivered_message["msg_id"], &delivered_message["seq"]), (&json!(ack.id), &json!(1)));

    carl.types("/msg ann psst").await;
    carl.reads("-> ann: psst").await;
    ann.receives_privately("carl", "psst").await;
    ann.sends("carl", "what?").await;
    carl.reads("<- ann: what?").await;

    let echoes = ann.received(|message| message.from == "ann");
    assert!(echoes.is_empty(), "direct messages are not echoed: {echoes:?}");
    assert!(carl.received("*just for you*").is_empty(), "carl received a message for bob");
    assert_eq!(ann.try_send("nobody", "hello?").await.unwrap_err().code(), "no_such_user");
    cluster.finish().await;
}

#[tokio::test]
async fn members_see_each_other_join_rename_and_leave() {
    let cluster = cluster().await;
    let (ann, bob) = register_apart(&cluster, "ann", "bob").await;
    ann.join("#lobby").await;
    assert_eq!(bob.join("#lobby").await["member_count"], 2);
    ann.sees_join("#lobby", "bob").await;
    let carl = join_by_line(&cluster, "carl", "#lobby").await;
    ann.sees_join("#lobby", "carl").await;
    bob.sees_join("#lobby", "carl").await;
    assert_eq!([ann.members("#lobby"), bob.members("#lobby").await], [["ann", "bob", "carl"]; 2]);

    bob.rename("bobby").await;
    ann.sees_rename("#lobby", "bob", "bobby").await;
    carl.reads("* bob is now known as bobby").await;
    bob.sends("#lobby", "still me").await;
    ann.receives("#lobby", "bobby", "still me").await;
    assert_eq!([ann.members("#lobby"), bob.members("#lobby").await], [["ann", "bobby", "carl"]; 2]);
    assert!(!cluster.is_online("bob").await && cluster.is_online("bobby").await);

    bob.away("lunch").await;
    let is_away = |member: &Member| {
        (member.nick.as_str(), member.status, member.text.as_str()) == ("bobby", UserStatus::Away, "lunch")
    };
    ann.sees(SOON, "#lobby", "status of bobby", |change| change.status.iter().any(is_away)).await;
    carl.reads("* bobby is away: lunch").await;
    bob.rename("robert").await;
    let robert = cluster.ask("/v1/users/robert").await;
    assert_eq!((&robert["status"], &robert["text"]), (&json!("away"), &json!("lunch")), "a rename keeps the status");
    ann.sees_rename("#lobby", "bobby", "robert").await;
    carl.reads("* bobby is now known as robert").await;
    bob.rename("bobby").await;
    ann.sees_rename("#lobby", "robert", "bobby").await;
    carl.reads("* robert is now known as bobby").await;

    bob.leave("#lobby").await;
    ann.sees_left(SOON, "#lobby", "bobby", "left").await;
    carl.reads("* bobby left #lobby").await;
    assert_eq!(bob.try_send("#lobby", "am I still there?").await.unwrap_err().code, "not_in_room");
    ann.sends("bobby", "you can still hear me").await;
    bob.receives_privately("ann", "you can still hear me").await;

    carl.types("/quit").await;
    ann.sees_left(SOON, "#lobby", "carl", "closed").await;
    assert_eq!([ann.members("#lobby"), bob.members("#lobby").await], [["ann"]; 2]);
    assert_eq!(bob.bye().await.code, Some(1000));
    assert_eq!(ann.left("#lobby").len(), 2, "each leave is reported once");
    cluster.finish().await;
}

#[tokio::test]
async fn orderly_close_leaves_the_room_at_once() {
    let cluster = cluster().await;
    let (ann, bob) = register_apart(&cluster, "ann", "bob").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    ann.sees_join("#lobby", "bob").await;
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    bob.send_message(Message::Close(Some(frame))).await;
    ann.sees_left(SOON, "#lobby", "bob", "closed").await;
    let again = cluster.ws().await;
    harness::eventually(SOON, "nickname released", || async {
        again.try_register("bob").await.map_err(|refused| refused.code)
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn gateway_answers_pipelined_requests_in_order() {
    let cluster = cluster().await;
    let ann = cluster.ws().await;
    let mut ids = vec![
        ann.post(json!({"type": "register", "nick": "ann"})).await,
        ann.post(json!({"type": "join", "room": "#lobby"})).await,
    ];
    for number in 0..50 {
        ids.push(ann.post(json!({"type": "send", "to": "#lobby", "body": number})).await);
        ids.push(ann.post(json!({"type": "no such thing"})).await);
    }
    ids.push(ann.post(json!({"type": "leave", "room": "#lobby"})).await);
    ids.push(ann.post(json!({"type": "send", "to": "#lobby", "body": "too late"})).await);
    let last = ann.reply_within(SOON, *ids.last().unwrap()).await;
    assert_eq!(last.unwrap_err().code, "not_in_room");

    let replies = ann.received(|value| value.get("id").is_some());
    assert_eq!(replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect::<Vec<_>>(), ids);
    let acks: Vec<u64> = replies.iter().filter_map(|reply| reply["seq"].as_u64()).collect();
    assert_eq!(acks[1..], (1..=50).collect::<Vec<u64>>(), "the first seq is the position of the join");
    cluster.finish().await;
}

#[tokio::test]
async fn all_members_receive_messages_in_one_order() {
    const EACH: usize = 100;
    let cluster = cluster().await;
    let (ann, bob) = register_apart(&cluster, "ann", "bob").await;
    let (carl, dora) = (cluster.ws().await, cluster.ws().await);
    carl.register("carl").await;
    dora.register("dora").await;
    ann.join("#lobby").await;
    let members = [&bob, &carl, &dora];
    for member in members {
        member.join("#lobby").await;
    }
    let posts = async {
        for number in 0..EACH {
            for member in members {
                member.post(json!({"type": "send", "to": "#lobby", "body": number})).await;
            }
        }
    };
    tokio::join!(join_all((0..EACH).map(|number| ann.sends("#lobby", number))), posts);
    let is_message = |event: &Value| event["type"] == "message";
    let all = u64::try_from(4 * EACH).unwrap();
    for member in members {
        member.expect_event(SOON, "the last message", |event| is_message(event) && event["seq"] == all).await;
    }
    let order = bob.received(is_message);
    assert_eq!(
        order.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(),
        Vec::from_iter(1..=all)
    );
    assert_eq!(carl.received(is_message), order);
    assert_eq!(dora.received(is_message), order);
    harness::eventually(SOON, "the library delivers the same", async || {
        let received = ann.received(|_| true);
        let is_same = received.iter().map(|message| &message.id).eq(order.iter().map(|message| &message["msg_id"]));
        if is_same { Ok(()) } else { Err(received) }
    })
    .await;
    for name in ["ann", "bob", "carl", "dora"] {
        let said = order.iter().filter(|message| message["from"] == name);
        let numbers: Vec<usize> = said.map(|message| message["body"].as_u64().unwrap().try_into().unwrap()).collect();
        assert_eq!(numbers, Vec::from_iter(0..EACH), "messages of {name} arrive in sending order");
    }
    cluster.finish().await;
}
