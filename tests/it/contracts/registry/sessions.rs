//! Sessions that outlive their connection: held, resumed, taken over, and announced only when something changed for
//! others.

mod tokens;

use std::time::Duration;

use harness::eventually;
use presence::model::{Availability, LeftReason, Owner, SessionId, Status};
use presence::registry::{
    ClaimError, JoinEntry, JoinRequest, JoinedAt, LeaseTransition, LeaveIntent, LeaveRequest, MailboxOrder,
    RegistryError, ResumeError, ResumeTicket, ResumedSession,
};
use serde_json::json;

use super::{Arm, Node, PATIENCE, User, nick, on_both_arms, room, token};

on_both_arms! {
    a_resume_within_the_delay_is_silent,
    a_session_is_taken_over_from_a_living_connection,
    a_take_over_on_the_same_gateway_is_one_too,
    who_does_not_come_back_goes_offline_before_the_rooms_are_left,
    a_resume_among_the_leaves_keeps_the_rest,
    a_held_nick_is_refused_until_its_time,
    a_lookalike_of_a_held_nick_is_refused_until_its_time,
    a_clean_end_holds_nothing,
    a_drained_gateway_holds_silently_and_is_announced_once,
    a_crash_keeps_tokens_and_rooms,
    a_rename_carries_the_session,
    a_resume_under_another_nick_is_a_rename,
    the_status_comes_back_with_the_session,
    a_late_claim_from_before_a_resume_takes_nothing,
    a_reaper_leaves_a_resumed_session_where_it_is,
    a_newer_claim_ends_the_membership_of_an_older_one,
    the_read_cursor_goes_forward_to_the_end,
}

const HOLD: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

impl Node {
    /// Resumes a user's session with one of its secrets, for the next.
    async fn resume(&self, user: &User, name: &str, presented: u32, next: u32) -> Result<Back, ResumeError> {
        let session = &user.owner.session;
        let ticket = ResumeTicket { session: session.clone(), presented: token(session, presented) };
        let (nick, next) = (nick(name), token(session, next));
        let found = self.registry.resume(&self.incarnation, &ticket, &nick, &next).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence: found.fence };
        Ok(Back { user: User { registry: self.registry.clone(), nick, owner }, found })
    }
}

/// A session that was resumed.
struct Back {
    user: User,
    found: ResumedSession,
}

impl Back {
    /// Joins every room again, as its gateway does.
    async fn rejoin(&self) -> Vec<JoinedAt> {
        let User { registry, nick, owner } = &self.user;
        let mut joined = Vec::new();
        for restored in &self.found.rooms {
            let entry = self.found.was.as_ref().map_or(JoinEntry::New, |(nick, owner)| JoinEntry::Renamed(nick, owner));
            joined.push(
                registry
                    .join(JoinRequest { room: &restored.room, nick, owner, status: &self.found.status, entry })
                    .await
                    .unwrap(),
            );
        }
        joined
    }

    fn rooms(&self) -> Vec<&str> {
        self.found.rooms.iter().map(|restored| restored.room.as_str()).collect()
    }
}

impl User {
    async fn detach(&self, hold: Duration) -> bool {
        self.registry.detach(&self.nick, &self.owner, hold).await.unwrap()
    }

    async fn expire_detached(&self) -> bool {
        self.registry.expire_detached(&self.nick, &self.owner, LeftReason::Closed).await.unwrap()
    }

    async fn lose(&self, name: &str) -> bool {
        let (reason, leaving) = (LeftReason::Closed, LeaveIntent::ForNow);
        self.registry
            .leave(LeaveRequest { room: &room(name), nick: &self.nick, owner: &self.owner, reason, intent: leaving })
            .await
            .unwrap()
    }

    /// Whether the nick is shown as online.
    async fn is_online(&self) -> bool {
        self.registry.user(self.nick.key()).await.unwrap().unwrap().online
    }

