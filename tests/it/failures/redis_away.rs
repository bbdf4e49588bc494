//! Redis is not there: not yet, or not for a while. Gateways say so, refuse with a code, lose nobody, and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{Cluster, LineClient, Node, Redis, WsClient, eventually, http, stays};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

/// A gateway says that it is not ready within this time.
const RED: Duration = Duration::from_secs(5);
/// After Redis is back everything is whole again within this time.
const WHOLE_AGAIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_gateway_waits_for_a_redis_that_is_not_there_yet() {
    let mut redis = Redis::away();
    let mut gateway = Node::gateway("g1").redis(&redis).launch().await;
    assert_eq!(http::get(gateway.admin(), "/livez").await.unwrap().status, 200, "alive");
    let answer = gateway.readyz().await.unwrap();
    assert_eq!(answer.status, 503, "not ready");
    assert!(answer.body.contains("no lease"), "and why: {answer:?}");

    let Err(Error::Http(refusal)) = WsClient::try_connect(gateway.ws()).await else { panic!("the door is open") };
    assert_eq!(refusal.status(), 503);
    assert!(refusal.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    let person = LineClient::connect(gateway.tcp()).await;
    person.closed().await;
    let said = person.received("*");
    assert!(said.len() == 1 && said[0].starts_with("! unavailable: "), "{said:?}");

    redis.start().await;
    gateway.until_ready(WHOLE_AGAIN).await;
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

/// Longer than a gateway waits for one answer, shorter than it goes on trying.
const HICCUP: Duration = Duration::from_millis(2_500);

#[tokio::test]
async fn a_hiccup_doubles_nothing() {
    let mut cluster = Cluster::builder().gateways(1).start().await;
    for text in ["beats are not answered", "subscription lost", "no subscription"] {
        cluster.allow(text);
    }
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(0).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "Redis knows the scripts").await;

    // The first attempt of each is done without an answer, the next one finds it done.
    cluster.redis.stop_signal().await;
    let said = ann.post(json!({"type": "send", "to": "#lobby", "body": "hi"})).await;
    let named = bob.post(json!({"type": "register", "nick": "bob"})).await;
    let nobody_answers = || async {
        let answers = ann.received(|event| event["id"] == said);
        if answers.is_empty() { Ok(()) } else { Err(answers) }
    };
    stays(HICCUP, "no answer", nobody_answers).await;
    cluster.redis.cont();
    let ack = ann.reply_within(WHOLE_AGAIN, said).await.expect("it is acked");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(2), &json!(false)), "ann said it once");
    bob.reply_within(WHOLE_AGAIN, named).await.expect("bob has his name");
    assert_eq!(ann.history("#lobby", 10).await.len(), 2);
    ann.receives("#lobby", "ann", "hi").await;
    cluster.finish().await;
}

#[tokio::test]
async fn whoever_registers_again_after_a_lost_answer_is_not_kept_out_by_it() {
    let mut redis = Redis::running().await;
    let gateway = Node::gateway("g1").redis(&redis).start().await;
    let (ann, bob) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    // Redis knows the script and every connection of the gateway, whichever it will be: the claim is one command.
    bob.register("bob").await;
    for number in 0..16 {
        let guest = WsClient::connect(gateway.ws()).await;
        guest.register(&format!("guest{number}")).await;
        guest.bye().await;
    }
    // The claim goes out and is carried out, but so late that nobody waits for its answer any more.
    redis.stop_signal().await;
    let refused = ann.request_within(RED * 3, json!({"type": "register", "nick": "ann"})).await.unwrap_err();
    assert_eq!(refused.code, "outcome_unknown");
    redis.cont();
    gateway.until_ready(WHOLE_AGAIN).await;
    ann.register("ann").await;

    // And it is one session, whose end leaves nothing behind.
    ann.bye().await;
    let taken = async || bob.request(json!({"type": "nick", "nick": "ann"})).await.map_err(|refused| refused.code);
    eventually(WHOLE_AGAIN, "the name to be free", taken).await;
}

