//! Nicknames: at most one owner each, whatever races, dies or looks alike.

use presence::model::{Availability, Fence, Owner, SessionId, Status};
use presence::registry::{ClaimError, MailboxOrder};

use super::{Arm, nick, on_both_arms, room, token};

on_both_arms! {
    of_two_hundred_claims_one_wins,
    a_claim_again_is_the_same_claim,
    a_session_begins_with_an_empty_inbox_of_its_own,
    fences_only_grow,
    what_a_fenced_gateway_owned_is_free,
    only_the_owner_gives_a_nick_back,
    case_does_not_make_another_nick,
    lookalikes_across_scripts_conflict,
    lookalikes_without_a_live_owner_do_not_count,
    a_rename_frees_the_old_nick_and_keeps_the_session,
    another_spelling_is_the_same_claim,
    a_user_who_left_is_offline_and_one_never_seen_unknown,
    a_status_is_kept_and_announced_once,
    a_kick_reaches_the_gateway_both_ways,
}

async fn of_two_hundred_claims_one_wins(arm: &Arm) {
    let nodes = [arm.node("g1").await, arm.node("g2").await];
    let claims = (0..200).map(|number: usize| {
        let node = nodes[number % 2].clone();
        tokio::spawn(async move { node.claim("ann").await.map(|user| user.owner) })
    });
    let mut winners = Vec::new();
    for claim in futures_util::future::join_all(claims).await {
        match claim.unwrap() {
            Ok(owner) => winners.push(owner),
            Err(error) => assert_eq!(error, ClaimError::InUse { retry_after: None }),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(arm.history().await, ["online ann"]);
    assert!(arm.registry.release(&nick("ann"), &winners[0], None).await.unwrap(), "the winner owns it");
}

async fn a_claim_again_is_the_same_claim(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let again = node.claim_as(&ann.owner.session, "ann").await.unwrap();
    assert_eq!(again.owner, ann.owner);
    assert_eq!(
        node.claim("ann").await.err(),
        Some(ClaimError::InUse { retry_after: None }),
        "another session of the same gateway"
    );
    assert_eq!(arm.history().await, ["online ann"]);
    assert_eq!(arm.registry.stats().await.unwrap().users_online, 1);
}

async fn a_session_begins_with_an_empty_inbox_of_its_own(arm: &Arm) {
    let node = arm.node("g1").await;
    let begin = async |session: &SessionId, name: &str| {
        node.registry.claim(&node.incarnation, session, &nick(name), &token(session, 0)).await.unwrap()
    };
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (fence, inbox) = begin(&ann, "ann").await;
    assert!(!inbox.epoch.is_empty() && inbox.top == 0 && inbox.forks.is_empty(), "{inbox:?}");
    assert_eq!(begin(&ann, "ann").await, (fence, inbox.clone()), "asked again");
    assert_ne!(begin(&bob, "bob").await.1.epoch, inbox.epoch);
    let (later, renamed) = begin(&ann, "anna").await;
    assert!(later > fence);
    assert_eq!(renamed, inbox, "under another name it is the same");
}

async fn fences_only_grow(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let mut fences: Vec<Fence> = Vec::new();
    for name in ["ann", "bob", "ann"] {
        let user = node.user(name).await;
        fences.push(user.owner.fence);
        assert!(user.release().await);
    }
    fences.push(node.user("ann").await.owner.fence);
    node.fence().await;
    fences.push(other.user("ann").await.owner.fence);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

async fn what_a_fenced_gateway_owned_is_free(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let dead = node.user("ann").await;
    assert_eq!(other.claim("ann").await.err(), Some(ClaimError::InUse { retry_after: None }));
    node.fence().await;
    assert!(!arm.registry.user(dead.nick.key()).await.unwrap().unwrap().online, "before any reaper came");
    assert_eq!(arm.registry.stats().await.unwrap().users_online, 0);

    let ann = other.user("ann").await;
    assert_eq!(arm.history().await, ["online ann", "offline ann gateway_lost", "online ann"]);
    assert!(!dead.release().await, "the dead owner owns nothing any more");

    let leases = arm.registry.leases().await.unwrap().leases;
    let owns: Vec<_> = leases.iter().filter(|lease| lease.owns).map(|lease| lease.node.as_str()).collect();
    assert_eq!(owns, ["g2"], "nothing is left for the reaper");
    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.more), (0, false));
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
}

async fn only_the_owner_gives_a_nick_back(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    let owner = &ann.owner;
    let strangers = [
        Owner { incarnation: other.incarnation.clone(), ..owner.clone() },
        Owner { session: SessionId::random(), ..owner.clone() },
        Owner { fence: Fence(owner.fence.0 + 1), ..owner.clone() },
        Owner { fence: Fence(owner.fence.0 * 10), ..owner.clone() },
    ];
    for stranger in strangers {
        assert!(!arm.registry.release(&ann.nick, &stranger, None).await.unwrap(), "{stranger:?}");
    }
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(ann.release().await);
    assert!(!ann.release().await, "once");
    assert_eq!(arm.history().await, ["online ann", "offline ann closed"]);

    // A late release of the first claim leaves the second one alone.
    let again = node.user("ann").await;
    assert!(!ann.release().await);
    assert!(again.release().await);
}

async fn case_does_not_make_another_nick(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("Ann").await;
    for name in ["ANN", "ann", "aNN", "ＡＮＮ"] {
        assert_eq!(node.claim(name).await.err(), Some(ClaimError::InUse { retry_after: None }), "{name}");
    }
    assert_eq!(arm.registry.user(nick("aNn").key()).await.unwrap().unwrap().nick, "Ann");
    ann.release().await;
    node.user("ANN").await;
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap().unwrap().nick, "ANN");
}

