//! Redis outages, at startup and later: gateways report them, refuse requests with a code, keep sessions and recover.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::fault_proxy::{FaultProxy, Mode};
use harness::{Cluster, LineClient, Node, Redis, WsClient, eventually, http, stays};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

/// The maximum time until a gateway reports that it is not ready.
const NOT_READY_WITHIN: Duration = Duration::from_secs(5);
/// The maximum recovery time after Redis is back.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

#[tokio::test]
async fn gateway_waits_for_redis_to_start() {
    let mut redis = Redis::not_started();
    let mut gateway = Node::gateway("g1").redis(&redis).launch().await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.unwrap().status, 200, "alive");
    let answer = gateway.readyz().await.unwrap();
    assert_eq!(answer.status, 503, "not ready");
    assert!(answer.body.contains("no lease"), "reason missing: {answer:?}");

    let Err(Error::Http(refusal)) = WsClient::try_connect(gateway.ws()).await else {
        panic!("the connection was accepted")
    };
    assert_eq!(refusal.status(), 503);
    assert!(refusal.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    let person = LineClient::connect(gateway.tcp()).await;
    person.closed().await;
    let said = person.received("*");
    assert!(said.len() == 1 && said[0].starts_with("! unavailable: "), "{said:?}");

    redis.start().await;
    gateway.until_ready(RECOVERY_MAX).await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, LineClient::connect(gateway.tcp()).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    bob.register("bob").await;
    bob.join("#lobby").await;
    bob.types("here we are").await;
    ann.receives("#lobby", "bob", "here we are").await;

    assert_eq!(gateway.end().await, Some(0));
    let allowed = ["lease not acquired", "no subscription", "subscription lost"].map(str::to_owned);
    assert_eq!(gateway.problems(&allowed), Vec::<String>::new());
}

/// Longer than the timeout of one call, shorter than the retries last.
const SHORT_PAUSE: Duration = Duration::from_millis(2_500);

#[tokio::test]
async fn short_redis_pause_duplicates_nothing() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for text in ["beat not answered", "subscription lost", "no subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(0).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "Redis knows the scripts").await;

    // Each first attempt is applied without a reply; the retry finds it applied.
    cluster.redis.stop_signal().await;
    let said = ann.post(json!({"type": "send", "to": "#lobby", "body": "hi"})).await;
    let named = bob.post(json!({"type": "register", "nick": "bob"})).await;
    let no_reply = || async {
        let answers = ann.received(|event| event["id"] == said);
        if answers.is_empty() { Ok(()) } else { Err(answers) }
    };
    stays(SHORT_PAUSE, "no answer", no_reply).await;
    cluster.redis.cont();
    let ack = ann.reply_within(RECOVERY_MAX, said).await.expect("an ack");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(2), &json!(false)), "the message is not a duplicate");
    bob.reply_within(RECOVERY_MAX, named).await.expect("the nickname is registered");
    assert_eq!(ann.history("#lobby", 10).await.len(), 2);
    ann.receives("#lobby", "ann", "hi").await;
    cluster.finish().await;
}

#[tokio::test]
async fn client_registers_again_after_a_lost_reply() {
    let mut redis = Redis::running().await;
    let gateway = Node::gateway("g1").redis(&redis).start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    // Warms the script and every Redis connection, so that the claim is one command.
    bob.register("bob").await;
    for number in 0..16 {
        let guest = WsClient::connect(gateway.ws()).await;
        guest.register(&format!("guest{number}")).await;
        guest.bye().await;
    }
    // The claim is applied after the gateway has stopped waiting for the reply.
    redis.stop_signal().await;
    let refused =
        ann.request_within(NOT_READY_WITHIN * 3, json!({"type": "register", "nick": "ann"})).await.unwrap_err();
    assert_eq!(refused.code, "outcome_unknown");
    redis.cont();
    gateway.until_ready(RECOVERY_MAX).await;
    ann.register("ann").await;

    // There is one session, and its end releases the nickname.
    ann.bye().await;
    let taken = async || bob.request(json!({"type": "nick", "nick": "ann"})).await.map_err(|refused| refused.code);
    eventually(RECOVERY_MAX, "nickname released", taken).await;
}

