//! Resume: a session outlives its connection and continues on any gateway.
//!
//! Other members see nothing of a quick resume. Clients are cut, drained, lose their gateway or resume twice. Each
//! receives the messages of its rooms once and in order.

mod drain;

use std::io::Write;
use std::time::{Duration, Instant};

use harness::{Cluster, Node, WsClient, eventually, stays};
use serde_json::{Value, json};

use crate::lobby::{await_message, is_stream_event, lobby_member, resumable_lobby_member, seq_words, stream_events};

/// The maximum time for an expected event.
const SOON: Duration = Duration::from_secs(3);
/// The time from a lost connection to the visible leave.
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// The nickname hold of these tests, in seconds.
const HOLD: &str = "8";

async fn cluster() -> Cluster {
    Cluster::builder().gateways(2).gateway_setting("PARLEY__SESSION__HOLD_SECONDS", HOLD).start().await
}

/// Returns the positions of a client that has the lobby up to `seq`.
fn since(joined: &Value, seq: u64) -> Value {
    json!({"#lobby": {"epoch": joined["epoch"], "seq": seq}})
}

/// Counts the joins, leaves and renames of other members that this client received.
fn membership_changes(person: &WsClient) -> usize {
    let name = person.name();
    let seen = |kind: &&str| person.count_seen("#lobby", kind, |entry| entry["nick"] != name.as_str());
    ["joined", "left", "renamed"].iter().map(seen).sum()
}

/// Counts the stored events of one kind for a nickname.
async fn stored_events(cluster: &Cluster, kind: &str, nick: &str) -> usize {
    let events: redis::streams::StreamRangeReply = cluster.redis.call("XRANGE parley:{0}:events - +").await;
    let texts = events.ids.into_iter().map(|entry| {
        let words = entry.map.into_values().map(|value| redis::from_redis_value::<String>(value).unwrap());
        words.collect::<Vec<String>>()
    });
    let nick = format!("\"{nick}\"");
    texts.filter(|words| words.iter().any(|w| w == kind) && words.iter().any(|w| w.contains(&nick))).count()
}

#[tokio::test]
async fn resume_on_another_gateway_replays_missed_messages() {
    let cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    ann.sees_join("#lobby", "bob").await;
    let joined = ann.join("#lobby").await;
    ann.must(json!({"type": "join", "room": "#den"})).await;
    ann.away("tea").await;
    for seq in 1..=3 {
        bob.sends("#lobby", "before").await;
        await_message(&ann, seq).await;
    }
    let seen = membership_changes(&bob);
    ann.cut();
    for _ in 4..=6 {
        bob.sends("#lobby", "meanwhile").await;
    }

    let again = cluster.ws_on(1).await;
    let back = again.resume(&registered, since(&joined, 3)).await;
    assert_eq!((&back["session"], &back["nick"]), (&registered["session"], &json!("ann")));
    assert_ne!(back["resume"], registered["resume"], "a new token");
    let mut rooms: Vec<&str> = back["rooms"].as_array().unwrap().iter().map(|r| r["room"].as_str().unwrap()).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ["#den", "#lobby"]);
    let lobby = back["rooms"].as_array().unwrap().iter().find(|room| room["room"] == "#lobby").unwrap();
    assert_eq!((&lobby["epoch"], &lobby["seq"]), (&joined["epoch"], &json!(6)));
    bob.sends("#lobby", "now").await;
    await_message(&again, 7).await;
    assert_eq!(stream_events(&again), seq_words(4..=7));
    let order = again.received(|event| is_stream_event(event) || event["type"] == "registered");
    assert_eq!(order[0]["type"], "registered", "the reply comes first");
    again.sends("#lobby", "me again").await;
    bob.receives("#lobby", "ann", "me again").await;

    // The session is still in the other room, but receives its messages only after a join.
    again.sends("#den", "anybody?").await;
    let den = again.must(json!({"type": "join", "room": "#den"})).await;
    assert_eq!((&den["seq"], &den["member_count"]), (&json!(1), &json!(1)));
    let members = bob.must(json!({"type": "members", "room": "#lobby"})).await;
    assert_eq!(members["items"][0], json!({"nick": "ann", "status": "away", "text": "tea"}), "still away");

    stays(LEAVE_AFTER + Duration::from_secs(2), "no membership change", || async {
        if membership_changes(&bob) == seen { Ok(()) } else { Err(membership_changes(&bob)) }
    })
    .await;
    assert_eq!(
        (stored_events(&cluster, "offline", "ann").await, stored_events(&cluster, "online", "ann").await),
        (0, 1)
    );
    let metrics = cluster.gateways[1].metrics().await;
    assert_eq!(metrics.get("parley_resumes_total", &[("outcome", "resumed")]), Some(1.0));
    cluster.finish().await;
}

