//! The contract of sessions that an order ends: the event names the order, and no token resumes them.

use presence::model::OfflineReason;
use presence::registry::{MailboxOrder, ReleaseCause, ResumeError};

use super::super::{NickSession, RegistryArm, on_both_arms};
use super::HOLD;

on_both_arms! {
    offline_event_names_its_reason,
    ordered_end_revokes_the_tokens,
    ordered_end_follows_a_resumed_session,
    other_ends_keep_the_tokens,
}

const FINAL: [OfflineReason; 2] = [OfflineReason::Kicked, OfflineReason::Banned];

impl NickSession {
    async fn ends(&self, reason: OfflineReason) -> bool {
        self.registry.release(&self.nick, &self.owner, ReleaseCause::Offline(reason)).await.unwrap()
    }

    async fn expires(&self, reason: OfflineReason) -> bool {
        self.registry.expire_detached(&self.nick, &self.owner, reason).await.unwrap()
    }
}

async fn offline_event_names_its_reason(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let mut expected = Vec::new();
    for reason in OfflineReason::ALL {
        let ann = node.user("ann").await;
        assert!(ann.ends(reason).await);
        let bob = node.user("bob").await;
        assert!(bob.detach(std::time::Duration::ZERO).await && bob.expires(reason).await);
        for nick in ["ann", "bob"] {
            expected.extend([format!("online {nick}"), format!("offline {nick} {}", reason.as_str())]);
        }
    }
    assert_eq!(arm.history().await, expected);
}

async fn ordered_end_revokes_the_tokens(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    for reason in FINAL {
        let first = node.user("ann").await;
        // Two tokens are valid until the newer one is confirmed.
        let ann = node.resume(&first, "ann", 0, 1).await.unwrap().user;
        assert!(ann.ends(reason).await);
        let bob = node.user("bob").await;
        assert!(bob.detach(HOLD).await && bob.expires(reason).await);
        for (user, tokens) in [(&ann, 0..2), (&bob, 0..1)] {
            for token in tokens {
                for name in [user.nick.as_str(), "other"] {
                    let refused = node.resume(user, name, token, 9).await.err();
                    assert_eq!(refused, Some(ResumeError::UnknownToken), "{reason:?} {name} {token}");
                }
            }
            // Nothing is held for it.
            let next = node.user(user.nick.as_str()).await;
            assert!(next.release().await);
        }
    }
}

async fn ordered_end_follows_a_resumed_session(arm: &RegistryArm) {
    let (one, two) = (arm.node("g1").await, arm.node("g2").await);
    let orders = async || two.registry.beat(&two.incarnation, &[]).await.unwrap().mailbox;
    for (reason, name) in FINAL.into_iter().zip(["ann", "anna"]) {
        let ann = one.user("ann").await;
        let back = two.resume(&ann, name, 0, 1).await.unwrap().user;
        assert!(!ann.ends(reason).await, "it was resumed elsewhere");
        assert_eq!(orders().await, [MailboxOrder::Kick(ann.owner.session.clone())], "{reason:?}");
        assert!(!ann.expires(reason).await);
        assert_eq!(orders().await, [MailboxOrder::Kick(ann.owner.session.clone())], "{reason:?}");
        assert!(!ann.ends(OfflineReason::Closed).await && !ann.expires(OfflineReason::Closed).await);
        assert!(back.ends(reason).await && orders().await.is_empty());
    }
}

async fn other_ends_keep_the_tokens(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    for reason in OfflineReason::ALL.into_iter().filter(|reason| !reason.is_final()) {
        let ann = node.user("ann").await;
        assert!(ann.ends(reason).await);
        let back = node.resume(&ann, "ann", 0, 1).await.unwrap().user;
        assert!(back.release().await, "{reason:?}");
    }
}
