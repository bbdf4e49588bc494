//! The server API and the webhooks of one gateway without Redis: an application calls it, and it calls the application.
//!
//! That every endpoint answers on a memory store is a part of `contracts::presence_api`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::http::{self, HttpResponse};
use harness::node::NodeBuilder;
use harness::{ChildProgram, Node, ReceivedEvent, ReceiverMode, WebhookReceiver, WsClient, eventually};
use nix::sys::signal::Signal;
use presence::service::access::{ApiScope, NewKey};
use serde_json::{Value, json};

use crate::sessions::identity::token;

const SOON: Duration = Duration::from_secs(10);
/// Longest time until an order is in effect.
const EFFECTIVE: Duration = Duration::from_secs(2);
const SECRET: &str = "a-secret-of-tests";

/// A gateway without Redis, and the key of its application.
struct Alone {
    gateway: Node,
    key: String,
}

fn new_key() -> NewKey {
    NewKey::draw("backend", ApiScope::ALL).unwrap()
}

impl Alone {
    async fn start(change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Self {
        let key = new_key();
        let builder = Node::gateway("alone").setting("PARLEY__API__ADDR", "127.0.0.1:0");
        let builder = builder.setting("PARLEY__API__KEYS", &key.known.to_string());
        Self { gateway: change(builder).start().await, key: key.secret }
    }

    /// Starts a gateway that sends events to a receiver.
    async fn with_webhook(receiver: &WebhookReceiver, events: &[&str]) -> Self {
        let webhook = json!([{"name": "app", "url": receiver.url(), "secret": receiver.secret(), "events": events}]);
        Self::start(|builder| {
            let builder = builder.setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true");
            builder.setting("PARLEY__WEBHOOKS", &webhook.to_string())
        })
        .await
    }

    async fn guest(&self, nick: &str) -> WsClient {
        let client = WsClient::connect(self.gateway.ws()).await;
        client.register(nick).await;
        client.join("#lobby").await;
        client
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> HttpResponse {
        ask_as(self.gateway.api(), &self.key, (method, path), body).await
    }

    /// Posts an order, and returns its answer.
    async fn order(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn end(mut self, allowed: &[&str]) {
        assert_eq!(self.gateway.end().await, Some(0), "{:?}", self.gateway.log().lines());
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(self.gateway.problems(&allowed), Vec::<String>::new());
    }
}

async fn ask_as(api: SocketAddr, key: &str, (method, path): (&str, &str), body: &Value) -> HttpResponse {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n");
    let length = body.len();
    http::exchange(api, format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await.unwrap()
}

/// Returns the bodies of the messages among these events, in order.
fn bodies(events: &[ReceivedEvent]) -> Vec<&str> {
    events.iter().filter_map(|event| event.event["body"].as_str()).collect()
}

#[tokio::test]
async fn application_publishes_to_a_gateway_alone() {
    let alone = Alone::start(|builder| builder).await;
    let ann = alone.guest("ann").await;
    let message = json!({"to": "#lobby", "body": "from the backend", "key": "k1"});
    let first = alone.order("/v1/messages", &message).await;
    let event = ann.receives("#lobby", "backend", "from the backend").await;
    assert_eq!((&event["from_api"], &event["msg_id"]), (&json!(true), &first["msg_id"]), "{event}");
    assert_eq!(alone.order("/v1/messages", &message).await["duplicate"], true);
    alone.order("/v1/messages", &json!({"to": "ann", "from": "system", "body": "psst", "key": "k2"})).await;
    ann.receives_privately("system", "psst").await;

    let room = alone.ask("GET", "/v1/rooms/%23lobby/messages", &Value::Null).await.json();
    assert_eq!(room["items"][0]["body"], "from the backend", "{room}");
    let sessions = alone.ask("GET", "/v1/sessions?nick=ann", &Value::Null).await.json();
    assert_eq!(sessions["items"][0]["nick"], "ann", "{sessions}");
    let api = alone.gateway.api();
    let refused = ask_as(api, &new_key().secret, ("POST", "/v1/messages"), &message).await;
    assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("unauthorized")));
    let metrics = alone.gateway.metrics().await;
    assert_eq!(metrics.get("parley_api_messages_total", &[("outcome", "stored")]), Some(2.0));
    alone.end(&["api requests refused"]).await;
    assert!(http::get(api, "/v1/stats").await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn orders_reach_sessions_of_a_gateway_alone() {
    let alone = Alone::start(|builder| builder).await;
    let (ann, eve, zoe) = (alone.guest("ann").await, alone.guest("eve").await, alone.guest("zoe").await);
    for nick in ["eve", "zoe"] {
        ann.sees_join("#lobby", nick).await;
    }
    let ordered = Instant::now();
    let ban = alone.order("/v1/bans", &json!({"nick": "eve", "reason": "spam"})).await;
    assert_eq!(eve.closed_within(EFFECTIVE).await.code, Some(4006));
    ann.sees_left("#lobby", "eve", "kicked").await;
    alone.order("/v1/kicks", &json!({"nick": "zoe"})).await;
    assert_eq!(zoe.closed_within(EFFECTIVE).await.code, Some(4003));
    alone.order("/v1/mutes", &json!({"nick": "ann"})).await;
    eventually(EFFECTIVE, "ann is muted", async || {
        let refused = ann.try_send("#lobby", "hello?").await.err().map(|refused| refused.code);
        if refused.as_deref() == Some("muted") { Ok(()) } else { Err(refused) }
    })
    .await;
    assert!(ordered.elapsed() < 3 * EFFECTIVE, "{:?}", ordered.elapsed());

    let back = WsClient::connect(alone.gateway.ws()).await;
    assert_eq!(back.try_register("eve").await.unwrap_err().code, "banned");
    let lifted = alone.ask("DELETE", &format!("/v1/bans/{}", ban["id"].as_str().unwrap()), &Value::Null).await;
    assert_eq!(lifted.status, 204, "{lifted:?}");
    eventually(EFFECTIVE, "the lifted ban admits again", async || {
        let client = WsClient::connect(alone.gateway.ws()).await;
        client.try_register("eve").await.map(drop).map_err(|refused| refused.code)
    })
    .await;
    alone.end(&[]).await;
}

#[tokio::test]
async fn revocation_ends_sessions_of_a_gateway_alone() {
    let settings = [
        ("PARLEY__AUTH__MODE", "mixed"),
        ("PARLEY__AUTH__ISSUER", "https://id.example.org"),
        ("PARLEY__AUTH__AUDIENCE", "parley"),
        ("PARLEY__AUTH__SECRET", crate::sessions::identity::SECRET),
    ];
    let alone =
        Alone::start(|builder| settings.iter().fold(builder, |builder, (key, value)| builder.setting(key, value)));
    let alone = alone.await;
    let ann = WsClient::connect(alone.gateway.ws()).await;
    let old = token("user:1", &json!({"iat": 1_000}));
    ann.must(json!({"type": "register", "nick": "ann", "token": old})).await;
    let guest = alone.guest("guest").await;
    alone.order("/v1/revocations", &json!({"user": "user:1"})).await;
    assert_eq!(ann.closed_within(EFFECTIVE).await.code, Some(4005));
    let again = WsClient::connect(alone.gateway.ws()).await;
    let register = json!({"type": "register", "nick": "ann", "token": old});
    assert_eq!(again.request(register).await.unwrap_err().code, "token_expired");
    guest.sends("#lobby", "still here").await;
    alone.end(&[]).await;
}

#[tokio::test]
async fn user_enters_room_of_a_gateway_alone() {
    let alone = Alone::start(|builder| builder).await;
    let ann = alone.guest("ann").await;
    for _ in 0..2 {
        let entered = alone.ask("PUT", "/v1/rooms/%23tea/members/ann", &Value::Null).await;
        assert_eq!((entered.status, entered.json()), (200, json!({"room": "#tea", "nick": "ann", "joined": true})));
    }
    assert_eq!(ann.receives_frame("joined").await["room"], "#tea");
    ann.sends("#tea", "hi").await;
    assert_eq!(ann.received(|frame| frame["type"] == "joined" && frame["id"].is_null()).len(), 1);
    alone.end(&[]).await;
}

#[tokio::test]
async fn api_moderates_rooms_of_a_gateway_alone() {
    let alone = Alone::start(|builder| builder).await;
    let (ann, bob) = (alone.guest("ann").await, alone.guest("bob").await);
    ann.sees_join("#lobby", "bob").await;
    let removed = alone.ask("DELETE", "/v1/rooms/%23lobby/members/bob", &Value::Null).await;
    assert!((200..300).contains(&removed.status), "{removed:?}");
    ann.sees_left("#lobby", "bob", "kicked").await;
    let refused = bob.try_send("#lobby", "still in?").await.unwrap_err();
    assert_eq!(refused.code, "not_in_room");
    ann.sends("#lobby", "to be deleted").await;
    let deleted = alone.ask("DELETE", "/v1/rooms/%23lobby/messages", &Value::Null).await;
    assert!((200..300).contains(&deleted.status), "{deleted:?}");
    assert_eq!(ann.history("#lobby", 10).await, Vec::<Value>::new());
    alone.end(&[]).await;
}

#[tokio::test]
async fn webhook_gets_events_of_a_gateway_alone() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let kinds = ["online", "offline", "join", "leave", "rename", "message", "direct_offline", "moderation"];
    let alone = Alone::with_webhook(&receiver, &kinds).await;
    let (ann, bob) = (alone.guest("ann").await, alone.guest("bob").await);
    let ack = ann.sends("#lobby", "one").await;
    alone.order("/v1/messages", &json!({"to": "#lobby", "body": "two", "key": "k1"})).await;
    bob.cut();
    eventually(SOON, "bob is offline", async || {
        let ack = ann.sends("bob", "away").await;
        if ack["delivered"] == "offline" { Ok(()) } else { Err(ack) }
    })
    .await;
    ann.rename("anna").await;
    let removed = alone.ask("DELETE", "/v1/rooms/%23lobby/members/anna", &Value::Null).await;
    assert!((200..300).contains(&removed.status), "{removed:?}");

    let kind = |event: &ReceivedEvent| event.event["type"].as_str().unwrap().to_owned();
    let has = |events: &[ReceivedEvent], wanted: &str| events.iter().any(|event| kind(event) == wanted);
    let events = receiver
        .until(SOON, "every kind but offline", |events| {
            kinds.iter().filter(|wanted| **wanted != "offline").all(|wanted| has(events, wanted))
        })
        .await;
    let message = |body: &str| events.iter().find(|event| event.event["body"] == body).unwrap().event.clone();
    let (one, two) = (message("one"), message("two"));
    assert_eq!((&one["id"], &one["seq"], &one["room"]), (&ack["msg_id"], &json!(1), &json!("#lobby")), "{one}");
    assert_eq!((&two["from"], &two["from_api"]), (&json!("backend"), &json!(true)), "{two}");
    assert_eq!(message("away")["type"], "direct_offline");
    let mut ids: Vec<String> = events.iter().map(|event| event.event["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "every event has its own id");
    let metrics = alone.gateway.metrics().await;
    assert_eq!(metrics.get("parley_webhook_leading", &[]), Some(1.0));
    alone.end(&[]).await;
}

#[tokio::test]
async fn order_ends_session_of_gateway_alone_for_good() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let alone = Alone::with_webhook(&receiver, &["offline"]).await;
    let connect = async || WsClient::connect(alone.gateway.ws()).await;
    for (nick, path, code) in [("zoe", "/v1/kicks", 4003), ("eve", "/v1/bans", 4006)] {
        let client = connect().await;
        let registered = client.register(nick).await;
        client.join("#lobby").await;
        let order = alone.order(path, &json!({"nick": nick})).await;
        assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(code));
        if path == "/v1/bans" {
            let refused = connect().await.try_resume(&registered, json!({})).await.unwrap_err();
            assert_eq!(refused.code, "banned");
            let lifted = alone.ask("DELETE", &format!("{path}/{}", order["id"].as_str().unwrap()), &Value::Null).await;
            assert_eq!(lifted.status, 204, "{lifted:?}");
        }
        eventually(SOON, "the session is over", async || {
            let refused = connect().await.try_resume(&registered, json!({})).await.map_err(|refused| refused.code);
            if refused == Err("resume_failed".to_owned()) { Ok(()) } else { Err(refused) }
        })
        .await;
    }
    let goodbye = alone.guest("bob").await;
    goodbye.bye().await;
    let reasons = |events: &[ReceivedEvent]| {
        let of = |event: &ReceivedEvent| format!("{} {}", event.event["nick"], event.event["reason"]).replace('"', "");
        events.iter().map(of).collect::<Vec<_>>()
    };
    let events = receiver.until(SOON, "three are offline", |events| events.len() > 2).await;
    assert_eq!(reasons(&events), ["zoe kicked", "eve banned", "bob closed"]);
    alone.end(&[]).await;
}

#[tokio::test]
async fn drain_delivers_the_last_webhook_events() {
    let receiver = WebhookReceiver::start(SECRET).await;
    let alone = Alone::with_webhook(&receiver, &["message"]).await;
    let ann = alone.guest("ann").await;
    receiver.set_mode(ReceiverMode::Refuse(503, String::new()));
    ann.sends("#lobby", "before the end").await;
    // The pause after the third is longer than the rest of the drain.
    eventually(SOON, "three are refused", async || if receiver.requests() > 2 { Ok(()) } else { Err(()) }).await;
    receiver.set_mode(ReceiverMode::Accept);
    alone.end(&["webhook not delivered"]).await;
    assert_eq!(bodies(&receiver.events()), ["before the end"]);
}

#[tokio::test]
async fn events_that_a_drain_loses_are_counted() {
    let receiver = WebhookReceiver::start(SECRET).await;
    receiver.set_mode(ReceiverMode::Hang);
    let mut alone = Alone::with_webhook(&receiver, &["message"]).await;
    let ann = alone.guest("ann").await;
    for body in ["one", "two"] {
        ann.sends("#lobby", body).await;
    }
    let began = Instant::now();
    assert_eq!(alone.gateway.end().await, Some(0));
    assert!(began.elapsed() < SOON, "a dead receiver delays the end by 5 s: {:?}", began.elapsed());
    let log = alone.gateway.log().lines();
    let lost = log.iter().find(|line| line.contains("webhook events lost at the end"));
    assert!(lost.is_some_and(|line| line.contains("\"events\":2")), "{log:?}");
}

#[tokio::test]
async fn dead_letters_of_a_gateway_alone_are_replayed() {
    let receiver = WebhookReceiver::start(SECRET).await;
    receiver.set_mode(ReceiverMode::Refuse(500, String::new()));
    let webhook = json!([{"name": "app", "url": receiver.url(), "secret": receiver.secret(), "events": ["message"]}]);
    let alone = Alone::start(|builder| {
        let builder = builder.setting("PARLEY__CALLBACKS__ALLOW_PRIVATE", "true");
        let builder = builder.setting("PARLEY__WEBHOOK__DEAD_LETTER_SECONDS", "1");
        builder.setting("PARLEY__WEBHOOKS", &webhook.to_string())
    })
    .await;
    let ann = alone.guest("ann").await;
    ann.sends("#lobby", "one").await;
    let shown = async || alone.ask("GET", "/v1/webhooks", &Value::Null).await.json();
    let row = eventually(SOON * 6, "a dead letter", async || {
        let row = shown().await["webhooks"][0].clone();
        if row["dead"] == 1 { Ok(row) } else { Err(row) }
    })
    .await;
    assert_eq!((&row["webhook"], &row["error"]), (&json!("app"), &json!("the receiver answered 500")), "{row}");

    receiver.set_mode(ReceiverMode::Accept);
    let replayed = alone.order("/v1/webhooks/app/replay", &Value::Null).await;
    assert_eq!(replayed, json!({"webhook": "app", "replayed": 1}));
    let events = receiver.until(SOON, "the message", |events| !events.is_empty()).await;
    assert_eq!(events[0].event["body"], "one");
    assert_eq!(shown().await["webhooks"][0]["dead"], 0);
    assert_eq!(alone.ask("POST", "/v1/webhooks/other/replay", &Value::Null).await.status, 404);
    alone.end(&["webhook not delivered", "became dead letters"]).await;
}

#[tokio::test]
async fn reload_replaces_keys_of_a_gateway_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let (first, second) = (new_key(), new_key());
    std::fs::write(&file, first.known.to_string()).unwrap();
    let builder = Node::gateway("alone").setting("PARLEY__API__ADDR", "127.0.0.1:0");
    let mut gateway = builder.setting("PARLEY__API__KEYS_FILE", &file.display().to_string()).start().await;
    let api = gateway.api();
    let status = async |key: &NewKey| ask_as(api, &key.secret, ("GET", "/v1/stats"), &Value::Null).await.status;
    assert_eq!((status(&first).await, status(&second).await), (200, 401));
    std::fs::write(&file, second.known.to_string()).unwrap();
    gateway.process().signal(Signal::SIGHUP);
    eventually(SOON, "only the second key is known", async || {
        let known = (status(&first).await, status(&second).await);
        if known == (401, 200) { Ok(()) } else { Err(known) }
    })
    .await;
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn gateway_with_redis_refuses_api_and_webhooks() {
    let redis = ("PARLEY__REDIS__URL", "redis://127.0.0.1:1");
    let webhook = json!([{"url": "https://app.example.org/", "secret": SECRET, "events": ["message"]}]).to_string();
    for (key, value) in [("PARLEY__API__ADDR", "127.0.0.1:0"), ("PARLEY__WEBHOOKS", &webhook)] {
        let builder = Node::gateway("member").setting(redis.0, redis.1).setting(key, value);
        let ended = builder.program().run(SOON).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{ended:?}");
        let expected = "redis.url is set, so the presence service has the server API and the webhooks: set it there";
        assert!(ended.stderr.contains(expected), "{ended:?}");
    }
    let open = Node::gateway("alone").setting("PARLEY__API__ADDR", "0.0.0.0:0").program().run(SOON).await;
    assert_eq!(open.code, Some(64), "{open:?}");
    assert!(open.stderr.contains("api.keys is not set"), "{open:?}");
}

#[tokio::test]
async fn gateway_without_api_setting_serves_none() {
    let mut gateway = Node::gateway("alone").start().await;
    assert_eq!(gateway.listening_line().get("api"), None);
    assert!(!gateway.metrics().await.names().iter().any(|name| name.starts_with("parley_api_")));
    assert_eq!(gateway.end().await, Some(0));
}

#[tokio::test]
async fn ctl_names_the_api_of_a_gateway_alone() {
    let words = ["ctl", "webhooks"].map(str::to_owned);
    let ended = ChildProgram::parley("gateway", "ctl").args(words).run(SOON).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("a gateway without Redis"), "{ended:?}");
}
