//! Republish after a Redis crash: gateways append again the acknowledged messages that Redis lost.
//!
//! Each message returns once, in the order of its sender and before newer ones. Members receive `rewound`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use harness::{Cluster, WsClient, eventually, stays};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

use crate::lobby::{lobby_member, resumable_lobby_member};

/// The maximum recovery time.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// The time limit when Redis waits 10 s for a silent gateway.
const SILENT_GATEWAY_MAX: Duration = Duration::from_secs(30);
/// Messages of each sender before the crash.
const BATCH_SIZE: usize = 20;
/// The minimum time that a gateway keeps acknowledged messages.
const RING_AGE_MIN: Duration = Duration::from_secs(5);

/// Starts a cluster with a Redis that keeps only its last SAVE.
async fn cluster() -> Cluster {
    let builder = Cluster::builder().gateways(2).redis_setting("appendonly", "no");
    let mut cluster = builder.start().await;
    for text in ["beat not answered", "subscription lost", "no subscription", "not ready", "lease not acquired"] {
        cluster.allow(text);
    }
    cluster
}

async fn save(cluster: &Cluster) {
    let _: String = cluster.redis.call("SAVE").await;
}

/// Acknowledged message ids by sender and recipient, in the order of their acks.
#[derive(Default)]
struct AckedIds(HashMap<String, Vec<String>>);

/// Sends a pipelined batch, so that the gateway still keeps all of it. With `keyed`, every other message has a key.
async fn send_batch(person: &WsClient, to: &str, keyed: bool) -> (String, Vec<String>) {
    let mut asked = Vec::new();
    for number in 0..BATCH_SIZE {
        let mut request = json!({"type": "send", "to": to, "body": format!("{} {number}", person.name())});
        if keyed && number % 2 == 1 {
            request["key"] = format!("key {number}").into();
        }
        asked.push(person.post(request).await);
    }
    let mut ids = Vec::new();
    for id in asked {
        let ack = person.reply_within(RING_AGE_MIN, id).await.expect("an ack before the crash");
        ids.push(ack["msg_id"].as_str().expect("an id").to_owned());
    }
    (format!("{} to {to}", person.name()), ids)
}

impl AckedIds {
    /// Sends several batches concurrently.
    async fn send_batches(&mut self, batches: &[(&WsClient, &str, bool)]) {
        let said = batches.iter().map(|(person, to, keyed)| send_batch(person, to, *keyed));
        self.0.extend(futures_util::future::join_all(said).await);
    }

    /// Sends a message, with retries until it is acked.
    async fn sends(&mut self, person: &WsClient, to: &str, text: &str) {
        self.send_within(RECOVERY_MAX, person, to, text).await;
    }

    async fn send_within(&mut self, limit: Duration, person: &WsClient, to: &str, text: &str) {
        let request = json!({"type": "send", "to": to, "body": text});
        let ack = eventually(limit, "message acked", async || person.request(request.clone()).await).await;
        let place = format!("{} to {to}", person.name());
        self.0.entry(place).or_default().push(ack["msg_id"].as_str().expect("an id").to_owned());
    }

    /// Checks that the stream of `place` has each message once, in the order of its sender.
    fn assert_in(&self, place: &str, log: &[String]) {
        assert_eq!(log.len(), log.iter().collect::<HashSet<_>>().len(), "{place} has duplicates: {log:?}");
        let of_place = self.0.iter().filter(|(key, _)| key.ends_with(&format!(" to {place}")));
        for (key, ids) in of_place {
            let own: Vec<&String> = log.iter().filter(|id| ids.contains(id)).collect();
            assert_eq!(own, ids.iter().collect::<Vec<_>>(), "{key}");
        }
    }
}

