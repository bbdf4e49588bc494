//! Tokens: which of them lead back to a session, and to what.

use std::time::Duration;

use presence::model::{Owner, SessionId};
use presence::registry::{ClaimError, RegistryError, ResumeError, ResumeTicket};

use super::super::{Arm, User, on_both_arms, token};
use super::{HOLD, members};

on_both_arms! {
    a_token_finds_its_freed_nick_again,
    a_token_whose_nick_was_taken_resumes_under_another,
    the_token_before_is_valid_until_the_next_is_confirmed,
    what_is_no_token_resumes_nothing,
    a_resume_asked_again_gives_the_same_answer,
}

async fn a_token_finds_its_freed_nick_again(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    ann.join("#art").await;
    assert!(ann.leave("#lobby").await && ann.release().await && ann.lose("#art").await);
    let back = node.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!((&back.found.was, back.rooms()), (&None, vec!["#art"]), "not what she had left");
    assert!(back.user.is_online().await);

    // The same after a departure whose hold is over.
    assert!(back.user.detach(Duration::ZERO).await && back.user.expire_detached().await);
    node.user("ann").await.release().await;
    let again = node.resume(&ann, "ann", 1, 2).await.unwrap();
    assert!(again.user.is_online().await && again.user.owner.fence > back.user.owner.fence);
}

async fn a_token_whose_nick_was_taken_resumes_under_another(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    assert!(ann.detach(Duration::ZERO).await && ann.expire_detached().await && ann.lose("#lobby").await);
    let stranger = node.user("ann").await;
    let refused = node.resume(&ann, "ann", 0, 1).await.err();
    assert_eq!(refused, Some(ResumeError::Claim(ClaimError::InUse { retry_after: None })));

    let back = node.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!((&back.found.was, back.rooms()), (&None, vec!["#lobby"]));
    back.rejoin().await;
    assert!(stranger.is_online().await && back.user.is_online().await);
    assert_eq!(members(arm, "#lobby").await, ["anna"]);
    // The nick that another session holds is not this one's to resume either.
    assert!(stranger.detach(HOLD).await && stranger.expire_detached().await);
    let refused = node.resume(&ann, "ann", 1, 2).await.err();
    assert!(matches!(refused, Some(ResumeError::Claim(ClaimError::InUse { retry_after: Some(_) }))), "{refused:?}");
    node.resume(&stranger, "ann", 0, 1).await.unwrap();
}

async fn the_token_before_is_valid_until_the_next_is_confirmed(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let session = &ann.owner.session;
    node.resume(&ann, "ann", 0, 1).await.unwrap();
    // The client never heard of secret 1.
    let back = node.resume(&ann, "ann", 0, 2).await.unwrap();
    assert_eq!(node.resume(&ann, "ann", 1, 3).await.err(), Some(ResumeError::UnknownToken));
    assert!(!arm.registry.confirm(session, &token(session, 1)).await.unwrap(), "late, from another connection");
    node.resume(&ann, "ann", 0, 2).await.unwrap();
    assert!(arm.registry.confirm(session, &token(session, 2)).await.unwrap());
    assert!(arm.registry.confirm(session, &token(session, 2)).await.unwrap(), "again");
    assert_eq!(node.resume(&ann, "ann", 0, 3).await.err(), Some(ResumeError::UnknownToken));
    let last = node.resume(&ann, "ann", 2, 3).await.unwrap();
    assert!(last.user.owner.fence > back.user.owner.fence);
}

async fn what_is_no_token_resumes_nothing(arm: &Arm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    assert_eq!(node.resume(&ann, "ann", 7, 1).await.err(), Some(ResumeError::UnknownToken), "forged");
    let nobody = User { owner: Owner { session: SessionId::random(), ..ann.owner.clone() }, ..ann.clone() };
    assert_eq!(node.resume(&nobody, "ann", 0, 1).await.err(), Some(ResumeError::UnknownToken), "never seen");
    let ticket = ResumeTicket { session: ann.owner.session.clone(), presented: token(&bob.owner.session, 0) };
    let next = token(&bob.owner.session, 1);
    let refused = arm.registry.resume(&node.incarnation, &ticket, &ann.nick, &next).await;
    assert_eq!(refused.err(), Some(ResumeError::UnknownToken), "of another session");
    assert!(!arm.registry.confirm(&nobody.owner.session, &next).await.unwrap());
    assert!(ann.is_online().await && ann.release().await, "hers as before");

    node.fence().await;
    let fenced = node.resume(&bob, "bob", 0, 1).await.err();
    assert_eq!(fenced, Some(ResumeError::Claim(RegistryError::Fenced.into())), "a gateway that is gone itself");
}

async fn a_resume_asked_again_gives_the_same_answer(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("Ann").await;
    ann.join("#lobby").await;
    let first = there.resume(&ann, "anna", 0, 1).await.unwrap();
    let again = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(first.found, again.found);
    assert_eq!(first.found.was, Some((ann.nick.clone(), ann.owner.clone())));
    let beat = arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert_eq!(beat.mailbox.len(), 1, "and the old gateway one order");
    assert_eq!(arm.history().await, ["online Ann", "join #lobby Ann", "rename Ann anna"]);
}