#[tokio::test]
async fn clients_keep_sessions_while_redis_is_frozen() {
    outage(RedisOutage::Frozen).await;
}

#[tokio::test]
async fn clients_keep_sessions_after_redis_crash_and_restart() {
    outage(RedisOutage::Killed).await;
}

/// Kind of Redis outage.
///
/// A frozen Redis applies the waiting commands when it continues. A killed Redis loses all connections, and the first
/// gateway back reads the old heartbeats of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RedisOutage {
    Frozen,
    Killed,
}

async fn outage(outage: RedisOutage) {
    const OUTAGE_TIME: Duration = Duration::from_secs(20);
    /// Several heartbeats, and well below the 8 s after which a gateway is fenced.
    const RETURN_DELAY: Duration = Duration::from_secs(3);
    // Every answered write is synced, so this outage loses no data.
    let cluster = Cluster::builder().gateways(2).presence(1).redis_setting("appendfsync", "always");
    let mut cluster = cluster.start().await;
    for text in ["beat not answered", "subscription lost", "no subscription", "not ready", "registry not answering"] {
        cluster.allow(text);
    }
    let (ann, bob, carl) = (cluster.ws_on(0).await, cluster.ws_on(1).await, cluster.line_on(1).await);
    ann.register("ann").await;
    bob.register("bob").await;
    carl.register("carl").await;
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    carl.join("#lobby").await;
    let lives = cluster.ask("/v1/gateways").await;

    let in_place = || async {
        let endings = (ann.has_ended(), bob.has_ended(), carl.has_ended());
        let left = [&ann, &bob].map(|person| person.count_seen("#lobby", "left", |_| true));
        if endings == (None, None, None) && left == [0, 0] { Ok(()) } else { Err((endings, left)) }
    };
    match outage {
        RedisOutage::Frozen => cluster.redis.stop_signal().await,
        RedisOutage::Killed => {
            // All processes have read the last heartbeat of g2 before the outage begins.
            cluster.gateways[1].process().stop_signal().await;
            stays(Duration::from_millis(1_500), "every session in place", in_place).await;
            cluster.redis.kill9();
            cluster.gateways[1].process().cont();
        }
    }
    let began = Instant::now();
    let sessions_stay = stays(OUTAGE_TIME, "every session in place", in_place);
    let requests_refused = async {
        let mut codes: BTreeMap<String, usize> = BTreeMap::new();
        while began.elapsed() < OUTAGE_TIME - Duration::from_secs(3) {
            let request = json!({"type": "send", "to": "#lobby", "body": "in the dark"});
            let refused = ann.request_within(OUTAGE_TIME, request).await.expect_err("a refusal");
            *codes.entry(refused.code).or_default() += 1;
        }
        codes
    };
    let readiness_reported = async {
        for gateway in &cluster.gateways {
            gateway.until_not_ready(NOT_READY_WITHIN).await;
        }
        let answer = http::get(cluster.presence[0].api(), "/v1/users/ann").await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")), "never a stale answer");
    };
    let ((), codes, ()) = tokio::join!(sessions_stay, requests_refused, readiness_reported);
    assert!(codes.keys().all(|code| code == "unavailable" || code == "outcome_unknown"), "{codes:?}");

    match outage {
        RedisOutage::Frozen => cluster.redis.cont(),
        RedisOutage::Killed => {
            // One gateway returns later. The others must not count the outage against its lease.
            cluster.gateways[1].process().stop_signal().await;
            cluster.redis.start().await;
            stays(RETURN_DELAY, "sessions of the slow gateway in place", in_place).await;
            cluster.gateways[1].process().cont();
        }
    }
    let back = Instant::now();
    for gateway in &cluster.gateways {
        gateway.until_ready(RECOVERY_MAX.saturating_sub(back.elapsed())).await;
    }
    ann.sends("#lobby", "light").await;
    bob.receives("#lobby", "ann", "light").await;
    carl.receives("#lobby", "ann", "light").await;
    assert!(back.elapsed() < RECOVERY_MAX, "recovered after {:?}", back.elapsed());

    // Long enough for a detector that wrongly counted the outage to act on it.
    stays(Duration::from_secs(10), "every session in place", in_place).await;
    assert_eq!(incarnations_of(&cluster.ask("/v1/gateways").await), incarnations_of(&lives), "no gateway was fenced");
    assert_eq!(ann.members("#lobby").await, ["ann", "bob", "carl"]);
    cluster.finish().await;
}

