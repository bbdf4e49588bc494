//! The contract of moderation: the store decides at the moment of the change, and tells the room and the gateways once.

use std::time::Duration;

use harness::eventually;
use presence::model::moderation::{
    Moderation, ModerationAction, ModerationOrder, ModerationTarget, RemovalReason, RoomRemoval, RoomRole,
};
use presence::model::{Identity, MemberInfo, Nick, Owner, SessionId, Status, UserId};
use presence::registry::{
    ClaimRequest, JoinEntry, JoinRequest, JoinedAt, MailboxOrder, ModerationCaller, ModerationError, ModerationRequest,
    RegistryError, ReleaseCause,
};
use serde_json::json;

use super::{GatewayLease, NickSession, PATIENCE, RegistryArm, nick, on_both_arms, room, token};

on_both_arms! {
    kick_removes_announces_and_orders_once,
    plain_member_moderates_nothing,
    deposed_moderator_changes_nothing_more,
    moderator_cannot_act_on_owners,
    last_owner_of_room_stays_owner,
    ban_refuses_joins_until_its_end,
    ban_of_user_removes_every_nick,
    ban_of_user_finds_any_number_of_nicks,
    banned_room_is_not_resumed,
    mute_ends_with_its_time,
    topic_needs_role_once_there_are_roles,
    renamed_guest_is_found_by_former_nick,
    joined_reports_topic_and_role,
    claim_and_api_moderate_without_role,
    unknown_people_and_rooms_are_refused,
    two_admins_are_applied_in_one_order,
    moderated_room_outlives_its_last_member,
    rename_to_banned_nick_keeps_the_member,
}

use ModerationAction::{Ban, Deop, Invite, Kick, Mute, Op, Topic, Unban, Unmute};

fn by_nick(action: ModerationAction, name: &str) -> ModerationOrder {
    ModerationOrder::new(action, Some(ModerationTarget::Nick(nick(name))))
}

fn by_user(action: ModerationAction, user: &str) -> ModerationOrder {
    ModerationOrder::new(action, Some(ModerationTarget::User(UserId::parse(user).unwrap())))
}

fn topic(text: &str) -> ModerationOrder {
    ModerationOrder { text: text.to_owned(), ..ModerationOrder::new(Topic, None) }
}

impl NickSession {
    async fn moderate(&self, name: &str, order: &ModerationOrder) -> Result<Moderation, ModerationError> {
        self.moderate_with(name, order, false).await
    }

    async fn moderate_with(
        &self,
        name: &str,
        order: &ModerationOrder,
        may_moderate: bool,
    ) -> Result<Moderation, ModerationError> {
        let caller = ModerationCaller::Member { nick: &self.nick, owner: &self.owner, may_moderate };
        self.registry.moderate(ModerationRequest { room: &room(name), caller, order }).await
    }

    async fn join_as_user(&self, name: &str, user: &str) -> Result<JoinedAt, RegistryError> {
        let (room, status, user) = (room(name), Status::default(), UserId::parse(user).unwrap());
        let (nick, owner, entry) = (&self.nick, &self.owner, JoinEntry::New);
        let request =
            JoinRequest { room: &room, nick, owner, user: Some(&user), status: &status, entry, moderates: false };
        self.registry.join(request).await
    }
}

impl GatewayLease {
    async fn user_with_id(&self, name: &str, user: &str) -> NickSession {
        let (session, nick, user) = (SessionId::random(), nick(name), UserId::parse(user).unwrap());
        let request = ClaimRequest {
            incarnation: &self.incarnation,
            session: &session,
            nick: &nick,
            token: &token(&session, 0),
            user: Some(&user),
        };
        let (fence, _) = self.registry.claim(request).await.unwrap();
        let owner = Owner { incarnation: self.incarnation.clone(), session, fence };
        NickSession { registry: self.registry.clone(), nick, owner }
    }

    /// Returns the removals that wait in the mailbox.
    async fn removals(&self) -> Vec<RoomRemoval> {
        let beat = self.registry.beat(&self.incarnation, &[]).await.unwrap();
        let removal = |order| match order {
            MailboxOrder::Remove(removal) => removal,
            other => panic!("{other:?}"),
        };
        beat.mailbox.into_iter().map(removal).collect()
    }
}

impl RegistryArm {
    async fn set_role(&self, name: &str, person: &str, role: Option<RoomRole>) -> Result<Moderation, ModerationError> {
        self.registry.set_role(&room(name), (ModerationTarget::Nick(nick(person)), role), "app").await
    }

