//! The rules of rooms: about their creation and their members, and which rules are in force.

use presence::host::reloadable::Reloadable;
use presence::model::moderation::{ModerationAction, ModerationOrder, ModerationTarget};
use presence::model::{RoomCreation, RoomPolicies, RoomRules, SendRight, Status, UserId};
use presence::registry::{
    JoinEntry, JoinRequest, JoinedAt, ModerationCaller, ModerationError, ModerationRequest, Registry, RegistryError,
    RuledRoom,
};

use super::{GatewayLease, NickSession, RegistryArm, nick, on_both_arms, room};

on_both_arms! {
    rule_of_creation_admits_users_or_nobody,
    only_moderators_set_topic_where_they_send,
    moderator_by_token_needs_no_invite,
    ordered_entry_needs_no_invite_and_creates,
    full_room_admits_no_further_member,
    last_place_goes_to_one_of_many,
    session_that_returns_keeps_its_place,
    rules_of_the_api_replace_the_configured,
    room_of_the_api_outlives_its_members,
    late_rules_leave_present_members,
    deleted_room_leaves_nothing,
}

impl RegistryArm {
    /// Opens a lease on a registry with these rules in its configuration.
    async fn ruled_node(&self, policies: &str) -> GatewayLease {
        let rooms = Reloadable::from(RoomPolicies::from_json(policies).unwrap());
        let registry = match &self.registry {
            Registry::Redis(redis) => Registry::Redis(redis.clone().with_room_policies(rooms)),
            Registry::Memory(memory) => Registry::Memory(memory.clone().with_room_policies(rooms)),
        };
        GatewayLease { registry, ..self.node("g1").await }
    }
}

impl NickSession {
    async fn try_new(&self, name: &str) -> Result<JoinedAt, RegistryError> {
        self.try_join(name, JoinEntry::New).await
    }

    /// Joins as a user with a token.
    async fn join_with_token(&self, name: &str, user: &str) -> Result<JoinedAt, RegistryError> {
        let (room, status, user) = (room(name), Status::default(), UserId::parse(user));
        let (nick, owner, entry) = (&self.nick, &self.owner, JoinEntry::New);
        self.registry
            .join(JoinRequest {
                room: &room,
                nick,
                owner,
                user: user.as_ref(),
                status: &status,
                entry,
                moderates: false,
            })
            .await
    }
}

fn limited_to(members: u64) -> RoomRules {
    RoomRules { members_max: Some(members), ..RoomRules::default() }
}

pub(super) async fn rule_of_creation_admits_users_or_nobody(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#team-*","create":"token"},{"match":"#*-api","create":"api"}]"##).await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);

    assert_eq!(ann.try_new("#team-a").await, Err(RegistryError::NotAllowed));
    assert_eq!(bob.join_with_token("#a-api", "u1").await, Err(RegistryError::NotAllowed));
    assert_eq!(node.registry.room(room("#team-a").key()).await.unwrap(), None, "a refused join leaves nothing");

    bob.join_with_token("#team-a", "u1").await.unwrap();
    ann.try_new("#team-a").await.unwrap();
    let made = node.registry.set_room_rules(&room("#A-api"), &RoomRules::default()).await.unwrap();
    assert_eq!(made, RuledRoom { room: room("#A-api"), is_new: true });
    assert_eq!(ann.try_new("#a-api").await.unwrap().room.as_str(), "#A-api");
    ann.try_new("#else").await.unwrap();
}

pub(super) async fn only_moderators_set_topic_where_they_send(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#news","send":"moderators"}]"##).await;
    let ann = node.user("ann").await;
    let topic = ModerationOrder { text: "tea".to_owned(), ..ModerationOrder::new(ModerationAction::Topic, None) };
    let set = async |name: &str, may_moderate| {
        let caller = ModerationCaller::Member { nick: &ann.nick, owner: &ann.owner, may_moderate };
        node.registry.moderate(ModerationRequest { room: &room(name), caller, order: &topic }).await
    };
    ann.join("#news").await;
    assert_eq!(set("#news", false).await, Err(ModerationError::NotModerator));
    set("#news", true).await.expect("the token lets it moderate");
    ann.join("#open").await;
    set("#open", false).await.expect("any member of an open room");

    let send = |send| RoomRules { send, ..RoomRules::default() };
    node.registry.set_room_rules(&room("#open"), &send(SendRight::Moderators)).await.unwrap();
    node.registry.set_room_rules(&room("#news"), &send(SendRight::Members)).await.unwrap();
    assert_eq!(set("#open", false).await, Err(ModerationError::NotModerator), "the rules of the API hold");
    set("#news", false).await.unwrap();
}