    /// Everything that an owner may still try: nothing of it has any effect.
    async fn can_do_nothing(&self, name: &str) {
        assert!(!self.lose(name).await, "leave");
        assert!(!self.leave(name).await, "leave for good");
        assert!(!self.detach(HOLD).await, "detach");
        assert!(!self.expire_detached().await, "depart");
        assert!(!self.release().await, "release");
        let status = Status { status: Availability::Away, text: String::new() };
        let told = self.registry.set_status(&self.nick, &self.owner, &status, &[room(name).key().clone()]).await;
        assert!(matches!(told, Ok(false) | Err(RegistryError::Fenced)), "{told:?}");
        for name in [name, "#elsewhere"] {
            let late = self
                .registry
                .join(JoinRequest {
                    room: &room(name),
                    nick: &self.nick,
                    owner: &self.owner,
                    status: &status,
                    entry: JoinEntry::New,
                })
                .await;
            assert!(matches!(late, Err(RegistryError::Unavailable(_) | RegistryError::Fenced)), "{late:?}");
        }
    }
}

async fn members(arm: &Arm, name: &str) -> Vec<String> {
    let page = arm.registry.members(room(name).key(), None, 100).await.unwrap();
    page.items.into_iter().map(|member| member.nick).collect()
}

fn joined(nick: &str) -> serde_json::Value {
    json!({ "joined": [{ "nick": nick, "status": "online" }] })
}

fn left(nick: &str, reason: &str) -> serde_json::Value {
    json!({ "left": [{ "nick": nick, "reason": reason }] })
}

async fn a_resume_within_the_delay_is_silent(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    let first = ann.join("#Lobby").await;
    ann.join("#art").await;
    arm.say(&first.room, &ann.nick, &ann.owner).await;
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    let before = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert!(ann.detach(HOLD).await);
    assert!(ann.detach(SHORT).await, "again, without a change");
    assert!(ann.is_online().await);
    let stranger = there.claim("ann").await.err();
    let Some(ClaimError::InUse { retry_after: Some(left) }) = stranger else { panic!("{stranger:?}") };
    assert!(left > SHORT && left <= HOLD, "{left:?}");

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert!(back.user.owner.fence > ann.owner.fence);
    assert_eq!(back.found.was, Some((ann.nick.clone(), ann.owner.clone())));
    assert_eq!(back.rooms(), ["#art", "#Lobby"]);
    let lobby = &back.found.rooms[1];
    assert_eq!((&lobby.epoch, lobby.seq), (&first.epoch, 1));
    // A paused gateway does not know yet: neither now nor later anything of it counts.
    ann.can_do_nothing("#lobby").await;
    let counts: Vec<u64> = back.rejoin().await.into_iter().map(|joined| joined.member_count).collect();
    assert_eq!(counts, [1, 1]);
    ann.can_do_nothing("#lobby").await;

    let after = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((after.online_since, &after.rooms), (before.online_since, &before.rooms));
    // Until then the order to end its connection is its own.
    arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    let leases = arm.registry.leases().await.unwrap().leases;
    assert!(leases.iter().all(|lease| lease.owns == (lease.node == "g2")), "{leases:?}");
    there.user("bob").await.join("#lobby").await;
    assert_eq!(heard.deltas_until("bob").await, [(2, joined("bob"))], "nobody was told anything");
    let expected = ["online ann", "join #Lobby ann", "join #art ann", "online bob", "join #Lobby bob"];
    assert_eq!(arm.history().await, expected);
    assert!(back.user.leave("#lobby").await && back.user.leave("#art").await && back.user.release().await);
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns || lease.node == "g2"));
}

