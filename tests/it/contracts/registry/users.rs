//! The contract of nicks that are bound to users: whom they are assigned to, taken over from, and kept for.
//!
//! Invariant: a nick that is bound to a user is assigned to sessions of this user only, and its earlier claim has no
//! effect once another session of the user has it.

use std::time::Duration;

use harness::eventually;
use presence::model::{Owner, SessionId, TokenHash, UserId};
use presence::registry::{ClaimError, ClaimRequest, LocalClaim, MailboxOrder, ReleaseCause, ResumeError, ResumeTicket};
use serde_json::json;

use super::{GatewayLease, NickSession, PATIENCE, RegistryArm, nick, on_both_arms, room, token};

on_both_arms! {
    bound_nick_refuses_all_other_users,
    user_takes_nick_over_from_live_session,
    user_takes_nick_over_from_detached_session,
    replaced_session_takes_its_nick_back,
    renamed_user_gives_up_the_old_nick,
    user_of_fenced_gateway_returns_at_once,
    nick_without_user_keeps_its_old_rule,
    user_keeps_at_most_eight_nicks,
    user_is_found_by_its_id,
}

const HOLD: Duration = Duration::from_secs(60);
const IN_USE: ClaimError = ClaimError::InUse { retry_after: None };

impl GatewayLease {
    async fn claim_for(&self, id: &str, name: &str) -> Result<NickSession, ClaimError> {
        self.claim_in(&SessionId::random(), id, name).await
    }

    async fn claim_in(&self, session: &SessionId, id: &str, name: &str) -> Result<NickSession, ClaimError> {
        let (nick, token, user) = (nick(name), token(session, 0), Some(&user(id)));
        let request = ClaimRequest { incarnation: &self.incarnation, session, nick: &nick, token: &token, user };
        let (fence, _) = self.registry.claim(request).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence };
        Ok(NickSession { registry: self.registry.clone(), nick, owner })
    }

    async fn resume_for(&self, before: &NickSession, id: &str, name: &str) -> Result<NickSession, ResumeError> {
        let session = before.owner.session.clone();
        let (presented, next) = (token(&session, 0), token(&session, 1));
        let ticket = ResumeTicket { session: session.clone(), presented, user: Some(user(id)) };
        let found = self.registry.resume(&self.incarnation, &ticket, &nick(name), &next).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session, fence: found.fence };
        Ok(NickSession { registry: self.registry.clone(), nick: nick(name), owner })
    }

    /// Returns the orders that wait for the gateway.
    async fn orders(&self) -> Vec<MailboxOrder> {
        self.registry.beat(&self.incarnation, &[]).await.unwrap().mailbox
    }
}

impl NickSession {
    fn taken(&self) -> MailboxOrder {
        MailboxOrder::Taken { session: self.owner.session.clone(), fence: self.owner.fence }
    }

    /// Checks that this claim, which another session of its user has replaced, has no effect.
    async fn assert_replaced(&self) {
        assert!(!self.detach(HOLD).await && !self.expire().await && !self.release().await);
        assert!(!self.leave("#lobby").await);
        assert!(self.try_join("#lobby", presence::registry::JoinEntry::New).await.is_err());
    }
}

impl RegistryArm {
    /// Returns the nicks of a user that are online; `None` for an unknown user.
    async fn nicks_of(&self, id: &str) -> Option<Vec<String>> {
        let rows = self.registry.of_user(&user(id)).await.unwrap()?;
        Some(rows.into_iter().map(|row| row.nick).collect())
    }
}

fn user(id: &str) -> UserId {
    UserId::parse(id).unwrap()
}

async fn bound_nick_refuses_all_other_users(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.claim_for("user:1", "Ann").await.unwrap();
    let refused = async |state: &str| {
        assert_eq!(other.claim("ann").await.err(), Some(IN_USE), "a guest, {state}");
        assert_eq!(other.claim_for("user:2", "ANN").await.err(), Some(IN_USE), "another user, {state}");
        let guest = other.claim("guest").await.unwrap();
        let ticket = ResumeTicket {
            session: guest.owner.session.clone(),
            presented: token(&guest.owner.session, 0),
            user: None,
        };
        let next = TokenHash::of(b"next");
        let renamed = other.registry.resume(&other.incarnation, &ticket, &nick("ann"), &next).await;
        assert_eq!(renamed.err(), Some(ResumeError::Claim(IN_USE)), "a guest that resumes, {state}");
        assert_eq!(other.claim_as(&guest.owner.session, "ann").await.err(), Some(IN_USE), "a rename, {state}");
        assert!(guest.release().await);
    };
    refused("online").await;
    assert!(ann.detach(HOLD).await);
    refused("detached").await;
    assert!(ann.expire().await);
    refused("held").await;
    let ann = node.claim_for("user:1", "ann").await.unwrap();
    assert!(ann.release().await);
    refused("offline").await;
    other.claim_for("user:1", "ann").await.unwrap();
}

