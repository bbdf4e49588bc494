//! Bans, mutes, kicks and revocations of the cluster: in effect on every gateway within 2 s, also without pub/sub.
//!
//! Orders are given through the registry, as `gateway ctl` and the HTTP API give them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Cluster, Node, Redis, WsClient, eventually, stays};
use presence::model::{SanctionEntry, SanctionKind, SanctionOrder, SubjectFields};
use presence::registry::{RedisRegistry, Registry, SanctionCursor};
use presence::store::redis::RedisStore;
use serde_json::json;

use super::identity::{cluster, secured, token};

const SOON: Duration = Duration::from_secs(10);
/// Longest time until an order is in effect everywhere.
const EFFECTIVE: Duration = Duration::from_secs(2);
const BANNED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 71);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 72);

pub(crate) fn registry(cluster: &Cluster) -> Registry {
    Registry::Redis(RedisRegistry::new(RedisStore::open(&cluster.redis.url(), "parley").unwrap()))
}

fn order(kind: SanctionKind, field: &str, name: &str) -> SanctionOrder {
    let fields: SubjectFields = serde_json::from_value(json!({ field: name })).unwrap();
    SanctionOrder::new(kind, fields.try_into().unwrap(), "a moderator", "spam").unwrap()
}

async fn give(registry: &Registry, order: &SanctionOrder) -> SanctionEntry {
    registry.sanction(order, None).await.unwrap().unwrap()
}

async fn signs_in(client: &WsClient, nick: &str, token: &str) {
    client.must(json!({"type": "register", "nick": nick, "token": token})).await;
    client.join("#lobby").await;
}

async fn guest(cluster: &Cluster, gateway: usize, nick: &str) -> WsClient {
    let client = cluster.ws_on(gateway).await;
    client.register(nick).await;
    client.join("#lobby").await;
    client
}

/// Waits until a gateway knows an order: the order's version is that of the store for all of them.
async fn until_known(cluster: &Cluster) {
    for gateway in &cluster.gateways {
        eventually(SOON, "the list is known", async || {
            let metrics = gateway.metrics().await;
            let lag = metrics.get("parley_sanctions_lag_seconds", &[]);
            let entries = metrics.get("parley_sanctions_entries", &[]);
            if lag == Some(0.0) && entries > Some(0.0) { Ok(()) } else { Err((lag, entries)) }
        })
        .await;
    }
}