    /// Two users in a room, of which the first one is its owner.
    async fn owner_and_member(&self, node: &GatewayLease) -> (NickSession, NickSession) {
        let (ann, bob) = (node.user("ann").await, node.user("bob").await);
        ann.join("#lobby").await;
        bob.join("#lobby").await;
        self.set_role("#lobby", "ann", Some(RoomRole::Owner)).await.unwrap();
        (ann, bob)
    }

    async fn member_nicks(&self, name: &str) -> Vec<String> {
        let members = self.registry.members(room(name).key(), None, 100).await.unwrap().items;
        members.into_iter().map(|MemberInfo { nick, .. }| nick).collect()
    }
}

async fn kick_removes_announces_and_orders_once(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let lobby = arm.listen_to_room("#lobby").await;
    let gateway = arm.listen(&arm.keys.node(&node.incarnation).channel()).await;

    let order = ModerationOrder { text: "spam \"%s\"".to_owned(), ..by_nick(Kick, "Bob") };
    let notice = ann.moderate("#Lobby", &order).await.unwrap();
    let expected =
        json!({ "action": "kick", "nick": "bob", "by": "ann", "reason": "spam \"%s\"", "time": notice.time });
    assert_eq!(json!(notice), expected);
    assert_eq!(arm.member_nicks("#lobby").await, ["ann"]);
    assert_eq!(ann.moderate("#lobby", &order).await, Err(ModerationError::NoSuchUser), "he has left");

    let deltas = lobby.deltas_until("kick").await;
    let left = json!([{ "nick": "bob", "reason": "kicked" }]);
    assert_eq!(deltas.last().unwrap().1, json!({ "left": left, "moderation": [expected] }));
    let removals = node.removals().await;
    let [removal] = &removals[..] else { panic!("{removals:?}") };
    let RoomRemoval { session, room: key, reason, .. } = removal;
    assert_eq!((session, key.as_str(), *reason), (&bob.owner.session, "lobby", RemovalReason::Kicked));
    assert_eq!((removal.by.as_deref(), removal.text.as_deref()), (Some("ann"), Some("spam \"%s\"")));
    let json = serde_json::to_string(removal).unwrap();
    assert_eq!(gateway.until("R ").await, [format!("R {session} {}\n{json}", json.len())]);
    assert!(arm.history().await.contains(&"leave #lobby bob kicked".to_owned()));
    assert!(!bob.leave("#lobby").await, "the membership is over");
    bob.join("#lobby").await;
}

async fn plain_member_moderates_nothing(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let orders = [Kick, Ban, Unban, Mute, Unmute, Op, Deop, Invite].map(|action| by_nick(action, "bob"));
    for order in orders.iter().chain([&topic("mine")]) {
        assert_eq!(bob.moderate("#lobby", order).await, Err(ModerationError::NotModerator), "{order:?}");
    }
    let eve = node.user("eve").await;
    assert_eq!(eve.moderate("#lobby", &by_nick(Kick, "bob")).await, Err(ModerationError::NotInRoom));
    let eve_as_ann = NickSession { owner: eve.owner.clone(), ..ann.clone() };
    assert_eq!(eve_as_ann.moderate("#lobby", &by_nick(Kick, "bob")).await, Err(ModerationError::NotInRoom));
    node.fence().await;
    let fenced = ann.moderate("#lobby", &by_nick(Kick, "bob")).await;
    assert_eq!(fenced, Err(RegistryError::Fenced.into()));
}

async fn deposed_moderator_changes_nothing_more(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    node.user("eve").await.join("#lobby").await;
    let notice = ann.moderate("#lobby", &by_nick(Op, "bob")).await.unwrap();
    assert_eq!(notice.role, Some(RoomRole::Moderator));
    bob.moderate("#lobby", &by_nick(Mute, "eve")).await.unwrap();
    ann.moderate("#lobby", &by_nick(Deop, "bob")).await.unwrap();
    let late = bob.moderate("#lobby", &by_nick(Kick, "eve")).await;
    assert_eq!(late, Err(ModerationError::NotModerator));
    assert_eq!(ann.moderate("#lobby", &by_nick(Deop, "bob")).await, Err(ModerationError::NothingToLift));
    assert_eq!(arm.member_nicks("#lobby").await.len(), 3);
}

