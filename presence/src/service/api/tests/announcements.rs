//! Announcements.

use serde_json::{Value, json};

use super::HttpAnswer;
use super::keys::GuardedApi;
use crate::registry::MailboxOrder;
use crate::service::access::ApiScope;

impl GuardedApi {
    async fn announce(&self, announcement: &Value) -> HttpAnswer {
        self.served.post("/v1/announcements", &self.key(ApiScope::Publish), &announcement.to_string()).await
    }

    /// Returns the bodies of the announcements that wait for the gateway.
    async fn announced(&self) -> Vec<String> {
        let beat = self.served.registry.beat(&self.served.incarnation, &[]).await.unwrap();
        let bodies = beat.mailbox.into_iter().map(|order| match order {
            MailboxOrder::Announce(announcement) => announcement.body.get().to_owned(),
            order => panic!("{order:?}"),
        });
        bodies.collect()
    }
}

#[tokio::test]
async fn announcement_is_sent_once_for_its_key() {
    let api = GuardedApi::start().await;
    let announcement = json!({ "body": { "at": "noon" }, "tags": ["beta"], "key": "k" });
    let first = api.announce(&announcement).await.json();
    assert_eq!((first["msg_id"].is_string(), &first["duplicate"]), (true, &json!(false)));
    let again = api.announce(&announcement).await.json();
    assert_eq!(again, json!({ "msg_id": first["msg_id"], "duplicate": true }));
    for body in [1, 2] {
        assert_eq!(api.announce(&json!({ "body": body })).await.json()["duplicate"], false, "without a key");
    }
    assert_eq!(api.announced().await, [r#"{"at":"noon"}"#, "1", "2"]);
}

#[tokio::test]
async fn malformed_announcements_are_refused() {
    let api = GuardedApi::start().await;
    let tags = |count: usize| (0..count).map(|tag| tag.to_string()).collect::<Vec<_>>();
    for (announcement, status, code) in [
        (json!({ "key": "k" }), 400, "bad_request"),
        (json!({ "body": 1, "key": "" }), 400, "bad_request"),
        (json!({ "body": 1, "key": "a".repeat(129) }), 400, "bad_request"),
        (json!({ "body": 1, "tags": tags(17) }), 400, "bad_request"),
        (json!({ "body": 1, "tags": [""] }), 400, "bad_request"),
        (json!({ "body": 1, "tags": "beta" }), 400, "bad_request"),
        (json!({ "body": 1, "tags": [] }), 400, "bad_request"),
        (json!({ "body": 1, "tag": ["beta"] }), 400, "bad_request"),
        (json!({ "body": "a".repeat(64 * 1024) }), 413, "too_large"),
        (json!({ "body": 1, "tags": tags(16) }), 200, ""),
    ] {
        let answer = api.announce(&announcement).await;
        assert_eq!((answer.status, answer.json()["code"].as_str().unwrap_or_default()), (status, code));
    }
}

#[tokio::test]
async fn full_mailbox_refuses_announcements_until_the_beat() {
    let api = GuardedApi::start().await;
    for body in 0..128 {
        assert_eq!(api.announce(&json!({ "body": body })).await.status, 200);
    }
    let refused = api.announce(&json!({ "body": 128, "key": "k" })).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("overloaded")));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(api.announced().await.len(), 128);
    assert_eq!(api.announce(&json!({ "body": 128, "key": "k" })).await.json()["duplicate"], false);
}
