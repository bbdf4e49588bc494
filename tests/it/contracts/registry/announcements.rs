//! The contract of announcements: to every gateway that serves, over its channel and by its mailbox, once for a key.

use presence::model::AnnouncementOrder;
use presence::registry::{AnnouncementRequest, BeatReport, LeaseTransition, MailboxOrder, RegistryError};

use super::{GatewayLease, RegistryArm, on_both_arms};

on_both_arms! {
    announcement_reaches_every_serving_gateway_twice,
    known_key_of_the_application_sends_nothing,
    full_mailbox_refuses_an_announcement,
}

pub(super) fn announcement(application: &str, key: Option<&str>, id: &str) -> AnnouncementRequest {
    let (application, key, id) = (application.to_owned(), key.map(str::to_owned), id.to_owned());
    let body = serde_json::from_str(r#"{"at": "12:00 %s"}"#).unwrap();
    AnnouncementRequest { application, key, id, tags: vec!["beta".to_owned(), "%d \"x\"".to_owned()], body }
}

impl RegistryArm {
    /// Returns the announcements that wait for a gateway.
    async fn announced(&self, node: &GatewayLease) -> Vec<AnnouncementOrder> {
        let beat = self.registry.send_beat(&node.incarnation, BeatReport::default()).await.unwrap();
        let announced = beat.mailbox.into_iter().map(|order| match order {
            MailboxOrder::Announce(announcement) => announcement,
            order => panic!("{order:?}"),
        });
        announced.collect()
    }

    async fn announced_ids(&self, node: &GatewayLease) -> Vec<String> {
        self.announced(node).await.into_iter().map(|announcement| announcement.id).collect()
    }
}

async fn announcement_reaches_every_serving_gateway_twice(arm: &RegistryArm) {
    let (g1, g2, ended) = (arm.node("g1").await, arm.node("g2").await, arm.node("g3").await);
    arm.registry.set_lease(&g2.incarnation, LeaseTransition::Draining).await.unwrap();
    let hold = std::time::Duration::from_secs(60);
    arm.registry.set_lease(&ended.incarnation, LeaseTransition::Drained { hold }).await.unwrap();
    let channel = |node: &GatewayLease| arm.keys.node(&node.incarnation).channel().to_string();
    let (first, second) = (arm.listen(&channel(&g1)).await, arm.listen(&channel(&g2)).await);
    let request = announcement("app", None, "a1");
    let sent = arm.registry.announce(&request).await.unwrap().unwrap();
    assert_eq!((sent.id.as_str(), sent.duplicate), ("a1", false));
    let mut texts_of_channels = Vec::new();
    for log in [first, second] {
        let texts = log.until("A ").await;
        let (head, text) = texts.last().unwrap().split_once('\n').unwrap();
        assert_eq!(head, format!("A {}", text.len()));
        let announced: AnnouncementOrder = serde_json::from_str(text).unwrap();
        assert_eq!((announced.id.as_str(), announced.time, &announced.tags), ("a1", sent.time, &request.tags));
        assert_eq!(announced.body.get(), request.body.get(), "byte for byte");
        texts_of_channels.push(announced);
    }
    for (node, announced) in [&g1, &g2].into_iter().zip(texts_of_channels) {
        assert_eq!(arm.announced(node).await, [announced], "the mailbox has the same");
    }
    assert_eq!(arm.registry.announce(&request).await.unwrap(), Some(sent), "a repeat after a lost answer");
    assert_eq!(arm.announced_ids(&g1).await, [] as [&str; 0]);
}

async fn known_key_of_the_application_sends_nothing(arm: &RegistryArm) {
    let g1 = arm.node("g1").await;
    let announce = async |application, key, id| {
        let sent = arm.registry.announce(&announcement(application, key, id)).await.unwrap().unwrap();
        (sent.id, sent.duplicate)
    };
    let sent = |id: &str, duplicate| (id.to_owned(), duplicate);
    assert_eq!(announce("app", Some("k"), "a1").await, sent("a1", false));
    assert_eq!(announce("app", Some("k"), "a2").await, sent("a1", true));
    assert_eq!(announce("other", Some("k"), "a3").await, sent("a3", false), "keys of two applications are apart");
    assert_eq!(announce("app", Some("l"), "a4").await, sent("a4", false));
    assert_eq!(arm.announced_ids(&g1).await, ["a1", "a3", "a4"]);
    if arm.is_redis() {
        let keys: Vec<String> = arm.ask(&["KEYS", "*announced:*"]).await;
        assert_eq!(keys.len(), 3);
        for key in keys {
            let seconds: i64 = arm.ask(&["TTL", &key]).await;
            assert!((290..=300).contains(&seconds), "{key} ends in {seconds} s");
        }
    }
}

async fn full_mailbox_refuses_an_announcement(arm: &RegistryArm) {
    let (g1, g2) = (arm.node("g1").await, arm.node("g2").await);
    for number in 0..128 {
        arm.registry.announce(&announcement("app", None, &format!("a{number}"))).await.unwrap().unwrap();
    }
    assert_eq!(arm.announced(&g2).await.len(), 128);
    let request = announcement("app", Some("k"), "late");
    assert_eq!(arm.registry.announce(&request).await, Ok(None), "g1 has not collected its mailbox");
    assert_eq!(arm.announced(&g2).await, [], "a refused announcement reaches no gateway");
    assert_eq!(arm.announced(&g1).await.len(), 128);
    assert!(matches!(arm.registry.announce(&request).await, Ok::<_, RegistryError>(Some(sent)) if !sent.duplicate));
}
