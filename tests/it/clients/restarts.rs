//! Storage, final ends, and readers that are slower than their room.

use std::path::Path;

use harness::{Cluster, Node};
use parley_client::{DirectEvent, FileStorage, Options, Parley, RoomEvent, State};
use tokio::time::timeout;

use super::{SOON, connect, session, take, urls};

fn stored(nick: &str, folder: &Path) -> Options {
    Options::new(nick).storage(FileStorage::new(folder.join("session.json")))
}

async fn await_state(chat: &Parley, is_expected: impl Fn(&State) -> bool) {
    let mut states = chat.states();
    let wait = async { while !is_expected(&states.next().await.expect("a later state")) {} };
    timeout(SOON, wait).await.expect("the state in time");
}

#[tokio::test]
async fn rust_program_continues_after_handled_message() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().gateways(2).start().await;
    let bob = session(&cluster, 1, "bob").await;
    let there = bob.join("#lobby", 0).await.unwrap();
    for ends_with_a_close in [true, false] {
        let ann = connect(urls(&cluster, 0), stored("ann", folder.path())).await;
        let mut messages = ann.join("#lobby", 0).await.unwrap().messages();
        for number in 0..4 {
            there.send(number).await.unwrap();
        }
        assert_eq!(take(&mut messages, 2).await, [0, 1]);
        if ends_with_a_close {
            ann.close().await;
        }
        drop((messages, ann));
        bob.direct("ann").send("while you were away").await.unwrap();

        let again = connect(urls(&cluster, 1), stored("ann", folder.path())).await;
        let Some(DirectEvent::Message(message)) = timeout(SOON, again.directs().next()).await.unwrap() else {
            panic!("no direct message");
        };
        assert_eq!(message.body, "while you were away");
        let mut messages = again.join("#lobby", 0).await.unwrap().messages();
        assert_eq!(take(&mut messages, 2).await, [2, 3]);
        drop(messages);
        again.close().await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn taken_over_session_ends_every_call() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::builder().gateways(1).start().await;
    let first = connect(urls(&cluster, 0), stored("ann", folder.path())).await;
    let room = first.join("#lobby", 0).await.unwrap();
    let second = connect(urls(&cluster, 0), stored("ann", folder.path())).await;
    await_state(&first, State::is_final).await;
    let State::Offline { reason, .. } = first.state() else { panic!("{:?}", first.state()) };
    assert_eq!(reason, "taken_over");
    assert_eq!(room.send("late").await.unwrap_err().code(), "taken_over");
    assert_eq!(timeout(SOON, room.events().next()).await.unwrap().map(|event| is_message(&event)), Some(false));
    second.close().await;
    assert_eq!(second.join("#lobby", 0).await.unwrap_err().code(), "closed");
    cluster.finish().await;
}

fn is_message(event: &RoomEvent) -> bool {
    matches!(event, RoomEvent::Message(_))
}

#[tokio::test]
async fn refused_rust_client_begins_again_with_rename() {
    let cluster = Cluster::builder().gateways(1).start().await;
    let ann = session(&cluster, 0, "ann").await;
    let refused = Parley::connect(urls(&cluster, 0), Options::new("ANN")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), ("nick_in_use", "this nickname is in use"));
    let other = Parley::start(urls(&cluster, 0), Options::new("ANN")).unwrap();
    await_state(&other, State::is_final).await;
    assert_eq!(other.join("#lobby", 0).await.unwrap_err().code(), "nick_in_use");
    other.rename("anna").await.unwrap();
    await_state(&other, |state| matches!(state, State::Online { .. })).await;
    assert_eq!(other.direct("ann").send("hi").await.map(|ack| ack.duplicate), Ok(false));
    assert_eq!(ann.whois("anna").await.map(|user| user.online), Ok(true));
    cluster.finish().await;
}

#[tokio::test]
async fn slow_rust_reader_loses_nothing() {
    const SENT: usize = 2_500;
    let mut gateway = Node::gateway("g1").start().await;
    let address = || vec![format!("ws://{}/ws", gateway.ws())];
    let (ann, bob) = (connect(address(), Options::new("ann")).await, connect(address(), Options::new("bob")).await);
    let (here, there) = (ann.join("#lobby", 0).await.unwrap(), bob.join("#lobby", 0).await.unwrap());
    let mut messages = there.messages();
    for number in 0..SENT {
        here.send(number).await.unwrap();
    }
    assert!(there.seq() <= 1_000, "the room is paused at {}", there.seq());
    there.send("not blocked").await.unwrap();
    let bodies = take(&mut messages, SENT + 1).await;
    assert!(bodies[..SENT].iter().enumerate().all(|(number, body)| *body == number));
    assert_eq!(bodies[SENT], "not blocked");
    drop((messages, here, there, ann, bob));
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}