/// Returns the message ids of a stream, oldest first, and checks that its seqs have no hole.
async fn log(cluster: &Cluster, name: &str) -> Vec<String> {
    let entries: StreamRangeReply = cluster.redis.call(&format!("XRANGE parley:{{0}}:{name} - +")).await;
    let seqs: Vec<u64> = entries.ids.iter().map(|entry| entry.id.split('-').next().unwrap().parse().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{name}: {seqs:?}");
    let payloads = entries.ids.iter().map(|entry| entry.get::<String>("payload").expect("a payload"));
    let id =
        |payload: String| serde_json::from_str::<Value>(&payload).expect("JSON")["id"].as_str().unwrap().to_owned();
    payloads.map(id).collect()
}

/// Returns the messages that a client has of a room or inbox, after applying each `rewound`.
fn kept(person: &WsClient, to: &str) -> Vec<String> {
    let mut kept: Vec<(u64, String)> = Vec::new();
    for event in person.received(|event| event["to"] == to) {
        match event["type"].as_str() {
            Some("message") => {
                let seq = event["seq"].as_u64().unwrap();
                assert_eq!(seq, kept.last().map_or(seq, |(last, _)| last + 1), "{to}: {event}");
                kept.push((seq, event["msg_id"].as_str().unwrap().to_owned()));
            }
            Some("rewound") => kept.retain(|(seq, _)| *seq <= event["seq"].as_u64().unwrap()),
            Some("gap") => panic!("{event}"),
            _ => {}
        }
    }
    kept.into_iter().map(|(_, id)| id).collect()
}

/// Waits until a client has a whole stream; the first message may precede its join.
async fn until_received(person: &WsClient, to: &str, all: &[String]) {
    eventually(RECOVERY_MAX, "every message received", async || {
        let kept = kept(person, to);
        if all.ends_with(&kept) && kept.len() + 1 >= all.len() { Ok(()) } else { Err(format!("{to}: {kept:?}")) }
    })
    .await;
}

async fn republished(cluster: &Cluster) -> u64 {
    let mut republished = 0.0;
    for gateway in &cluster.gateways {
        republished += gateway.metrics().await.get("parley_repaired_total", &[]).expect("the counter");
    }
    republished as u64
}

#[tokio::test]
async fn gateways_republish_lost_messages_once_in_order() {
    let mut cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let mut acked = AckedIds::default();
    ann.sends("#lobby", "before").await;
    // One client that loses its connection, and one that leaves.
    let carl = cluster.ws_on(0).await;
    let carls = carl.register("carl").await;
    let dora = lobby_member(&cluster, 1, "dora").await;
    save(&cluster).await;

    let lobby = "#lobby";
    acked
        .send_batches(&[
            (&ann, lobby, true),
            (&bob, lobby, true),
            (&dora, lobby, false),
            (&bob, "ann", true),
            (&ann, "carl", false),
        ])
        .await;
    dora.bye().await;
    carl.cut();
    let said = cluster.redis.call::<u64>("HGET parley:{0}:room:lobby seq").await;
    assert_eq!(said, 1 + 3 * BATCH_SIZE as u64);
    cluster.redis.restart().await;
    let back = Instant::now();

    // All clients send new messages at once.
    let mut later = AckedIds::default();
    later.sends(&ann, "#lobby", "ann resumed").await;
    later.sends(&bob, "#lobby", "bob is back").await;
    later.sends(&bob, "ann", "me again").await;
    assert!(back.elapsed() < RECOVERY_MAX, "{:?}", back.elapsed());
    let lobby = log(&cluster, "log:lobby").await;
    acked.assert_in("#lobby", &lobby);
    later.assert_in("#lobby", &lobby);
    assert_eq!(lobby.len(), 1 + 3 * BATCH_SIZE + 2, "the expected number of messages");
    let newer: Vec<&String> = later.0.values().flatten().collect();
    assert!(lobby[..1 + 3 * BATCH_SIZE].iter().all(|id| !newer.contains(&id)), "newer messages come later");

    let inbox = cluster.redis.call::<String>("HGET parley:{0}:nick:ann session").await;
    let private = log(&cluster, &format!("inbox:{inbox}")).await;
    acked.assert_in("ann", &private);
    later.assert_in("ann", &private);
    assert_eq!(private.len(), BATCH_SIZE + 1);
    let carls_inbox = format!("inbox:{}", carls["session"].as_str().unwrap());
    acked.assert_in("carl", &log(&cluster, &carls_inbox).await);
    assert_eq!(republished(&cluster).await, 5 * BATCH_SIZE as u64);

    // Connected clients have the whole stream after a `rewound`; a resuming client receives it as a replay.
    for (person, to, all) in [(&ann, "#lobby", &lobby), (&bob, "#lobby", &lobby), (&ann, "ann", &private)] {
        until_received(person, to, all).await;
        assert_eq!(person.received(|event| event["type"] == "rewound" && event["to"] == to).len(), 1);
    }
    cluster.gateways[1].until_ready(RECOVERY_MAX).await;
    let again = cluster.ws_on(1).await;
    let since = json!({"@": {"epoch": carls["inbox"]["epoch"], "seq": 0}});
    eventually(RECOVERY_MAX, "carl resumed", async || again.try_resume(&carls, since.clone()).await).await;
    eventually(RECOVERY_MAX, "inbox of carl replayed", async || match kept(&again, "carl") {
        all if all.len() == BATCH_SIZE => Ok(()),
        some => Err(some),
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn gateways_republish_again_after_a_second_loss() {
    let mut cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = AckedIds::default();
    acked.send_batches(&[(&ann, "#lobby", true), (&bob, "#lobby", false)]).await;
    for round in 1..=3 {
        cluster.redis.restart().await;
        eventually(RECOVERY_MAX, "messages republished", async || match republished(&cluster).await {
            messages if messages == round * 2 * BATCH_SIZE as u64 => Ok(()),
            messages => Err(messages),
        })
        .await;
    }
    acked.sends(&ann, "#lobby", "light").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.assert_in("#lobby", &lobby);
    assert_eq!(lobby.len(), 2 * BATCH_SIZE + 1);
    cluster.finish().await;
}

#[tokio::test]
async fn moved_session_sends_only_after_its_republished_messages() {
    let mut cluster = cluster().await;
    let (ann, registered) = resumable_lobby_member(&cluster, 0, "ann").await;
    let _bob = lobby_member(&cluster, 1, "bob").await;
    save(&cluster).await;
    let mut acked = AckedIds::default();
    acked.send_batches(&[(&ann, "#lobby", true)]).await;
    cluster.redis.restart().await;
    // Resumes at once on another gateway, under a later claim.
    let again = eventually(RECOVERY_MAX, "connection accepted", async || {
        WsClient::try_connect(cluster.gateways[1].ws()).await.map_err(|error| error.to_string())
    })
    .await;
    eventually(RECOVERY_MAX, "ann resumed", async || again.try_resume(&registered, json!({})).await).await;
    acked.sends(&again, "#lobby", "I have moved").await;
    // A retry of a message that the other gateway republished makes no second copy.
    let repeated = json!({"type": "send", "to": "#lobby", "body": "ann 3", "key": "key 3"});
    let repeated = again.must(repeated).await;
    assert_eq!((&repeated["duplicate"], &repeated["msg_id"]), (&json!(true), &json!(acked.0["ann to #lobby"][3])));
    let lobby = log(&cluster, "log:lobby").await;
    acked.assert_in("#lobby", &lobby);
    assert_eq!(lobby.len(), BATCH_SIZE + 1);
    cluster.finish().await;
}

#[tokio::test]
async fn fenced_gateway_republishes_its_messages_after_waking() {
    let mut cluster = cluster().await;
    for text in ["lease lost", "fenced"] {
        cluster.allow(text);
    }
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = AckedIds::default();
    acked.send_batches(&[(&ann, "#lobby", true), (&bob, "#lobby", false)]).await;
    cluster.gateways[0].process().stop_signal().await;
    cluster.redis.restart().await;
    // The store waits no longer than this.
    acked.send_within(SILENT_GATEWAY_MAX, &bob, "#lobby", "still here").await;
    cluster.gateways[0].process().cont();
    let whole =
        eventually(RECOVERY_MAX, "messages of ann republished", async || match log(&cluster, "log:lobby").await {
            lobby if lobby.len() == 2 * BATCH_SIZE + 1 => Ok(lobby),
            lobby => Err(lobby.len()),
        });
    let lobby = whole.await;
    acked.assert_in("#lobby", &lobby);
    assert!(
        acked.0["ann to #lobby"].iter().all(|id| lobby[BATCH_SIZE + 1..].contains(id)),
        "republished messages come after newer ones"
    );
    until_received(&bob, "#lobby", &lobby).await;
    cluster.finish().await;
}

#[tokio::test]
async fn full_data_loss_keeps_recently_acked_messages() {
    let cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    let mut acked = AckedIds::default();
    acked.send_batches(&[(&ann, "#lobby", false), (&bob, "ann", false), (&ann, "bob", true)]).await;
    cluster.redis.call::<()>("FLUSHALL").await;
    acked.sends(&bob, "#lobby", "still here").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.assert_in("#lobby", &lobby);
    assert_eq!(lobby.len(), BATCH_SIZE + 1);
    until_received(&ann, "#lobby", &lobby).await;
    // Includes recipients that the store did not know at the republish.
    for person in [&ann, &bob] {
        let name = person.name();
        let inbox = cluster.redis.call::<String>(&format!("HGET parley:{{0}}:nick:{name} session")).await;
        let private = log(&cluster, &format!("inbox:{inbox}")).await;
        acked.assert_in(&name, &private);
        until_received(person, &name, &private).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn draining_gateway_waits_until_acked_messages_are_safe() {
    let mut cluster = cluster().await;
    let (ann, bob) = (lobby_member(&cluster, 0, "ann").await, lobby_member(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = AckedIds::default();
    acked.send_batches(&[(&ann, "#lobby", false)]).await;
    let asked = Instant::now();
    cluster.gateways[0].process().terminate();
    ann.closed_within(RECOVERY_MAX).await;
    cluster.redis.restart().await;
    assert_eq!(cluster.gateways[0].process().exit_code(Duration::from_secs(30)).await, Some(0));
    assert!(asked.elapsed() > RING_AGE_MIN, "it exited after {:?}", asked.elapsed());
    acked.sends(&bob, "#lobby", "light").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.assert_in("#lobby", &lobby);
    assert_eq!(lobby.len(), BATCH_SIZE + 1);

    // A gateway without recent acks exits at once.
    let quiet = eventually(RECOVERY_MAX, "republish ring empty", async || {
        let kept = cluster.gateways[1].metrics().await.get("parley_repair_bytes", &[]);
        if kept == Some(0.0) { Ok(()) } else { Err(kept) }
    });
    quiet.await;
    bob.bye().await;
    let asked = Instant::now();
    assert_eq!(cluster.gateways[1].end().await, Some(0));
    assert!(asked.elapsed() < RING_AGE_MIN, "it exited after {:?}", asked.elapsed());
    cluster.finish().await;
}

#[tokio::test]
async fn moved_session_does_not_leave_after_a_crash() {
    let mut cluster = cluster().await;
    let bob = lobby_member(&cluster, 1, "bob").await;
    // Each session expires at its own time, some of them before Redis opens.
    let (mut movers, mut connections) = (Vec::new(), Vec::new());
    for number in 0..10 {
        let nick = format!("ann{number}");
        let (connection, registered) = resumable_lobby_member(&cluster, 0, &nick).await;
        connections.push(connection);
        movers.push((nick, registered));
    }
    connections.into_iter().for_each(WsClient::cut);
    for (nick, _) in &movers {
        eventually(RING_AGE_MIN, "session detached", async || {
            let detached = cluster.redis.call::<bool>(&format!("HEXISTS parley:{{0}}:nick:{nick} detached")).await;
            detached.then_some(()).ok_or(detached)
        })
        .await;
    }
    save(&cluster).await;
    let mut moved = Vec::new();
    for (_, registered) in &movers {
        let again = cluster.ws_on(1).await;
        eventually(RECOVERY_MAX, "session resumed", async || again.try_resume(registered, json!({})).await).await;
        moved.push(again);
    }
    cluster.redis.kill9();
    let left = || bob.count_seen("#lobby", "left", |_| true);
    // The old gateway tries to expire them by now, and the store has lost the move.
    stays(RING_AGE_MIN + Duration::from_secs(1), "no leave", async || if left() == 0 { Ok(()) } else { Err(left()) })
        .await;
    cluster.redis.start().await;
    let mut acked = AckedIds::default();
    acked.sends(&bob, "#lobby", "light").await;
    for again in &moved {
        acked.sends(again, "#lobby", "here as well").await;
    }
    assert_eq!(left(), 0);
    cluster.finish().await;
}
