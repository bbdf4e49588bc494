//! Clients of both formats in one room, over killed gateways, and on a gateway that knows only JSON.

use harness::Cluster;
use parley_client::{FileStorage, Options, Parley};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{ClientFormat, SOON, connect, session_in, take, urls};

/// Returns bodies of every kind, with the boundaries of the formats.
fn bodies() -> Vec<Value> {
    let mut bodies = vec![json!(null), json!(false), json!(1.5), json!({}), json!([[], {"": {"id": [null]}}])];
    bodies.extend([0, 127, 128, 65_536, u64::MAX].map(Value::from));
    bodies.extend([-1, -33, i64::MIN].map(Value::from));
    bodies.extend([0, 31, 32, 256, 60_000].map(|length| Value::from("é".repeat(length / 2))));
    bodies
}

#[tokio::test]
async fn rust_formats_share_a_room_unchanged() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let ann = session_in(ClientFormat::Json, &cluster, 0, "ann").await;
    let bob = session_in(ClientFormat::MessagePack, &cluster, 1, "bob").await;
    let rooms = [ann.join("#lobby", 0).await.unwrap(), bob.join("#lobby", 0).await.unwrap()];
    let mut heard = [rooms[0].messages(), rooms[1].messages()];
    for room in &rooms {
        for body in bodies() {
            room.send(body).await.unwrap();
        }
    }
    let expected = [bodies(), bodies()].concat();
    for messages in &mut heard {
        assert_eq!(take(messages, expected.len()).await, expected);
    }
    let deep = (0..40).fold(json!(0), |deep, _| json!([deep]));
    for room in &rooms {
        assert_eq!(room.send(&deep).await.unwrap_err().code(), "bad_request");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn killed_gateway_loses_no_packed_message() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    cluster.allow("fenced");
    cluster.allow("lease");
    let ann = session_in(ClientFormat::MessagePack, &cluster, 0, "ann").await;
    let bob = session_in(ClientFormat::Json, &cluster, 1, "bob").await;
    let (here, there) = (ann.join("#lobby", 0).await.unwrap(), bob.join("#lobby", 0).await.unwrap());
    let (mut own, mut others) = (here.messages(), there.messages());
    for number in 0..60 {
        if number == 30 {
            cluster.gateways[0].process().kill9();
        }
        timeout(SOON, here.send(number)).await.expect("no send is left pending").unwrap();
        there.send(-number).await.unwrap();
    }
    let (own, others) = (take(&mut own, 120).await, take(&mut others, 120).await);
    assert_eq!(own, others, "one order");
    let mut sent: Vec<i64> = own.iter().map(|body| body.as_i64().unwrap()).collect();
    sent.sort_unstable();
    assert_eq!(sent, Vec::from_iter((-59..=59).flat_map(|number| vec![number; if number == 0 { 2 } else { 1 }])));
    cluster.gateways[0].process().wait();
    cluster.gateways[0].restart().await;
    cluster.finish().await;
}

#[tokio::test]
async fn stored_session_continues_in_another_format() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().gateways(2).start().await;
    let stored = |format: ClientFormat| format.options("ann").storage(FileStorage::new(folder.path().join("a.json")));
    let bob = session_in(ClientFormat::Json, &cluster, 1, "bob").await;
    let there = bob.join("#lobby", 0).await.unwrap();
    for (round, format) in [ClientFormat::Json, ClientFormat::MessagePack, ClientFormat::Json].into_iter().enumerate() {
        let ann = connect(urls(&cluster, round % 2), stored(format)).await;
        let mut messages = ann.join("#lobby", 0).await.unwrap().messages();
        if round > 0 {
            assert_eq!(take(&mut messages, 1).await, [round - 1], "sent while the program did not run");
        }
        drop((messages, ann));
        there.send(round).await.unwrap();
    }
    cluster.finish().await;
}

#[tokio::test]
async fn gateway_without_the_format_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let serving = async { tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await };
    let connecting = timeout(SOON, Parley::connect([url], Options::new("ann").msgpack()));
    let (_socket, refused) = tokio::join!(serving, connecting);
    assert_eq!(refused.expect("in time").unwrap_err().code(), "unsupported_data");
}
