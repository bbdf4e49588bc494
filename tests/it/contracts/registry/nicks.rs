//! The contract of nicks: at most one owner each, under races, crashes and lookalike names.

use std::time::Duration;

use presence::model::{Availability, Fence, LookalikePolicy, Owner, RoomEntryOrder, SessionId, Status};
use presence::registry::{ClaimError, ClaimRequest, MailboxOrder, ReleaseCause};

use super::{GatewayLease, RegistryArm, member, nick, on_both_arms, room, token};

on_both_arms! {
    one_of_two_hundred_claims_wins,
    repeated_claim_returns_the_same_owner,
    new_session_gets_its_own_empty_inbox,
    fences_grow_with_every_claim,
    fenced_gateways_nicks_can_be_claimed,
    only_the_owner_releases_a_nick,
    case_variants_share_one_nick,
    lookalike_nicks_across_scripts_conflict,
    ascii_lookalikes_conflict_unless_allowed,
    respelling_into_a_lookalike_is_refused,
    undone_rename_keeps_lookalikes_of_the_nick_away,
    lookalikes_without_live_owner_are_ignored,
    last_owner_among_many_lookalikes_still_conflicts,
    rename_frees_old_nick_and_keeps_session,
    respelled_nick_keeps_the_same_claim,
    departed_user_is_offline_and_stranger_unknown,
    status_is_stored_and_announced_once,
    kick_reaches_gateway_by_channel_and_mailbox,
    entry_order_reaches_gateway_of_connected_session,
}

async fn one_of_two_hundred_claims_wins(arm: &RegistryArm) {
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
    assert!(arm.registry.release(&nick("ann"), &winners[0], ReleaseCause::CLOSED).await.unwrap(), "the winner owns it");
}

async fn repeated_claim_returns_the_same_owner(arm: &RegistryArm) {
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

async fn new_session_gets_its_own_empty_inbox(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let begin_session = async |session: &SessionId, name: &str| {
        node.registry
            .claim(ClaimRequest {
                incarnation: &node.incarnation,
                session,
                nick: &nick(name),
                token: &token(session, 0),
                user: None,
            })
            .await
            .unwrap()
    };
    let (ann, bob) = (SessionId::random(), SessionId::random());
    let (fence, inbox) = begin_session(&ann, "ann").await;
    assert!(!inbox.epoch.is_empty() && inbox.seq == 0 && inbox.forks.is_empty(), "{inbox:?}");
    assert_eq!(begin_session(&ann, "ann").await, (fence, inbox.clone()), "repeated");
    assert_ne!(begin_session(&bob, "bob").await.1.epoch, inbox.epoch);
    let (later, renamed) = begin_session(&ann, "anna").await;
    assert!(later > fence);
    assert_eq!(renamed, inbox, "a rename keeps the inbox");
}

async fn fences_grow_with_every_claim(arm: &RegistryArm) {
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

async fn fenced_gateways_nicks_can_be_claimed(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let fenced = node.user("ann").await;
    assert_eq!(other.claim("ann").await.err(), Some(ClaimError::InUse { retry_after: None }));
    node.fence().await;
    assert!(!arm.registry.user(fenced.nick.key()).await.unwrap().unwrap().online, "offline before the reaper runs");
    assert_eq!(arm.registry.stats().await.unwrap().users_online, 0);

    let ann = other.user("ann").await;
    assert_eq!(arm.history().await, ["online ann", "offline ann gateway_lost", "online ann"]);
    assert!(!fenced.release().await, "the fenced owner has lost the nick");

    let leases = arm.registry.leases().await.unwrap().leases;
    let owns: Vec<_> = leases.iter().filter(|lease| lease.owns).map(|lease| lease.node.as_str()).collect();
    assert_eq!(owns, ["g2"], "the reaper has nothing left");
    let reaped = arm.registry.reap(&node.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.more), (0, false));
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
}

async fn only_the_owner_releases_a_nick(arm: &RegistryArm) {
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
        assert!(!arm.registry.release(&ann.nick, &stranger, ReleaseCause::CLOSED).await.unwrap(), "{stranger:?}");
    }
    assert!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(ann.release().await);
    assert!(!ann.release().await, "only once");
    assert_eq!(arm.history().await, ["online ann", "offline ann closed"]);

    // A late release of the first claim leaves the second one alone.
    let again = node.user("ann").await;
    assert!(!ann.release().await);
    assert!(again.release().await);
}