pub(super) async fn moderator_by_token_needs_no_invite(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#club","invite_only":true,"members_max":2}]"##).await;
    let (ann, bob, eve) = (node.user("ann").await, node.user("bob").await, node.user("eve").await);
    ann.join("#club").await;
    assert_eq!(bob.try_new("#club").await, Err(RegistryError::InviteOnly));
    let enter = async |user: &NickSession| {
        let (room, nick, owner, status) = (room("#club"), &user.nick, &user.owner, Status::default());
        let (user, status, entry) = (None, &status, JoinEntry::New);
        let request = JoinRequest { room: &room, nick, owner, user, status, entry, moderates: true };
        node.registry.join(request).await
    };
    enter(&bob).await.unwrap();
    assert_eq!(enter(&eve).await, Err(RegistryError::RoomFull), "the right makes no room");
}

async fn ordered_entry_needs_no_invite_and_creates(arm: &RegistryArm) {
    let rules = r##"[{"match":"#club","invite_only":true,"members_max":2},{"match":"#made","create":"api","roles":true},
        {"match":"#team","create":"token"}]"##;
    let node = arm.ruled_node(rules).await;
    let (ann, bob, eve) = (node.user("ann").await, node.user("bob").await, node.user("eve").await);
    ann.join("#club").await;
    assert_eq!(bob.try_new("#club").await, Err(RegistryError::InviteOnly));
    bob.try_join("#club", JoinEntry::Ordered).await.unwrap();
    assert_eq!(eve.try_join("#club", JoinEntry::Ordered).await, Err(RegistryError::RoomFull));
    for made in ["#made", "#team"] {
        assert_eq!(ann.try_new(made).await, Err(RegistryError::NotAllowed));
        let joined = ann.try_join(made, JoinEntry::Ordered).await.unwrap();
        assert_eq!((joined.member_count, joined.role), (1, None), "it becomes no owner");
        bob.try_new(made).await.expect("the room exists");
    }
    let ban = ModerationOrder::new(ModerationAction::Ban, Some(ModerationTarget::Nick(nick("eve"))));
    let (made, caller) = (room("#made"), ModerationCaller::Api("app"));
    node.registry.moderate(ModerationRequest { room: &made, caller, order: &ban }).await.unwrap();
    assert_eq!(eve.try_join("#made", JoinEntry::Ordered).await, Err(RegistryError::Banned));
}

pub(super) async fn full_room_admits_no_further_member(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","members_max":2}]"##).await;
    let (ann, bob, eve) = (node.user("ann").await, node.user("bob").await, node.user("eve").await);
    ann.join("#hall").await;
    bob.join("#hall").await;
    assert_eq!(eve.try_new("#hall").await, Err(RegistryError::RoomFull));
    assert_eq!(ann.join("#hall").await.member_count, 2, "a member that joins again is no further member");

    let newer = node.claim_as(&bob.owner.session, "robert").await.unwrap();
    let renamed = newer.try_join("#hall", JoinEntry::Renamed(&bob.nick, &bob.owner)).await.unwrap();
    assert_eq!(renamed.member_count, 2, "a new nickname needs no further place");
    assert!(ann.leave("#hall").await);
    assert_eq!(eve.try_new("#hall").await.unwrap().member_count, 2);
}

pub(super) async fn last_place_goes_to_one_of_many(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","members_max":2}]"##).await;
    node.user("first").await.join("#hall").await;
    let mut joins = tokio::task::JoinSet::new();
    for number in 0..20 {
        let user = node.user(&format!("user{number}")).await;
        joins.spawn(async move { user.try_new("#hall").await });
    }
    let outcomes = joins.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(RegistryError::RoomFull)).count(), 19);
}

