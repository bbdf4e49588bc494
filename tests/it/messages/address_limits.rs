//! Limits of an address, on one gateway and over the cluster: its clients are refused and those of others are not.
//!
//! Each address is one of this machine. Invariant: an address that meets a limit is told the time, and is the only one
//! refused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use harness::{Cluster, LineClient, Node, WsClient, eventually};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
const SECRET: &str = "the secret that the application shares with its gateways";
const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 41);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 42);

fn limited() -> harness::node::NodeBuilder {
    Node::gateway("g1").setting("PARLEY__LIMITS__PROFILE", "default")
}

async fn client_from(source: Ipv4Addr, gateway: SocketAddr) -> WsClient {
    WsClient::try_connect_from(source, gateway).await.unwrap()
}

async fn user_from(source: Ipv4Addr, gateway: SocketAddr, nick: &str) -> WsClient {
    let client = client_from(source, gateway).await;
    client.register(nick).await;
    client
}

fn register(nick: &str) -> Value {
    json!({"type": "register", "nick": nick})
}

fn join(room: &str) -> Value {
    json!({"type": "join", "room": room})
}

/// Returns the code of a refusal and its pause in milliseconds; `None` if the request is accepted.
async fn refusal(client: &WsClient, request: Value) -> Option<(String, u64)> {
    let refused = client.request(request).await.err()?;
    let wait = refused.reply["retry_after_ms"].as_u64().expect("a time to wait");
    Some((refused.code, wait))
}

/// Returns the log lines about limits.
fn limit_lines(gateway: &Node) -> Vec<Value> {
    let lines = gateway.log().lines().into_iter();
    lines.filter(|line| line.contains("\"rate_limited\"")).map(|line| serde_json::from_str(&line).unwrap()).collect()
}

#[tokio::test]
async fn address_registers_thirty_users_a_minute() {
    let gateway = limited().start().await;
    let mut users = vec![user_from(GREEDY, gateway.ws(), "user0").await];
    // A registration that came to nothing costs nothing.
    let guest = client_from(GREEDY, gateway.ws()).await;
    for _ in 0..20 {
        assert_eq!(guest.request(register("user0")).await.unwrap_err().code, "nick_in_use");
    }
    for number in 1..30 {
        users.push(user_from(GREEDY, gateway.ws(), &format!("user{number}")).await);
    }
    let late = client_from(GREEDY, gateway.ws()).await;
    let (code, wait) = refusal(&late, register("late")).await.unwrap();
    assert!(code == "rate_limited" && (1..=2000).contains(&wait), "{code} {wait}");
    user_from(OTHER, gateway.ws(), "other").await;
    tokio::time::sleep(Duration::from_millis(wait)).await;
    late.register("late").await;

    let line = limit_lines(&gateway).remove(0);
    assert_eq!(
        (&line["limit"], &line["scope"], &line["address"]),
        (&json!("registrations"), &json!("address"), &json!("127.0.0.41"))
    );
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.get("parley_refusals_total", &[("code", "rate_limited")]), Some(1.0));
}

#[tokio::test]
async fn resumes_are_no_registrations() {
    let gateway = limited().setting("PARLEY__LIMITS__REGISTRATIONS_PER_MINUTE", "1");
    let gateway = gateway.setting("PARLEY__LIMITS__REGISTRATIONS_BURST", "1").start().await;
    let mut ann = client_from(GREEDY, gateway.ws()).await;
    let mut registered = ann.register("ann").await;
    for _ in 0..5 {
        ann = client_from(GREEDY, gateway.ws()).await;
        registered = ann.resume(&registered, json!({})).await;
    }
    let (code, wait) = refusal(&client_from(GREEDY, gateway.ws()).await, register("bob")).await.unwrap();
    assert!(code == "rate_limited" && (50_000..=60_000).contains(&wait), "{code} {wait}");
}