#[tokio::test]
async fn ban_ends_sessions_and_refuses_others_everywhere() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let (eve, watcher) = (guest(&cluster, 0, "eve").await, guest(&cluster, 1, "watcher").await);
    let (user, same_user) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    signs_in(&user, "una", &token("user:1", &json!({}))).await;
    signs_in(&same_user, "ulf", &token("user:1", &json!({}))).await;

    let ban = give(&registry, &order(SanctionKind::Ban, "nick", "EVE")).await;
    let ending = eve.closed_within(EFFECTIVE).await;
    assert_eq!((ending.code, ending.reason.as_str()), (Some(4006), "banned"));
    watcher.sees_left("#lobby", "eve", "kicked").await;
    give(&registry, &order(SanctionKind::Ban, "user", "user:1")).await;
    for client in [&user, &same_user] {
        assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4006));
    }

    until_known(&cluster).await;
    for gateway in 0..2 {
        let client = cluster.ws_on(gateway).await;
        let refused = client.try_register("Eve").await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.reply["message"].as_str()),
            ("banned", Some("you are banned: spam"))
        );
        assert_eq!(client.closed().await.code, Some(4006), "a banned client does not try again");
        let client = cluster.ws_on(gateway).await;
        let token = token("user:1", &json!({}));
        let register = json!({"type": "register", "nick": "other", "token": token});
        assert_eq!(client.request(register).await.unwrap_err().code, "banned");
        let line = cluster.line_on(gateway).await;
        line.types("/nick eve").await;
        line.reads("! banned*").await;
        line.closed().await;
    }
    let renamed = watcher.request(json!({"type": "nick", "nick": "eve"})).await.unwrap_err();
    assert_eq!(renamed.code, "banned");
    watcher.sends("#lobby", "still here").await;
    assert!(cluster.gateways[0].log().holds("\"event\":\"banned\""));

    assert!(registry.lift(SanctionKind::Ban, &ban.id).await.unwrap());
    eventually(EFFECTIVE, "the lifted ban admits again", async || {
        let client = cluster.ws_on(0).await;
        client.try_register("eve").await.map(drop).map_err(|refused| refused.code)
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn gateway_admits_nobody_before_it_knows_the_bans() {
    let redis = Redis::running().await;
    let registry = Registry::Redis(RedisRegistry::new(RedisStore::open(&redis.url(), "parley").unwrap()));
    let mut first = Node::gateway("g1").redis(&redis).start().await;
    give(&registry, &order(SanctionKind::Ban, "nick", "eve")).await;
    // The second gateway learns that there is a list, and cannot read it.
    let order = "parley:{0}:sanction-order";
    let () = redis.ask(&["RENAME", order, "parley:{0}:kept"]).await;
    let () = redis.ask(&["SET", order, "of another type"]).await;
    let mut second = Node::gateway("g2").redis(&redis).launch().await;
    let reason = "the list of bans is not read yet";
    eventually(SOON, "the list is the only reason", async || {
        let answer = second.readyz().await?;
        if answer.status == 503 && answer.body.contains(reason) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    stays(Duration::from_secs(3), "no client is admitted", async || match WsClient::try_connect(second.ws()).await {
        Err(_) => Ok(()),
        Ok(client) => Err(client.try_register("eve").await.is_ok()),
    })
    .await;

    let () = redis.ask(&["RENAME", "parley:{0}:kept", order]).await;
    second.until_ready(SOON).await;
    let eve = WsClient::connect(second.ws()).await;
    assert_eq!(eve.try_register("eve").await.unwrap_err().code, "banned");
    for gateway in [&mut first, &mut second] {
        assert_eq!(gateway.end().await, Some(0));
    }
}

#[tokio::test]
async fn banned_address_is_refused_at_accept() {
    let cluster = Cluster::builder().gateways(2).start().await;
    let registry = registry(&cluster);
    let from = async |source, gateway: usize| WsClient::try_connect_from(source, cluster.gateways[gateway].ws()).await;
    let (eve, ann) = (from(BANNED, 0).await.unwrap(), from(OTHER, 1).await.unwrap());
    let unregistered = from(BANNED, 1).await.unwrap();
    eve.register("eve").await;
    ann.register("ann").await;
    give(&registry, &order(SanctionKind::Ban, "address", "::ffff:127.0.0.71")).await;
    assert_eq!(eve.closed_within(EFFECTIVE).await.code, Some(4006));
    until_known(&cluster).await;
    assert_eq!(unregistered.try_register("zoe").await.unwrap_err().code, "banned");
    for gateway in &cluster.gateways {
        let refused = harness::http::get_from(BANNED, gateway.ws(), "/ws").await.unwrap();
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("banned")));
        let line = harness::LineClient::connect_from(BANNED, gateway.tcp()).await;
        line.reads("! banned*").await;
        line.closed().await;
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.get("parley_connections_banned_total", &[]), Some(2.0));
    }
    let log = cluster.gateways[1].log().lines();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("\"event\":\"banned\"")).collect();
    assert!(lines.len() == 1 && lines[0].contains("127.0.0.71"), "one line a minute for an address: {lines:?}");
    // A range that spares ann, then one that has her.
    give(&registry, &order(SanctionKind::Ban, "address", "127.0.0.80/28")).await;
    ann.join("#lobby").await;
    give(&registry, &order(SanctionKind::Ban, "address", "127.0.0.64/28")).await;
    assert_eq!(ann.closed_within(EFFECTIVE).await.code, Some(4006));
    cluster.finish().await;
}

