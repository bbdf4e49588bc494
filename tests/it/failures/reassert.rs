//! Reassertion after a possible data loss in Redis.
//!
//! The store grants no claim until every gateway has reasserted its own.
//! Afterwards the state is the same as before, and clients notice only a pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{Cluster, LineClient, Person, WsClient, eventually, stays};

/// The maximum recovery time.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// A silent gateway is fenced after this time.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Three members of the lobby: ann on g1, then carl and bob on g2, in the order of their claims.
struct LobbyMembers {
    ann: Person,
    bob: Person,
    carl: LineClient,
}

impl LobbyMembers {
    async fn on(cluster: &Cluster) -> Self {
        let (ann, carl) = (cluster.person_on(0, "ann").await, cluster.line_on(1).await);
        carl.register("carl").await;
        let bob = cluster.person_on(1, "bob").await;
        ann.join("#lobby").await;
        carl.join("#lobby").await;
        bob.join("#lobby").await;
        Self { ann, bob, carl }
    }

    /// Checks that no connection closed and no membership change arrived after the setup.
    fn in_place(&self) -> Result<(), String> {
        let ended = (self.ann.interruptions(), self.bob.interruptions(), self.carl.has_ended());
        let left = [&self.ann, &self.bob].map(|person| person.left("#lobby"));
        let joined = [&self.ann, &self.bob].map(|person| person.joined("#lobby").len());
        // ann receives three joins. bob receives its own, and possibly the concurrent one of carl.
        let as_it_was = ended == (vec![], vec![], None) && left == [[], []] && joined[0] <= 3 && joined[1] <= 2;
        if as_it_was { Ok(()) } else { Err(format!("{ended:?}, left {left:?}, joined {joined:?}")) }
    }

    /// Exchanges messages between both gateways.
    async fn exchange(&self, text: &str) {
        self.ann.sends("#lobby", text).await;
        self.bob.receives("#lobby", "ann", text).await;
        self.carl.receives("#lobby", "ann", text).await;
        let answer = format!("{text} too");
        self.bob.sends("#lobby", &answer).await;
        self.ann.receives("#lobby", "bob", answer).await;
    }
}

async fn cluster(settings: &[(&str, &str)]) -> Cluster {
    let builder = Cluster::builder().gateways(2).presence(1).redis_setting("enable-debug-command", "yes");
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.redis_setting(name, value));
    let mut cluster = builder.start().await;
    for text in ["beat not answered", "subscription lost", "no subscription", "not ready", "registry not answering"] {
        cluster.allow(text);
    }
    cluster
}

/// Waits until both gateways are ready, then checks every session, nickname and route.
async fn check_recovery(cluster: &Cluster, people: &LobbyMembers, since: Instant) {
    for gateway in &cluster.gateways {
        gateway.until_ready(RECOVERY_MAX.saturating_sub(since.elapsed())).await;
    }
    let newcomer = cluster.ws_on(0).await;
    eventually(RECOVERY_MAX.saturating_sub(since.elapsed()), "nickname granted", async || {
        newcomer.try_register("dora").await
    })
    .await;
    for name in ["ann", "bob", "carl"] {
        let other = cluster.ws_on(1).await;
        assert_eq!(other.try_register(name).await.unwrap_err().code, "nick_in_use", "{name}");
        assert!(cluster.is_online(name).await, "{name}");
    }
    people.exchange("light").await;
    assert!(since.elapsed() < RECOVERY_MAX, "recovered after {:?}", since.elapsed());
    assert_eq!(newcomer.members("#lobby").await, ["ann", "bob", "carl"]);
    people.in_place().unwrap();
    newcomer.bye().await;
    for gateway in &cluster.gateways {
        eventually(SILENCE_MAX, "begin and end of the recovery are logged", async || {
            let log = gateway.log();
            let has_both = log.holds("store is recovering") && log.holds("store recovered");
            if has_both { Ok(()) } else { Err(log.tail(9)) }
        })
        .await;
    }
}

async fn incarnations(cluster: &Cluster) -> BTreeMap<String, String> {
    let listing = cluster.ask("/v1/gateways").await;
    let items = listing["items"].as_array().expect("a list").iter();
    items.map(|gateway| (gateway["node"].to_string(), gateway["incarnation"].to_string())).collect()
}

async fn phase(cluster: &Cluster) -> Option<String> {
    cluster.redis.call("HGET parley:{0}:generation phase").await
}

