//! The contract of resume tokens: the current and the unconfirmed previous token resume a session, no other does.

use std::time::Duration;

use presence::model::{Owner, SessionId};
use presence::registry::{ClaimError, RegistryError, ResumeError, ResumeTicket};

use super::super::{NickSession, RegistryArm, on_both_arms, token};
use super::{HOLD, members};

on_both_arms! {
    token_resumes_session_with_freed_nick,
    token_of_taken_nick_resumes_under_another,
    previous_token_works_until_next_is_confirmed,
    invalid_token_resumes_no_session,
    repeated_resume_returns_same_answer,
}

async fn token_resumes_session_with_freed_nick(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    ann.join("#art").await;
    assert!(ann.leave("#lobby").await && ann.release().await && ann.leave_for_now("#art").await);
    let back = node.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!((&back.found.former, back.rooms()), (&None, vec!["#art"]), "a room that was left is not restored");
    assert!(back.user.is_online().await);

    // The same after the session expired and its hold ended.
    assert!(back.user.detach(Duration::ZERO).await && back.user.expire().await);
    node.user("ann").await.release().await;
    let again = node.resume(&ann, "ann", 1, 2).await.unwrap();
    assert!(again.user.is_online().await && again.user.owner.fence > back.user.owner.fence);
}

async fn token_of_taken_nick_resumes_under_another(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    assert!(ann.detach(Duration::ZERO).await && ann.expire().await && ann.leave_for_now("#lobby").await);
    let stranger = node.user("ann").await;
    let refused = node.resume(&ann, "ann", 0, 1).await.err();
    assert_eq!(refused, Some(ResumeError::Claim(ClaimError::InUse { retry_after: None })));

    let back = node.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!((&back.found.former, back.rooms()), (&None, vec!["#lobby"]));
    back.rejoin().await;
    assert!(stranger.is_online().await && back.user.is_online().await);
    assert_eq!(members(arm, "#lobby").await, ["anna"]);
    // A nick that is held for another session cannot be resumed either.
    assert!(stranger.detach(HOLD).await && stranger.expire().await);
    let refused = node.resume(&ann, "ann", 1, 2).await.err();
    assert!(matches!(refused, Some(ResumeError::Claim(ClaimError::InUse { retry_after: Some(_) }))), "{refused:?}");
    node.resume(&stranger, "ann", 0, 1).await.unwrap();
}

async fn previous_token_works_until_next_is_confirmed(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let session = &ann.owner.session;
    node.resume(&ann, "ann", 0, 1).await.unwrap();
    // The client never received token 1.
    let back = node.resume(&ann, "ann", 0, 2).await.unwrap();
    assert_eq!(node.resume(&ann, "ann", 1, 3).await.err(), Some(ResumeError::UnknownToken));
    assert!(!arm.registry.confirm(session, &token(session, 1)).await.unwrap(), "late, from another connection");
    node.resume(&ann, "ann", 0, 2).await.unwrap();
    assert!(arm.registry.confirm(session, &token(session, 2)).await.unwrap());
    assert!(arm.registry.confirm(session, &token(session, 2)).await.unwrap(), "repeated");
    assert_eq!(node.resume(&ann, "ann", 0, 3).await.err(), Some(ResumeError::UnknownToken));
    let last = node.resume(&ann, "ann", 2, 3).await.unwrap();
    assert!(last.user.owner.fence > back.user.owner.fence);
}

async fn invalid_token_resumes_no_session(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    assert_eq!(node.resume(&ann, "ann", 7, 1).await.err(), Some(ResumeError::UnknownToken), "forged");
    let unknown = NickSession { owner: Owner { session: SessionId::random(), ..ann.owner.clone() }, ..ann.clone() };
    assert_eq!(node.resume(&unknown, "ann", 0, 1).await.err(), Some(ResumeError::UnknownToken), "never seen");
    let ticket =
        ResumeTicket { session: ann.owner.session.clone(), presented: token(&bob.owner.session, 0), user: None };
    let next = token(&bob.owner.session, 1);
    let refused = arm.registry.resume(&node.incarnation, &ticket, &ann.nick, &next).await;
    assert_eq!(refused.err(), Some(ResumeError::UnknownToken), "of another session");
    assert!(!arm.registry.confirm(&unknown.owner.session, &next).await.unwrap());
    assert!(ann.is_online().await && ann.release().await, "the session is unchanged");

    node.fence().await;
    let fenced = node.resume(&bob, "bob", 0, 1).await.err();
    assert_eq!(fenced, Some(ResumeError::Claim(RegistryError::Fenced.into())), "a fenced gateway resumes nothing");
}

async fn repeated_resume_returns_same_answer(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("Ann").await;
    ann.join("#lobby").await;
    let first = there.resume(&ann, "anna", 0, 1).await.unwrap();
    let again = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(first.found, again.found);
    assert_eq!(first.found.former, Some((ann.nick.clone(), ann.owner.clone())));
    let beat = arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert_eq!(beat.mailbox.len(), 1, "the old gateway gets one order");
    assert_eq!(arm.history().await, ["online Ann", "join #lobby Ann", "rename Ann anna"]);
}