async fn moderator_cannot_act_on_owners(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    node.user("eve").await.join("#lobby").await;
    ann.moderate("#lobby", &by_nick(Op, "bob")).await.unwrap();
    for order in [Kick, Ban, Mute, Op, Deop].map(|action| by_nick(action, "ann")) {
        assert_eq!(bob.moderate("#lobby", &order).await, Err(ModerationError::OwnersOnly), "{order:?}");
    }
    let promotion = ModerationOrder { role: RoomRole::Owner, ..by_nick(Op, "eve") };
    assert_eq!(bob.moderate("#lobby", &promotion).await, Err(ModerationError::OwnersOnly));
    bob.moderate("#lobby", &by_nick(Op, "eve")).await.unwrap();
    ann.moderate("#lobby", &promotion).await.unwrap();
}

async fn last_owner_of_room_stays_owner(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, _bob) = arm.owner_and_member(&node).await;
    for order in [Ban, Mute, Op, Deop].map(|action| by_nick(action, "ann")) {
        assert_eq!(ann.moderate("#lobby", &order).await, Err(ModerationError::LastOwner), "{order:?}");
    }
    let promotion = ModerationOrder { role: RoomRole::Owner, ..by_nick(Op, "bob") };
    ann.moderate("#lobby", &promotion).await.unwrap();
    ann.moderate("#lobby", &by_nick(Deop, "ann")).await.unwrap();
    assert_eq!(ann.moderate("#lobby", &by_nick(Op, "ann")).await, Err(ModerationError::NotModerator));
}

async fn ban_refuses_joins_until_its_end(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let ban = ModerationOrder { seconds: Some(1), ..by_nick(Ban, "bob") };
    let notice = ann.moderate("#lobby", &ban).await.unwrap();
    assert_eq!(notice.until, Some(notice.time + 1000));
    assert_eq!(node.removals().await[0].reason, RemovalReason::Banned);
    assert_eq!(arm.member_nicks("#lobby").await, ["ann"]);
    assert_eq!(bob.try_join("#lobby", JoinEntry::New).await, Err(RegistryError::Banned));
    eventually(PATIENCE, "the ban ends", || async { bob.try_join("#lobby", JoinEntry::New).await }).await;

    let forever = ModerationOrder { text: "spam".to_owned(), ..by_nick(Ban, "bob") };
    assert_eq!(ann.moderate("#lobby", &forever).await.unwrap().until, None);
    assert_eq!(bob.try_join("#lobby", JoinEntry::New).await, Err(RegistryError::Banned));
    ann.moderate("#lobby", &by_nick(Unban, "BOB")).await.unwrap();
    assert_eq!(ann.moderate("#lobby", &by_nick(Unban, "bob")).await, Err(ModerationError::NothingToLift));
    bob.join("#lobby").await;
}

async fn ban_of_user_removes_every_nick(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, _guest) = arm.owner_and_member(&node).await;
    let (phone, desk) = (node.user_with_id("phone", "user 7%").await, node.user_with_id("desk", "user 7%").await);
    phone.join_as_user("#lobby", "user 7%").await.unwrap();
    desk.join_as_user("#lobby", "user 7%").await.unwrap();
    ann.moderate("#lobby", &by_user(Ban, "user 7%")).await.unwrap();
    let mut left = arm.member_nicks("#lobby").await;
    left.sort();
    assert_eq!(left, ["ann", "bob"]);
    assert_eq!(node.removals().await.len(), 2);
    assert_eq!(desk.join_as_user("#lobby", "user 7%").await, Err(RegistryError::Banned));
    ann.moderate("#lobby", &by_nick(Unban, "desk")).await.unwrap();
    phone.join_as_user("#lobby", "user 7%").await.unwrap();
}

async fn ban_of_user_finds_any_number_of_nicks(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, _guest) = arm.owner_and_member(&node).await;
    for number in 0..12 {
        let session = node.user_with_id(&format!("eve{number}"), "user:7").await;
        session.join_as_user("#lobby", "user:7").await.unwrap();
    }
    ann.moderate("#lobby", &by_user(Ban, "user:7")).await.unwrap();
    let mut left = arm.member_nicks("#lobby").await;
    left.sort();
    assert_eq!((left, node.removals().await.len()), (vec!["ann".to_owned(), "bob".to_owned()], 12));
}

async fn banned_room_is_not_resumed(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    bob.join("#hall").await;
    assert!(bob.leave_with("#lobby", presence::model::LeftReason::Closed, super::LeaveIntent::ForNow).await);
    ann.moderate("#lobby", &by_nick(Ban, "bob")).await.unwrap();
    assert_eq!(bob.try_join("#lobby", JoinEntry::Existing).await, Err(RegistryError::Banned));
    let ticket = presence::registry::ResumeTicket {
        session: bob.owner.session.clone(),
        presented: token(&bob.owner.session, 0),
        user: None,
    };
    let next = token(&bob.owner.session, 1);
    let resumed = arm.registry.resume(&node.incarnation, &ticket, &bob.nick, &next).await.unwrap();
    let rooms: Vec<_> = resumed.rooms.iter().map(|restored| restored.room.as_str()).collect();
    assert_eq!(rooms, ["#hall"]);
}