#[tokio::test]
async fn mute_refuses_messages_of_every_session() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let (eve, ann) = (guest(&cluster, 0, "eve").await, guest(&cluster, 1, "ann").await);
    let user = cluster.ws_on(1).await;
    signs_in(&user, "una", &token("user:1", &json!({}))).await;
    let mute = give(&registry, &order(SanctionKind::Mute, "nick", "eve")).await;
    give(&registry, &order(SanctionKind::Mute, "user", "user:1")).await;
    until_known(&cluster).await;
    eventually(EFFECTIVE, "both are muted", async || {
        for client in [&eve, &user] {
            for to in ["#lobby", "ann"] {
                let refused = client.try_send(to, "hello?").await.err().map(|refused| refused.code);
                if refused.as_deref() != Some("muted") {
                    return Err(refused);
                }
            }
        }
        Ok(())
    })
    .await;
    let topic = json!({"type": "topic", "room": "#lobby", "text": "not quiet"});
    assert_eq!(eve.request(topic).await.unwrap_err().code, "muted");
    ann.sends("#lobby", "quiet here").await;
    eve.receives("#lobby", "ann", "quiet here").await;
    assert!(registry.lift(SanctionKind::Mute, &mute.id).await.unwrap());
    eventually(EFFECTIVE, "eve may send again", async || {
        eve.try_send("#lobby", "hi").await.map_err(|refused| refused.code)
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn revocation_ends_sessions_with_older_tokens() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let issued = |seconds: u64| token("user:1", &json!({"iat": seconds}));
    let (old, new, other, without) =
        (cluster.ws_on(0).await, cluster.ws_on(1).await, cluster.ws_on(1).await, cluster.ws_on(0).await);
    signs_in(&old, "old", &issued(1_000)).await;
    signs_in(&new, "new", &issued(3_000)).await;
    signs_in(&other, "other", &token("user:2", &json!({"iat": 1_000}))).await;
    signs_in(&without, "without", &token("user:1", &json!({}))).await;
    let mut revocation = order(SanctionKind::Revocation, "user", "user:1");
    revocation.before = Some(2_000_000);
    give(&registry, &revocation).await;
    for client in [&old, &without] {
        assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4005));
    }
    until_known(&cluster).await;
    for (gateway, issued_at, expected) in [(0, 1_999, false), (1, 1_999, false), (0, 2_000, true)] {
        let register = json!({"type": "register", "nick": "back", "token": issued(issued_at)});
        let client = cluster.ws_on(gateway).await;
        let refused = client.request(register).await.err().map(|refused| refused.code);
        assert_eq!(refused.as_deref(), (!expected).then_some("token_expired"), "issued at {issued_at}");
    }
    new.sends("#lobby", "still here").await;
    other.receives("#lobby", "new", "still here").await;
    assert_eq!(
        new.request(json!({"type": "refresh", "token": issued(1_500)})).await.unwrap_err().code,
        "token_expired",
        "a refresh cannot bring back a revoked token"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn kick_finds_users_sessions_and_addresses() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    signs_in(&ann, "ann", &token("user:1", &json!({}))).await;
    signs_in(&bob, "bob", &token("user:1", &json!({}))).await;
    let carl = cluster.ws_on(1).await;
    let session = carl.register("carl").await["session"].as_str().unwrap().to_owned();
    let dan = WsClient::try_connect_from(OTHER, cluster.gateways[0].ws()).await.unwrap();
    dan.register("dan").await;
    let zoe = guest(&cluster, 0, "zoe").await;
    give(&registry, &order(SanctionKind::Kick, "user", "user:1")).await;
    for client in [&ann, &bob] {
        assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4003));
    }
    give(&registry, &order(SanctionKind::Kick, "session", &session)).await;
    assert_eq!(carl.closed_within(EFFECTIVE).await.code, Some(4003));
    give(&registry, &order(SanctionKind::Kick, "address", "127.0.0.72")).await;
    assert_eq!(dan.closed_within(EFFECTIVE).await.code, Some(4003));
    // A kick is no ban: all may return at once, and others were never disturbed.
    let back = cluster.ws_on(1).await;
    signs_in(&back, "ann", &token("user:1", &json!({}))).await;
    zoe.sends("#lobby", "hello").await;
    back.receives("#lobby", "zoe", "hello").await;
    cluster.finish().await;
}