async fn lookalikes_across_scripts_conflict(arm: &Arm) {
    let node = arm.node("g1").await;
    let cyrillic = "\u{430}nn";
    let ann = node.user("ann").await;
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable));
    ann.release().await;
    let lookalike = node.user(cyrillic).await;
    assert_eq!(node.claim("ann").await.err(), Some(ClaimError::Confusable));
    lookalike.release().await;
    node.user("ann").await;

    // Plain ASCII names are told apart by people; "rn" and "m" share a skeleton.
    assert_eq!(nick("rn").skeleton(), nick("m").skeleton());
    node.user("arn").await;
    node.user("am").await;
    assert_eq!(node.claim("\u{430}m").await.err(), Some(ClaimError::Confusable), "with both of them");
}

async fn lookalikes_without_a_live_owner_do_not_count(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    node.user("\u{430}nn").await;
    node.fence().await;
    let ann = other.user("ann").await;

    // One's own name is no obstacle to a lookalike of it.
    let session = &ann.owner.session;
    let lookalike = other.claim_as(session, "\u{430}nn").await.unwrap();
    assert!(lookalike.owner.fence > ann.owner.fence);
}

async fn a_rename_frees_the_old_nick_and_keeps_the_session(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let anna = node.claim_as(&ann.owner.session, "anna").await.unwrap();
    assert!(arm.registry.release(&ann.nick, &ann.owner, Some(&anna.nick)).await.unwrap());

    assert!(!arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(arm.registry.user(anna.nick.key()).await.unwrap().unwrap().online);
    assert_eq!(arm.history().await, ["online ann", "online anna", "rename ann anna"]);
    node.user("ann").await;
}

async fn another_spelling_is_the_same_claim(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let respelled = node.claim_as(&ann.owner.session, "Ann").await.unwrap();
    assert_eq!(respelled.owner, ann.owner);
    assert!(arm.registry.release(&ann.nick, &ann.owner, Some(&respelled.nick)).await.unwrap());

    let user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((user.nick.as_str(), user.online), ("Ann", true));
    assert_eq!(arm.history().await, ["online ann", "rename ann Ann"]);
    assert!(respelled.release().await);
}

async fn a_user_who_left_is_offline_and_one_never_seen_unknown(arm: &Arm) {
    let node = arm.node("g1").await;
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap(), None);

    let ann = node.user("Ann").await;
    ann.join("#Lobby").await;
    ann.join("#art").await;
    let online = arm.registry.user(nick("ann").key()).await.unwrap().unwrap();
    assert_eq!((online.nick.as_str(), online.online), ("Ann", true));
    assert_eq!(online.rooms, ["#art", "#Lobby"]);
    assert_eq!(online.online_since, Some(online.last_active));

    ann.leave("#lobby").await;
    ann.leave("#art").await;
    ann.release().await;
    let offline = arm.registry.user(nick("ann").key()).await.unwrap().unwrap();
    assert_eq!((offline.nick.as_str(), offline.online, offline.online_since), ("Ann", false, None));
    assert_eq!(offline.last_active, online.last_active);
    assert!(offline.rooms.is_empty());
    assert!(arm.registry.users(None, 10).await.unwrap().items.is_empty());
}

async fn a_status_is_kept_and_announced_once(arm: &Arm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    for name in ["#one", "#two", "#three"] {
        ann.join(name).await;
    }
    let heard = arm.listen(&arm.keys.room(room("#one").key()).channel()).await;
    let elsewhere = arm.listen(&arm.keys.room(room("#three").key()).channel()).await;
    let away = Status { status: Availability::Away, text: "tea \"\u{1f375}\"".to_owned() };
    let rooms = [room("#one"), room("#two"), room("#never")].map(|room| room.key().clone());
    for _ in 0..2 {
        assert!(arm.registry.set_status(&ann.nick, &ann.owner, &away, &rooms).await.unwrap());
    }
    assert!(!arm.registry.set_status(&ann.nick, &bob.owner, &Status::default(), &rooms).await.unwrap());

    bob.join("#one").await;
    bob.join("#three").await;
    let told = heard.deltas_until("bob").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].1["status"][0]["nick"], "ann");
    assert_eq!(told[0].1["status"][0]["text"], "tea \"\u{1f375}\"");
    assert_eq!((told[0].0, told[1].0), (2, 3));
    assert_eq!(elsewhere.deltas_until("bob").await.len(), 1, "only in the rooms given");

    assert_eq!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().status, away);
    let members = arm.registry.members(room("#one").key(), None, 10).await.unwrap().items;
    assert_eq!(members[0].status, away);
    assert!(arm.registry.room(room("#never").key()).await.unwrap().is_none());

    // The next claim of the nick begins afresh.
    ann.release().await;
    node.user("ann").await;
    assert_eq!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().status, Status::default());
}

async fn a_kick_reaches_the_gateway_both_ways(arm: &Arm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    let heard = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;

    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    let order = format!("K {}", ann.owner.session);
    assert_eq!(heard.until("K ").await, [order]);

    assert!(arm.registry.beat(&other.incarnation, &[]).await.unwrap().mailbox.is_empty());
    let mailbox = arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox;
    assert_eq!(mailbox, [MailboxOrder::Kick(ann.owner.session.clone())]);
    assert!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox.is_empty(), "once");

    ann.release().await;
    assert!(!arm.registry.kick(ann.nick.key()).await.unwrap(), "nobody owns it");
    assert!(!arm.registry.kick(nick("nobody").key()).await.unwrap());
    node.user("ann").await;
    node.fence().await;
    assert!(!arm.registry.kick(ann.nick.key()).await.unwrap(), "nobody alive owns it");
}
