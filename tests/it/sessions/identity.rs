//! Tokens: an application vouches for its users, and the gateway decides by `auth.mode`.
//!
//! Stories on clusters and on a gateway alone. The forged tokens and the sets of keys at a URL have tables in
//! `gateway/src/identity`.

use std::time::{Duration, SystemTime};

use harness::client::RequestResult;
use harness::cluster::ClusterBuilder;
use harness::node::NodeBuilder;
use harness::{Cluster, LineClient, Node, WsClient, eventually};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
pub(crate) const SECRET: &str = "the secret that the application shares with its gateways";
pub(super) const OTHER_SECRET: &str = "another secret of the application, for a rotation of keys";

/// Settings of every gateway, without the mode and the key.
pub(super) const ISSUER: [(&str, &str); 2] =
    [("PARLEY__AUTH__ISSUER", "https://id.example.org"), ("PARLEY__AUTH__AUDIENCE", "parley")];

/// Starts a cluster whose gateways know the secret.
pub(crate) async fn cluster(mode: &str, gateways: usize) -> Cluster {
    secured(Cluster::builder().gateways(gateways), mode).start().await
}

/// Sets a mode, and the secret.
pub(crate) fn secured(builder: ClusterBuilder, mode: &str) -> ClusterBuilder {
    let builder = builder.gateway_setting("PARLEY__AUTH__MODE", mode);
    let builder = ISSUER.iter().fold(builder, |builder, (key, value)| builder.gateway_setting(key, value));
    builder.gateway_setting("PARLEY__AUTH__SECRET", SECRET)
}

fn alone(mode: &str) -> NodeBuilder {
    let builder = Node::gateway("alone").setting("PARLEY__AUTH__MODE", mode);
    ISSUER.iter().fold(builder, |builder, (key, value)| builder.setting(key, value))
}

/// Signs a token of this user, valid for a minute, with further claims.
pub(crate) fn token(user: &str, claims: &Value) -> String {
    token_by(SECRET, None, user, claims)
}