#[tokio::test]
async fn gateways_restore_the_list_that_redis_lost() {
    let mut cluster = Cluster::builder().gateways(2).start().await;
    cluster.allow("");
    let registry = registry(&cluster);
    let first = give(&registry, &order(SanctionKind::Ban, "nick", "eve")).await;
    give(&registry, &order(SanctionKind::Ban, "nick", "zoe")).await;
    assert!(registry.lift(SanctionKind::Ban, &first.id).await.unwrap());
    until_known(&cluster).await;
    let () = cluster.redis.call("FLUSHALL").await;
    eventually(SOON, "the list is in the store again", async || {
        let page = registry.sanctions_since(SanctionCursor::from(0), 10).await.map_err(|error| error.to_string())?;
        let names: Vec<_> = page.changes.iter().map(|change| change.entry.is_some()).collect();
        if names == [true, false] { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;
    // A ban that is ordered afterwards reaches a gateway that knew the former ones.
    let eve = eventually(SOON, "eve may register", async || {
        let client = WsClient::try_connect(cluster.gateways[0].ws()).await.map_err(|error| error.to_string())?;
        client.try_register("eve").await.map_err(|refused| refused.code)?;
        Ok::<_, String>(client)
    })
    .await;
    give(&registry, &order(SanctionKind::Ban, "nick", "eve")).await;
    assert_eq!(eve.closed_within(EFFECTIVE).await.code, Some(4006));
    cluster.gateways[1].until_ready(SOON).await;
    let refused = cluster.ws_on(1).await.try_register("zoe").await.unwrap_err();
    assert_eq!(refused.code, "banned");
    cluster.finish().await;
}

/// Kills every subscription again and again until it is dropped.
pub(super) struct SubscriptionKiller {
    running: Arc<AtomicBool>,
    kills: Arc<AtomicU64>,
}

impl SubscriptionKiller {
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let (running, kills) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let mut connection = cluster.redis.connection().await;
        let (until, count) = (Arc::clone(&running), Arc::clone(&kills));
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        tokio::spawn(async move {
            while until.load(Ordering::Relaxed) {
                let mut kill = redis::cmd("CLIENT");
                let killed: u64 =
                    kill.arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.unwrap();
                count.fetch_add(killed, Ordering::Relaxed);
                pause.tick().await;
            }
        });
        Self { running, kills }
    }

    /// Returns the number of subscriptions that were killed, after one more: so they were killed up to this moment.
    pub(super) async fn finish(self) -> u64 {
        let so_far = self.kills.load(Ordering::Relaxed);
        eventually(SOON, "another subscription is killed", async || match self.kills.load(Ordering::Relaxed) {
            kills if kills > so_far => Ok(kills),
            kills => Err(kills),
        })
        .await
    }
}

impl Drop for SubscriptionKiller {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

/// Figure of P12: `cargo test -p parley-tests --test it orders_hold_everywhere -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "it measures a figure")]
async fn orders_hold_everywhere_while_pubsub_is_killed() {
    let mut cluster = secured(Cluster::builder().gateways(2), "mixed").start().await;
    cluster.allow("");
    let registry = registry(&cluster);
    let (mut bans, mut others) = (Vec::new(), Vec::new());
    for number in 0..50 {
        bans.push((format!("b{number}"), guest(&cluster, number % 2, &format!("b{number}")).await));
    }
    for number in 0..10 {
        let user = format!("user:{number}");
        let clients = [cluster.ws_on(0).await, cluster.ws_on(1).await];
        for (gateway, client) in clients.iter().enumerate() {
            signs_in(client, &format!("u{number}on{gateway}"), &token(&user, &json!({"iat": 1}))).await;
        }
        others.push((user, clients));
    }
    let muted = [guest(&cluster, 0, "m0").await, guest(&cluster, 1, "m1").await];

    let killer = SubscriptionKiller::start(&cluster).await;
    let mut took = Vec::new();
    for (nick, client) in &bans {
        let start = Instant::now();
        give(&registry, &order(SanctionKind::Ban, "nick", nick)).await;
        assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4006), "{nick}");
        took.push(start.elapsed());
    }
    for (number, (user, clients)) in others.iter().enumerate() {
        let (kind, code) = [(SanctionKind::Kick, 4003), (SanctionKind::Revocation, 4005)][number % 2];
        let start = Instant::now();
        give(&registry, &order(kind, "user", user)).await;
        let endings = join_all(clients.iter().map(|client| client.closed_within(EFFECTIVE))).await;
        assert!(endings.iter().all(|ending| ending.code == Some(code)), "{kind:?}: {endings:?}");
        took.push(start.elapsed());
    }
    for (number, client) in muted.iter().enumerate() {
        let start = Instant::now();
        give(&registry, &order(SanctionKind::Mute, "nick", &format!("m{number}"))).await;
        eventually(EFFECTIVE, "the mute holds", async || match client.try_send("m0", "hello").await {
            Err(refused) if refused.code == "muted" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        took.push(start.elapsed());
    }
    let kills = killer.finish().await;
    took.sort_unstable();
    let (median, p99, longest) = (took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]);
    println!(
        "{} orders, {kills} subscriptions killed: median {median:?}, p99 {p99:?}, longest {longest:?}",
        took.len()
    );
    assert!(longest < EFFECTIVE, "{longest:?}");
    cluster.finish().await;
}