/// Returns the node ids and incarnations of a gateway listing.
fn incarnations_of(gateways: &Value) -> Vec<(String, String)> {
    let items = gateways["items"].as_array().expect("a list").iter();
    items.map(|gateway| (gateway["node"].to_string(), gateway["incarnation"].to_string())).collect()
}

#[tokio::test]
async fn unanswered_reads_are_unavailable() {
    /// Below the time in which every request is refused.
    const READ_MAX: Duration = Duration::from_secs(3);
    let redis = Redis::running().await;
    let proxy = FaultProxy::start(redis.address()).await;
    let url = Redis::url_through(proxy.address());
    let mut node = Node::presence("p1").setting("PARLEY__REDIS__URL", &url).start().await;
    let api = node.api();
    let ask = |path: &'static str| async move {
        let asked = Instant::now();
        let answer = http::get(api, path).await.expect("an answer");
        (answer.status, answer.json()["code"].clone(), asked.elapsed())
    };
    // None waits for another: all places of a client for single reads, and one listing.
    let paths = ["/v1/stats", "/v1/gateways", "/v1/users/zed", "/v1/rooms/zed", "/v1/users?online=true"];
    let ask_all = || join_all(paths.map(ask));
    ask_all().await;
    // Requests and answers are late.
    proxy.set(Mode::Late { delay: Duration::from_millis(200), jitter: Duration::ZERO });
    for _ in 0..3 {
        for (status, code, took) in ask_all().await {
            assert!(status == 200 || status == 404, "{status} {code} after {took:?}");
            assert!(took >= Duration::from_millis(400), "not late: {took:?}");
        }
    }
    proxy.set(Mode::BlackHole);
    for (status, code, took) in ask_all().await {
        assert_eq!((status, &code), (503, &json!("unavailable")), "after {took:?}");
        assert!(took < READ_MAX, "{took:?}");
    }
    proxy.set(Mode::Pass);
    let answered = async || {
        let (status, ..) = ask("/v1/stats").await;
        if status == 200 { Ok(()) } else { Err(status) }
    };
    eventually(RECOVERY_MAX, "reads are answered again", answered).await;
    assert_eq!(node.end().await, Some(0));
}

/// Longer than a failure detector waits for a counter to change.
const LONG_REFUSAL: Duration = Duration::from_secs(11);

#[tokio::test]
async fn long_refusal_of_beats_fences_no_gateway() {
    let mut cluster = Cluster::builder().gateways(2).presence(2).start().await;
    for text in ["redis is unfit", "redis calls refused", "beat not answered", "subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.person_on(0, "ann").await, cluster.person_on(1, "bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    for [cause, remedy] in [
        ["CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"],
        ["ACL SETUSER parley -hincrby", "ACL SETUSER parley +hincrby"],
    ] {
        cluster.redis.call::<redis::Value>(cause).await;
        let unready = || async {
            let answer = cluster.gateways[0].readyz().await.unwrap();
            if answer.status == 503 { Ok(()) } else { Err(answer) }
        };
        eventually(NOT_READY_WITHIN, "a gateway is unready", unready).await;
        stays(LONG_REFUSAL, "beats are refused", unready).await;
        cluster.redis.call::<redis::Value>(remedy).await;
        ann.answer_within(RECOVERY_MAX, "send", ann.try_send("#lobby", remedy)).await;
        bob.receives("#lobby", "ann", remedy).await;
        for person in [&ann, &bob] {
            assert_eq!((person.interruptions(), person.left("#lobby")), (vec![], vec![]), "after {cause}");
        }
    }
    cluster.redis.call::<()>("ACL LOG RESET").await;
    cluster.finish().await;
}
