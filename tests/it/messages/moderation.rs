//! Moderation of a room: what moderators order on one gateway holds on every other one.
//!
//! Stories on clusters. The rules of the store have a contract in `contracts::registry`.

use std::time::{Duration, Instant};

use harness::{Cluster, WsClient, eventually};
use presence::model::moderation::{ModerationTarget, RoomRole};
use presence::model::{Nick, RoomName};
use presence::registry::{RedisRegistry, Registry};
use presence::store::redis::RedisStore;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::lobby::{lobby_member, resumable_lobby_member};
use crate::sessions::identity::{cluster as cluster_with_tokens, token};

/// The maximum time for an order to reach every gateway.
const EVERYWHERE: Duration = Duration::from_secs(2);

/// The maximum time until others see the leave of a lost connection.
const SESSION_END: Duration = Duration::from_secs(15);

async fn cluster() -> Cluster {
    Cluster::builder().gateways(2).start().await
}

/// Makes a member of the lobby its owner, as the application does.
async fn set_owner(cluster: &Cluster, nick: &str) {
    let registry = Registry::Redis(RedisRegistry::new(RedisStore::open(&cluster.redis.url(), "parley").unwrap()));
    let target = ModerationTarget::Nick(Nick::parse(nick).unwrap());
    let lobby = RoomName::parse("#lobby").unwrap();
    registry.set_role(&lobby, (target, Some(RoomRole::Owner)), "app").await.unwrap();
}

/// An owner on the first gateway and a member on the second one.
async fn owner_and_member(cluster: &Cluster) -> (WsClient, WsClient) {
    let people = (lobby_member(cluster, 0, "ann").await, lobby_member(cluster, 1, "bob").await);
    set_owner(cluster, "ann").await;
    people
}

async fn moderates(client: &WsClient, action: &str, fields: Value) -> Value {
    let mut request = json!({"type": action, "room": "#lobby"});
    for (name, value) in fields.as_object().unwrap() {
        request[name] = value.clone();
    }
    client.must(request).await
}

async fn is_refused(client: &WsClient, request: Value) -> (String, String) {
    let refused = client.request(request).await.unwrap_err();
    (refused.code, refused.reply["message"].as_str().unwrap().to_owned())
}

/// Returns the actions that a client has received, in order.
fn actions(client: &WsClient) -> Vec<Value> {
    let events = client.received(|frame| frame["type"] == "moderation");
    events.into_iter().map(|event| event["action"].clone()).collect()
}