#[tokio::test]
async fn a_redis_that_stands_still_costs_nobody_their_place() {
    outage(Outage::Frozen).await;
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_costs_nobody_their_place() {
    outage(Outage::Killed).await;
}

/// Two ways of being away: frozen, it does what it was asked as soon as it wakes up; killed, all connections are new
/// afterwards, and whoever is back first sees everybody else's beat as it was before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outage {
    Frozen,
    Killed,
}

async fn outage(outage: Outage) {
    const AWAY: Duration = Duration::from_secs(20);
    /// Several beats of the others, and well below the 8 s after which a gateway counts as dead.
    const SLOWER: Duration = Duration::from_secs(3);
    // Nothing that was answered is lost: this is about being away, not about losing data.
    let cluster = Cluster::builder().gateways(2).presence(1).redis_setting("appendfsync", "always");
    let mut cluster = cluster.start().await;
    for text in ["beats are not answered", "subscription lost", "no subscription", "not ready", "does not answer"] {
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
        Outage::Frozen => cluster.redis.stop_signal().await,
        Outage::Killed => {
            // Everybody has seen the last beat of g2 when the outage begins: it stands still for whoever counts on.
            cluster.gateways[1].process().stop_signal().await;
            stays(Duration::from_millis(1_500), "every place", in_place).await;
            cluster.redis.kill9();
            cluster.gateways[1].process().cont();
        }
    }
    let began = Instant::now();
    let everybody_stays = stays(AWAY, "every place", in_place);
    let everything_is_refused = async {
        let mut codes: BTreeMap<String, usize> = BTreeMap::new();
        while began.elapsed() < AWAY - Duration::from_secs(3) {
            let request = json!({"type": "send", "to": "#lobby", "body": "in the dark"});
            let refused = ann.request_within(AWAY, request).await.expect_err("nothing can be said");
            *codes.entry(refused.code).or_default() += 1;
        }
        codes
    };
    let readiness_is_honest = async {
        for gateway in &cluster.gateways {
            gateway.until_not_ready(RED).await;
        }
        let answer = http::get(cluster.presence[0].api(), "/v1/users/ann").await.unwrap();
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")), "never a stale answer");
    };
    let ((), codes, ()) = tokio::join!(everybody_stays, everything_is_refused, readiness_is_honest);
    assert!(codes.keys().all(|code| code == "unavailable" || code == "outcome_unknown"), "{codes:?}");

    match outage {
        Outage::Frozen => cluster.redis.cont(),
        Outage::Killed => {
            // One gateway is slower to come back: others must not count the outage against it. They wait for it.
            cluster.gateways[1].process().stop_signal().await;
            cluster.redis.start().await;
            stays(SLOWER, "the place of those on the slow gateway", in_place).await;
            cluster.gateways[1].process().cont();
        }
    }
    let back = Instant::now();
    for gateway in &cluster.gateways {
        gateway.until_ready(WHOLE_AGAIN.saturating_sub(back.elapsed())).await;
    }
    ann.sends("#lobby", "light").await;
    bob.receives("#lobby", "ann", "light").await;
    carl.receives("#lobby", "ann", "light").await;
    assert!(back.elapsed() < WHOLE_AGAIN, "whole again after {:?}", back.elapsed());

    // Long enough for a detector that wrongly counted the outage to act on it.
    stays(Duration::from_secs(10), "every place", in_place).await;
    assert_eq!(names_of(&cluster.ask("/v1/gateways").await), names_of(&lives), "nobody was fenced");
    assert_eq!(ann.members("#lobby").await, ["ann", "bob", "carl"]);
    cluster.finish().await;
}

/// Which lives of which gateways a listing shows.
fn names_of(gateways: &Value) -> Vec<(String, String)> {
    let items = gateways["items"].as_array().expect("a list").iter();
    items.map(|gateway| (gateway["node"].to_string(), gateway["incarnation"].to_string())).collect()
}