async fn mute_ends_with_its_time(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let mute = ModerationOrder { seconds: Some(1), text: "too loud".to_owned(), ..by_nick(Mute, "bob") };
    ann.moderate("#lobby", &mute).await.unwrap();
    assert_eq!(bob.join("#lobby").await.role, Some(RoomRole::Muted));
    eventually(PATIENCE, "the mute ends", || async {
        let role = bob.join("#lobby").await.role;
        if role.is_none() { Ok(()) } else { Err(role) }
    })
    .await;
    ann.moderate("#lobby", &by_nick(Unmute, "bob")).await.unwrap();
    assert_eq!(ann.moderate("#lobby", &by_nick(Unmute, "bob")).await, Err(ModerationError::NothingToLift));
    assert_eq!(ann.moderate("#lobby", &by_nick(Deop, "bob")).await, Err(ModerationError::NothingToLift));
}

async fn topic_needs_role_once_there_are_roles(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("Ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let notice = bob.moderate("#lobby", &topic("tea, \"now\" 50%")).await.unwrap();
    assert_eq!((notice.text.as_deref(), notice.reason), (Some("tea, \"now\" 50%"), None));
    assert_eq!(bob.moderate("#lobby", &by_nick(Kick, "ann")).await, Err(ModerationError::NotModerator));
    arm.set_role("#lobby", "ann", Some(RoomRole::Owner)).await.unwrap();
    assert_eq!(bob.moderate("#lobby", &topic("coffee")).await, Err(ModerationError::NotModerator));
    assert_eq!(ann.join("#lobby").await.topic.unwrap().text, "tea, \"now\" 50%");
    ann.moderate("#lobby", &topic("")).await.unwrap();
    assert_eq!(ann.join("#lobby").await.topic, None);
}

async fn renamed_guest_is_found_by_former_nick(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let robert = node.claim_as(&bob.owner.session, "Robert").await.unwrap();
    robert.try_join("#lobby", JoinEntry::Renamed(&bob.nick, &bob.owner)).await.unwrap();
    assert!(node.registry.release(&bob.nick, &bob.owner, ReleaseCause::RenamedTo(&robert.nick)).await.unwrap());

    let notice = ann.moderate("#lobby", &by_nick(Kick, "bob")).await.unwrap();
    assert_eq!(notice.nick.as_deref(), Some("Robert"));
    assert_eq!((arm.member_nicks("#lobby").await, node.removals().await.len()), (vec!["ann".to_owned()], 1));
    robert.join("#lobby").await;
    ann.moderate("#lobby", &by_nick(Ban, "bob")).await.unwrap();
    assert_eq!(robert.try_join("#lobby", JoinEntry::New).await, Err(RegistryError::Banned));
    ann.moderate("#lobby", &by_nick(Unban, "bob")).await.unwrap();
    robert.join("#lobby").await;

    // Once another session has the nick, it is meant.
    let other = node.user("bob").await;
    other.join("#lobby").await;
    ann.moderate("#lobby", &by_nick(Kick, "bob")).await.unwrap();
    let mut left = arm.member_nicks("#lobby").await;
    left.sort();
    assert_eq!(left, ["Robert", "ann"]);
}

async fn joined_reports_topic_and_role(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    let plain = bob.join("#lobby").await;
    assert_eq!((plain.topic, plain.role), (None, None));
    ann.moderate("#lobby", &topic("tea")).await.unwrap();
    let joined = ann.join("#lobby").await;
    let topic = joined.topic.unwrap();
    assert_eq!((topic.text.as_str(), topic.by.as_str(), joined.role), ("tea", "ann", Some(RoomRole::Owner)));
}

async fn claim_and_api_moderate_without_role(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    bob.moderate_with("#lobby", &by_nick(Mute, "bob"), true).await.unwrap();
    bob.moderate_with("#lobby", &by_nick(Unmute, "bob"), true).await.unwrap();
    let refused = bob.moderate_with("#lobby", &by_nick(Kick, "ann"), true).await;
    assert_eq!(refused, Err(ModerationError::OwnersOnly), "a claim makes no owner");
    let notice = arm.set_role("#lobby", "bob", Some(RoomRole::Owner)).await.unwrap();
    assert_eq!(notice.by.as_deref(), Some("app"));
    arm.set_role("#lobby", "ann", None).await.unwrap();
    assert_eq!(ann.join("#lobby").await.role, None);
}

async fn unknown_people_and_rooms_are_refused(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, _bob) = arm.owner_and_member(&node).await;
    node.user("eve").await;
    for order in [Kick, Ban, Mute, Op, Invite].map(|action| by_nick(action, "nobody")) {
        assert_eq!(ann.moderate("#lobby", &order).await, Err(ModerationError::NoSuchUser), "{order:?}");
    }
    for order in [Unban, Unmute, Deop].map(|action| by_nick(action, "nobody")) {
        assert_eq!(ann.moderate("#lobby", &order).await, Err(ModerationError::NothingToLift), "{order:?}");
    }
    assert_eq!(ann.moderate("#lobby", &by_nick(Kick, "eve")).await, Err(ModerationError::NoSuchUser));
    ann.moderate("#lobby", &by_nick(Invite, "eve")).await.unwrap();
    ann.moderate("#lobby", &by_user(Ban, "never seen")).await.unwrap();
    assert_eq!(ann.moderate("#never", &by_nick(Kick, "bob")).await, Err(ModerationError::NotInRoom));
    let unknown_room = arm.set_role("#never", "ann", Some(RoomRole::Owner)).await;
    assert_eq!(unknown_room, Err(RegistryError::NoSuchRoom.into()));
}

