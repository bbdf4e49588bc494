//! Redis is killed and comes back without what it had not written yet. What had been acked is put back by the gateways that
//! acked it: once each, in the order in which each sender said it, before anything newer. Members are told that it was gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use harness::{Cluster, WsClient, eventually, stays};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};

/// Everything is whole again within this time.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);
/// Redis opens without a gateway that has said nothing for 10 s.
const COUNTS_AS_DEAD: Duration = Duration::from_secs(30);
/// What each of them says before Redis is killed.
const EACH: usize = 20;
/// For so long a gateway keeps what it has acked, at least.
const KEPT: Duration = Duration::from_secs(5);

/// A Redis that has, after a kill, what it had when it was told to save.
async fn cluster() -> Cluster {
    let builder = Cluster::builder().gateways(2).redis_setting("appendonly", "no");
    let mut cluster = builder.start().await;
    for text in ["beats are not answered", "subscription lost", "no subscription", "not ready", "lease not acquired"] {
        cluster.allow(text);
    }
    cluster
}

async fn person(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let person = cluster.ws_on(gateway).await;
    person.register(nick).await;
    person.join("#lobby").await;
    person
}

/// On the first gateway, with what it takes to go on elsewhere.
async fn person_with_token(cluster: &Cluster, nick: &str) -> (WsClient, Value) {
    let person = cluster.ws_on(0).await;
    let registered = person.register(nick).await;
    person.join("#lobby").await;
    (person, registered)
}

async fn save(cluster: &Cluster) {
    let _: String = cluster.redis.call("SAVE").await;
}

/// What people were acked, in the order of their acks.
#[derive(Default)]
struct Acked(HashMap<String, Vec<String>>);

/// Says so much without a pause, so that it is all said within the time for which a gateway keeps it; every other message
/// with a key if they are to have one.
async fn say_all(person: &WsClient, to: &str, keyed: bool) -> (String, Vec<String>) {
    let mut asked = Vec::new();
    for number in 0..EACH {
        let mut request = json!({"type": "send", "to": to, "body": format!("{} {number}", person.name())});
        if keyed && number % 2 == 1 {
            request["key"] = format!("key {number}").into();
        }
        asked.push(person.post(request).await);
    }
    let mut ids = Vec::new();
    for id in asked {
        let ack = person.reply_within(KEPT, id).await.expect("nothing is wrong yet");
        ids.push(ack["msg_id"].as_str().expect("an id").to_owned());
    }
    (format!("{} to {to}", person.name()), ids)
}

impl Acked {
    /// All of them say it at the same time.
    async fn say_all(&mut self, speeches: &[(&WsClient, &str, bool)]) {
        let said = speeches.iter().map(|(person, to, keyed)| say_all(person, to, *keyed));
        self.0.extend(futures_util::future::join_all(said).await);
    }

    /// Says something as soon as it can be said.
    async fn sends(&mut self, person: &WsClient, to: &str, text: &str) {
        self.say_within(WHOLE_AGAIN, person, to, text).await;
    }

    async fn say_within(&mut self, limit: Duration, person: &WsClient, to: &str, text: &str) {
        let request = json!({"type": "send", "to": to, "body": text});
        let ack = eventually(limit, "it is acked", async || person.request(request.clone()).await).await;
        let place = format!("{} to {to}", person.name());
        self.0.entry(place).or_default().push(ack["msg_id"].as_str().expect("an id").to_owned());
    }

    /// Everything is in the log of `place` once, each sender's in order.
    fn are_in(&self, place: &str, log: &[String]) {
        assert_eq!(log.len(), log.iter().collect::<HashSet<_>>().len(), "{place}: something is there twice: {log:?}");
        let of_place = self.0.iter().filter(|(key, _)| key.ends_with(&format!(" to {place}")));
        for (key, ids) in of_place {
            let own: Vec<&String> = log.iter().filter(|id| ids.contains(id)).collect();
            assert_eq!(own, ids.iter().collect::<Vec<_>>(), "{key}");
        }
    }
}