async fn user_takes_nick_over_from_live_session(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let phone = here.claim_for("user:1", "ann").await.unwrap();
    let bob = there.user("bob").await;
    for session in [&phone, &bob] {
        session.join("#lobby").await;
    }
    phone.join("#alone").await;
    let (lobby, gateway) =
        (arm.listen_to_room("#lobby").await, arm.listen(&arm.keys.node(&here.incarnation).channel()).await);
    let laptop = there.claim_for("user:1", "ann").await.unwrap();
    assert!(laptop.owner.fence > phone.owner.fence);
    phone.assert_replaced().await;
    assert_eq!(here.orders().await, [phone.taken()]);
    let order = format!("T {} {}", phone.owner.session, phone.owner.fence.0);
    assert_eq!(gateway.until("E ").await.first(), Some(&order), "at once over the channel");

    // The replaced session has left its rooms, and the nick has never been offline.
    laptop.join("#lobby").await;
    let deltas: Vec<_> = lobby.deltas_until("joined").await.into_iter().map(|(_, delta)| delta).collect();
    assert_eq!(deltas[0], json!({ "left": [{ "nick": "ann", "reason": "closed" }] }), "{deltas:?}");
    assert!(arm.registry.room(room("#alone").key()).await.unwrap().is_none(), "a room without messages is forgotten");
    let history = arm.history().await;
    assert_eq!(history.iter().filter(|event| *event == "online ann").count(), 1, "{history:?}");
    assert!(!history.iter().any(|event| event.starts_with("offline")), "{history:?}");
    assert!(laptop.release().await);
}

async fn user_takes_nick_over_from_detached_session(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let phone = here.claim_for("user:1", "ann").await.unwrap();
    phone.join("#lobby").await;
    assert!(phone.detach(HOLD).await);
    let laptop = here.claim_for("user:1", "Ann").await.unwrap();
    phone.assert_replaced().await;
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().rooms, [] as [String; 0]);
    laptop.join("#lobby").await;
    assert!(laptop.detach(HOLD).await && laptop.expire().await);
    assert!(
        laptop.leave_with("#lobby", presence::model::LeftReason::Closed, presence::registry::LeaveIntent::ForNow).await
    );
    // A nick that is only held is free for its user.
    let third = there.claim_for("user:1", "ann").await.unwrap();
    assert!(third.release().await);
}

async fn replaced_session_takes_its_nick_back(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let phone = here.claim_for("user:1", "ann").await.unwrap();
    phone.join("#lobby").await;
    let laptop = there.claim_for("user:1", "ann").await.unwrap();
    here.orders().await;
    laptop.join("#hall").await;
    let stranger = there.resume_for(&phone, "user:2", "ann").await.err();
    assert_eq!(stranger, Some(ResumeError::Claim(IN_USE)));

    let back = here.resume_for(&phone, "user:1", "ann").await.unwrap();
    assert!(back.owner.fence > laptop.owner.fence);
    assert_eq!(there.orders().await, [laptop.taken()]);
    laptop.assert_replaced().await;
    back.join("#lobby").await;
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().rooms, ["#lobby"]);
    assert_eq!(arm.history().await.iter().filter(|event| event.contains("line ann")).count(), 1, "online once");
}

async fn renamed_user_gives_up_the_old_nick(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.claim_for("user:1", "ann").await.unwrap();
    let anna = node.claim_in(&ann.owner.session, "user:1", "anna").await.unwrap();
    assert_eq!(arm.nicks_of("user:1").await.unwrap(), ["ann", "anna"]);
    assert!(node.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap());
    let guest = node.claim("ann").await.unwrap();
    assert_eq!(node.claim("anna").await.err(), Some(IN_USE));

    // A resume under another nick gives up the former one, online or held.
    let annie = node.resume_for(&anna, "user:1", "annie").await.unwrap();
    node.claim("anna").await.unwrap();
    assert!(annie.detach(HOLD).await && annie.expire().await);
    let session = &annie.owner.session;
    let ticket = ResumeTicket { session: session.clone(), presented: token(session, 1), user: Some(user("user:1")) };
    let next = token(session, 2);
    node.registry.resume(&node.incarnation, &ticket, &nick("annabel"), &next).await.unwrap();
    node.claim("annie").await.unwrap();
    assert_eq!(arm.nicks_of("user:1").await.unwrap(), ["annabel"]);
    assert!(guest.release().await);
}

async fn user_of_fenced_gateway_returns_at_once(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    here.claim_for("user:1", "ann").await.unwrap().join("#lobby").await;
    here.fence().await;
    assert_eq!(there.claim("ann").await.err(), Some(IN_USE), "a fence ends no binding");
    let back = there.claim_for("user:1", "ann").await.unwrap();
    assert_eq!(arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items, []);
    arm.registry.reap(&here.incarnation, 100).await.unwrap();
    assert!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().online);
    assert!(back.release().await);
}