/// Signs a token with a secret.
pub(super) fn token_by(secret: &str, key_id: Option<&str>, user: &str, claims: &Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({"iss": "https://id.example.org", "aud": "parley", "sub": user, "exp": now + 60});
    for (claim, value) in claims.as_object().unwrap() {
        all[claim] = value.clone();
    }
    let header = Header { kid: key_id.map(str::to_owned), ..Header::new(Algorithm::HS256) };
    encode(&header, &all, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
}

async fn register(client: &WsClient, nick: &str, token: &str) -> RequestResult {
    client.request(json!({"type": "register", "nick": nick, "token": token})).await
}

fn code(refused: RequestResult) -> String {
    refused.expect_err("a refusal").code
}

#[tokio::test]
async fn token_mode_admits_only_valid_tokens() {
    let cluster = cluster("token", 1).await;
    let ann = cluster.ws_on(0).await;
    assert_eq!(code(ann.try_register("ann").await), "token_required");
    let forged = token_by(OTHER_SECRET, None, "user:1", &json!({}));
    for (token, expected) in [
        (token("user:1", &json!({"exp": 1_700_000_000})), "token_expired"),
        (forged.clone(), "token_invalid"),
        (token("user:1", &json!({"aud": "elsewhere"})), "token_invalid"),
        ("x".repeat(60_000), "token_invalid"),
        (String::new(), "token_invalid"),
    ] {
        assert_eq!(code(register(&ann, "ann", &token).await), expected, "{token:.80}");
    }
    let good = token("user:1", &json!({}));
    let registered = register(&ann, "ann", &good).await.unwrap();
    assert_eq!((&registered["user"], &registered["nick"]), (&json!("user:1"), &json!("ann")));
    ann.join("#lobby").await;
    ann.sends("#lobby", "hi").await;

    // The log of a refusal has its reason, and no part of a token.
    let log = cluster.gateways[0].log();
    let refusals = log.lines().into_iter().filter(|line| line.contains("auth_failed")).collect::<Vec<_>>();
    assert_eq!(refusals.len(), 6, "{refusals:?}");
    assert!(refusals[1].contains("token has expired") && refusals[2].contains("signature"), "{refusals:?}");
    assert!(refusals.iter().all(|line| line.contains("127.0.0.1")), "a refusal has its address: {refusals:?}");
    // Further ones of the same reasons are counted for the next line.
    for _ in 0..100 {
        let eve = cluster.ws_on(0).await;
        assert_eq!(code(register(&eve, "eve", &forged).await), "token_invalid");
    }
    let again = log.lines().into_iter().filter(|line| line.contains("auth_failed")).count();
    assert_eq!(again, refusals.len(), "one line a minute for each reason");
    for token in [&good, &forged] {
        assert!(!token.split('.').any(|part| log.holds(part)), "the log holds a part of a token");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn session_of_a_user_resumes_only_for_it() {
    let cluster = cluster("token", 2).await;
    let ann = cluster.ws_on(0).await;
    let registered = register(&ann, "ann", &token("user:1", &json!({}))).await.unwrap();
    ann.join("#lobby").await;
    ann.cut();

    let again = cluster.ws_on(1).await;
    let resume = |token: Option<String>| {
        let mut request = json!({"type": "register", "nick": "ann", "resume": registered["resume"]});
        if let Some(token) = token {
            request["token"] = json!(token);
        }
        again.request(request)
    };
    assert_eq!(code(resume(None).await), "token_required");
    assert_eq!(code(resume(Some(token("user:2", &json!({})))).await), "resume_failed");
    assert_eq!(code(resume(Some(token("user:1", &json!({"exp": 1})))).await), "token_expired");
    let back = resume(Some(token("user:1", &json!({})))).await.unwrap();
    assert_eq!((&back["session"], &back["user"]), (&registered["session"], &json!("user:1")));
    assert_eq!(again.members("#lobby").await, ["ann"]);
    cluster.finish().await;
}

#[tokio::test]
async fn token_limits_rooms_and_nickname() {
    let cluster = cluster("token", 2).await;
    let rooms = json!([{"match": "#team-*", "may": ["join", "send", "history"]}, {"match": "#news", "may": ["join"]}]);
    let claims = json!({"nick": "Ann", "rooms": rooms});
    let ann = cluster.ws_on(0).await;
    let granted = token("user:1", &claims);
    let other = register(&ann, "bob", &granted).await.unwrap_err();
    assert_eq!(
        (other.code.as_str(), &other.reply["message"]),
        ("token_invalid", &json!("the token is for another nickname"))
    );
    let registered = ann.must(json!({"type": "register", "token": granted})).await;
    assert_eq!(registered["nick"], "Ann");
    assert_eq!(code(ann.request(json!({"type": "nick", "nick": "bob"})).await), "forbidden");

    let boss = cluster.ws_on(1).await;
    register(&boss, "boss", &token("user:0", &json!({}))).await.unwrap();
    for room in ["#team-a", "#news"] {
        boss.join(room).await;
        boss.sends(room, "before").await;
        ann.join(room).await;
        boss.sends(room, "after").await;
        ann.receives(room, "boss", "after").await;
    }
    ann.sends("#team-a", "here").await;
    assert_eq!(ann.history("#team-a", 10).await.len(), 3);
    for request in [
        json!({"type": "join", "room": "#lobby"}),
        json!({"type": "members", "room": "#lobby"}),
        json!({"type": "send", "to": "#news", "body": "x"}),
        json!({"type": "typing", "to": "#news"}),
        json!({"type": "history", "to": "#news"}),
    ] {
        assert_eq!(code(ann.request(request.clone()).await), "forbidden", "{request}");
    }
    ann.sends("boss", "a direct message").await;
    boss.next(SOON, |event| event["type"] == "message" && event["body"] == "a direct message").await.unwrap();
    // A position from before is no way around the right to history.
    ann.leave("#news").await;
    let epoch = &boss.join("#news").await["epoch"];
    let joined = ann.must(json!({"type": "join", "room": "#news", "since": {"epoch": epoch, "seq": 0}})).await;
    assert_eq!(joined["recovered"], false);
    boss.sends("#news", "last").await;
    ann.receives("#news", "boss", "last").await;
    assert!(ann.received(|event| event["type"] == "message" && event["body"] == "before").is_empty());
    cluster.finish().await;
}

#[tokio::test]
async fn resume_with_fewer_rights_leaves_rooms() {
    let cluster = cluster("token", 2).await;
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    let registered = register(&ann, "ann", &token("user:1", &json!({}))).await.unwrap();
    register(&bob, "bob", &token("user:2", &json!({}))).await.unwrap();
    for room in ["#secret", "#lobby"] {
        bob.join(room).await;
        ann.join(room).await;
        bob.sees_join(room, "ann").await;
    }
    ann.cut();
    let again = cluster.ws_on(1).await;
    let fewer = token("user:1", &json!({"rooms": [{"match": "#lobby", "may": ["join", "send", "history"]}]}));
    let resume = json!({"type": "register", "nick": "ann", "resume": registered["resume"], "token": fewer});
    let back = again.must(resume).await;
    let rooms: Vec<&Value> = back["rooms"].as_array().unwrap().iter().map(|room| &room["room"]).collect();
    assert_eq!(rooms, ["#lobby"]);
    bob.sees_left("#secret", "ann", "left").await;
    assert_eq!(bob.members("#secret").await, ["bob"]);
    cluster.finish().await;
}

#[tokio::test]
async fn mixed_mode_admits_guests_and_users() {
    let cluster = cluster("mixed", 1).await;
    let (guest, user) = (cluster.ws_on(0).await, cluster.ws_on(0).await);
    assert_eq!(guest.register("guest").await.get("user"), None);
    assert_eq!(code(register(&user, "ann", "broken").await), "token_invalid", "a bad token makes no guest");
    let registered = register(&user, "ann", &token("user:1", &json!({}))).await.unwrap();
    assert_eq!(registered["user"], "user:1");
    let without_token = cluster.ws_on(0).await;
    assert_eq!(code(without_token.try_resume(&registered, json!({})).await), "resume_failed");
    cluster.finish().await;
}

#[tokio::test]
async fn embedded_gateway_checks_tokens_on_both_ports() {
    let mut gateway = alone("token").setting("PARLEY__AUTH__SECRET", SECRET).start().await;
    let line = LineClient::connect(gateway.tcp()).await;
    line.types("/nick ann").await;
    line.reads("! token_required: a token is required").await;
    line.types("/auth x.y.z").await;
    line.types("/nick ann").await;
    line.reads("! token_invalid: the token is not valid").await;
    line.types(&format!("/auth {}", token("user:1", &json!({})))).await;
    line.register("ann").await;
    line.join("#lobby").await;

    let robot = WsClient::connect_with_bearer(gateway.ws(), &token("robot", &json!({"nick": "robot"}))).await;
    let registered = robot.must(json!({"type": "register"})).await;
    assert_eq!((&registered["user"], &registered["nick"]), (&json!("robot"), &json!("robot")));
    robot.join("#lobby").await;
    robot.sends("#lobby", "beep").await;
    line.receives("#lobby", "robot", "beep").await;
    // The token of `register` comes before that of the connection.
    let other = WsClient::connect_with_bearer(gateway.ws(), &token("robot", &json!({}))).await;
    assert_eq!(register(&other, "bob", &token("user:2", &json!({}))).await.unwrap()["user"], "user:2");
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn reload_reads_rotated_key_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, SECRET).unwrap();
    let key = format!("HS256/now={}", file.display());
    let mut gateway = alone("token").setting("PARLEY__AUTH__KEYS", &key).start().await;
    let old = token_by(SECRET, Some("now"), "user:1", &json!({}));
    let new = token_by(OTHER_SECRET, Some("now"), "user:1", &json!({}));
    let client = WsClient::connect(gateway.ws()).await;
    assert_eq!(code(register(&client, "ann", &new).await), "token_invalid");

    std::fs::write(&file, "hunter2").unwrap();
    gateway.process().signal(Signal::SIGHUP);
    eventually(SOON, "a broken key is refused", || async {
        if gateway.log().holds("settings not reloaded") { Ok(()) } else { Err(gateway.log().tail(5)) }
    })
    .await;
    let user = WsClient::connect(gateway.ws()).await;
    register(&user, "ann", &old).await.unwrap();

    std::fs::write(&file, OTHER_SECRET).unwrap();
    gateway.process().signal(Signal::SIGHUP);
    eventually(SOON, "the new key is in effect", || async {
        register(&client, "bob", &new).await.map_err(|refused| refused.code)
    })
    .await;
    let late = WsClient::connect(gateway.ws()).await;
    assert_eq!(code(register(&late, "carl", &old).await), "token_invalid");
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&["settings not reloaded".to_owned()]), Vec::<String>::new());
    assert!(!gateway.log().holds(SECRET) && !gateway.log().holds("hunter2"));
}