#[tokio::test]
async fn address_creates_ten_rooms_a_minute() {
    let gateway = limited().start().await;
    let other = user_from(OTHER, gateway.ws(), "other").await;
    other.join("#theirs").await;
    let (ann, bob) = (user_from(GREEDY, gateway.ws(), "ann").await, user_from(GREEDY, gateway.ws(), "bob").await);
    for number in 0..10 {
        ann.join(&format!("#room{number}")).await;
        // Rooms that exist cost nothing, however often they are joined.
        bob.join(&format!("#room{number}")).await;
        ann.join(&format!("#room{number}")).await;
    }
    let (code, wait) = refusal(&bob, join("#more")).await.unwrap();
    assert!(code == "rate_limited" && (1..=6000).contains(&wait), "{code} {wait}");
    bob.join("#theirs").await;
    other.join("#more").await;
    bob.join("#more").await;
    bob.sends("#more", "hi").await;
    let refused = bob.request(join("#another")).await.unwrap_err();
    assert_eq!(refused.reply["message"], "too many new rooms from this address in a short time");
    let lines = limit_lines(&gateway);
    assert_eq!(lines.len(), 1, "one line a minute: {lines:?}");
    assert_eq!((&lines[0]["limit"], &lines[0]["address"]), (&json!("creations"), &json!("127.0.0.41")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_enter_a_new_room_together() {
    let gateway = limited().start().await;
    let users = join_all((0..25).map(|number| {
        let at = gateway.ws();
        async move { user_from(GREEDY, at, &format!("user{number}")).await }
    }))
    .await;
    for number in 0..5 {
        let room = format!("#room{number}");
        join_all(users.iter().map(|user| user.join(&room))).await;
    }
}

#[tokio::test]
async fn refused_room_is_created_at_the_named_time() {
    let gateway = limited().setting("PARLEY__LIMITS__CREATIONS_PER_MINUTE", "60");
    let gateway = gateway.setting("PARLEY__LIMITS__CREATIONS_BURST", "1").setting("PARLEY__LOG__ADDRESSES", "false");
    let gateway = gateway.start().await;
    let line = LineClient::connect(gateway.tcp()).await;
    let ann = user_from(GREEDY, gateway.ws(), "ann").await;
    line.register("bob").await;
    for number in 0..3 {
        ann.join(&format!("#room{number}")).await;
        let (_, wait) = refusal(&ann, join("#next")).await.unwrap();
        assert!((1..=1000).contains(&wait), "{wait}");
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    line.types("/join #one").await;
    line.reads("* you are in #one, members: 1").await;
    line.types("/join #two").await;
    line.reads("! rate_limited: too many new rooms from this address in a short time (try again in * s)").await;
    let lines = limit_lines(&gateway);
    assert!(!lines.is_empty() && lines.iter().all(|line| line.get("address").is_none()), "{lines:?}");
}

#[tokio::test]
async fn open_profile_lifts_limits_of_addresses() {
    let gateway = Node::gateway("g1").setting("PARLEY__LIMITS__PROFILE", "open").start().await;
    let ann = user_from(GREEDY, gateway.ws(), "ann").await;
    for number in 0..40 {
        ann.join(&format!("#room{number}")).await;
        user_from(GREEDY, gateway.ws(), &format!("user{number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_an_address_count_on_all_gateways() {
    const BURST: usize = 100;
    let cluster = Cluster::builder()
        .gateways(2)
        .gateway_setting("PARLEY__LIMITS__CREATIONS_PER_MINUTE", "1")
        .gateway_setting("PARLEY__LIMITS__CREATIONS_BURST", &BURST.to_string())
        .start()
        .await;
    let [first, second] = [0, 1].map(|number| cluster.gateways[number].ws());
    let (ann, bob) = (user_from(GREEDY, first, "ann").await, user_from(GREEDY, second, "bob").await);
    for number in 0..BURST {
        ann.join(&format!("#room{number}")).await;
    }
    let mut created = 0;
    eventually(SOON, "the other gateway refuses the address", async || {
        created += 1;
        let refused = refusal(&bob, join(&format!("#late{created}"))).await;
        if refused.is_some() { Ok(()) } else { Err(created) }
    })
    .await;
    assert!(created < BURST, "the other gateway refused by its own count");
    bob.join("#room1").await;
    user_from(OTHER, second, "other").await.join("#theirs").await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_an_address_count_on_all_gateways() {
    const SEATS: usize = 16;
    let seats = SEATS.to_string();
    let cluster = Cluster::builder().gateways(2).gateway_setting("PARLEY__LIMITS__CONNECTIONS_PER_ADDRESS", &seats);
    let cluster = cluster.start().await;
    let [first, second] = [0, 1].map(|number| cluster.gateways[number].ws());
    let mut held = Vec::new();
    for _ in 0..SEATS {
        held.push(client_from(GREEDY, first).await);
    }
    eventually(SOON, "the other gateway refuses the address", async || {
        let admitted = WsClient::try_connect_from(GREEDY, second).await;
        if admitted.is_err() { Ok(()) } else { Err("admitted") }
    })
    .await;
    client_from(OTHER, second).await;
    held.truncate(SEATS / 2);
    eventually(SOON, "the other gateway admits the address again", async || {
        let admitted = WsClient::try_connect_from(GREEDY, second).await;
        if admitted.is_ok() { Ok(()) } else { Err("refused") }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn guesses_of_tokens_close_the_connection() {
    let gateway = Node::gateway("g1").start().await;
    let client = client_from(GREEDY, gateway.ws()).await;
    for _ in 0..5 {
        client.post(json!({"type": "register", "nick": "ann", "resume": "guess"})).await;
    }
    assert_eq!(client.closed().await.code, Some(1008));
    assert_eq!(client.received(|value| value["code"] == "resume_failed").len(), 5);
}

/// Signs a token of this user, valid for a minute.
fn token(user: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": "https://id.example.org", "aud": "parley", "sub": user, "exp": now + 60});
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_user_share_its_limits() {
    const BURST: usize = 200;
    let mut cluster = Cluster::builder().gateways(2).gateway_setting("PARLEY__AUTH__MODE", "token");
    for (key, value) in [
        ("PARLEY__AUTH__ISSUER", "https://id.example.org"),
        ("PARLEY__AUTH__AUDIENCE", "parley"),
        ("PARLEY__AUTH__SECRET", SECRET),
        ("PARLEY__LIMITS__STATUSES_PER_MINUTE", "1"),
        ("PARLEY__LIMITS__STATUSES_BURST", &BURST.to_string()),
        ("PARLEY__LIMITS__USER_SESSIONS", "1"),
        ("PARLEY__LIMITS__ADDRESS_SESSIONS", "0"),
    ] {
        cluster = cluster.gateway_setting(key, value);
    }
    let cluster = cluster.start().await;
    let mut devices = Vec::new();
    for (gateway, source, nick, user) in
        [(0, GREEDY, "ann", "user:1"), (1, OTHER, "ann2", "user:1"), (1, OTHER, "bob", "user:2")]
    {
        let client = client_from(source, cluster.gateways[gateway].ws()).await;
        client.must(json!({"type": "register", "nick": nick, "token": token(user)})).await;
        devices.push(client);
    }
    let status = || json!({"type": "status", "status": "away"});
    for _ in 0..BURST {
        devices[0].must(status()).await;
    }
    let mut set = 0;
    let mut answer = None;
    eventually(SOON, "the other gateway refuses the user", async || {
        set += 1;
        answer = devices[1].request(status()).await.err();
        if answer.is_some() { Ok(()) } else { Err(set) }
    })
    .await;
    assert!(set < BURST, "the other gateway refused by its own count");
    let refused = answer.unwrap();
    assert_eq!(refused.reply["message"], "too many changes of status of this user in a short time");
    devices[2].must(status()).await;
    cluster.finish().await;
}