async fn two_admins_are_applied_in_one_order(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    node.user("eve").await.join("#lobby").await;
    ann.moderate("#lobby", &by_nick(Op, "bob")).await.unwrap();
    let lobby = arm.listen_to_room("#lobby").await;
    let (ban, lift) = (by_nick(Ban, "eve"), by_nick(Unban, "eve"));
    let (first, second) = tokio::join!(ann.moderate("#lobby", &ban), bob.moderate("#lobby", &lift));
    first.unwrap();
    assert!(second.is_ok() || second == Err(ModerationError::NothingToLift), "{second:?}");
    ann.moderate("#lobby", &topic("end")).await.unwrap();
    let deltas = lobby.deltas_until("\"end\"").await;
    let actions: Vec<_> = deltas.iter().map(|(_, delta)| delta["moderation"][0]["action"].clone()).collect();
    let expected = if second.is_ok() { vec!["ban", "unban", "topic"] } else { vec!["ban", "topic"] };
    assert_eq!(actions, expected);
}

async fn moderated_room_outlives_its_last_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    ann.moderate("#lobby", &by_nick(Ban, "bob")).await.unwrap();
    assert!(ann.leave("#lobby").await);
    assert_eq!(bob.try_join("#lobby", JoinEntry::New).await, Err(RegistryError::Banned));
    assert_eq!(ann.join("#lobby").await.role, Some(RoomRole::Owner));
}

async fn rename_to_banned_nick_keeps_the_member(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = arm.owner_and_member(&node).await;
    node.user("eve").await.release().await;
    ann.moderate("#lobby", &by_nick(Ban, "eve")).await.unwrap();
    let renamed = node.claim_as(&bob.owner.session, "eve").await.unwrap();
    renamed.try_join("#lobby", JoinEntry::Renamed(&bob.nick, &bob.owner)).await.unwrap();
    assert_eq!(Identity::of(None, renamed.nick.key()), Identity::of_guest(Nick::parse("EVE").unwrap().key()));
    assert!(renamed.leave("#lobby").await);
    assert_eq!(renamed.try_join("#lobby", JoinEntry::New).await, Err(RegistryError::Banned));
}

/// The lists of a moderated room live as long as its meta.
#[tokio::test]
async fn redis_expires_lists_with_the_room() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    let (ann, _bob) = arm.owner_and_member(&node).await;
    ann.moderate("#lobby", &by_nick(Ban, "bob")).await.unwrap();
    ann.moderate("#lobby", &by_user(Invite, "u1")).await.unwrap();
    let lobby = room("#lobby");
    let keys = arm.keys.room(lobby.key());
    let lists = [keys.meta(), keys.roles(), keys.bans(), keys.invites()];
    assert!(ann.leave("#lobby").await);
    for list in &lists {
        let ttl: i64 = arm.ask(&["TTL", list]).await;
        assert!(Duration::from_secs(ttl.unsigned_abs()) > Duration::from_secs(72 * 3600), "{list}: {ttl}");
    }
    ann.join("#lobby").await;
    for list in &lists {
        assert_eq!(arm.ask::<i64>(&["TTL", list]).await, -1, "{list}");
    }
}