async fn a_session_is_taken_over_from_a_living_connection(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let orders = arm.listen(&arm.keys.node(&here.incarnation).channel()).await;
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    let Owner { session, fence, .. } = ann.owner.clone();
    assert!(back.user.owner.fence > fence);
    let order = format!("T {session} {}", fence.0);
    assert_eq!(orders.until("T ").await, [order]);
    let beat = arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert_eq!(beat.mailbox, [MailboxOrder::Taken { session, fence }]);

    ann.can_do_nothing("#lobby").await;
    assert_eq!(members(arm, "#lobby").await, ["ann"], "before it has joined again");
    back.rejoin().await;
    ann.can_do_nothing("#lobby").await;
    there.user("bob").await.join("#lobby").await;
    assert_eq!(heard.deltas_until("bob").await, [(2, joined("bob"))]);
    assert_eq!(members(arm, "#lobby").await, ["ann", "bob"]);
    assert!(members(arm, "#elsewhere").await.is_empty());
}

async fn a_take_over_on_the_same_gateway_is_one_too(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    let back = node.resume(&ann, "Ann", 0, 1).await.unwrap();
    back.rejoin().await;
    assert!(back.user.owner.fence > ann.owner.fence);
    ann.can_do_nothing("#lobby").await;
    let mailbox = arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox;
    let taken = MailboxOrder::Taken { session: ann.owner.session.clone(), fence: ann.owner.fence };
    assert_eq!(mailbox, [taken], "the older connection of the two");
    assert_eq!(members(arm, "#lobby").await, ["Ann"], "in the new spelling");
    assert!(back.user.leave("#lobby").await && back.user.release().await);
    assert!(!arm.registry.leases().await.unwrap().leases[0].owns);
}

async fn who_does_not_come_back_goes_offline_before_the_rooms_are_left(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    assert!(!ann.expire_detached().await, "she is connected");
    assert!(ann.detach(HOLD).await);
    assert!(ann.expire_detached().await);
    assert!(!ann.expire_detached().await, "once");
    assert!(!ann.is_online().await);
    assert!(ann.lose("#lobby").await);
    assert!(!ann.lose("#lobby").await);
    let told = ["online ann", "join #lobby ann", "offline ann closed", "leave #lobby ann closed"];
    assert_eq!(arm.history().await, told);
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns));

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!((&back.found.was, back.rooms()), (&None, vec!["#lobby"]));
    back.rejoin().await;
    assert_eq!(arm.history().await[4..], ["online ann", "join #lobby ann"]);
}

async fn a_resume_among_the_leaves_keeps_the_rest(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    for name in ["#one", "#two"] {
        ann.join(name).await;
    }
    assert!(ann.detach(HOLD).await && ann.expire_detached().await && ann.lose("#one").await);
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert!(!ann.lose("#two").await);
    assert_eq!(back.rooms(), ["#one", "#two"]);
    back.rejoin().await;
    let story = ["offline ann closed", "leave #one ann closed", "online ann", "join #one ann"];
    assert_eq!(arm.history().await[3..], story, "nothing of #two");
    assert_eq!(members(arm, "#two").await, ["ann"]);
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| lease.owns == (lease.node == "g2")));
}

async fn a_held_nick_is_refused_until_its_time(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    assert!(ann.detach(SHORT).await && ann.expire_detached().await);
    let refused = node.claim("Ann").await.err();
    let Some(ClaimError::InUse { retry_after: Some(left) }) = refused else { panic!("{refused:?}") };
    assert!(left <= SHORT, "{left:?}");
    let stranger = eventually(PATIENCE, "the hold is over", || async { node.claim("ann").await }).await;
    assert!(stranger.is_online().await);
    assert!(!ann.release().await && stranger.release().await);
}

async fn a_lookalike_of_a_held_nick_is_refused_until_its_time(arm: &Arm) {
    let node = arm.node("g1").await;
    let cyrillic = "\u{430}nn";
    let ann = node.user("ann").await;
    assert!(ann.detach(SHORT).await);
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable));
    assert!(ann.expire_detached().await);
    assert_eq!(node.claim(cyrillic).await.err(), Some(ClaimError::Confusable), "held");
    let other = eventually(PATIENCE, "the hold is over", || async { node.claim(cyrillic).await }).await;
    let late = node.resume(&ann, "ann", 0, 1).await.err();
    assert_eq!(late, Some(ResumeError::Claim(ClaimError::Confusable)), "now it is the other way round");
    assert!(other.release().await);
    node.resume(&ann, "ann", 0, 1).await.unwrap();
}

