//! The contract of held nicks: a hold reserves a nick for its detached session, and ends by expiry or release.
//!
//! Invariant: during a hold neither the nick nor a lookalike can be claimed by another session.

use harness::eventually;
use presence::registry::{ClaimError, DetachOutcome, LeaseTransition, ResumeError};

use super::super::{PATIENCE, RegistryArm, joined, on_both_arms};
use super::{HOLD, SHORT, left, members};

on_both_arms! {
    held_nick_is_refused_until_hold_ends,
    lookalike_of_held_nick_waits_for_hold,
    clean_end_frees_nick_at_once,
    nick_claimed_just_before_is_not_held,
    drained_gateway_holds_nicks_then_announces_leaves,
}

async fn held_nick_is_refused_until_hold_ends(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    assert!(ann.detach(SHORT).await && ann.expire().await);
    let refused = node.claim("Ann").await.err();
    let Some(ClaimError::InUse { retry_after: Some(left) }) = refused else { panic!("{refused:?}") };
    assert!(left <= SHORT, "{left:?}");
    let stranger = eventually(PATIENCE, "the hold is over", || async { node.claim("ann").await }).await;
    assert!(stranger.is_online().await);
    assert!(!ann.release().await && stranger.release().await);
}

async fn lookalike_of_held_nick_waits_for_hold(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let cyrillic = "\u{430}nn";
    let ann = node.user("ann").await;
    assert!(ann.detach(SHORT).await);
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable));
    assert!(ann.expire().await);
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable), "held");
    let other = eventually(PATIENCE, "the hold is over", || async { node.claim(cyrillic).await }).await;
    let late = node.resume(&ann, "ann", 0, 1).await.err();
    assert_eq!(late, Some(ResumeError::Claim(ClaimError::Confusable)), "the lookalike owns the skeleton now");
    assert!(other.release().await);
    node.resume(&ann, "ann", 0, 1).await.unwrap();
}

async fn clean_end_frees_nick_at_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    assert!(ann.detach(HOLD).await);
    assert!(ann.release().await);
    node.user("ann").await;
}

async fn nick_claimed_just_before_is_not_held(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let observer = there.user("bob").await;
    observer.join("#lobby").await;
    for _ in 0..2 {
        assert_eq!(ann.detach_after(HOLD, HOLD).await, DetachOutcome::TooNew, "and again after a lost answer");
    }
    assert!(ann.is_online().await && matches!(there.claim("ann").await, Err(ClaimError::InUse { retry_after: None })));
    assert!(ann.release().await && ann.leave_for_now("#lobby").await);
    // The session returns to its rooms if its nick is still free.
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!(back.rooms(), ["#lobby"]);
    assert_eq!(back.user.detach_after(HOLD, HOLD).await, DetachOutcome::TooNew, "the claim is new again");
    assert!(back.user.release().await);
    there.user("ann").await;
    assert_eq!(ann.detach_after(HOLD, HOLD).await, DetachOutcome::NotOwned);
    // Once a nick is held, it stays held.
    assert_eq!(observer.detach_after(SHORT / 1000, HOLD).await, DetachOutcome::Held);
    assert_eq!(observer.detach_after(HOLD, HOLD).await, DetachOutcome::Held);
}

async fn drained_gateway_holds_nicks_then_announces_leaves(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob, eve) = (here.user("ann").await, here.user("bob").await, there.user("eve").await);
    for user in [&ann, &bob, &eve] {
        user.join("#lobby").await;
    }
    let channel = arm.listen_to_room("#lobby").await;
    arm.registry.set_lease(&here.incarnation, LeaseTransition::Draining).await.unwrap();
    let hold = SHORT * 2;
    assert!(ann.detach(hold).await && bob.detach(hold).await);
    arm.registry.set_lease(&here.incarnation, LeaseTransition::Drained { hold }).await.unwrap();

    assert_eq!(arm.registry.reap(&here.incarnation, 100).await.unwrap(), Default::default(), "the hold has not ended");
    assert!(ann.is_online().await);
    assert_eq!(members(arm, "#lobby").await, ["ann", "bob", "eve"]);
    assert_eq!(arm.registry.stats().await.unwrap().users_online, 3);
    let refused = there.claim("bob").await.err();
    assert!(matches!(refused, Some(ClaimError::InUse { retry_after: Some(_) })), "{refused:?}");
    assert_eq!(there.claim("\u{430}nn").await.err(), Some(ClaimError::Confusable));
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    back.rejoin().await;

    let reaped = eventually(PATIENCE, "the hold is over", || async {
        let reaped = arm.registry.reap(&here.incarnation, 100).await.unwrap();
        if reaped.nicks > 0 { Ok(reaped) } else { Err(reaped) }
    })
    .await;
    assert_eq!((reaped.nicks, reaped.members), (1, 1));
    arm.registry.reap(&here.incarnation, 100).await.unwrap();
    there.user("last").await.join("#lobby").await;
    let deltas = channel.deltas_until("last").await;
    assert_eq!(deltas, [(4, left("bob", "closed")), (5, joined("last"))]);
    assert!(!bob.is_online().await && back.user.is_online().await);
    assert_eq!(arm.history().await[6..8], ["leave #lobby bob closed", "offline bob closed"]);
    there.user("bob").await;
    let late = there.resume(&bob, "bobby", 0, 1).await.unwrap();
    assert_eq!(late.rooms(), ["#lobby"], "the token of an announced leave still works");
}