/// The ids of the messages in a log, oldest first; its numbers have no hole.
async fn log(cluster: &Cluster, name: &str) -> Vec<String> {
    let entries: StreamRangeReply = cluster.redis.call(&format!("XRANGE parley:{{0}}:{name} - +")).await;
    let seqs: Vec<u64> = entries.ids.iter().map(|entry| entry.id.split('-').next().unwrap().parse().unwrap()).collect();
    assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "{name}: {seqs:?}");
    let payloads = entries.ids.iter().map(|entry| entry.get::<String>("payload").expect("a payload"));
    let id =
        |payload: String| serde_json::from_str::<Value>(&payload).expect("JSON")["id"].as_str().unwrap().to_owned();
    payloads.map(id).collect()
}

/// What a client has of a room or its inbox in the end: cut back wherever it was told that something is void.
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

/// Waits until a client has everything of a log; the first message may be from before it came.
async fn until_given(person: &WsClient, to: &str, all: &[String]) {
    eventually(WHOLE_AGAIN, "everything has arrived", async || {
        let kept = kept(person, to);
        if all.ends_with(&kept) && kept.len() + 1 >= all.len() { Ok(()) } else { Err(format!("{to}: {kept:?}")) }
    })
    .await;
}

async fn repaired(cluster: &Cluster) -> u64 {
    let mut repaired = 0.0;
    for gateway in &cluster.gateways {
        repaired += gateway.metrics().await.get("parley_repaired_total", &[]).expect("it is counted");
    }
    repaired as u64
}

