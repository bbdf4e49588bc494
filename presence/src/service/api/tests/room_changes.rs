//! Changes of rooms: rules, and the end of a room.

use serde_json::{Value, json};

use super::HttpAnswer;
use super::keys::GuardedApi;
use crate::model::{RoomKey, RoomName, RoomRules};
use crate::service::access::ApiScope;

impl GuardedApi {
    /// Sends a request with a body and the key of moderators.
    pub(super) async fn changes(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        let (key, length) = (self.key(ApiScope::Moderate), body.len());
        self.served.send(&format!("{method} {path} HTTP/1.0\r\n{key}Content-Length: {length}\r\n\r\n{body}")).await
    }

    async fn members_of(&self, room: &str) -> HttpAnswer {
        self.ask("GET", &format!("/v1/rooms/{room}/members"), &self.key(ApiScope::Read)).await
    }
}

fn key_of(room: &str) -> RoomKey {
    RoomName::parse(room).unwrap().key().clone()
}

#[tokio::test]
async fn written_rules_create_a_room_once() {
    let api = GuardedApi::start().await;
    for created in [true, false] {
        let answer = api.changes("PUT", "/v1/rooms/%23Stage", "{}").await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "room": "#Stage", "created": created })));
    }
    let stage = api.members_of("stage").await;
    assert_eq!((stage.status, &stage.json()["items"]), (200, &json!([])), "it stays without members");
    assert_eq!(api.changes("PUT", "/v1/rooms/stage", r#"{"members_max":1}"#).await.json()["room"], "#Stage");
    assert_eq!(api.served.registry.room(&key_of("#stage")).await.unwrap().unwrap().member_count, 0);
}

#[tokio::test]
async fn malformed_rules_are_refused_by_name() {
    let api = GuardedApi::start().await;
    for (body, part) in [
        (r#"{"members_max":0}"#, "the field members_max "),
        (r#"{"membersmax":1}"#, "an unknown field, membersmax"),
        ("[]", "not a JSON object"),
        ("", "not a JSON object"),
        ("{", "not a JSON object"),
    ] {
        let answer = api.changes("PUT", "/v1/rooms/stage", body).await;
        let problem: Value = answer.json();
        assert_eq!((answer.status, &problem["code"]), (400, &json!("bad_request")), "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{body}: {problem}");
    }
    let answer = api.changes("PUT", "/v1/rooms/a%20b", "{}").await;
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_room")));
    assert!(api.served.registry.room(&key_of("#stage")).await.unwrap().is_none());
}

#[tokio::test]
async fn deleted_room_loses_its_members() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby", "#attic"]).await;
    api.served.registry.set_room_rules(&RoomName::parse("#lobby").unwrap(), &RoomRules::default()).await.unwrap();
    let deleted = api.changes("DELETE", "/v1/rooms/lobby", "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""), "{deleted:?}");
    let again = api.changes("DELETE", "/v1/rooms/lobby", "").await;
    assert_eq!((again.status, &again.json()["code"]), (404, &json!("no_such_room")));
    let ann = api.ask("GET", "/v1/users/ann", &api.key(ApiScope::Read)).await.json();
    assert_eq!(ann["rooms"], json!(["#attic"]));
}

#[tokio::test]
async fn messages_are_deleted_one_by_one_or_all() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    for number in 1..=4 {
        let message = json!({ "to": "#lobby", "from": "news", "body": number, "key": number.to_string() });
        assert_eq!(api.publish(&message).await.status, 200);
    }
    let one = api.changes("DELETE", "/v1/rooms/%23Lobby/messages/3", "").await;
    assert_eq!((one.status, one.body.as_str()), (204, ""), "{one:?}");
    let again = api.changes("DELETE", "/v1/rooms/lobby/messages/3", "").await;
    assert_eq!((again.status, &again.json()["code"]), (404, &json!("not_found")));
    let left = async || {
        let page = api.ask("GET", "/v1/rooms/lobby/messages", &api.key(ApiScope::Read)).await.json();
        page["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(left().await, [4, 2, 1]);
    for deleted in [3, 0] {
        let all = api.changes("DELETE", "/v1/rooms/lobby/messages", "").await;
        assert_eq!((all.status, all.json()), (200, json!({ "deleted": deleted })));
    }
    assert!(left().await.is_empty());
    for (path, status, code) in [
        ("/v1/rooms/zed/messages", 404, "no_such_room"),
        ("/v1/rooms/zed/messages/1", 404, "no_such_room"),
        ("/v1/rooms/lobby/messages/0", 400, "bad_request"),
        ("/v1/rooms/lobby/messages/x", 400, "bad_request"),
        ("/v1/rooms/lobby/messages/9223372036854775808", 400, "bad_request"),
        ("/v1/rooms/a%20b/messages/1", 400, "bad_room"),
    ] {
        let refusal = api.changes("DELETE", path, "").await;
        assert_eq!((refusal.status, &refusal.json()["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test]
async fn member_is_removed_with_a_reason() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    for (path, status, code) in [
        ("/v1/rooms/lobby/members/eve", 404, "no_such_user"),
        ("/v1/rooms/zed/members/ann", 404, "no_such_room"),
        ("/v1/rooms/lobby/members/b@d", 400, "bad_nick"),
        ("/v1/rooms/a%20b/members/ann", 400, "bad_room"),
        ("/v1/rooms/lobby/members/ann?reason=a%0Ab", 400, "bad_request"),
    ] {
        let refusal = api.changes("DELETE", path, "").await;
        assert_eq!((refusal.status, &refusal.json()["code"]), (status, &json!(code)), "{path}");
    }
    assert_eq!(api.members_of("lobby").await.json()["items"][0]["nick"], "ann", "a refusal changes nothing");
    let removed = api.changes("DELETE", "/v1/rooms/%23Lobby/members/ANN?reason=flood", "").await;
    assert_eq!((removed.status, removed.body.as_str()), (204, ""), "{removed:?}");
    let again = api.changes("DELETE", "/v1/rooms/lobby/members/ann", "").await;
    assert_eq!((again.status, &again.json()["code"]), (404, &json!("no_such_user")), "a moderated room is kept");
}

#[tokio::test]
async fn entry_is_answered_when_user_is_member() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    for (path, status, code) in [
        ("/v1/rooms/lobby/members/eve", 404, "no_such_user"),
        ("/v1/rooms/lobby/members/b@d", 400, "bad_nick"),
        ("/v1/rooms/a%20b/members/ann", 400, "bad_room"),
    ] {
        let refusal = api.changes("PUT", path, "").await;
        assert_eq!((refusal.status, &refusal.json()["code"]), (status, &json!(code)), "{path}");
    }
    let enter = async |room: &str| {
        let answer = api.changes("PUT", &format!("/v1/rooms/{room}/members/ANN"), "").await;
        (answer.status, answer.json())
    };
    assert_eq!(enter("lobby").await, (200, json!({"room": "#lobby", "nick": "ANN", "joined": true})));
    // No gateway runs here, which could carry it out.
    assert_eq!(enter("tea").await, (202, json!({"room": "#tea", "nick": "ANN", "joined": false})));
}

#[tokio::test]
async fn every_order_for_a_room_is_carried_out() {
    let api = GuardedApi::start().await;
    for nick in ["ann", "bob"] {
        api.served.user(nick, &["#lobby"]).await;
    }
    let order = async |body: Value| api.changes("POST", "/v1/rooms/lobby/moderation", &body.to_string()).await;
    for body in [
        json!({"action": "op", "nick": "ann", "role": "owner"}),
        json!({"action": "mute", "nick": "bob", "seconds": 60, "reason": "loud"}),
        json!({"action": "unmute", "nick": "bob"}),
        json!({"action": "invite", "user": "user:7"}),
        json!({"action": "topic", "text": "chess"}),
        json!({"action": "op", "nick": "bob", "role": "owner"}),
        json!({"action": "deop", "nick": "ann"}),
        json!({"action": "ban", "nick": "ann", "reason": "flood"}),
        json!({"action": "unban", "nick": "ann"}),
        json!({"action": "kick", "nick": "bob"}),
    ] {
        let answer = order(body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        let answer = answer.json();
        assert_eq!((&answer["room"], &answer["by"]), (&json!("#lobby"), &json!("app-moderate")), "{answer}");
        for field in ["action", "nick", "user", "reason", "text"] {
            assert_eq!(answer.get(field), body.get(field), "{body}: {answer}");
        }
    }
}

#[tokio::test]
async fn refused_orders_for_a_room_name_their_fault() {
    let api = GuardedApi::start().await;
    api.served.user("ann", &["#lobby"]).await;
    let owner = api.changes("POST", "/v1/rooms/lobby/moderation", r#"{"action":"op","nick":"ann","role":"owner"}"#);
    assert_eq!(owner.await.status, 200);
    for (body, status, code) in [
        (json!({"action": "fire", "nick": "ann"}), 400, "bad_request"),
        (json!({"action": "kick"}), 400, "bad_request"),
        (json!({"action": "kick", "user": "u"}), 400, "bad_request"),
        (json!({"action": "ban", "nick": "ann", "user": "u"}), 400, "bad_request"),
        (json!({"action": "ban", "nick": "b@d"}), 400, "bad_nick"),
        (json!({"action": "mute", "nick": "ann", "seconds": 0}), 400, "bad_request"),
        (json!({"action": "op", "nick": "ann", "role": "muted"}), 400, "bad_request"),
        (json!({"action": "topic"}), 400, "bad_request"),
        (json!({"action": "topic", "text": "a\nb"}), 400, "bad_request"),
        (json!({"action": "ban", "nick": "ann", "reason": "x".repeat(257)}), 400, "bad_request"),
        (json!({"action": "kick", "nick": "zoe"}), 404, "no_such_user"),
        (json!({"action": "unban", "nick": "ann"}), 404, "not_found"),
        (json!({"action": "deop", "nick": "ann"}), 403, "not_allowed"),
    ] {
        let refusal = api.changes("POST", "/v1/rooms/lobby/moderation", &body.to_string()).await;
        assert_eq!((refusal.status, &refusal.json()["code"]), (status, &json!(code)), "{body}");
    }
    let unknown = api.changes("POST", "/v1/rooms/zed/moderation", r#"{"action":"kick","nick":"ann"}"#).await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("no_such_room")));
}
