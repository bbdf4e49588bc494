//! Positions that the store does not know: an unknown epoch, also at seq 0, and a seq beyond the end.
//!
//! Nothing of an unknown epoch is valid (`gateway/PROTOCOL.md`), so a client is rewound to seq 0 and gets everything.
//! Both arms are tested: a gateway with Redis, and one alone. Known positions are covered in `refill` and `resume`.

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Cluster, Node, WsClient};
use serde_json::{Value, json};

use crate::lobby::{await_message, seq_words, stream_events};

/// The maximum time for an expected event.
const SOON: Duration = Duration::from_secs(3);

/// Registers a client. Returns it with its registration.
async fn person(gateway: SocketAddr, nick: &str) -> (WsClient, Value) {
    let person = WsClient::connect(gateway).await;
    let registered = person.register(nick).await;
    (person, registered)
}

/// Joins the lobby at `since`. Returns the reply and the words of the stream events up to seq 3.
async fn join_at(person: &WsClient, since: Value) -> (Value, Vec<String>) {
    let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
    await_message(person, 3).await;
    (joined, stream_events(person))
}

/// Checks every request that takes a position.
async fn unknown_positions_are_void(gateway: SocketAddr) {
    let (ann, registered) = person(gateway, "ann").await;
    let (bob, _) = person(gateway, "bob").await;
    let epoch = ann.join("#lobby").await["epoch"].clone();
    let inbox = registered["inbox"]["epoch"].clone();
    bob.join("#lobby").await;

    // A blank stream has no message to lose, and an unknown epoch is unknown there too.
    for (nick, since) in [("eve", json!({"epoch": "", "seq": 0})), ("fay", json!({"epoch": "none", "seq": 0}))] {
        let (person, _) = person(gateway, nick).await;
        let joined = person.must(json!({"type": "join", "room": "#lobby", "since": since})).await;
        assert_eq!((&joined["recovered"], &joined["epoch"]), (&json!(false), &epoch), "{nick}");
        person.expect_event(SOON, "rewound", |event| event["type"] == "rewound" && event["seq"] == 0).await;
        person.bye().await;
    }
    for text in ["one", "two", "three"] {
        bob.sends("#lobby", text).await;
        bob.sends("ann", text).await;
        ann.receives("#lobby", "bob", text).await;
        ann.receives_privately("bob", text).await;
    }
    let rewound = || [vec!["rewound 0".to_owned()], seq_words(1..=3)].concat();
    for (nick, since, recovered, words) in [
        ("gus", json!({"epoch": "", "seq": 0}), false, rewound()),
        ("hal", json!({"epoch": "none", "seq": 0}), false, rewound()),
        ("ida", json!({"epoch": "none", "seq": 2}), false, rewound()),
        ("jan", json!({"epoch": "", "seq": 9_007_199_254_740_991_u64}), false, rewound()),
        ("kay", json!({"epoch": inbox, "seq": 0}), false, rewound()),
        ("lea", json!({"epoch": epoch, "seq": 0}), true, seq_words(1..=3)),
        ("max", json!({"epoch": epoch, "seq": 2}), true, seq_words(3..=3)),
    ] {
        let (person, _) = person(gateway, nick).await;
        let (joined, found) = join_at(&person, since.clone()).await;
        assert_eq!((&joined["recovered"], found), (&json!(recovered), words), "{since}");
        person.bye().await;
    }
    read_and_history_are_kept_within_the_stream(&ann).await;

    // A resume is told the same of its rooms and its inbox.
    let mut registered = registered;
    ann.cut();
    for unknown in ["", "none"] {
        let again = WsClient::connect(gateway).await;
        let void = json!({"epoch": unknown, "seq": 0});
        registered = again.resume(&registered, json!({"#lobby": void, "@": void})).await;
        await_message(&again, 3).await;
        again.receives_privately("bob", "three").await;
        assert_eq!(stream_events(&again), rewound(), "{unknown:?}");
        let direct = |event: &Value| event["to"] == "@" || event["to"] == "ann";
        let kinds: Vec<Value> = again.received(direct).iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["rewound", "message", "message", "message"], "{unknown:?}");
        again.cut();
    }
}

/// `read` and `history` take a seq without an epoch: it counts in the present one, up to the end.
async fn read_and_history_are_kept_within_the_stream(ann: &WsClient) {
    for (seq, kept) in [(0, 0), (2, 2), (1, 2), (9_007_199_254_740_991_u64, 3), (0, 3)] {
        assert_eq!(ann.must(json!({"type": "read", "to": "@", "seq": seq})).await["seq"], kept, "{seq}");
    }
    let history = async |bound: &str, seq: u64| {
        let page = ann.must(json!({"type": "history", "to": "#lobby", bound: seq})).await;
        page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(history("after", 0).await, [1, 2, 3]);
    assert_eq!(history("after", 3).await, [0; 0]);
    assert_eq!(history("after", 9_007_199_254_740_991).await, [0; 0]);
    assert_eq!(history("before", 0).await, [0; 0]);
    assert_eq!(history("before", 1).await, [0; 0]);
    assert_eq!(history("before", 9_007_199_254_740_991).await, [1, 2, 3]);
}

#[tokio::test]
async fn unknown_positions_are_void_in_redis() {
    let cluster = Cluster::builder().gateways(1).start().await;
    unknown_positions_are_void(cluster.gateways[0].ws()).await;
    cluster.finish().await;
}

#[tokio::test]
async fn unknown_positions_are_void_in_memory() {
    let mut gateway = Node::gateway("alone").start().await;
    unknown_positions_are_void(gateway.ws()).await;
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
    assert_eq!(gateway.end().await, Some(0));
}
