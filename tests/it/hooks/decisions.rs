//! Decisions of the application: who and what is asked about, what clients see, and for how long an answer holds.

use std::time::{Duration, Instant};

use harness::{HookApplication, HookReply, LineClient, Node, WsClient, eventually, stays};
use serde_json::{Value, json};

use super::{SECRET, SOON, cluster_with, field, hook_settings, questions, refusal};
use crate::sessions::identity::{secured, token};

/// All hooks.
const ALL: [&str; 3] = ["register", "join", "send"];

/// Refuses the nickname eve, the room #staff and messages with spam.
fn judge(question: &Value) -> HookReply {
    let is_spam = question["body"].as_str().is_some_and(|body| body.contains("spam"));
    HookReply::json(match (&question["nick"], &question["room"]) {
        (nick, _) if nick == "eve" => json!({"allow": false, "reason": "no guests named eve"}),
        (_, room) if room == "#staff" => json!({"allow": false}),
        _ if is_spam => json!({"allow": false, "reason": "no spam\nplease"}),
        _ => json!({"allow": true, "reason": "not shown", "unknown": 1}),
    })
}

#[tokio::test]
async fn application_decides_about_every_request() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(judge);
    let cluster = cluster_with(&application, &ALL).start().await;
    let (ann, eve) = (cluster.ws().await, cluster.ws().await);
    let refused = ("not_allowed".to_owned(), "the application refused this: no guests named eve".to_owned());
    assert_eq!(refusal(eve.try_register("eve").await), refused);
    eve.register("bob").await;
    ann.register("ann").await;
    let plain = ("not_allowed".to_owned(), "the application refused this".to_owned());
    assert_eq!(refusal(ann.request(json!({"type": "join", "room": "#staff"})).await), plain);
    for client in [&ann, &eve] {
        client.join("#lobby").await;
    }
    assert_eq!(refusal(ann.try_send("#lobby", "buy spam").await), plain, "an unprintable reason is left out");
    assert_eq!(refusal(ann.try_send("bob", "spam").await), plain);
    let send = json!({"type": "send", "to": "#lobby", "body": {"text": "hi"}, "key": "k1"});
    ann.must(send).await;
    ann.sends("bob", "psst").await;
    eve.receives_privately("ann", "psst").await;
    let rooms = ann.must(json!({"type": "rooms", "limit": 10})).await;
    assert_eq!(rooms["items"].as_array().unwrap().len(), 1, "the refused room was not created: {rooms}");
    let spam = |value: &Value| value["type"] == "message" && value["body"].as_str() == Some("spam");
    assert_eq!(eve.received(spam), Vec::<Value>::new());

    let line = cluster.line().await;
    line.types("/nick eve").await;
    line.reads("! not_allowed: the application refused this: no guests named eve").await;
    line.register("carl").await;
    line.join("#lobby").await;
    line.types("spam").await;
    line.reads("! not_allowed: the application refused this").await;

    let asked = application.questions();
    let hooks: Vec<&str> = field(&asked, "hook");
    let count = |hook: &str| hooks.iter().filter(|asked| **asked == hook).count();
    assert_eq!((count("register"), count("join"), count("send")), (5, 4, 5), "{asked:?}");
    assert!(asked.iter().all(|question| question["node"] == "g1" && question["address"] == "127.0.0.1"), "{asked:?}");
    assert!(asked.iter().all(|question| question["session"].is_string() == (question["hook"] != "register")));
    let keyed = asked.iter().find(|question| question["key"] == "k1").unwrap();
    assert_eq!((&keyed["to"], &keyed["body"]), (&json!("#lobby"), &json!({"text": "hi"})));
    let gateway = &cluster.gateways[0];
    assert_eq!(questions(gateway, "send", "refused").await, 3.0);
    assert_eq!(questions(gateway, "join", "allowed").await, 3.0);
    cluster.finish().await;
}