/// Checks that claims during the recovery are refused with a retry time.
async fn claims_are_refused_during_recovery(cluster: &Cluster, guest: &WsClient) {
    let mut refused = 0;
    for number in 0.. {
        let before = phase(cluster).await;
        let answer = guest.try_register(&format!("guest{number}")).await;
        if answer.is_ok() || (before, phase(cluster).await) != (Some("recovering".into()), Some("recovering".into())) {
            let open = eventually(RECOVERY_MAX, "store open", async || {
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
    assert!(refused > 3, "refusals during the recovery: {refused}");
}

#[tokio::test]
async fn clients_keep_sessions_after_crash_with_synced_writes() {
    survive_crash("always").await;
}

#[tokio::test]
async fn clients_keep_sessions_after_crash_losing_last_second() {
    survive_crash("everysec").await;
}

async fn survive_crash(fsync: &str) {
    let mut cluster = cluster(&[("appendfsync", fsync)]).await;
    let people = LobbyMembers::on(&cluster).await;
    let before = incarnations(&cluster).await;
    let pids: Vec<u32> = cluster.gateways.iter_mut().map(|gateway| gateway.process().pid()).collect();
    people.exchange("dark").await;
    cluster.redis.kill9();
    stays(Duration::from_secs(3), "every session in place", async || people.in_place()).await;
    cluster.redis.start().await;
    let back = Instant::now();
    check_recovery(&cluster, &people, back).await;
    // Long enough for a detector to act if it wrongly counted the outage.
    stays(SILENCE_MAX, "every session in place", async || people.in_place()).await;
    assert_eq!(incarnations(&cluster).await, before, "no gateway was fenced");
    assert_eq!(cluster.gateways.iter_mut().map(|gateway| gateway.process().pid()).collect::<Vec<_>>(), pids);
    cluster.finish().await;
}

#[tokio::test]
async fn gateways_reassert_after_replication_id_change() {
    lost("DEBUG CHANGE-REPL-ID").await;
}

#[tokio::test]
async fn gateways_reassert_after_losing_all_data() {
    lost("FLUSHALL").await;
}

#[tokio::test]
async fn gateways_reassert_after_losing_the_lease_table() {
    lost("DEL parley:{0}:leases").await;
}

#[tokio::test]
async fn gateways_reassert_after_losing_the_generation_record() {
    lost("DEL parley:{0}:generation").await;
}

async fn lost(command: &str) {
    let cluster = cluster(&[]).await;
    let people = LobbyMembers::on(&cluster).await;
    let guest = cluster.ws_on(0).await;
    let before = incarnations(&cluster).await;
    let _: redis::Value = cluster.redis.call(command).await;
    let lost = Instant::now();
    eventually(Duration::from_secs(3), "loss detected", async || {
        let phase = phase(&cluster).await;
        if phase.as_deref() == Some("recovering") { Ok(()) } else { Err(phase) }
    })
    .await;
    let red = cluster.gateways[0].until_not_ready(Duration::from_secs(2)).await;
    assert!(red.body.contains("the store is recovering"), "{red:?}");
    claims_are_refused_during_recovery(&cluster, &guest).await;
    check_recovery(&cluster, &people, lost).await;
    assert_eq!(incarnations(&cluster).await, before, "no gateway was fenced");
    cluster.finish().await;
}

#[tokio::test]
async fn store_opens_without_a_frozen_gateway() {
    let mut cluster = cluster(&[("appendfsync", "always")]).await;
    for text in ["fenced", "lease lost", "lease not acquired"] {
        cluster.allow(text);
    }
    let people = LobbyMembers::on(&cluster).await;
    let (guest, dora) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    dora.register("dora").await;
    cluster.gateways[1].process().stop_signal().await;
    cluster.redis.restart().await;
    let back = Instant::now();
    let silence = SILENCE_MAX - Duration::from_secs(1);
    stays(silence.saturating_sub(back.elapsed()), "store waits for the frozen gateway", async || {
        let taken = guest.try_register("bob").await.is_ok();
        let left = people.ann.left("#lobby");
        if !taken && left.is_empty() { Ok(()) } else { Err((taken, left)) }
    })
    .await;
    cluster.gateways[0].until_ready(RECOVERY_MAX.saturating_sub(back.elapsed())).await;
    people.ann.sends("#lobby", "light").await;
    eventually(Duration::from_secs(2), "nicknames of the fenced gateway released", async || {
        guest.try_register("bob").await
    })
    .await;
    assert!(back.elapsed() < RECOVERY_MAX, "{:?}", back.elapsed());
    people.ann.sees_left(RECOVERY_MAX, "#lobby", "bob", "gateway_lost").await;

    cluster.gateways[1].process().cont();
    assert_eq!(dora.closed_within(RECOVERY_MAX).await.code, Some(1012));
    cluster.gateways[1].until_ready(RECOVERY_MAX).await;
    assert_eq!(people.bob.ends(RECOVERY_MAX).await, "nick_in_use", "the guest has the nickname");
    assert_eq!(people.ann.interruptions(), []);
    cluster.finish().await;
}

#[tokio::test]
async fn later_claim_wins_a_nickname_after_data_loss() {
    let mut cluster = cluster(&[]).await;
    let people = LobbyMembers::on(&cluster).await;
    let claimer = cluster.ws_on(0).await;
    // g2 is frozen during the loss, so the store opens without its claims.
    cluster.gateways[1].process().stop_signal().await;
    cluster.redis.call::<()>("FLUSHALL").await;
    eventually(Duration::from_secs(6), "nickname granted again", async || claimer.try_register("bob").await).await;
    cluster.gateways[1].process().cont();
    assert_eq!(claimer.closed_within(RECOVERY_MAX).await.code, Some(1012), "bob's claim is the later one");
    check_recovery(&cluster, &people, Instant::now()).await;
    cluster.finish().await;
}
