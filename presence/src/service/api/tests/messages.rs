//! Messages of applications.

use std::time::Duration;

use serde_json::{Value, json};

use super::HttpAnswer;
use super::keys::GuardedApi;
use crate::model::{Nick, UserId};
use crate::registry::HoldTerms;
use crate::service::access::ApiScope;

impl GuardedApi {
    /// Sends a body with the key of a scope.
    async fn post(&self, path: &str, body: &str) -> HttpAnswer {
        self.served.post(path, &self.key(ApiScope::Publish), body).await
    }

    pub(super) async fn publish(&self, message: &Value) -> HttpAnswer {
        self.post("/v1/messages", &message.to_string()).await
    }
}

#[tokio::test]
async fn message_to_room_is_acknowledged_once() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    let message = json!({ "to": "#lobby", "from": "news", "body": { "goal": 1 }, "key": "k" });
    let first = api.publish(&message).await;
    assert_eq!(first.status, 200, "{first:?}");
    let mut first = first.json();
    assert_eq!((&first["to"], &first["seq"], &first["duplicate"]), (&json!("#lobby"), &json!(1), &json!(false)));
    assert!(first["epoch"].is_string() && first["time"].is_u64() && first.get("delivered").is_none(), "{first}");
    first["duplicate"] = true.into();
    assert_eq!(api.publish(&message).await.json(), first, "the key gets the first answer");
    let room = api.ask("GET", "/v1/rooms/lobby", &api.key(ApiScope::Read)).await.json();
    assert_eq!(room["seq"], 1);
    let direct = api.publish(&json!({ "to": "ANN", "body": "hi", "key": "k" })).await.json();
    assert_eq!((&direct["to"], &direct["delivered"]), (&json!("ANN"), &json!("online")));
    assert!(direct.get("seq").is_none() && direct.get("epoch").is_none(), "{direct}");
}

