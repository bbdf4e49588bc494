//! Redis comes back with less than it had, or may have: nothing is given out before every gateway has said what it holds,
//! and then everything is where it was. Nobody outside notices more than a pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{Cluster, LineClient, WsClient, eventually, stays};
use serde_json::{Value, json};

/// Everything is whole again within this time.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);
/// A gateway that says nothing is fenced after this time.
const PATIENCE_OF_THE_STORE: Duration = Duration::from_secs(10);

/// ann on g1; carl and bob on g2, in the order of their claims. All in the lobby.
struct People {
    ann: WsClient,
    bob: WsClient,
    carl: LineClient,
}

impl People {
    async fn on(cluster: &Cluster) -> Self {
        let (ann, carl, bob) = (cluster.ws_on(0).await, cluster.line_on(1).await, cluster.ws_on(1).await);
        ann.register("ann").await;
        carl.register("carl").await;
        bob.register("bob").await;
        ann.join("#lobby").await;
        carl.join("#lobby").await;
        bob.join("#lobby").await;
        Self { ann, bob, carl }
    }

    /// Nobody was closed, and nobody saw anybody come or go since all were in.
    fn in_place(&self) -> Result<(), String> {
        let endings = (self.ann.has_ended(), self.bob.has_ended(), self.carl.has_ended());
        let left = [&self.ann, &self.bob].map(|person| person.count_seen("#lobby", "left", |_| true));
        let joined = [&self.ann, &self.bob].map(|person| person.count_seen("#lobby", "joined", |_| true));
        // ann saw all three come, bob himself and perhaps carl, who came in the same moment.
        let as_it_was = endings == (None, None, None) && left == [0, 0] && joined[0] <= 3 && joined[1] <= 2;
        if as_it_was { Ok(()) } else { Err(format!("{endings:?}, left {left:?}, joined {joined:?}")) }
    }

    /// All of them hear each other.
    async fn speak(&self, text: &str) {
        self.ann.sends("#lobby", text).await;
        self.bob.receives("#lobby", "ann", text).await;
        self.carl.receives("#lobby", "ann", text).await;
        let answer = format!("{text} too");
        self.bob.sends("#lobby", &answer).await;
        self.ann.receives("#lobby", "bob", &answer).await;
    }
}

async fn cluster(settings: &[(&str, &str)]) -> Cluster {
    let builder = Cluster::builder().gateways(2).presence(1).redis_setting("enable-debug-command", "yes");
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.redis_setting(name, value));
    let mut cluster = builder.start().await;
    for text in ["beats are not answered", "subscription lost", "no subscription", "not ready", "does not answer"] {
        cluster.allow(text);
    }
    cluster
}

/// Waits until both gateways are ready, and everybody is where they were and can be reached.
async fn whole_again(cluster: &Cluster, people: &People, since: Instant) {
    for gateway in &cluster.gateways {
        gateway.until_ready(WHOLE_AGAIN.saturating_sub(since.elapsed())).await;
    }
    let newcomer = cluster.ws_on(0).await;
    eventually(WHOLE_AGAIN.saturating_sub(since.elapsed()), "names are given out", async || {
        newcomer.try_register("dora").await
    })
    .await;
    for name in ["ann", "bob", "carl"] {
        let other = cluster.ws_on(1).await;
        assert_eq!(other.try_register(name).await.unwrap_err().code, "nick_in_use", "{name}");
        assert!(cluster.is_online(name).await, "{name}");
    }
    people.speak("light").await;
    assert!(since.elapsed() < WHOLE_AGAIN, "whole again after {:?}", since.elapsed());
    assert_eq!(people.ann.members("#lobby").await, ["ann", "bob", "carl"]);
    people.in_place().unwrap();
    newcomer.bye().await;
}

async fn lives(cluster: &Cluster) -> BTreeMap<String, String> {
    let listing = cluster.ask("/v1/gateways").await;
    let items = listing["items"].as_array().expect("a list").iter();
    items.map(|gateway| (gateway["node"].to_string(), gateway["incarnation"].to_string())).collect()
}

async fn phase(cluster: &Cluster) -> Option<String> {
    cluster.redis.call("HGET parley:{0}:generation phase").await
}

/// Whoever asks for a name while the store recovers is told to come again.
async fn nothing_is_given_out_while_it_recovers(cluster: &Cluster, guest: &WsClient) {
    let mut refused = 0;
    for number in 0.. {
        let before = phase(cluster).await;
        let answer = guest.try_register(&format!("guest{number}")).await;
        if answer.is_ok() || (before, phase(cluster).await) != (Some("recovering".into()), Some("recovering".into())) {
            let open = eventually(WHOLE_AGAIN, "the store is open", async || {
                let phase = phase(cluster).await;
                if phase.as_deref() == Some("open") { Ok(()) } else { Err(phase) }
            });
            assert!(answer.is_err() || phase(cluster).await.as_deref() == Some("open"), "{answer:?}");
            open.await;
            break;
        }
        let refusal = answer.unwrap_err();
        assert_eq!(refusal.code, "unavailable", "{refusal:?}");
        assert!(refusal.reply["retry_after_ms"].as_u64() > Some(0), "{refusal:?}");
        refused += 1;
    }
    assert!(refused > 3, "the recovery was looked at: {refused}");
}

