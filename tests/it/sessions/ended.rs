//! Sessions that an order ended: no gateway resumes them, and the event log says which order it was.

use std::time::Duration;

use harness::{Cluster, eventually};
use presence::model::{Nick, SanctionKind, SanctionOrder, SubjectFields};
use presence::registry::Registry;
use serde_json::{Value, json};

use super::identity::{cluster, token};
use super::sanctions::registry;

const SOON: Duration = Duration::from_secs(10);
/// Longest time until an order is in effect everywhere.
const EFFECTIVE: Duration = Duration::from_secs(2);

async fn give(registry: &Registry, kind: SanctionKind, subject: Value) -> String {
    let fields: SubjectFields = serde_json::from_value(subject).unwrap();
    let order = SanctionOrder::new(kind, fields.try_into().unwrap(), "a moderator", "spam").unwrap();
    registry.sanction(&order, None).await.unwrap().unwrap().id
}

/// Waits until both gateways refuse to resume a session for this reason.
async fn until_refused(cluster: &Cluster, registered: &Value, code: &str) {
    for gateway in 0..2 {
        eventually(SOON, "the resume is refused", async || {
            let client = cluster.ws_on(gateway).await;
            let refused = client.try_resume(registered, json!({})).await.map_err(|refused| refused.code);
            if refused == Err(code.to_owned()) { Ok(()) } else { Err(refused) }
        })
        .await;
    }
}

/// Returns the reasons of `offline` in the event log.
async fn offline(registry: &Registry) -> Vec<String> {
    let (events, _) = registry.events(Some("0"), 1000).await.unwrap();
    let events = events.iter().filter(|event| event.kind == "offline");
    let data = events.map(|event| serde_json::from_str::<Value>(&event.data).unwrap());
    data.map(|data| format!("{} {}", data["nick"], data["reason"]).replace('"', "")).collect()
}

#[tokio::test]
async fn ordered_end_refuses_every_resume() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let client = cluster.ws_on(0).await;
    let ann = client.register("ann").await;
    client.join("#lobby").await;
    assert!(registry.kick(Nick::parse("ann").unwrap().key()).await.unwrap());
    assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4003));
    // At once, on the other gateway: the end may still be under way.
    let quick = cluster.ws_on(1).await;
    if quick.try_resume(&ann, json!({})).await.is_ok() {
        assert_eq!(quick.closed_within(EFFECTIVE).await.code, Some(4003));
    }
    until_refused(&cluster, &ann, "resume_failed").await;

    let client = cluster.ws_on(0).await;
    let eve = client.register("eve").await;
    let ban = give(&registry, SanctionKind::Ban, json!({"nick": "eve"})).await;
    assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4006));
    until_refused(&cluster, &eve, "banned").await;
    assert!(registry.lift(SanctionKind::Ban, &ban).await.unwrap());
    until_refused(&cluster, &eve, "resume_failed").await;
    let mut reasons = offline(&registry).await;
    reasons.dedup();
    assert_eq!(reasons, ["ann kicked", "eve banned"]);
    // A kick is no ban.
    cluster.ws_on(1).await.register("ann").await;
    cluster.finish().await;
}

#[tokio::test]
async fn revoked_token_resumes_with_a_newer_one() {
    let cluster = cluster("mixed", 2).await;
    let registry = registry(&cluster);
    let issued = |at: u64| token("user:1", &json!({"iat": at}));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let client = cluster.ws_on(0).await;
    let register = json!({"type": "register", "nick": "una", "token": issued(now - 10)});
    let una = client.must(register).await;
    give(&registry, SanctionKind::Revocation, json!({"user": "user:1"})).await;
    assert_eq!(client.closed_within(EFFECTIVE).await.code, Some(4005));
    let resume = async |token: String| {
        let asked = json!({"type": "register", "nick": "una", "token": token, "resume": una["resume"]});
        cluster.ws_on(1).await.request(asked).await.map(drop).map_err(|refused| refused.code)
    };
    eventually(EFFECTIVE, "the revoked token is refused", async || {
        let refused = resume(issued(now - 10)).await;
        if refused == Err("token_expired".to_owned()) { Ok(()) } else { Err(refused) }
    })
    .await;
    assert_eq!(resume(issued(now + 5)).await, Ok(()));
    assert_eq!(offline(&registry).await, ["una token_expired"], "it was too new to be held");
    cluster.finish().await;
}