#[tokio::test]
async fn refused_registration_counts_for_the_address() {
    let application = HookApplication::start(SECRET).await;
    let cluster = cluster_with(&application, &["register"])
        .gateway_setting("PARLEY__LIMITS__REGISTRATIONS_PER_MINUTE", "1")
        .gateway_setting("PARLEY__LIMITS__REGISTRATIONS_BURST", "2");
    let mut cluster = cluster.start().await;
    cluster.allow("hook not answered");
    let refused = (json!({"allow": false}), "not_allowed");
    let failed = (json!("no answer"), "hook_unavailable");
    for (reply, code) in [refused.clone(), failed.clone(), failed, refused] {
        application.reply_with(move |_| HookReply::json(reply.clone()));
        assert_eq!(refusal(cluster.ws().await.try_register("eve").await).0, code);
    }
    assert_eq!(refusal(cluster.ws().await.try_register("eve").await).0, "rate_limited");
    assert_eq!(application.questions().len(), 4, "nothing more is asked");
    cluster.finish().await;
}

#[tokio::test]
async fn question_names_user_and_hides_address() {
    let application = HookApplication::start(SECRET).await;
    let builder = cluster_with(&application, &ALL).gateway_setting("PARLEY__LOG__ADDRESSES", "false");
    let cluster = secured(builder, "mixed").start().await;
    let ann = cluster.ws().await;
    let signed = token("user:7", &json!({"tags": ["vip", "beta"]}));
    ann.must(json!({"type": "register", "nick": "ann", "token": signed})).await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "hi").await;
    let asked = application.questions();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for question in asked {
        assert_eq!((&question["user"], &question["tags"]), (&json!("user:7"), &json!(["vip", "beta"])));
        assert_eq!((&question["nick"], &question["address"]), (&json!("ann"), &Value::Null));
    }
    let bob = cluster.ws().await;
    let forged = json!({"type": "register", "nick": "bob", "token": "x"});
    assert_eq!(refusal(bob.request(forged).await).0, "token_invalid");
    assert_eq!(application.questions().len(), 3, "nothing is asked about a refused token");
    cluster.finish().await;
}

#[tokio::test]
async fn token_ages_while_application_is_asked() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|question| match question["nick"].as_str() {
        Some("bob") => HookReply::Held(r#"{"allow":true}"#.to_owned()),
        _ => HookReply::allow(),
    });
    let builder = cluster_with(&application, &["register"]).gateway_setting("PARLEY__HOOKS__TIMEOUT_MS", "5000");
    let cluster = secured(builder, "token").start().await;
    let signed = token("user:7", &json!({}));
    let (ann, bob) = (cluster.ws().await, cluster.ws().await);
    let first = ann.must(json!({"type": "register", "nick": "ann", "token": &signed})).await;
    let began = Instant::now();
    let asked = bob.post(json!({"type": "register", "nick": "bob", "token": signed})).await;
    let waits = async || if bob.received(|reply| reply["id"] == asked).is_empty() { Ok(()) } else { Err("answered") };
    stays(Duration::from_secs(1), "the question is held", waits).await;
    application.release(1);
    let second = bob.reply_within(SOON, asked).await.unwrap();
    let left = |registered: &Value| registered["expires_in_ms"].as_u64().unwrap();
    let aged = Duration::from_millis(left(&first).saturating_sub(left(&second)));
    assert!(aged >= Duration::from_millis(900) && aged <= began.elapsed() + SOON, "{aged:?}");
    cluster.finish().await;
}

#[tokio::test]
async fn resume_and_its_rooms_are_not_asked() {
    let application = HookApplication::start(SECRET).await;
    let cluster = cluster_with(&application, &ALL).gateways(2).start().await;
    let ann = cluster.ws_on(0).await;
    let registered = ann.register("ann").await;
    let joined = ann.join("#lobby").await;
    ann.cut();
    application.reply_with(|_| HookReply::json(json!({"allow": false})));
    let asked = application.questions().len();
    let again = cluster.ws_on(1).await;
    let since = json!({"#lobby": {"epoch": joined["epoch"], "seq": joined["seq"]}});
    let resumed = again.resume(&registered, since).await;
    assert_eq!(resumed["rooms"][0]["room"], "#lobby");
    again.join("#lobby").await;
    again.rename("anna").await;
    assert_eq!(application.questions().len(), asked, "a return is no register and no join");
    again.leave("#lobby").await;
    assert_eq!(refusal(again.request(json!({"type": "join", "room": "#lobby"})).await).0, "not_allowed");
    cluster.finish().await;
}