#[tokio::test]
async fn history_of_room_is_paged_from_newest() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby", "#attic"]).await;
    let key = api.key(ApiScope::Read);
    for number in 1..=5 {
        let message = json!({ "to": "#lobby", "from": "news", "body": { "n": number }, "key": number.to_string() });
        assert_eq!(api.publish(&message).await.status, 200);
    }
    let (mut path, mut read) = ("/v1/rooms/%23Lobby/messages?limit=2".to_owned(), Vec::new());
    loop {
        let page = api.ask("GET", &path, &key).await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        for item in page["items"].as_array().unwrap() {
            assert_eq!((&item["from"], &item["from_api"]), (&json!("news"), &json!(true)));
            assert_eq!(item["body"]["n"], item["seq"]);
            read.push(item["seq"].as_u64().unwrap());
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/rooms/lobby/messages?limit=2&cursor={cursor}");
    }
    assert_eq!(read, [5, 4, 3, 2, 1]);
    let empty = api.ask("GET", "/v1/rooms/attic/messages", &key).await.json();
    assert_eq!(empty, json!({ "items": [], "next_cursor": null }));
    for (path, status, code) in [
        ("/v1/rooms/zed/messages", 404, "no_such_room"),
        ("/v1/rooms/lobby/messages?limit=0", 400, "bad_request"),
        ("/v1/rooms/lobby/messages?limit=101", 400, "bad_request"),
        ("/v1/rooms/lobby/messages?cursor=0", 400, "bad_request"),
        ("/v1/rooms/lobby/messages?cursor=x", 400, "bad_request"),
        ("/v1/rooms/lobby/messages?cursor=9223372036854775808", 400, "bad_request"),
        ("/v1/rooms/a%20b/messages", 400, "bad_room"),
    ] {
        let answer = api.ask("GET", path, &key).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test]
async fn malformed_messages_are_refused_by_code() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let long = "x".repeat(64 * 1024);
    for (body, status, code) in [
        ("", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r##"{"to":"#lobby","body":"x"}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","key":"k"}"##, 400, "bad_request"),
        (r#"{"body":"x","key":"k"}"#, 400, "bad_request"),
        (r#"{"to":7,"body":"x","key":"k"}"#, 400, "bad_request"),
        (r##"{"to":"#lobby","body":"x","key":""}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","body":"x","key":"a\u0007"}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","to":"#lobby","body":"x","key":"k"}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","body":1e999,"key":"k"}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","body":{"a":1,"a":2},"key":"k"}"##, 400, "bad_request"),
        (r##"{"to":"#lobby","body":"\ud800","key":"k"}"##, 400, "bad_request"),
        (r##"{"to":"#a b","body":"x","key":"k"}"##, 400, "bad_room"),
        (r#"{"to":"a@b","body":"x","key":"k"}"#, 400, "bad_nick"),
        (r##"{"to":"#lobby","from":"a b","body":"x","key":"k"}"##, 400, "bad_nick"),
        (r##"{"to":"#attic","body":"x","key":"k"}"##, 404, "no_such_room"),
        (r#"{"to":"zoe","body":"x","key":"k"}"#, 404, "no_such_user"),
        (&format!(r##"{{"to":"#lobby","body":"x","key":"{}"}}"##, "k".repeat(129)), 400, "bad_request"),
        (&format!(r##"{{"to":"#lobby","body":{deep},"key":"k"}}"##), 400, "bad_request"),
        (&format!(r##"{{"to":"#lobby","body":"{long}","key":"k"}}"##), 413, "too_large"),
        (&format!(r##"{{"to":"#lobby","body":"{}","key":"k"}}"##, "x".repeat(512 * 1024)), 413, "too_large"),
    ] {
        let answer = api.post("/v1/messages", body).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{shown}: {answer:?}");
    }
    let room = api.ask("GET", "/v1/rooms/lobby", &api.key(ApiScope::Read)).await.json();
    assert_eq!(room["seq"], 0, "nothing was stored");
}

#[tokio::test]
async fn batch_answers_each_row_for_itself() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    let rows = json!({ "messages": [
        { "to": "#lobby", "body": 1, "key": "a" },
        { "to": "#attic", "body": 2, "key": "b" },
        7,
        { "to": "#lobby", "body": 3 },
        { "to": "ann", "body": 4, "key": "d" },
        { "to": "b@d", "body": 5, "key": "e" },
        { "to": "#lobby", "body": 6, "key": "a" },
        { "to": "#lobby", "body": 7, "key": "g" },
    ] });
    let answer = api.post("/v1/messages/batch", &rows.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let items = answer["items"].as_array().unwrap();
    let codes: Vec<&str> = items.iter().map(|item| item["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["ok", "no_such_room", "bad_request", "bad_request", "ok", "bad_nick", "ok", "ok"]);
    let seqs = [0, 6, 7].map(|at: usize| items[at]["message"]["seq"].as_u64().unwrap());
    assert_eq!((seqs, &items[6]["message"]["duplicate"]), ([1, 1, 2], &json!(true)));
    assert!(items[2]["detail"].as_str().unwrap().contains("is not a JSON object"), "{answer}");
    for rows in [json!([]), json!(vec![json!({ "to": "#lobby", "body": 1, "key": "x" }); 101])] {
        let answer = api.post("/v1/messages/batch", &json!({ "messages": rows }).to_string()).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")));
    }
}

#[tokio::test]
async fn message_to_user_reaches_each_of_its_nicknames() {
    let api = GuardedApi::start().await;
    let owner = api.served.claim("ann", UserId::parse("user:1").as_ref()).await;
    api.served.sign_in("anna", "user:1").await;
    api.served.sign_in("bob", "user:2").await;
    // One is offline: its session can return, and has an inbox.
    let hold = HoldTerms { hold: Duration::from_secs(60), after: Duration::ZERO };
    api.served.registry.detach(&Nick::parse("ann").unwrap(), &owner, hold).await.unwrap();
    let message = json!({ "to": { "user": "user:1" }, "body": { "invoice": 7 }, "key": "k" });
    let answer = api.publish(&message).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let first = answer.json();
    assert_eq!(first["to"], json!({ "user": "user:1" }));
    let row = |row: &Value| [&row["to"], &row["delivered"], &row["duplicate"]].map(Value::to_string).join(" ");
    let rows = |answer: &Value| answer["deliveries"].as_array().unwrap().iter().map(row).collect::<Vec<_>>();
    assert_eq!(rows(&first), [r#""ann" "offline" false"#, r#""anna" "online" false"#]);
    let again = api.publish(&message).await.json();
    assert_eq!(rows(&again), [r#""ann" "offline" true"#, r#""anna" "online" true"#]);
    assert_eq!(again["deliveries"][1]["msg_id"], first["deliveries"][1]["msg_id"]);

    for (to, status, code) in [
        (json!({ "user": "user:9" }), 404, "no_such_user"),
        (json!({ "user": "" }), 400, "bad_request"),
        (json!({ "user": "user:1", "nick": "ann" }), 400, "bad_request"),
        (json!(["user:1"]), 400, "bad_request"),
        (json!(1), 400, "bad_request"),
        (json!(null), 400, "bad_request"),
    ] {
        let refused = api.publish(&json!({ "to": to, "body": 1, "key": "k" })).await;
        assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)), "{to}");
    }
    for number in 0..130 {
        api.served.sign_in(&format!("many{number}"), "user:3").await;
    }
    let many = json!({ "to": { "user": "user:3" }, "body": 1, "key": "k" });
    let many = api.publish(&many).await.json();
    assert_eq!(rows(&many).len(), 130, "more than one call of the store takes");

    let batch = json!({ "messages": [message] }).to_string();
    let batch = api.post("/v1/messages/batch", &batch).await.json();
    assert_eq!(batch["items"][0]["code"], "bad_request", "{batch}");
}