async fn case_variants_share_one_nick(arm: &RegistryArm) {
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

async fn lookalike_nicks_across_scripts_conflict(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let cyrillic = "\u{430}nn";
    let ann = node.user("ann").await;
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable));
    ann.release().await;
    let lookalike = node.user(cyrillic).await;
    assert_eq!(node.claim("ann").await.err(), Some(ClaimError::Confusable));
    lookalike.release().await;
    node.user("ann").await;

    // In capitals, too: of a name and its look-alike either may have them.
    let tom = node.user("Tom").await;
    for name in ["\u{422}om", "\u{422}OM"] {
        assert_eq!(node.claim(name).await.err(), Some(ClaimError::Confusable), "{name}");
    }
    // A small Cyrillic letter that does not look like the Latin one.
    assert!(node.user("\u{442}\u{43E}m").await.release().await);
    tom.release().await;
    let lookalike = node.user("\u{422}om").await;
    assert_eq!(node.claim("TOM").await.err(), Some(ClaimError::Confusable));
    // Its small letter looks like a third one, which looks like no capital.
    assert_eq!(node.claim("\u{1D1B}om").await.err(), Some(ClaimError::Confusable));
    lookalike.release().await;
    node.user("TOM").await;
}

async fn ascii_lookalikes_conflict_unless_allowed(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    for (name, lookalike) in [("paypal", "paypaI"), ("modern", "rnodern"), ("Ivar", "lvar"), ("ann0", "annO")] {
        let owned = node.user(name).await;
        assert_eq!(node.claim(lookalike).await.err(), Some(ClaimError::Confusable), "{lookalike}");
        owned.release().await;
        let owned = node.user(lookalike).await;
        assert_eq!(node.claim(name).await.err(), Some(ClaimError::Confusable), "{name}");
        owned.release().await;
    }

    let registry = arm.registry_with(LookalikePolicy::ExceptAscii);
    let node = GatewayLease { registry, ..node };
    node.user("arn").await;
    node.user("am").await;
    assert_eq!(node.claim("\u{430}m").await.err(), Some(ClaimError::Confusable), "conflicts with both");
}

async fn respelling_into_a_lookalike_is_refused(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let owned = node.user("paypal").await;
    let other = node.user("paypai").await;
    assert_eq!(node.claim_as(&other.owner.session, "paypaI").await.err(), Some(ClaimError::Confusable));
    assert_eq!(arm.registry.user(other.nick.key()).await.unwrap().unwrap().nick, "paypai", "it keeps its spelling");

    // A spelling that is given up is free again.
    owned.release().await;
    node.claim_as(&other.owner.session, "paypaI").await.unwrap();
    assert_eq!(node.claim("paypal").await.err(), Some(ClaimError::Confusable));
    node.claim_as(&other.owner.session, "paypai").await.unwrap();
    node.user("paypal").await;
}

async fn undone_rename_keeps_lookalikes_of_the_nick_away(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    // The session takes a look-alike of its own nick, and gives that one up.
    let lookalike = node.claim_as(&ann.owner.session, "\u{430}nn").await.unwrap();
    assert!(lookalike.release().await);
    assert_eq!(node.claim("\u{430}nn").await.err(), Some(ClaimError::Confusable));
}

async fn lookalikes_without_live_owner_are_ignored(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    node.user("\u{430}nn").await;
    node.fence().await;
    let ann = other.user("ann").await;

    // A session may claim a lookalike of its own nick.
    let session = &ann.owner.session;
    let lookalike = other.claim_as(session, "\u{430}nn").await.unwrap();
    assert!(lookalike.owner.fence > ann.owner.fence);
}

async fn last_owner_among_many_lookalikes_still_conflicts(arm: &RegistryArm) {
    let registry = arm.registry_with(LookalikePolicy::ExceptAscii);
    let node = GatewayLease { registry, ..arm.node("g1").await };
    // One more than Redis examines when a hold begins.
    let users = node.lookalikes(17).await;
    for user in &users[..16] {
        assert!(user.detach(Duration::ZERO).await && user.expire().await);
    }
    assert_eq!(node.claim("\u{441}lllll").await.err(), Some(ClaimError::Confusable));
    assert!(users[16].release().await);
    node.user("\u{441}lllll").await;
}

async fn rename_frees_old_nick_and_keeps_session(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let anna = node.claim_as(&ann.owner.session, "anna").await.unwrap();
    assert!(arm.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap());

    assert!(!arm.registry.user(ann.nick.key()).await.unwrap().unwrap().online);
    assert!(arm.registry.user(anna.nick.key()).await.unwrap().unwrap().online);
    assert_eq!(arm.history().await, ["online ann", "online anna", "rename ann anna"]);
    node.user("ann").await;
}

async fn respelled_nick_keeps_the_same_claim(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let respelled = node.claim_as(&ann.owner.session, "Ann").await.unwrap();
    assert_eq!(respelled.owner, ann.owner);
    assert!(arm.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&respelled.nick)).await.unwrap());

    let user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((user.nick.as_str(), user.online), ("Ann", true));
    assert_eq!(arm.history().await, ["online ann", "rename ann Ann"]);
    assert!(respelled.release().await);
}