pub(super) async fn session_that_returns_keeps_its_place(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","members_max":1},{"match":"#*-api","create":"api"}]"##).await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    ann.join("#hall").await;
    assert!(ann.leave_for_now("#hall").await);
    bob.join("#hall").await;
    assert_eq!(ann.join("#hall").await.member_count, 2, "its place was taken meanwhile");
    assert!(ann.leave("#hall").await);
    assert_eq!(ann.try_new("#hall").await, Err(RegistryError::RoomFull), "it has left for good");
}

pub(super) async fn rules_of_the_api_replace_the_configured(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","members_max":1}]"##).await;
    let (ann, bob, eve) = (node.user("ann").await, node.user("bob").await, node.user("eve").await);
    ann.join("#Hall").await;
    assert_eq!(bob.try_new("#hall").await, Err(RegistryError::RoomFull));

    let written = node.registry.set_room_rules(&room("#hall"), &limited_to(2)).await.unwrap();
    assert_eq!(written, RuledRoom { room: room("#Hall"), is_new: false });
    bob.join("#hall").await;
    assert_eq!(eve.try_new("#hall").await, Err(RegistryError::RoomFull));
    node.registry.set_room_rules(&room("#hall"), &RoomRules::default()).await.unwrap();
    eve.join("#hall").await;
}

pub(super) async fn room_of_the_api_outlives_its_members(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","create":"api"}]"##).await;
    let ann = node.user("ann").await;
    node.registry.set_room_rules(&room("#hall"), &limited_to(1)).await.unwrap();
    let epoch = ann.join("#hall").await.epoch;
    assert!(ann.leave("#hall").await);
    assert_eq!(ann.join("#hall").await.epoch, epoch, "it is the same room");
    arm.append_message(&room("#hall"), &ann.nick, &ann.owner).await;
    assert!(ann.leave("#hall").await);
    let bob = node.user("bob").await;
    let joined = bob.join("#hall").await;
    assert_eq!((joined.epoch, joined.seq), (epoch, 1));
}

pub(super) async fn late_rules_leave_present_members(arm: &RegistryArm) {
    let node = arm.ruled_node("[]").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    ann.join("#hall").await;
    bob.join("#hall").await;
    let rules = RoomRules { create: RoomCreation::Api, ..limited_to(1) };
    node.registry.set_room_rules(&room("#hall"), &rules).await.unwrap();
    assert_eq!(ann.join("#hall").await.member_count, 2);
    assert!(ann.leave("#hall").await);
    assert_eq!(ann.try_new("#hall").await, Err(RegistryError::RoomFull));
}

pub(super) async fn deleted_room_leaves_nothing(arm: &RegistryArm) {
    let node = arm.ruled_node(r##"[{"match":"#hall","roles":true}]"##).await;
    let hall = room("#hall");
    let delete = async || node.registry.end_room(&hall).await.unwrap();
    assert!(!delete().await, "there is none yet");
    let users = [node.user("ann").await, node.user("bob").await, node.user("eve").await];
    for user in &users {
        user.join("#hall").await;
    }
    let epoch = users[0].join("#hall").await.epoch;
    arm.append_message(&hall, &users[0].nick, &users[0].owner).await;
    node.registry.set_room_rules(&hall, &limited_to(3)).await.unwrap();
    let changes = arm.listen_to_room("#hall").await;
    assert!(delete().await);
    let last = changes.until("left").await.pop().unwrap();
    assert!(
        users.iter().all(|user| last.contains(&format!(r#"{{"nick":"{}","reason":"kicked"}}"#, user.nick))),
        "{last}"
    );

    assert_eq!(node.registry.room(hall.key()).await.unwrap(), None);
    assert!(!users[1].leave("#hall").await, "its membership is over");
    let again = users[1].join("#hall").await;
    assert_eq!((again.seq, again.member_count), (0, 1));
    assert_ne!(again.epoch, epoch, "it is another room");
    assert!(delete().await && !delete().await);
    node.registry.set_room_rules(&hall, &limited_to(3)).await.unwrap();
    assert!(delete().await, "a room without members is deleted too");
    if arm.is_redis() {
        let keys: Vec<String> = arm.ask(&["KEYS", "*hall*"]).await;
        assert!(keys.is_empty(), "{keys:?}");
    }
}