#[tokio::test]
async fn remembered_answer_is_asked_once_in_time() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(|question| {
        HookReply::json(match question["to"].as_str() {
            Some("#short") => json!({"allow": true, "cache_seconds": 1}),
            Some("#never") => json!({"allow": false, "cache_seconds": 0}),
            _ => json!({"allow": question["to"] == "#long"}),
        })
    });
    let cluster = cluster_with(&application, &["send"]).gateway_setting("PARLEY__HOOKS__CACHE_SECONDS", "3600");
    let cluster = cluster.start().await;
    let (ann, bob) = (cluster.ws().await, cluster.ws().await);
    for (client, nick) in [(&ann, "ann"), (&bob, "bob")] {
        client.register(nick).await;
        for room in ["#short", "#never", "#long", "#no"] {
            client.join(room).await;
        }
    }
    let asked_about = |to: &str| application.questions().iter().filter(|question| question["to"] == to).count();
    for text in ["one", "two", "three"] {
        ann.sends("#long", text).await;
        assert_eq!(refusal(ann.try_send("#no", text).await).0, "not_allowed");
        assert_eq!(refusal(ann.try_send("#never", text).await).0, "not_allowed");
    }
    assert_eq!((asked_about("#long"), asked_about("#no"), asked_about("#never")), (1, 1, 3));
    assert_eq!(questions(&cluster.gateways[0], "send", "remembered").await, 4.0);
    bob.sends("#long", "from another session").await;
    assert_eq!(asked_about("#long"), 2, "an answer belongs to its session and target");
    ann.sends("#short", "asked").await;
    eventually(SOON, "the answer is over, and asked again", async || {
        ann.sends("#short", "perhaps asked").await;
        if asked_about("#short") == 2 { Ok(()) } else { Err(asked_about("#short")) }
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn gateway_alone_asks_the_application() {
    let application = HookApplication::start(SECRET).await;
    application.reply_with(judge);
    let settings = hook_settings(&application, &ALL);
    let node = settings.iter().fold(Node::gateway("alone"), |node, (key, value)| node.setting(key, value));
    let mut gateway = node.start().await;
    let (ann, eve) = (WsClient::connect(gateway.ws()).await, WsClient::connect(gateway.ws()).await);
    assert_eq!(refusal(eve.try_register("eve").await).0, "not_allowed");
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "hi").await;
    ann.receives("#lobby", "ann", "hi").await;
    let carl = LineClient::connect(gateway.tcp()).await;
    carl.register("carl").await;
    assert_eq!(field(&application.questions(), "hook"), ["register", "register", "join", "send", "register"]);
    assert_eq!(gateway.end().await, Some(0));
    assert_eq!(gateway.problems(&[]), Vec::<String>::new());
}

#[tokio::test]
async fn gateway_without_hooks_asks_nothing() {
    let application = HookApplication::start(SECRET).await;
    let cluster = cluster_with(&application, &[]).start().await;
    let ann = cluster.ws().await;
    ann.register("ann").await;
    ann.join("#lobby").await;
    ann.sends("#lobby", "hi").await;
    ann.receives("#lobby", "ann", "hi").await;
    assert_eq!(application.questions(), Vec::<Value>::new());
    for hook in ALL {
        for outcome in ["allowed", "refused", "remembered", "late", "unanswered", "unusable", "crowded"] {
            assert_eq!(questions(&cluster.gateways[0], hook, outcome).await, 0.0);
        }
    }
    // The time for which a late question would be under way.
    let nothing = async || if application.questions().is_empty() { Ok(()) } else { Err(application.questions()) };
    stays(Duration::from_millis(300), "no question", nothing).await;
    cluster.finish().await;
}