async fn departed_user_is_offline_and_stranger_unknown(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert_eq!(arm.registry.user(nick("ann").key()).await.unwrap(), None);

    let ann = node.user("Ann").await;
    ann.join("#Lobby").await;
    ann.join("#art").await;
    let online = arm.registry.user(nick("ann").key()).await.unwrap().unwrap();
    assert_eq!((online.nick.as_str(), online.online), ("Ann", true));
    assert_eq!(online.rooms, ["#art", "#Lobby"]);
    assert_eq!(online.online_since, Some(online.last_active));
    assert_eq!(online.incarnation.as_deref(), Some(ann.owner.incarnation.as_str()));

    ann.leave("#lobby").await;
    ann.leave("#art").await;
    ann.release().await;
    let offline = arm.registry.user(nick("ann").key()).await.unwrap().unwrap();
    assert_eq!((offline.nick.as_str(), offline.online, offline.online_since), ("Ann", false, None));
    assert_eq!(offline.last_active, online.last_active);
    assert!(offline.rooms.is_empty() && offline.incarnation.is_none());
    assert!(arm.registry.users(None, 10).await.unwrap().items.is_empty());
}

async fn status_is_stored_and_announced_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    for name in ["#one", "#two", "#three"] {
        ann.join(name).await;
    }
    let room_channel = arm.listen_to_room("#one").await;
    let other_channel = arm.listen_to_room("#three").await;
    let away = Status { status: Availability::Away, text: "tea \"\u{1f375}\"".to_owned() };
    let rooms = [room("#one"), room("#two"), room("#never")].map(|room| room.key().clone());
    for _ in 0..2 {
        assert!(arm.registry.set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &away), &rooms).await.unwrap());
    }
    assert!(
        !arm.registry
            .set_status(ann.nick.key(), &bob.owner, &member(&ann.nick, &Status::default()), &rooms)
            .await
            .unwrap()
    );

    bob.join("#one").await;
    bob.join("#three").await;
    let deltas = room_channel.deltas_until("bob").await;
    assert_eq!(deltas.len(), 2, "{deltas:?}");
    assert_eq!(deltas[0].1["status"][0]["nick"], "ann");
    assert_eq!(deltas[0].1["status"][0]["text"], "tea \"\u{1f375}\"");
    assert_eq!((deltas[0].0, deltas[1].0), (2, 3));
    assert_eq!(other_channel.deltas_until("bob").await.len(), 1, "only in the given rooms");

    assert_eq!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().status, away);
    let members = arm.registry.members(room("#one").key(), None, 10).await.unwrap().items;
    assert_eq!(members[0].status, away);
    assert!(arm.registry.room(room("#never").key()).await.unwrap().is_none());

    // The next claim of the nick starts with the default status.
    ann.release().await;
    node.user("ann").await;
    assert_eq!(arm.registry.user(ann.nick.key()).await.unwrap().unwrap().status, Status::default());
}

async fn kick_reaches_gateway_by_channel_and_mailbox(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    let channel = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;

    assert!(arm.registry.kick(ann.nick.key()).await.unwrap());
    let order = format!("K {}", ann.owner.session);
    assert_eq!(channel.until("K ").await, [order]);

    assert!(arm.registry.beat(&other.incarnation, &[]).await.unwrap().mailbox.is_empty());
    let mailbox = arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox;
    assert_eq!(mailbox, [MailboxOrder::Kick(ann.owner.session.clone())]);
    assert!(arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox.is_empty(), "only once");

    ann.release().await;
    assert!(!arm.registry.kick(ann.nick.key()).await.unwrap(), "the nick has no owner");
    assert!(!arm.registry.kick(nick("nobody").key()).await.unwrap());
}

async fn entry_order_reaches_gateway_of_connected_session(arm: &RegistryArm) {
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let ann = node.user("ann").await;
    let channel = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;
    let tea = room("#Tea");
    let order = async |name: &str| arm.registry.order_entry(nick(name).key(), &tea).await.unwrap();
    let waiting = async || arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox;

    assert!(order("ANN").await);
    let texts = channel.until("J ").await;
    let (head, text) = texts.last().unwrap().split_once('\n').unwrap();
    assert_eq!(head, format!("J {} {}", ann.owner.session, text.len()));
    let entry: RoomEntryOrder = serde_json::from_str(text).unwrap();
    assert_eq!((&entry.session, entry.room.as_str()), (&ann.owner.session, "#Tea"));
    assert!(arm.registry.beat(&other.incarnation, &[]).await.unwrap().mailbox.is_empty());
    assert_eq!(waiting().await, [MailboxOrder::Enter(entry.clone())]);

    assert!(order("ann").await);
    let later = waiting().await;
    let [MailboxOrder::Enter(later)] = &later[..] else { panic!("{later:?}") };
    assert_ne!(later.number, entry.number, "a later order is another one");

    assert!(!order("nobody").await);
    assert!(ann.detach(Duration::from_secs(60)).await);
    assert!(!order("ann").await, "the session has no connection");
    let eve = node.user("eve").await;
    node.fence().await;
    assert!(!order("eve").await, "the gateway of {} is fenced", eve.nick);
    assert_eq!(arm.registry.members(tea.key(), None, 10).await.unwrap().items, [], "an order writes no member");
}
