//! The contract of sessions that an order ends: the event names the order, and no token resumes them.

use presence::model::OfflineReason;
use presence::registry::{BeatReport, CarriedOut, MailboxOrder, ReleaseCause, ResumeError};

use super::super::{NickSession, RegistryArm, on_both_arms};
use super::HOLD;

on_both_arms! {
    offline_event_names_its_reason,
    ordered_end_revokes_the_tokens,
    ordered_end_follows_a_resumed_session,
    kick_needs_no_living_gateway,
    orders_outlive_the_loss_of_an_answer,
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

async fn kick_needs_no_living_gateway(arm: &RegistryArm) {
    let (dead, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (dead.user("ann").await, dead.user("bob").await);
    assert!(arm.registry.kick(ann.nick.key()).await.unwrap(), "its gateway does not answer any more");
    dead.fence().await;
    assert!(arm.registry.kick(bob.nick.key()).await.unwrap(), "its gateway is fenced");
    for user in [&ann, &bob] {
        let refused = other.resume(user, user.nick.as_str(), 0, 1).await.err();
        assert_eq!(refused, Some(ResumeError::UnknownToken));
    }
}

async fn orders_outlive_the_loss_of_an_answer(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let beat = async |carried_out| {
        let report = BeatReport { carried_out: Some(carried_out), ..BeatReport::default() };
        let beat = arm.registry.send_beat(&node.incarnation, report).await.unwrap();
        (beat.mailbox, beat.handed_out)
    };
    let kick = async |name| {
        let user = node.user(name).await;
        assert!(arm.registry.kick(user.nick.key()).await.unwrap());
        MailboxOrder::Kick(user.owner.session)
    };
    let (_, first) = beat(CarriedOut::default()).await;
    let ann = kick("ann").await;
    assert_eq!(beat(first).await.0, std::slice::from_ref(&ann), "this answer is lost");
    let bob = kick("bob").await;
    let (orders, second) = beat(first).await;
    assert_eq!(orders, [ann, bob]);
    assert_eq!(beat(second).await.0, [], "it has carried them out, and this answer is lost");
    let eve = kick("eve").await;
    let (orders, third) = beat(second).await;
    assert_eq!(orders, [eve]);
    assert_eq!(beat(third).await.0, []);
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