#[tokio::test]
async fn connection_ends_with_its_token() {
    let cluster = cluster("token", 2).await;
    let expires_in = |seconds: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        json!({"exp": now + seconds})
    };
    let (ann, bob) = (cluster.ws_on(0).await, cluster.ws_on(0).await);
    // Clocks may differ by 5 s, so a token ends after the sixth second.
    let short = token("user:1", &expires_in(3));
    let registered = register(&ann, "ann", &short).await.unwrap();
    assert!((8_000..=9_000).contains(&registered["expires_in_ms"].as_u64().unwrap()), "{registered}");
    register(&bob, "bob", &token("user:2", &expires_in(3))).await.unwrap();
    for client in [&ann, &bob] {
        let notice = client.receives_frame("expiring").await;
        assert!(notice["expires_in_ms"].as_u64().unwrap() <= 9_000, "{notice}");
    }
    let refresh = |token: String| ann.request(json!({"type": "refresh", "token": token}));
    assert_eq!(code(refresh(token("user:2", &json!({}))).await), "token_invalid");
    let refreshed = refresh(token("user:1", &json!({}))).await.unwrap();
    assert!(refreshed["expires_in_ms"].as_u64().unwrap() > 60_000, "{refreshed}");

    let ending = bob.closed_within(SOON).await;
    assert_eq!((ending.code, ending.reason.as_str()), (Some(4005), "token_expired"));
    ann.join("#lobby").await;
    ann.sends("#lobby", "still here").await;
    // A session of an expired token is not lost: a new one resumes it.
    let again = cluster.ws_on(1).await;
    let resume = json!({"type": "register", "nick": "ann", "resume": registered["resume"], "token": short});
    eventually(SOON, "the first token has expired", || async {
        match again.request(resume.clone()).await {
            Err(refused) if refused.code == "token_expired" => Ok(()),
            answer => Err(answer),
        }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn line_client_renews_its_token() {
    let mut gateway = alone("mixed").setting("PARLEY__AUTH__SECRET", SECRET).start().await;
    let line = LineClient::connect(gateway.tcp()).await;
    line.types(&format!("/auth {}", token("user:1", &json!({})))).await;
    line.register("ann").await;
    for room in ["#lobby", "#team-a"] {
        line.join(room).await;
    }
    let narrow = json!({"rooms": [{"match": "#team-*", "may": ["join", "send", "history"]}]});
    line.types(&format!("/auth {}", token("user:1", &narrow))).await;
    line.reads("* token renewed").await;
    line.reads("* you left #lobby, your token does not allow it").await;
    line.types("still in the team").await;
    line.receives("#team-a", "ann", "still in the team").await;
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn incomplete_settings_are_refused_at_start() {
    for (settings, words) in [
        (vec![("PARLEY__AUTH__MODE", "closed")], "expected open, token or mixed"),
        (vec![("PARLEY__AUTH__MODE", "token")], "auth.issuer is not set"),
        (
            vec![("PARLEY__AUTH__MODE", "token"), ISSUER[0], ("PARLEY__AUTH__SECRET", SECRET)],
            "auth.audience is not set",
        ),
        (vec![("PARLEY__AUTH__MODE", "token"), ISSUER[0], ISSUER[1]], "auth.secret is not set"),
        (vec![("PARLEY__AUTH__SECRET", "hunter2")], "auth.secret = \"***\": the secret is too short"),
        (vec![("PARLEY__AUTH__KEYS", "ES256=/nowhere/key.pem")], "/nowhere/key.pem: No such file"),
        (vec![("PARLEY__AUTH__JWKS", "http://id.example.org/keys")], "http:// is allowed only to this machine"),
    ] {
        let gateway = Node::gateway("g1");
        let gateway = settings.into_iter().fold(gateway, |gateway, (key, value)| gateway.setting(key, value));
        let finished = gateway.program().run(SOON).await;
        assert_eq!(finished.code, Some(64), "{finished:?}");
        assert!(finished.stderr.contains(words) && !finished.stderr.contains("hunter2"), "{words}: {finished:?}");
    }
}
