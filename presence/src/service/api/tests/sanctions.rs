//! Bans, mutes, kicks and revocations: the documented examples, bad orders, and two moderators at once.

use serde_json::{Value, json};

use super::HttpAnswer;
use super::keys::GuardedApi;
use crate::model::SanctionKind;
use crate::service::access::ApiScope;

impl GuardedApi {
    async fn order(&self, path: &str, body: &Value) -> HttpAnswer {
        let (key, body) = (self.key(ApiScope::Moderate), body.to_string());
        let request = format!("POST {path} HTTP/1.0\r\n{key}Content-Length: {}\r\n\r\n{body}", body.len());
        self.served.send(&request).await
    }

    async fn moderates(&self, method: &str, path: &str) -> HttpAnswer {
        self.ask(method, path, &self.key(ApiScope::Moderate)).await
    }
}

/// Returns the names of the fields, without those that an entry may lack.
fn fields(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn documented_orders_are_given_listed_and_lifted() {
    let api = GuardedApi::start().await;
    let document = api.ask("GET", "/openapi.json", "").await.json();
    for path in ["/v1/bans", "/v1/mutes", "/v1/revocations"] {
        let about = &document["paths"][path];
        let example = |method: &str| &about[method]["responses"]["200"]["content"]["application/json"]["example"];
        let request = &about["post"]["requestBody"]["content"]["application/json"]["example"];
        let given = api.order(path, request).await;
        assert_eq!(given.status, 200, "{given:?}");
        let given = given.json();
        assert_eq!((fields(&given), &given["id"]), (fields(example("post")), &example("post")["id"]), "{path}");
        assert_eq!(given["by"], "app-moderate", "the moderator is the name of the key");
        assert_eq!(api.moderates("GET", path).await.json(), json!({"items": [given], "next_cursor": null}));
        let of_entry = format!("{path}/{}", given["id"].as_str().unwrap());
        assert_eq!(api.moderates("DELETE", &of_entry).await.status, 204);
        let again = api.moderates("DELETE", &of_entry).await;
        assert_eq!((again.status, &again.json()["code"]), (404, &json!("not_found")));
        assert_eq!(api.moderates("GET", path).await.json()["items"], json!([]));
    }
    let kick = &document["paths"]["/v1/kicks"]["post"];
    let answer = api.order("/v1/kicks", &kick["requestBody"]["content"]["application/json"]["example"]).await;
    let example = &kick["responses"]["200"]["content"]["application/json"]["example"];
    assert_eq!((answer.status, fields(&answer.json())), (200, fields(example)));
    let kicks = api.served.registry.sanction_entries(SanctionKind::Kick, 0).await.unwrap();
    assert_eq!(kicks[0].until, Some(kicks[0].time + 60_000));
}

#[tokio::test]
async fn bad_orders_are_refused_with_a_reason() {
    let api = GuardedApi::start().await;
    for (path, body, part) in [
        ("/v1/bans", json!({}), "exactly one"),
        ("/v1/bans", json!({"nick": "a", "user": "b"}), "exactly one"),
        ("/v1/bans", json!({"nick": "a b"}), "nick:"),
        ("/v1/bans", json!({"address": "198.51.100.0/33"}), "address:"),
        ("/v1/bans", json!({"address": "0.0.0.0/0"}), "every address"),
        ("/v1/bans", json!({"address": "128.0.0.0/1"}), "wider than a /8"),
        ("/v1/kicks", json!({"address": "2000::/3"}), "wider than a /8"),
        ("/v1/bans", json!({"session": "0123456789abcdef0123456789abcdef"}), "such a subject"),
        ("/v1/bans", json!({"nick": "a", "seconds": 0}), "seconds"),
        ("/v1/bans", json!({"nick": "a", "seconds": u64::MAX}), "seconds"),
        ("/v1/bans", json!({"nick": "a", "reason": "a\nb"}), "reason"),
        ("/v1/bans", json!({"nick": "a", "key": ""}), "key"),
        ("/v1/bans", json!({"nick": 1}), "the field nick of the request body"),
        ("/v1/mutes", json!({"address": "198.51.100.1"}), "such a subject"),
        ("/v1/revocations", json!({"nick": "a"}), "such a subject"),
        ("/v1/kicks", json!({"session": "*"}), "session:"),
        ("/v1/kicks", json!({"address": "0.0.0.0/0"}), "every address"),
        ("/v1/bans", json!({"nick": "a", "room": "#x"}), "has an unknown field, room"),
        ("/v1/kicks", json!({"nick": "a", "seconds": 60}), "seconds has no meaning for a kick"),
        ("/v1/kicks", json!({"nick": "a", "before": 1}), "before has no meaning for a kick"),
        ("/v1/bans", json!({"nick": "a", "before": 1}), "before has no meaning for a ban"),
        ("/v1/mutes", json!({"nick": "a", "force": true}), "force has no meaning for a mute"),
        ("/v1/bans", json!({"address": "::ffff:0:0/90"}), "address:"),
        ("/v1/kicks", json!({"address": "::ffff:0.0.0.0/96"}), "every address"),
    ] {
        let refused = api.order(path, &body).await;
        let answer = refused.json();
        assert_eq!((refused.status, &answer["code"]), (400, &json!("bad_request")), "{path} {body}");
        assert!(answer["detail"].as_str().unwrap().contains(part), "{path} {body}: {answer}");
    }
    assert_eq!(api.order("/v1/bans", &json!({"address": "0.0.0.0/0", "force": true})).await.status, 200);
    assert_eq!(api.order("/v1/bans", &json!({"address": "127.0.0.1"})).await.status, 200, "loopback may be banned");
}

#[tokio::test]
async fn repeated_order_with_a_key_is_one() {
    let api = GuardedApi::start().await;
    let order = |seconds: u64, key: &str| json!({"nick": "eve", "seconds": seconds, "key": key});
    let first = api.order("/v1/bans", &order(60, "k1")).await.json();
    assert_eq!(api.order("/v1/bans", &order(90, "k1")).await.json(), first);
    let second = api.order("/v1/bans", &order(90, "k2")).await.json();
    assert!(second["until"].as_u64() > first["until"].as_u64());
    assert_eq!(api.moderates("GET", "/v1/bans").await.json()["items"], json!([second]));
}

#[tokio::test]
async fn list_of_bans_comes_in_pages() {
    let api = GuardedApi::start().await;
    for number in 0..5 {
        api.order("/v1/bans", &json!({"nick": format!("n{number}")})).await;
    }
    let (mut path, mut seen) = ("/v1/bans?limit=2".to_owned(), Vec::new());
    loop {
        let page = api.moderates("GET", &path).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["nick"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/bans?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["n0", "n1", "n2", "n3", "n4"]);
    assert_eq!(api.moderates("GET", "/v1/bans?cursor=x").await.status, 400);
}