#[tokio::test]
async fn kick_removes_member_on_another_gateway() {
    let cluster = cluster().await;
    let (ann, bob) = owner_and_member(&cluster).await;
    let eve = lobby_member(&cluster, 1, "eve").await;
    // Changes within one presence event cancel each other out.
    tokio::join!(ann.sees_join("#lobby", "eve"), eve.sees_join("#lobby", "eve"));
    let answer = moderates(&ann, "kick", json!({"nick": "BOB", "reason": "spam"})).await;
    assert_eq!((&answer["nick"], &answer["by"], &answer["reason"]), (&json!("bob"), &json!("ann"), &json!("spam")));
    let left = bob.expect_event(EVERYWHERE, "bob is told", |event| event["type"] == "left").await.value;
    assert_eq!(left, json!({"type": "left", "room": "#lobby", "reason": "kicked", "by": "ann", "text": "spam"}));
    for member in [&ann, &eve] {
        member.sees_left("#lobby", "bob", "kicked").await;
        let event = member.receives_frame("moderation").await;
        let expected = json!({"type": "moderation", "room": "#lobby", "action": "op", "nick": "ann", "by": "app",
            "role": "owner", "time": event["time"]});
        let event = if event == expected { member.receives_frame("moderation").await } else { event };
        assert_eq!(
            event,
            json!({"type": "moderation", "room": "#lobby", "action": "kick", "nick": "bob", "by": "ann",
                "reason": "spam", "time": answer["time"]})
        );
    }
    assert_eq!(bob.try_send("#lobby", "still here?").await.unwrap_err().code, "not_in_room");
    ann.sends("#lobby", "without bob").await;
    eve.receives("#lobby", "ann", "without bob").await;
    // He may return, and receives what follows; the mailbox copy of the order does not remove him again.
    bob.join("#lobby").await;
    tokio::join!(ann.sees_join("#lobby", "bob"), eve.sees_join("#lobby", "bob"));
    let beats: u64 = cluster.redis.call("HLEN parley:{0}:beats").await;
    assert_eq!(beats, 2);
    eventually(EVERYWHERE * 2, "the mailboxes are empty", || async {
        let left: Vec<String> = cluster.redis.call("KEYS parley:{0}:mailbox:*").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    ann.sends("#lobby", "with bob").await;
    bob.receives("#lobby", "ann", "with bob").await;
    assert!(bob.received(|frame| frame["type"] == "message" && frame["body"] == "without bob").is_empty());
    assert_eq!(bob.received(|frame| frame["type"] == "left").len(), 1);
    cluster.finish().await;
}

/// While pub/sub is killed all the time, the order arrives with the beat.
#[tokio::test]
async fn removal_holds_without_pub_sub() {
    let mut cluster = cluster().await;
    for text in ["subscription lost", "not ready", "subscription restored"] {
        cluster.allow(text);
    }
    let (ann, bob) = owner_and_member(&cluster).await;
    let redis = &cluster.redis;
    let mut admin = redis.connection().await;
    let killing = async {
        let mut tick = interval(Duration::from_millis(2));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let _: u64 =
                ::redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut admin).await.unwrap();
        }
    };
    let story = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..3 {
            let start = Instant::now();
            moderates(&ann, "kick", json!({"nick": "bob"})).await;
            bob.expect_event(EVERYWHERE, "bob is told", |event| event["type"] == "left").await;
            slowest = slowest.max(start.elapsed());
            assert_eq!(bob.try_send("#lobby", "?").await.unwrap_err().code, "not_in_room");
            let again = json!({"type": "join", "room": "#lobby"});
            eventually(EVERYWHERE * 2, "bob joins again", || async { bob.request(again.clone()).await }).await;
        }
        assert!(slowest < EVERYWHERE, "{slowest:?}");
    };
    tokio::select! {
        () = story => {}
        () = killing => {}
    }
    cluster.finish().await;
}

#[tokio::test]
async fn banned_session_resumes_without_the_room() {
    let cluster = cluster().await;
    let (ann, (bob, registered)) =
        (lobby_member(&cluster, 0, "ann").await, resumable_lobby_member(&cluster, 1, "bob").await);
    set_owner(&cluster, "ann").await;
    let hall = bob.join("#hall").await;
    let lobby = bob.join("#lobby").await;
    bob.cut();
    moderates(&ann, "ban", json!({"nick": "bob", "reason": "spam"})).await;
    ann.sends("#lobby", "he is gone").await;
    let again = cluster.ws_on(0).await;
    let since = json!({
        "#lobby": {"epoch": lobby["epoch"], "seq": 0},
        "#hall": {"epoch": hall["epoch"], "seq": 0},
    });
    let resumed = again.resume(&registered, since).await;
    let rooms: Vec<_> = resumed["rooms"].as_array().unwrap().iter().map(|room| room["room"].clone()).collect();
    assert_eq!(rooms, ["#hall"]);
    let join = json!({"type": "join", "room": "#lobby"});
    assert_eq!(again.request(join.clone()).await.unwrap_err().code, "banned");
    assert!(again.received(|frame| frame["type"] == "message").is_empty());
    moderates(&ann, "unban", json!({"nick": "bob"})).await;
    again.must(join).await;
    cluster.finish().await;
}