async fn a_clean_end_holds_nothing(arm: &Arm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    assert!(ann.detach(HOLD).await);
    assert!(ann.release().await);
    node.user("ann").await;
}

async fn a_drained_gateway_holds_silently_and_is_announced_once(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob, eve) = (here.user("ann").await, here.user("bob").await, there.user("eve").await);
    for user in [&ann, &bob, &eve] {
        user.join("#lobby").await;
    }
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    arm.registry.set_lease(&here.incarnation, LeaseTransition::Draining).await.unwrap();
    let hold = SHORT * 2;
    assert!(ann.detach(hold).await && bob.detach(hold).await);
    arm.registry.set_lease(&here.incarnation, LeaseTransition::Drained { hold }).await.unwrap();

    assert_eq!(arm.registry.reap(&here.incarnation, 100).await.unwrap(), Default::default(), "not yet");
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
    let told = heard.deltas_until("last").await;
    assert_eq!(told, [(4, left("bob", "closed")), (5, joined("last"))]);
    assert!(!bob.is_online().await && back.user.is_online().await);
    assert_eq!(arm.history().await[6..8], ["leave #lobby bob closed", "offline bob closed"]);
    there.user("bob").await;
    let late = there.resume(&bob, "bobby", 0, 1).await.unwrap();
    assert_eq!(late.rooms(), ["#lobby"], "his token works all the same");
}

async fn a_crash_keeps_tokens_and_rooms(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (here.user("ann").await, here.user("bob").await);
    for user in [&ann, &bob] {
        user.join("#lobby").await;
    }
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    here.fence().await;
    // Before the reaper came, nobody was told anything, and nobody is.
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!(back.rooms(), ["#lobby"]);
    back.rejoin().await;
    arm.registry.reap(&here.incarnation, 100).await.unwrap();
    assert!(back.user.is_online().await && !bob.is_online().await);

    // Bob's nick is anybody's, and still his while nobody took it.
    let bob = there.resume(&bob, "bob", 0, 1).await.unwrap();
    assert_eq!((&bob.found.was, bob.rooms()), (&None, vec!["#lobby"]));
    bob.rejoin().await;
    let told = heard.deltas_until("joined").await;
    assert_eq!(told, [(3, left("bob", "gateway_lost")), (4, joined("bob"))]);
}

async fn a_rename_carries_the_session(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let anna = here.claim_as(&ann.owner.session, "anna").await.unwrap();
    let entry = JoinEntry::Renamed(&ann.nick, &ann.owner);
    arm.registry
        .join(JoinRequest {
            room: &room("#lobby"),
            nick: &anna.nick,
            owner: &anna.owner,
            status: &Status::default(),
            entry,
        })
        .await
        .unwrap();
    assert!(arm.registry.release(&ann.nick, &ann.owner, Some(&anna.nick)).await.unwrap());
    assert!(anna.detach(HOLD).await && anna.expire_detached().await && anna.lose("#lobby").await);
    there.user("ann").await;
    assert!(there.claim("anna").await.is_err());

    let back = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(back.rooms(), ["#lobby"]);
    assert!(back.user.is_online().await);
}

async fn a_resume_under_another_nick_is_a_rename(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let away = Status { status: Availability::Away, text: "tea".to_owned() };
    assert!(arm.registry.set_status(&ann.nick, &ann.owner, &away, &[room("#lobby").key().clone()]).await.unwrap());
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    assert!(ann.detach(HOLD).await);
    let back = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(back.found.status, away);
    back.rejoin().await;
    ann.can_do_nothing("#lobby").await;
    there.user("ann").await.join("#lobby").await;
    let told = heard.deltas_until("joined").await;
    let renamed = json!({ "renamed": [{ "from": "ann", "to": "anna" }] });
    assert_eq!(told, [(3, renamed), (4, joined("ann"))]);
    let history = ["online ann", "join #lobby ann", "rename ann anna", "online ann", "join #lobby ann"];
    assert_eq!(arm.history().await, history);
    assert_eq!(back.user.registry.user(back.user.nick.key()).await.unwrap().unwrap().status, away);

    // A nick that was only held for the session is let go as well.
    let anna = back.user;
    assert!(anna.detach(HOLD).await && anna.expire_detached().await && anna.lose("#lobby").await);
    there.resume(&ann, "annie", 1, 2).await.unwrap();
    there.user("anna").await;
}