async fn nick_without_user_keeps_its_old_rule(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let guest = node.claim("ann").await.unwrap();
    assert_eq!(node.claim_for("user:1", "ann").await.err(), Some(IN_USE));
    let lookalike = node.claim_for("user:1", "\u{430}nn").await.err();
    assert_eq!(lookalike, Some(ClaimError::Confusable));
    assert!(guest.release().await);
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().user, None);
    let ann = node.claim_for("user:1", "ann").await.unwrap();
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().user, Some(user("user:1")));
    // The look-alike of a nick that nobody keeps is free, also for another user.
    assert!(ann.release().await);
    node.claim_for("user:2", "\u{430}nn").await.unwrap();
}

async fn user_keeps_at_most_eight_nicks(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let first = node.claim_for("user:1", "online").await.unwrap();
    for number in 0..9 {
        assert!(node.claim_for("user:1", &format!("nick{number}")).await.unwrap().release().await);
    }
    for number in 0..2 {
        node.claim(&format!("nick{number}")).await.unwrap();
    }
    for number in 2..9 {
        assert_eq!(node.claim(&format!("nick{number}")).await.err(), Some(IN_USE), "{number}");
    }
    assert_eq!(arm.nicks_of("user:1").await.unwrap(), ["online"]);

    // With more nicks online, each one is bound as long as it is online, and those that are freed first are free.
    let mut online = vec![first];
    for number in 10..20 {
        online.push(node.claim_for("user:1", &format!("nick{number}")).await.unwrap());
    }
    assert_eq!(arm.nicks_of("user:1").await.unwrap().len(), 11, "a ban by user finds them all");
    let names = online.iter().map(|session| session.nick.as_str().to_owned()).collect::<Vec<_>>();
    for (session, name) in online.iter().zip(&names) {
        assert_eq!(node.claim(name).await.err(), Some(IN_USE), "{name} is online");
        assert!(session.release().await);
    }
    let mut free = Vec::new();
    for name in &names {
        if node.claim(name).await.is_ok() {
            free.push(name.as_str());
        }
    }
    assert_eq!(free, ["online", "nick10", "nick11"], "eight stay bound");
}

async fn user_is_found_by_its_id(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let id = "auth0|Jürgen {1}";
    assert_eq!(arm.nicks_of(id).await, None);
    let ann = node.claim_for(id, "Ann").await.unwrap();
    node.claim_for("user:2", "bob").await.unwrap();
    node.claim("guest").await.unwrap();
    assert_eq!(arm.nicks_of(id).await.unwrap(), ["Ann"]);
    assert_eq!(arm.nicks_of("auth0|j\u{fc}rgen {1}").await, None, "ids are compared byte for byte");
    assert!(ann.release().await);
    assert_eq!(arm.nicks_of(id).await.unwrap(), [] as [&str; 0], "known and offline");
}

#[tokio::test]
async fn reassertion_restores_bindings_and_their_index() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let (ann, bob) = (node.claim_for("user:1", "ann").await.unwrap(), node.user("bob").await);
    let claim = |session: &NickSession, user| LocalClaim {
        nick: session.nick.clone(),
        owner: session.owner.clone(),
        user,
        status: presence::model::Status::default(),
        rooms: Vec::new(),
        token: token(&session.owner.session, 0),
        detached: false,
    };
    let claims = [claim(&ann, Some(Box::new(user("user:1")))), claim(&bob, None)];
    let missing = async || node.registry.audit(&node.incarnation, &claims).await.unwrap().missing;
    assert_eq!(missing().await, []);
    let index = arm.keys.user(&user("user:1").key()).nicks();
    let () = arm.ask(&["DEL", &index]).await;
    assert_eq!(missing().await, std::slice::from_ref(&ann.owner));
    let () = arm.ask(&["HDEL", &arm.keys.nick(ann.nick.key()).record(), "user"]).await;
    let generation = node.registry.leases().await.unwrap().generation.number;
    assert_eq!(node.try_reassert(generation, &claims).await.unwrap(), []);
    assert_eq!(missing().await, []);
    assert_eq!(arm.nicks_of("user:1").await.unwrap(), ["ann"]);
    assert!(ann.release().await && bob.release().await);
    assert_eq!(node.claim("ann").await.err(), Some(IN_USE));
    node.claim("bob").await.unwrap();
    // Index and record end together.
    let lifetimes = async || {
        let record = arm.keys.nick(ann.nick.key()).record();
        [arm.ask::<i64>(&["TTL", &record]).await, arm.ask::<i64>(&["TTL", &index]).await]
    };
    eventually(PATIENCE, "both have the retention time", async || {
        let found = lifetimes().await;
        if found.iter().all(|ttl| (1..=72 * 3600).contains(ttl)) { Ok(()) } else { Err(found) }
    })
    .await;
    node.claim_for("user:1", "ann").await.unwrap();
    assert_eq!(lifetimes().await, [-1, -1]);
}