/// A session that is resumed into a room, from which its person was banned under another nickname's session.
#[tokio::test]
async fn ban_during_absence_leaves_other_rooms_resumable() {
    let cluster = cluster_with_tokens("mixed", 2).await;
    let (ann, phone) = (cluster.ws_on(0).await, cluster.ws_on(1).await);
    ann.register("ann").await;
    ann.join("#lobby").await;
    let sign_in = json!({"type": "register", "nick": "eve", "token": token("user:1", &json!({}))});
    let registered = phone.must(sign_in).await;
    for room in ["#lobby", "#hall"] {
        phone.join(room).await;
    }
    phone.cut();
    set_owner(&cluster, "ann").await;
    // Without a member record: only the join of the resume finds the ban.
    ann.sees(SESSION_END, "#lobby", "left", |left| left["nick"] == "eve").await;
    moderates(&ann, "ban", json!({"user": "user:1"})).await;
    let again = cluster.ws_on(0).await;
    let request = json!({"type": "register", "nick": "eve", "resume": registered["resume"],
        "token": token("user:1", &json!({}))});
    let resumed = again.must(request).await;
    let rooms: Vec<_> = resumed["rooms"].as_array().unwrap().iter().map(|room| room["room"].clone()).collect();
    assert_eq!(rooms, ["#hall"]);
    again.sends("#hall", "still here").await;
    assert_eq!(again.try_send("#lobby", "?").await.unwrap_err().code, "not_in_room");
    cluster.finish().await;
}

#[tokio::test]
async fn muted_member_neither_sends_nor_types() {
    let cluster = cluster().await;
    let (ann, bob) = owner_and_member(&cluster).await;
    moderates(&ann, "mute", json!({"nick": "bob", "seconds": 3600, "reason": "too loud"})).await;
    let refused = bob.try_send("#lobby", "hear me").await.unwrap_err();
    assert_eq!(refused.code, "muted");
    let wait = refused.reply["retry_after_ms"].as_u64().unwrap();
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    let keyed = json!({"type": "send", "to": "#lobby", "body": "with a key", "key": "k"});
    assert_eq!(bob.request(keyed.clone()).await.unwrap_err().code, "muted");
    bob.must(json!({"type": "typing", "to": "#lobby"})).await;
    ann.must(json!({"type": "typing", "to": "#lobby"})).await;
    bob.expect_event(EVERYWHERE, "ann types", |event| event["type"] == "typing" && event["from"] == "ann").await;
    assert_eq!(bob.join("#lobby").await["role"], "muted");
    bob.sends("ann", "in private").await;
    moderates(&ann, "unmute", json!({"nick": "bob"})).await;
    bob.must(keyed).await;
    ann.receives("#lobby", "bob", "with a key").await;
    let typed = ann.received(|event| event["type"] == "typing" && event["from"] == "bob");
    assert!(typed.is_empty(), "{typed:?}");
    cluster.finish().await;
}

#[tokio::test]
async fn token_with_right_moderates_named_rooms() {
    let cluster = cluster_with_tokens("mixed", 2).await;
    let (admin, bob, user) = (cluster.ws_on(0).await, lobby_member(&cluster, 1, "bob").await, cluster.ws_on(0).await);
    let rules = |may: Value| json!({"rooms": [{"match": "#l*", "may": may}]});
    let all = ["join", "send", "moderate"];
    let sign_in = |nick: &str, claims: Value| json!({"type": "register", "nick": nick, "token": token(nick, &claims)});
    admin.must(sign_in("admin", rules(json!(all)))).await;
    user.must(sign_in("user", json!({}))).await;
    for client in [&admin, &user] {
        client.join("#lobby").await;
    }
    let kick = json!({"type": "kick", "room": "#lobby", "nick": "bob"});
    assert_eq!(is_refused(&user, kick.clone()).await.0, "forbidden", "a token without rules names no right");
    admin.must(kick).await;
    bob.receives_frame("left").await;
    cluster.finish().await;
}