async fn the_status_comes_back_with_the_session(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let away = Status { status: Availability::Away, text: "tea".to_owned() };
    assert!(arm.registry.set_status(&ann.nick, &ann.owner, &away, &[room("#lobby").key().clone()]).await.unwrap());
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!(back.found.status, away);
    back.rejoin().await;
    assert!(back.user.detach(HOLD).await && back.user.expire_detached().await && back.user.lose("#lobby").await);
    let told = heard.deltas_until("left").await;
    assert_eq!(told, [(3, left("ann", "closed"))], "and nothing of a status");
    let back = here.resume(&ann, "ann", 1, 2).await.unwrap();
    assert_eq!(back.found.status, Status::default(), "she was gone");
}

async fn a_late_claim_from_before_a_resume_takes_nothing(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    there.resume(&ann, "ann", 0, 1).await.unwrap();
    for name in ["anna", "ann"] {
        let late = here.claim_as(&ann.owner.session, name).await.err();
        assert!(matches!(late, Some(ClaimError::Registry(RegistryError::Unavailable(_)))), "{name}: {late:?}");
    }
    assert_eq!(arm.registry.user(nick("anna").key()).await.unwrap(), None);
    // Nor from the gateway that has the session now, for a connection that it has no more.
    assert!(there.claim_as(&ann.owner.session, "ann").await.is_err());
    there.resume(&ann, "ann", 1, 2).await.unwrap();
}

async fn a_reaper_leaves_a_resumed_session_where_it_is(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let heard = arm.listen(&arm.keys.room(room("#lobby").key()).channel()).await;
    here.fence().await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    // Between the resume and the rooms.
    let reaped = arm.registry.reap(&here.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members, reaped.more), (0, 0, false));
    assert_eq!(members(arm, "#lobby").await, ["ann"]);
    back.rejoin().await;
    there.user("bob").await.join("#lobby").await;
    assert_eq!(heard.deltas_until("bob").await, [(2, joined("bob"))]);
    // It is the new gateway's now, also for a reaper.
    there.fence().await;
    assert_eq!(arm.registry.reap(&there.incarnation, 100).await.unwrap().members, 2);
}

async fn a_newer_claim_ends_the_membership_of_an_older_one(arm: &Arm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    // It ends before it has joined again: nobody else would take the member away.
    assert!(back.user.release().await);
    assert!(back.user.leave("#lobby").await);
    assert!(members(arm, "#lobby").await.is_empty());
    // Until then the order to end its connection is its own.
    arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns));
}

async fn the_read_cursor_goes_forward_to_the_end(arm: &Arm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    let session = &ann.owner.session;
    for _ in 0..3 {
        arm.write_to(&ann.nick, session, (&bob.nick, &bob.owner)).await;
    }
    for seq in [2, 1] {
        assert!(arm.registry.read(session, seq).await.unwrap());
    }
    let inbox = node.resume(&ann, "ann", 0, 1).await.unwrap().found.inbox;
    assert_eq!((inbox.seq, inbox.read), (3, 2));
    assert!(arm.registry.read(session, 99).await.unwrap());
    let again = node.resume(&ann, "ann", 1, 2).await.unwrap().found.inbox;
    assert_eq!((again.seq, again.read), (3, 3), "not past the end");
    assert!(!inbox.epoch.is_empty() && inbox.epoch == again.epoch);
    assert!(!arm.registry.read(&SessionId::random(), 1).await.unwrap());
}