#[tokio::test]
async fn what_was_acked_and_lost_in_a_kill_is_back_once_and_in_order() {
    let mut cluster = cluster().await;
    let (ann, bob) = (person(&cluster, 0, "ann").await, person(&cluster, 1, "bob").await);
    let mut acked = Acked::default();
    ann.sends("#lobby", "before").await;
    // Somebody whose connection is lost, and somebody who is about to go.
    let carl = cluster.ws_on(0).await;
    let carls = carl.register("carl").await;
    let dora = person(&cluster, 1, "dora").await;
    save(&cluster).await;

    let lobby = "#lobby";
    acked
        .say_all(&[
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
    assert_eq!(said, 1 + 3 * EACH as u64);
    cluster.redis.restart().await;
    let back = Instant::now();

    // Everybody tries to be first with something new.
    let mut later = Acked::default();
    later.sends(&ann, "#lobby", "ann is back").await;
    later.sends(&bob, "#lobby", "bob is back").await;
    later.sends(&bob, "ann", "me again").await;
    assert!(back.elapsed() < WHOLE_AGAIN, "{:?}", back.elapsed());
    let lobby = log(&cluster, "log:lobby").await;
    acked.are_in("#lobby", &lobby);
    later.are_in("#lobby", &lobby);
    assert_eq!(lobby.len(), 1 + 3 * EACH + 2, "all of it, and nothing else");
    let newer: Vec<&String> = later.0.values().flatten().collect();
    assert!(lobby[..1 + 3 * EACH].iter().all(|id| !newer.contains(&id)), "what is newer comes after it");

    let inbox = cluster.redis.call::<String>("HGET parley:{0}:nick:ann session").await;
    let private = log(&cluster, &format!("inbox:{inbox}")).await;
    acked.are_in("ann", &private);
    later.are_in("ann", &private);
    assert_eq!(private.len(), EACH + 1);
    let carls_inbox = format!("inbox:{}", carls["session"].as_str().unwrap());
    acked.are_in("carl", &log(&cluster, &carls_inbox).await);
    assert_eq!(repaired(&cluster).await, 5 * EACH as u64);

    // Who was there all the time has the same in the end, having been told what was void; who comes back gets it.
    for (person, to, all) in [(&ann, "#lobby", &lobby), (&bob, "#lobby", &lobby), (&ann, "ann", &private)] {
        until_given(person, to, all).await;
        assert_eq!(person.received(|event| event["type"] == "rewound" && event["to"] == to).len(), 1);
    }
    cluster.gateways[1].until_ready(WHOLE_AGAIN).await;
    let again = cluster.ws_on(1).await;
    let since = json!({"@": {"epoch": carls["inbox"]["epoch"], "seq": 0}});
    eventually(WHOLE_AGAIN, "carl is back", async || again.try_resume(&carls, since.clone()).await).await;
    eventually(WHOLE_AGAIN, "what carl missed", async || match kept(&again, "carl") {
        all if all.len() == EACH => Ok(()),
        some => Err(some),
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn what_was_put_back_and_is_lost_once_more_is_put_back_once_more() {
    let mut cluster = cluster().await;
    let (ann, bob) = (person(&cluster, 0, "ann").await, person(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = Acked::default();
    acked.say_all(&[(&ann, "#lobby", true), (&bob, "#lobby", false)]).await;
    for round in 1..=3 {
        cluster.redis.restart().await;
        eventually(WHOLE_AGAIN, "it is put back", async || match repaired(&cluster).await {
            messages if messages == round * 2 * EACH as u64 => Ok(()),
            messages => Err(messages),
        })
        .await;
    }
    acked.sends(&ann, "#lobby", "light").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.are_in("#lobby", &lobby);
    assert_eq!(lobby.len(), 2 * EACH + 1);
    cluster.finish().await;
}

#[tokio::test]
async fn who_has_moved_to_another_gateway_says_nothing_newer_before_it() {
    let mut cluster = cluster().await;
    let ann = cluster.ws_on(0).await;
    let registered = ann.register("ann").await;
    ann.join("#lobby").await;
    let _bob = person(&cluster, 1, "bob").await;
    save(&cluster).await;
    let mut acked = Acked::default();
    acked.say_all(&[(&ann, "#lobby", true)]).await;
    cluster.redis.restart().await;
    // At once, by another gateway, under a later claim.
    let again = eventually(WHOLE_AGAIN, "a door is open", async || {
        WsClient::try_connect(cluster.gateways[1].ws()).await.map_err(|error| error.to_string())
    })
    .await;
    eventually(WHOLE_AGAIN, "ann is back", async || again.try_resume(&registered, json!({})).await).await;
    acked.sends(&again, "#lobby", "I have moved").await;
    // A repetition of what the other gateway has put back makes no second copy.
    let repeated = json!({"type": "send", "to": "#lobby", "body": "ann 3", "key": "key 3"});
    let repeated = again.must(repeated).await;
    assert_eq!((&repeated["duplicate"], &repeated["msg_id"]), (&json!(true), &json!(acked.0["ann to #lobby"][3])));
    let lobby = log(&cluster, "log:lobby").await;
    acked.are_in("#lobby", &lobby);
    assert_eq!(lobby.len(), EACH + 1);
    cluster.finish().await;
}

#[tokio::test]
async fn a_gateway_that_counted_as_dead_puts_its_part_back_when_it_wakes() {
    let mut cluster = cluster().await;
    for text in ["lease lost", "fenced"] {
        cluster.allow(text);
    }
    let (ann, bob) = (person(&cluster, 0, "ann").await, person(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = Acked::default();
    acked.say_all(&[(&ann, "#lobby", true), (&bob, "#lobby", false)]).await;
    cluster.gateways[0].process().stop_signal().await;
    cluster.redis.restart().await;
    // Nobody waits for it for longer than that.
    acked.say_within(COUNTS_AS_DEAD, &bob, "#lobby", "still here").await;
    cluster.gateways[0].process().cont();
    let whole = eventually(WHOLE_AGAIN, "ann's part is put back", async || match log(&cluster, "log:lobby").await {
        lobby if lobby.len() == 2 * EACH + 1 => Ok(lobby),
        lobby => Err(lobby.len()),
    });
    let lobby = whole.await;
    acked.are_in("#lobby", &lobby);
    assert!(acked.0["ann to #lobby"].iter().all(|id| lobby[EACH + 1..].contains(id)), "it comes after what is newer");
    until_given(&bob, "#lobby", &lobby).await;
    cluster.finish().await;
}

#[tokio::test]
async fn the_loss_of_everything_costs_no_message_of_the_last_seconds() {
    let cluster = cluster().await;
    let (ann, bob) = (person(&cluster, 0, "ann").await, person(&cluster, 1, "bob").await);
    let mut acked = Acked::default();
    acked.say_all(&[(&ann, "#lobby", false), (&bob, "ann", false), (&ann, "bob", true)]).await;
    cluster.redis.call::<()>("FLUSHALL").await;
    acked.sends(&bob, "#lobby", "still here").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.are_in("#lobby", &lobby);
    assert_eq!(lobby.len(), EACH + 1);
    until_given(&ann, "#lobby", &lobby).await;
    // Also who was not there yet, for the store, when it was put back.
    for person in [&ann, &bob] {
        let name = person.name();
        let inbox = cluster.redis.call::<String>(&format!("HGET parley:{{0}}:nick:{name} session")).await;
        let private = log(&cluster, &format!("inbox:{inbox}")).await;
        acked.are_in(&name, &private);
        until_given(person, &name, &private).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_gateway_that_goes_waits_until_nothing_can_be_lost() {
    let mut cluster = cluster().await;
    let (ann, bob) = (person(&cluster, 0, "ann").await, person(&cluster, 1, "bob").await);
    save(&cluster).await;
    let mut acked = Acked::default();
    acked.say_all(&[(&ann, "#lobby", false)]).await;
    let asked = Instant::now();
    cluster.gateways[0].process().terminate();
    ann.closed_within(WHOLE_AGAIN).await;
    cluster.redis.restart().await;
    assert_eq!(cluster.gateways[0].process().exit_code(Duration::from_secs(30)).await, Some(0));
    assert!(asked.elapsed() > KEPT, "it went after {:?}", asked.elapsed());
    acked.sends(&bob, "#lobby", "light").await;
    let lobby = log(&cluster, "log:lobby").await;
    acked.are_in("#lobby", &lobby);
    assert_eq!(lobby.len(), EACH + 1);

    // Who has acked nothing lately need not wait.
    let quiet = eventually(WHOLE_AGAIN, "nothing is kept", async || {
        let kept = cluster.gateways[1].metrics().await.get("parley_repair_bytes", &[]);
        if kept == Some(0.0) { Ok(()) } else { Err(kept) }
    });
    quiet.await;
    bob.bye().await;
    let asked = Instant::now();
    assert_eq!(cluster.gateways[1].end().await, Some(0));
    assert!(asked.elapsed() < KEPT, "it went after {:?}", asked.elapsed());
    cluster.finish().await;
}

#[tokio::test]
async fn who_moved_just_before_a_crash_is_not_seen_to_leave() {
    let mut cluster = cluster().await;
    let bob = person(&cluster, 1, "bob").await;
    // Several: each of them is sent off at a moment of its own, some of them before Redis opens.
    let (mut movers, mut connections) = (Vec::new(), Vec::new());
    for number in 0..10 {
        let nick = format!("ann{number}");
        let (connection, registered) = person_with_token(&cluster, &nick).await;
        connections.push(connection);
        movers.push((nick, registered));
    }
    connections.into_iter().for_each(WsClient::cut);
    for (nick, _) in &movers {
        eventually(KEPT, "the store knows of it", async || {
            let detached = cluster.redis.call::<bool>(&format!("HEXISTS parley:{{0}}:nick:{nick} detached")).await;
            detached.then_some(()).ok_or(detached)
        })
        .await;
    }
    save(&cluster).await;
    let mut moved = Vec::new();
    for (_, registered) in &movers {
        let again = cluster.ws_on(1).await;
        eventually(WHOLE_AGAIN, "she has moved", async || again.try_resume(registered, json!({})).await).await;
        moved.push(again);
    }
    cluster.redis.kill9();
    let left = || bob.count_seen("#lobby", "left", |_| true);
    // The gateway that they left wants to send them off by now, and the store knows of nothing else.
    stays(KEPT + Duration::from_secs(1), "nobody leaves", async || if left() == 0 { Ok(()) } else { Err(left()) })
        .await;
    cluster.redis.start().await;
    let mut acked = Acked::default();
    acked.sends(&bob, "#lobby", "light").await;
    for again in &moved {
        acked.sends(again, "#lobby", "here as well").await;
    }
    assert_eq!(left(), 0);
    cluster.finish().await;
}