#[tokio::test]
async fn session_resumes_repeatedly_without_sending_requests() {
    let cluster = cluster().await;
    let (ann, mut registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    let joined = bob.join("#lobby").await;
    ann.sees_join("#lobby", "bob").await;
    ann.cut();
    bob.sends("#lobby", "hi").await;
    for attempt in 0..4 {
        let again = cluster.ws_on(attempt % 2).await;
        registered = again.resume(&registered, since(&joined, 0)).await;
        await_message(&again, 1).await;
        assert_eq!(stream_events(&again), ["1"]);
        again.cut();
    }
    assert_eq!(membership_changes(&bob), 0);
    cluster.finish().await;
}

#[tokio::test]
async fn newer_connection_takes_session_from_older_one() {
    let cluster = cluster().await;
    for other in [0, 1] {
        let (ann, registered) = resumable_lobby_member(&cluster, 0, &format!("ann{other}")).await;
        let again = cluster.ws_on(other).await;
        let back = again.resume(&registered, json!({})).await;
        let ending = ann.closed().await;
        assert_eq!((ending.code, ending.reason.as_str()), (Some(4004), "taken_over"));
        // The end of the old connection does not affect the new one.
        again.join("#lobby").await;
        stays(LEAVE_AFTER + Duration::from_secs(1), "new connection open", || async {
            again.sends("#lobby", "still here").await;
            if again.has_ended().is_none() { Ok(()) } else { Err("ended") }
        })
        .await;
        assert_eq!(back["session"], registered["session"]);
        assert_eq!(stored_events(&cluster, "offline", &format!("ann{other}")).await, 0);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn previous_token_works_until_the_next_request() {
    let cluster = cluster().await;
    let (ann, first) = resumable_lobby_member(&cluster, 0, "ann").await;
    ann.cut();
    // This reply is lost, so the client still has the previous token.
    let lost = cluster.ws_on(1).await;
    let second = lost.resume(&first, json!({})).await;
    lost.cut();
    let again = cluster.ws_on(0).await;
    let third = again.resume(&first, json!({})).await;
    assert_eq!(again.try_resume(&first, json!({})).await.unwrap_err().code, "already_registered");
    let record = format!("parley:{{0}}:session:{}", first["session"].as_str().unwrap());
    eventually(SOON, "previous token deleted", || async {
        let kept: bool = cluster.redis.ask(&["HEXISTS", &record, "previous"]).await;
        if kept { Err("kept") } else { Ok(()) }
    })
    .await;
    for stale in [&first, &second] {
        let stranger = cluster.ws_on(1).await;
        assert_eq!(stranger.try_resume(stale, json!({})).await.unwrap_err().code, "resume_failed");
    }
    assert_eq!(again.has_ended(), None, "failed resumes close no connection");
    again.must(json!({"type": "ping"})).await;
    again.cut();
    cluster.ws_on(1).await.resume(&third, json!({})).await;
    cluster.finish().await;
}

#[tokio::test]
async fn members_see_detached_session_leave_and_rejoin() {
    let cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    let joined = bob.join("#lobby").await;
    let cut = Instant::now();
    ann.cut();
    let left = bob.sees(LEAVE_AFTER + SOON, "#lobby", "left", |entry| entry["nick"] == "ann").await;
    let after = left.at.duration_since(cut);
    assert!(after >= LEAVE_AFTER, "seen after {after:?}");
    assert_eq!(left.value["left"], json!([{"nick": "ann", "reason": "closed"}]));
    bob.sends("#lobby", "gone").await;

    // The nickname is held for its session only.
    let claimer = cluster.ws_on(1).await;
    let refused = claimer.try_register("ann").await.unwrap_err();
    assert_eq!(refused.code, "nick_in_use");
    let wait = refused.reply["retry_after_ms"].as_u64().expect("a retry time");
    assert!((1..=8000).contains(&wait), "{wait}");
    assert_eq!(claimer.try_register("\u{430}nn").await.unwrap_err().code, "nick_confusable");

    let again = cluster.ws_on(1).await;
    let seen = bob.count_seen("#lobby", "joined", |entry| entry["nick"] == "ann");
    again.resume(&registered, since(&joined, 0)).await;
    await_message(&again, 1).await;
    eventually(SOON, "join of ann received", || async {
        let now = bob.count_seen("#lobby", "joined", |entry| entry["nick"] == "ann");
        if now == seen + 1 { Ok(()) } else { Err(now) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn resume_token_outlives_the_nickname_hold() {
    let cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let cut = Instant::now();
    ann.cut();
    let hold = Duration::from_secs(HOLD.parse().unwrap());
    let claimer = cluster.ws_on(1).await;
    eventually(hold + SOON, "nickname released", || async { claimer.try_register("ann").await }).await;
    assert!(cut.elapsed() >= hold - Duration::from_millis(500), "free after {:?}", cut.elapsed());

    let again = cluster.ws_on(0).await;
    assert_eq!(again.try_resume(&registered, json!({})).await.unwrap_err().code, "nick_in_use");
    let mut renamed = registered.clone();
    renamed["nick"] = json!("anna");
    let back = again.resume(&renamed, json!({})).await;
    assert_eq!((&back["session"], &back["rooms"][0]["room"]), (&registered["session"], &json!("#lobby")));
    assert_eq!(claimer.has_ended(), None);
    cluster.finish().await;
}

#[tokio::test]
async fn session_outlives_its_killed_gateway() {
    let mut cluster = Cluster::builder().gateways(2).presence(1).start().await;
    cluster.allow("fenced");
    let (ann, at_once) = resumable_lobby_member(&cluster, 0, "ann").await;
    let (eve, later) = resumable_lobby_member(&cluster, 0, "eve").await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    let joined = bob.join("#lobby").await;
    bob.sends("#lobby", "before").await;
    await_message(&ann, 1).await;
    cluster.gateways[0].process().kill9();
    bob.sends("#lobby", "after").await;

    // The lease still counts as live; the token wins over it.
    let again = cluster.ws_on(1).await;
    again.resume(&at_once, since(&joined, 1)).await;
    await_message(&again, 2).await;
    assert_eq!(stream_events(&again), ["2"]);
    let gone = |entry: &Value| entry == &json!({"nick": "eve", "reason": "gateway_lost"});
    bob.sees(Duration::from_secs(13), "#lobby", "left", gone).await;
    assert_eq!(bob.count_seen("#lobby", "left", |entry| entry["nick"] == "ann"), 0);

    // The nickname is reaped and free, but the session still exists.
    let back = cluster.ws_on(1).await;
    let resumed = back.resume(&later, since(&joined, 1)).await;
    assert_eq!(resumed["rooms"].as_array().unwrap().len(), 1, "{resumed}");
    await_message(&back, 2).await;
    bob.sees_join("#lobby", "eve").await;
    assert_eq!(again.members("#lobby").await, ["ann", "bob", "eve"]);
    drop(eve);
    cluster.finish().await;
}

#[tokio::test]
async fn all_invalid_tokens_get_the_same_error() {
    let cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let token = registered["resume"].as_str().unwrap();
    let (session, secret) = token.split_once('.').unwrap();
    assert_eq!(session, registered["session"]);
    // The fifth guess on one connection would close it.
    let (first, stranger) = (cluster.ws_on(1).await, cluster.ws_on(1).await);
    let other_session = format!("{}.{secret}", "0".repeat(32));
    let other_secret = format!("{session}.{}", "A".repeat(secret.len()));
    let long = "x".repeat(60_000);
    let keys = format!("{}:*.{secret}", &session[..30]);
    let all = ["", ".", "ann", session, &other_session, &other_secret, &long, &keys];
    for (number, forged) in all.into_iter().enumerate() {
        let asked = json!({"nick": "ann", "resume": forged});
        let guesser = if number < 4 { &first } else { &stranger };
        let refused = guesser.try_resume(&asked, json!({})).await.unwrap_err();
        assert_eq!(refused.code, "resume_failed", "{forged:.60}");
        assert!(refused.reply.get("retry_after_ms").is_none(), "a retry cannot succeed");
    }
    let huge = json!({"type": "register", "nick": "ann", "resume": "x".repeat(1_000_000)});
    stranger.send(huge).await;
    let refused = stranger.receives_frame("error").await;
    assert_eq!(refused["code"], "too_large", "the id is not parsed");
    let thousand: Value = (0..1000)
        .map(|n| (format!("#r{n}"), json!({"epoch": "e", "seq": 1})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(stranger.try_resume(&registered, thousand).await.unwrap_err().code, "bad_request");
    for since in [json!([]), json!({"#lobby": 7}), json!({"#lobby": {"epoch": 7, "seq": 1}})] {
        assert_eq!(stranger.try_resume(&registered, since).await.unwrap_err().code, "bad_request");
    }
    // The connection stays open, and other sessions are unaffected.
    stranger.register("bob").await;
    ann.sends("#lobby", "still me").await;
    // Unknown positions are rewound, and rooms outside the session are ignored.
    let again = cluster.ws_on(1).await;
    let since = json!({"#lobby": {"epoch": "another", "seq": 7}, "#elsewhere": {"epoch": "e", "seq": 1}});
    let back = again.resume(&registered, since).await;
    assert_eq!(back["rooms"].as_array().unwrap().len(), 1);
    await_message(&again, 1).await;
    assert_eq!(stream_events(&again), ["rewound 0", "1"]);
    let metrics = cluster.gateways[1].metrics().await;
    assert_eq!(metrics.get("parley_resumes_total", &[("outcome", "unknown_token")]), Some(8.0));
    cluster.finish().await;
}

#[tokio::test]
async fn new_messages_follow_a_long_replay() {
    const MISSED: u64 = 1000;
    let cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let bob = lobby_member(&cluster, 0, "bob").await;
    let joined = bob.join("#lobby").await;
    ann.cut();
    for _ in 0..MISSED {
        bob.post(json!({"type": "send", "to": "#lobby", "body": "x".repeat(600)})).await;
    }
    // A thousand sequential store calls.
    let said = |event: &Value| event["type"] == "message" && event["seq"] == MISSED;
    bob.expect_event(Duration::from_secs(20), "every message published", said).await;
    let again = cluster.ws_on(1).await;
    let talk = async {
        for _ in 0..200 {
            bob.sends("#lobby", "meanwhile").await;
        }
    };
    let (back, ()) = tokio::join!(again.resume(&registered, since(&joined, 0)), talk);
    assert!(back["rooms"][0]["seq"].as_u64().unwrap() >= MISSED);
    let last = bob.sends("#lobby", "the end").await["seq"].as_u64().unwrap();
    await_message(&again, last).await;
    assert_eq!(stream_events(&again), seq_words(1..=last));
    let metrics = cluster.gateways[1].metrics().await;
    assert_eq!(metrics.get("parley_resume_seconds_count", &[]), Some(1.0));
    let took = metrics.get("parley_resume_seconds_sum", &[]).unwrap();
    let _ = writeln!(std::io::stderr(), "{MISSED} missed messages of 600 bytes: {:.1} ms at the server", took * 1e3);
    cluster.finish().await;
}

#[tokio::test]
async fn bye_and_line_disconnect_leave_at_once() {
    let cluster = cluster().await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let terminal = cluster.line_on(0).await;
    terminal.register("nc").await;
    terminal.join("#lobby").await;
    for nick in ["ann", "nc"] {
        bob.sees_join("#lobby", nick).await;
    }
    ann.bye().await;
    drop(terminal);
    for nick in ["ann", "nc"] {
        bob.sees_left("#lobby", nick, "closed").await;
        cluster.ws_on(1).await.register(nick).await;
    }
    // The token still finds the session, which has left every room.
    let mut renamed = registered;
    renamed["nick"] = json!("anna");
    let back = cluster.ws_on(1).await.resume(&renamed, json!({})).await;
    assert_eq!(back["rooms"], json!([]));
    cluster.finish().await;
}

#[tokio::test]
async fn unconfirmed_registration_holds_no_nickname() {
    let cluster = cluster().await;
    let ann = cluster.ws_on(0).await;
    ann.register("ann").await;
    ann.cut();
    let again = cluster.ws_on(1).await;
    eventually(SOON, "nickname released", || async { again.try_register("ann").await }).await;
    cluster.finish().await;
}

#[tokio::test]
async fn embedded_node_resumes_sessions() {
    let mut gateway = Node::gateway("alone").start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    let registered = ann.register("ann").await;
    bob.register("bob").await;
    let joined = ann.join("#lobby").await;
    bob.join("#lobby").await;
    ann.sees_join("#lobby", "bob").await;
    bob.members("#lobby").await;
    let seen = membership_changes(&bob);
    ann.cut();
    bob.sends("#lobby", "meanwhile").await;
    let again = WsClient::connect(gateway.ws()).await;
    let back = again.resume(&registered, since(&joined, 0)).await;
    assert_eq!(back["session"], registered["session"]);
    await_message(&again, 1).await;
    bob.sends("#lobby", "now").await;
    await_message(&again, 2).await;
    assert_eq!((stream_events(&again), membership_changes(&bob)), (seq_words(1..=2), seen));

    // After five seconds other members see the leave.
    again.cut();
    bob.sees(LEAVE_AFTER + SOON, "#lobby", "left", |entry| entry["nick"] == "ann").await;
    let late = WsClient::connect(gateway.ws()).await;
    late.resume(&back, since(&joined, 2)).await;
    assert_eq!(late.members("#lobby").await, ["ann", "bob"]);
    assert_eq!(gateway.end().await, Some(0));
}