#[tokio::test]
async fn topic_and_role_are_in_joined() {
    let cluster = cluster().await;
    let (ann, bob) = owner_and_member(&cluster).await;
    let answer = moderates(&ann, "topic", json!({"text": "tea at five"})).await;
    let topic = json!({"text": "tea at five", "by": "ann", "time": answer["time"]});
    let joined = ann.join("#lobby").await;
    assert_eq!((&joined["topic"], &joined["role"]), (&topic, &json!("owner")));
    let joined = bob.join("#lobby").await;
    assert_eq!((&joined["topic"], joined.get("role")), (&topic, None));
    let line = cluster.line_on(1).await;
    line.register("tom").await;
    line.types("/join lobby").await;
    line.reads("* the topic of #lobby is: tea at five (set by ann)").await;
    moderates(&ann, "op", json!({"nick": "tom"})).await;
    line.reads("* ann made tom moderator in #lobby").await;
    line.types("/mute bob 60 too loud").await;
    line.reads("* tom muted bob in #lobby: too loud").await;
    line.types("/kick ann").await;
    line.reads("! forbidden: only an owner of this room may do this").await;
    line.types("/topic").await;
    line.reads("* tom set the topic in #lobby").await;
    moderates(&ann, "kick", json!({"nick": "tom", "reason": "enough"})).await;
    line.reads("* you were kicked from #lobby by ann: enough").await;
    line.types("hello?").await;
    line.reads("! not_in_room: you are not in this room").await;
    cluster.finish().await;
}

#[tokio::test]
async fn bad_orders_get_one_coded_answer() {
    let cluster = cluster().await;
    let (ann, bob) = owner_and_member(&cluster).await;
    let kick = |fields: Value| {
        let mut request = json!({"type": "kick", "room": "#lobby", "nick": "bob"});
        for (name, value) in fields.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    };
    let long = "x".repeat(257);
    for (request, code) in [
        (kick(json!({"nick": "nobody"})), "no_such_user"),
        (kick(json!({"room": "#never"})), "not_in_room"),
        (kick(json!({"room": "never"})), "bad_room"),
        (kick(json!({"nick": "a b"})), "bad_nick"),
        (kick(json!({"reason": long})), "bad_request"),
        (kick(json!({"reason": "a\nb"})), "bad_request"),
        (kick(json!({"reason": 7})), "bad_request"),
        (kick(json!({"type": "ban", "user": "u"})), "bad_request"),
        (kick(json!({"type": "ban", "seconds": 0})), "bad_request"),
        (kick(json!({"type": "op", "role": "king"})), "bad_request"),
        (kick(json!({"type": "topic", "text": "x".repeat(1025)})), "bad_request"),
        (kick(json!({"type": "topic", "text": "\u{7}"})), "bad_request"),
        (kick(json!({"type": "topic"})), "bad_request"),
        (json!({"type": "kick", "room": "#lobby"}), "bad_request"),
        (json!({"type": "ban", "room": "#lobby"}), "bad_request"),
        (json!({"type": "ban", "room": "#lobby", "user": "\u{0}"}), "bad_request"),
        (json!({"type": "unban", "room": "#lobby", "user": "never"}), "no_such_user"),
        (json!({"type": "deop", "room": "#lobby", "nick": "ann"}), "forbidden"),
    ] {
        assert_eq!(is_refused(&ann, request.clone()).await.0, code, "{request}");
    }
    assert_eq!(is_refused(&bob, kick(json!({"nick": "ann"}))).await.1, "you are not a moderator of this room");
    assert_eq!(bob.members("#lobby").await, ["ann", "bob"]);
    cluster.finish().await;
}

#[tokio::test]
async fn every_member_sees_orders_in_one_order() {
    let cluster = cluster().await;
    let (ann, bob) = owner_and_member(&cluster).await;
    let eve = lobby_member(&cluster, 1, "eve").await;
    moderates(&ann, "op", json!({"nick": "bob"})).await;
    let order = |action: &str| json!({"type": action, "room": "#lobby", "user": "user:9"});
    for _ in 0..5 {
        let (ban, lift) = (ann.request(order("ban")), bob.request(order("unban")));
        let (ban, lift) = tokio::join!(ban, lift);
        ban.unwrap();
        if let Err(refused) = lift {
            assert_eq!(refused.code, "no_such_user");
        }
    }
    moderates(&ann, "topic", json!({"text": "the end"})).await;
    for member in [&ann, &bob, &eve] {
        let is_end = |event: &Value| event["type"] == "moderation" && event["text"] == "the end";
        member.expect_event(EVERYWHERE, "the end", is_end).await;
    }
    let seen = actions(&eve);
    assert!(seen.len() >= 7, "{seen:?}");
    for member in [&ann, &bob] {
        assert!(actions(member).ends_with(&seen), "{:?} {seen:?}", actions(member));
    }
    cluster.finish().await;
}
