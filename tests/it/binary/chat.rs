//! Chat in binary formats: what a client of one format writes, clients of all others read.

use harness::{Cluster, WsClient};
use serde_json::{Value, json};

use super::{PATIENCE, WAYS, connect};

/// Waits for an event.
async fn event(client: &WsClient, fits: impl Fn(&Value) -> bool) -> Value {
    client.expect_event(PATIENCE, "event", fits).await.value
}

/// Everything that a body may be, as far as MessagePack and JSON agree on it.
fn bodies() -> Vec<Value> {
    vec![
        json!("hi \u{e9}\u{1f600} \"q\" \\ \n"),
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5),
        json!([]),
        json!({}),
        json!([1, [2, {"a": [null]}], "x"]),
        json!({"k": {"nested": (0..20).collect::<Vec<u64>>()}, "": "empty key", "\u{4f60}": 1}),
        json!("x".repeat(40_000)),
    ]
}

#[tokio::test]
async fn every_format_reads_what_others_write() {
    let cluster = Cluster::builder().gateways(2).gateway_setting("limits.profile", "open").start().await;
    let text = cluster.ws_on(0).await;
    text.register("text").await;
    text.join("#mixed").await;
    let mut members = vec![text];
    for (number, way) in WAYS.into_iter().enumerate() {
        let client = connect(&cluster, number % 2, way).await;
        let registered = client.register(way.0).await;
        assert_eq!(registered["nick"], way.0);
        client.join("#mixed").await;
        members.push(client);
    }
    for sender in &members {
        for body in bodies() {
            let ack = sender.must(json!({"type": "send", "to": "#mixed", "body": body})).await;
            for receiver in &members {
                let message =
                    event(receiver, |frame| frame["type"] == "message" && frame["msg_id"] == ack["msg_id"]).await;
                assert_eq!(message["body"], body, "{} to {}", sender.name(), receiver.name());
                assert_eq!(message["seq"], ack["seq"]);
            }
        }
    }
    cluster.finish().await;
}