#[tokio::test]
async fn a_redis_that_is_killed_costs_nobody_their_place_when_every_write_was_kept() {
    killed("always").await;
}

#[tokio::test]
async fn a_redis_that_is_killed_costs_nobody_their_place_when_the_last_second_was_lost() {
    killed("everysec").await;
}

async fn killed(fsync: &str) {
    let mut cluster = cluster(&[("appendfsync", fsync)]).await;
    let people = People::on(&cluster).await;
    let before = lives(&cluster).await;
    let pids: Vec<u32> = cluster.gateways.iter_mut().map(|gateway| gateway.process().pid()).collect();
    people.speak("dark").await;
    cluster.redis.kill9();
    stays(Duration::from_secs(3), "every place", async || people.in_place()).await;
    cluster.redis.start().await;
    let back = Instant::now();
    whole_again(&cluster, &people, back).await;
    // Long enough for a detector that wrongly counted the outage to act on it.
    stays(PATIENCE_OF_THE_STORE, "every place", async || people.in_place()).await;
    assert_eq!(lives(&cluster).await, before, "nobody was fenced");
    assert_eq!(cluster.gateways.iter_mut().map(|gateway| gateway.process().pid()).collect::<Vec<_>>(), pids);
    cluster.finish().await;
}

#[tokio::test]
async fn another_history_is_recovered_from() {
    lost("DEBUG CHANGE-REPL-ID").await;
}

#[tokio::test]
async fn the_loss_of_everything_costs_nobody_their_place() {
    lost("FLUSHALL").await;
}

#[tokio::test]
async fn the_loss_of_the_lease_table_costs_nobody_their_place() {
    lost("DEL parley:{0}:leases").await;
}

#[tokio::test]
async fn the_loss_of_the_record_of_generations_costs_nobody_their_place() {
    lost("DEL parley:{0}:generation").await;
}

async fn lost(command: &str) {
    let cluster = cluster(&[]).await;
    let people = People::on(&cluster).await;
    let guest = cluster.ws_on(0).await;
    let before = lives(&cluster).await;
    let _: redis::Value = cluster.redis.call(command).await;
    let lost = Instant::now();
    eventually(Duration::from_secs(3), "a gateway has noticed", async || {
        let phase = phase(&cluster).await;
        if phase.as_deref() == Some("recovering") { Ok(()) } else { Err(phase) }
    })
    .await;
    let red = cluster.gateways[0].until_not_ready(Duration::from_secs(2)).await;
    assert!(red.body.contains("the store is recovering"), "{red:?}");
    nothing_is_given_out_while_it_recovers(&cluster, &guest).await;
    whole_again(&cluster, &people, lost).await;
    assert_eq!(lives(&cluster).await, before, "nobody was fenced");
    cluster.finish().await;
}

#[tokio::test]
async fn a_gateway_that_stands_still_over_a_restart_is_not_waited_for_for_ever() {
    let mut cluster = cluster(&[("appendfsync", "always")]).await;
    for text in ["fenced", "lease lost"] {
        cluster.allow(text);
    }
    let people = People::on(&cluster).await;
    let guest = cluster.ws_on(0).await;
    cluster.gateways[1].process().stop_signal().await;
    cluster.redis.restart().await;
    let back = Instant::now();
    let is_bob = |entry: &Value| entry == &json!({"nick": "bob", "reason": "gateway_lost"});
    let patience = PATIENCE_OF_THE_STORE - Duration::from_secs(1);
    stays(patience.saturating_sub(back.elapsed()), "the store waits for it", async || {
        let taken = guest.try_register("bob").await.is_ok();
        let left = people.ann.count_seen("#lobby", "left", |_| true);
        if !taken && left == 0 { Ok(()) } else { Err((taken, left)) }
    })
    .await;
    cluster.gateways[0].until_ready(WHOLE_AGAIN.saturating_sub(back.elapsed())).await;
    people.ann.sends("#lobby", "light").await;
    eventually(Duration::from_secs(2), "its names are free", async || guest.try_register("bob").await).await;
    assert!(back.elapsed() < WHOLE_AGAIN, "{:?}", back.elapsed());
    people.ann.sees(WHOLE_AGAIN, "#lobby", "left", is_bob).await;

    cluster.gateways[1].process().cont();
    assert_eq!(people.bob.closed_within(WHOLE_AGAIN).await.code, Some(1012));
    cluster.gateways[1].until_ready(WHOLE_AGAIN).await;
    assert_eq!(people.ann.has_ended(), None);
    cluster.finish().await;
}

#[tokio::test]
async fn of_two_who_hold_a_name_after_a_loss_the_later_claim_stays() {
    let mut cluster = cluster(&[]).await;
    let people = People::on(&cluster).await;
    let usurper = cluster.ws_on(0).await;
    // g2 sleeps through the loss, so the store does not know of it when it opens.
    cluster.gateways[1].process().stop_signal().await;
    cluster.redis.call::<()>("FLUSHALL").await;
    eventually(Duration::from_secs(6), "the name is given out again", async || usurper.try_register("bob").await).await;
    cluster.gateways[1].process().cont();
    assert_eq!(usurper.closed_within(WHOLE_AGAIN).await.code, Some(1012), "bob's claim is the later one");
    whole_again(&cluster, &people, Instant::now()).await;
    cluster.finish().await;
}