#[tokio::test]
async fn line_member_and_programs_chat_together() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let line = cluster.line_on(0).await;
    line.register("ann").await;
    line.join("#lobby").await;
    for (number, way) in WAYS.into_iter().enumerate() {
        let client = connect(&cluster, number % 2, way).await;
        client.register(way.0).await;
        client.join("#lobby").await;
        client.sends("#lobby", "hello").await;
        line.receives("#lobby", way.0, "hello").await;
        line.types("hi there").await;
        client.receives("#lobby", "ann", "hi there").await;
        assert_eq!(client.bye().await.code, Some(1000), "{}", way.0);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn every_request_is_answered_in_every_format() {
    let cluster = Cluster::builder().gateways(2).start().await;
    for (number, way) in WAYS.into_iter().enumerate() {
        let room = format!("#room{number}");
        let (client, other) = (connect(&cluster, number % 2, way).await, cluster.ws_on(1 - number % 2).await);
        client.register(way.0).await;
        let joined = client.join(&room).await;
        assert_eq!((&joined["seq"], &joined["recovered"]), (&json!(0), &json!(false)), "{}", way.0);
        other.register(&format!("o{number}")).await;
        other.join(&room).await;
        client.sees_join(&room, &format!("o{number}")).await;
        let must = async |request: Value| client.must(request).await;
        let ack = must(json!({"type": "send", "to": room, "body": [1], "key": "k"})).await;
        assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(1), &json!(false)));
        let again = must(json!({"type": "send", "to": room, "body": [1], "key": "k"})).await;
        assert_eq!((&again["msg_id"], &again["duplicate"]), (&ack["msg_id"], &json!(true)));
        let direct = must(json!({"type": "send", "to": format!("o{number}"), "body": "psst"})).await;
        assert_eq!(direct["delivered"], "online");
        let members = must(json!({"type": "members", "room": room, "limit": 10})).await;
        assert_eq!(members["items"].as_array().map(Vec::len), Some(2), "{members}");
        let history = must(json!({"type": "history", "to": room})).await;
        assert_eq!((&history["items"][0]["body"], &history["more"]), (&json!([1]), &json!(false)));
        let rooms = must(json!({"type": "rooms"})).await;
        assert!(rooms["items"].as_array().unwrap().iter().any(|row| row["room"] == *room), "{rooms}");
        let status = must(json!({"type": "status", "status": "away", "text": "tea"})).await;
        assert_eq!((&status["status"], &status["text"]), (&json!("away"), &json!("tea")));
        let whois = must(json!({"type": "whois", "nick": way.0})).await;
        assert_eq!((&whois["online"], &whois["text"]), (&json!(true), &json!("tea")));
        assert_eq!(must(json!({"type": "read", "to": "@", "seq": 0})).await["seq"], 0);
        assert_eq!(must(json!({"type": "typing", "to": room})).await["to"], *room);
        assert_eq!(must(json!({"type": "topic", "room": room, "text": "five"})).await["text"], "five");
        event(&client, |event| event["type"] == "moderation" && event["action"] == "topic").await;
        assert_eq!(must(json!({"type": "nick", "nick": format!("{}x", way.0)})).await["nick"], format!("{}x", way.0));
        client.sees_rename(&room, way.0, &format!("{}x", way.0)).await;
        assert_eq!(must(json!({"type": "options", "snappy": true})).await["snappy"], true);
        assert_eq!(must(json!({"type": "ping"})).await["type"], "pong");
        assert_eq!(must(json!({"type": "leave", "room": room})).await["room"], *room);
        let refused = client.request(json!({"type": "kick", "room": room, "nick": "nobody"})).await.unwrap_err();
        assert_eq!(refused.code, "not_in_room");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn resume_crosses_formats_without_a_loss() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let writer = cluster.ws_on(0).await;
    writer.register("writer").await;
    writer.join("#log").await;
    let mut client = connect(&cluster, 0, WAYS[0]).await;
    let mut registered = client.register("reader").await;
    let epoch = client.join("#log").await["epoch"].clone();
    for (number, way) in WAYS.into_iter().cycle().skip(1).take(2 * WAYS.len()).enumerate() {
        let seq = number as u64;
        client.cut();
        writer.sends("#log", &format!("missed {number}")).await;
        client = connect(&cluster, number % 2, way).await;
        registered = client.resume(&registered, json!({"#log": {"epoch": epoch, "seq": seq}})).await;
        assert_eq!(registered["rooms"][0]["seq"], seq + 1, "{registered}");
        let missed = client.receives("#log", "writer", &format!("missed {number}")).await;
        assert_eq!(missed["seq"], seq + 1);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn options_compress_large_output_only() {
    let cluster = Cluster::builder().gateways(1).start().await;
    for (number, way) in WAYS.into_iter().enumerate() {
        let (plain, packed) = (connect(&cluster, 0, way).await, connect(&cluster, 0, way).await);
        let room = format!("#room{number}");
        for (client, snappy) in [(&plain, false), (&packed, true)] {
            let options = client.must(json!({"type": "options", "snappy": snappy})).await;
            assert_eq!(options["snappy"], snappy);
            client.register(&format!("n{number}{snappy}")).await;
            client.join(&room).await;
        }
        for (body, kind) in [("short".to_owned(), 0), ("long".repeat(500), 0x8000)] {
            plain.sends(&room, &body).await;
            for (client, kind) in [(&plain, 0), (&packed, kind)] {
                let message = event(client, |frame| frame["type"] == "message" && frame["body"] == *body).await;
                assert_eq!(message["compressed"].as_bool().unwrap_or_default(), kind != 0, "{}", client.name());
            }
        }
    }
    let text = cluster.ws_on(0).await;
    let refused = text.request(json!({"type": "options", "snappy": true})).await.unwrap_err();
    assert_eq!(refused.code, "bad_request");
    assert_eq!(text.must(json!({"type": "options", "snappy": false})).await["snappy"], false);
    cluster.finish().await;
}

#[tokio::test]
async fn drain_announces_itself_to_every_format() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    let mut clients = Vec::new();
    for way in WAYS {
        let client: WsClient = connect(&cluster, 0, way).await;
        client.register(way.0).await;
        clients.push(client);
    }
    cluster.gateways[0].process().terminate();
    for client in &clients {
        assert!(client.receives_frame("going_away").await["retry_after_ms"].is_u64());
        assert_eq!(client.closed_within(PATIENCE).await.code, Some(1012), "{}", client.name());
    }
    cluster.gateways[0].end().await;
}
