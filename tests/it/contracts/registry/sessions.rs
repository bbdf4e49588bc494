//! The contract of sessions that outlive their connection: held, resumed, moved between gateways, expired.
//!
//! Invariant: after a resume raised the fence, the earlier claim has no effect. Others see a change only if a
//! nick, a room or a status changed. `tokens` covers the resume tokens, `expiry` the holds, `orders` the sessions
//! that an order ends.

mod expiry;
mod orders;
mod tokens;

use std::time::Duration;

use presence::model::{Availability, LeftReason, Owner, SessionId, Status};
use presence::registry::{
    ClaimError, JoinEntry, JoinRequest, JoinedAt, LeaveIntent, MailboxOrder, RegistryError, ReleaseCause, ResumeError,
    ResumeTicket, ResumedSession,
};
use serde_json::json;

use super::{GatewayLease, NickSession, RegistryArm, joined, member, nick, on_both_arms, room, token};

on_both_arms! {
    resume_within_delay_is_not_announced,
    resume_into_a_lookalike_spelling_is_refused,
    resume_takes_session_from_live_connection,
    resume_on_same_gateway_ends_older_connection,
    expired_session_goes_offline_before_leaving_rooms,
    resume_during_leaves_keeps_remaining_rooms,
    crash_keeps_tokens_and_rooms,
    resume_returns_to_forgotten_rooms_of_any_name,
    rename_carries_the_session_along,
    resume_under_another_nick_announces_rename,
    resume_restores_the_session_status,
    late_claim_after_resume_takes_nothing,
    reaper_leaves_resumed_session_alone,
    newer_claim_can_end_older_membership,
    read_cursor_advances_to_inbox_end,
}

const HOLD: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

impl GatewayLease {
    /// Resumes a session with one of its tokens, and sets the next token.
    async fn resume(
        &self,
        user: &NickSession,
        name: &str,
        presented: u32,
        next: u32,
    ) -> Result<ReturnedSession, ResumeError> {
        let session = &user.owner.session;
        let ticket = ResumeTicket { session: session.clone(), presented: token(session, presented), user: None };
        let (nick, next) = (nick(name), token(session, next));
        let found = self.registry.resume(&self.incarnation, &ticket, &nick, &next).await?;
        let owner = Owner { incarnation: self.incarnation.clone(), session: session.clone(), fence: found.fence };
        Ok(ReturnedSession { user: NickSession { registry: self.registry.clone(), nick, owner }, found })
    }
}

/// A resumed session.
struct ReturnedSession {
    user: NickSession,
    found: ResumedSession,
}

impl ReturnedSession {
    /// Joins every restored room again, as the gateway does.
    async fn rejoin(&self) -> Vec<JoinedAt> {
        let NickSession { registry, nick, owner } = &self.user;
        let mut joined = Vec::new();
        for restored in &self.found.rooms {
            let entry =
                self.found.former.as_ref().map_or(JoinEntry::New, |(nick, owner)| JoinEntry::Renamed(nick, owner));
            joined.push(
                registry
                    .join(JoinRequest {
                        room: &restored.room,
                        nick,
                        owner,
                        user: None,
                        status: &self.found.status,
                        entry,
                        moderates: false,
                    })
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

impl NickSession {
    pub(super) async fn leave_for_now(&self, name: &str) -> bool {
        self.leave_with(name, LeftReason::Closed, LeaveIntent::ForNow).await
    }

    /// Returns `true` when the nick is listed as online.
    async fn is_online(&self) -> bool {
        self.registry.user(self.nick.key()).await.unwrap().unwrap().online
    }

    /// Checks that no call of this stale claim has any effect.
    async fn assert_no_effect(&self, name: &str) {
        assert!(!self.leave_for_now(name).await, "leave");
        assert!(!self.leave(name).await, "leave for good");
        assert!(!self.detach(HOLD).await, "detach");
        assert!(!self.expire().await, "expire");
        assert!(!self.release().await, "release");
        let status = Status { status: Availability::Away, text: String::new() };
        let changed = self
            .registry
            .set_status(self.nick.key(), &self.owner, &member(&self.nick, &status), &[room(name).key().clone()])
            .await;
        assert!(matches!(changed, Ok(false) | Err(RegistryError::Fenced)), "{changed:?}");
        for name in [name, "#elsewhere"] {
            let late = self
                .registry
                .join(JoinRequest {
                    room: &room(name),
                    nick: &self.nick,
                    owner: &self.owner,
                    user: None,
                    status: &status,
                    entry: JoinEntry::New,
                    moderates: false,
                })
                .await;
            assert!(matches!(late, Err(RegistryError::Unavailable(_) | RegistryError::Fenced)), "{late:?}");
        }
    }
}

async fn members(arm: &RegistryArm, name: &str) -> Vec<String> {
    let page = arm.registry.members(room(name).key(), None, 100).await.unwrap();
    page.items.into_iter().map(|member| member.nick).collect()
}

fn left(nick: &str, reason: &str) -> serde_json::Value {
    json!({ "left": [{ "nick": nick, "reason": reason }] })
}

async fn resume_within_delay_is_not_announced(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    let first = ann.join("#Lobby").await;
    ann.join("#art").await;
    arm.append_message(&first.room, &ann.nick, &ann.owner).await;
    let channel = arm.listen_to_room("#lobby").await;
    let before = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert!(ann.detach(HOLD).await);
    assert!(ann.detach(SHORT).await, "a repeated detach changes nothing");
    assert!(ann.is_online().await);
    let stranger = there.claim("ann").await.err();
    let Some(ClaimError::InUse { retry_after: Some(left) }) = stranger else { panic!("{stranger:?}") };
    assert!(left > SHORT && left <= HOLD, "{left:?}");

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert!(back.user.owner.fence > ann.owner.fence);
    assert_eq!(back.found.former, Some((ann.nick.clone(), ann.owner.clone())));
    assert_eq!(back.rooms(), ["#art", "#Lobby"]);
    let lobby = &back.found.rooms[1];
    assert_eq!((&lobby.epoch, lobby.seq), (&first.epoch, 1));
    // The old gateway may not know of the resume yet: its claim has no effect, now or later.
    ann.assert_no_effect("#lobby").await;
    let counts: Vec<u64> = back.rejoin().await.into_iter().map(|joined| joined.member_count).collect();
    assert_eq!(counts, [1, 1]);
    ann.assert_no_effect("#lobby").await;

    let after = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
    assert_eq!((after.online_since, &after.rooms), (before.online_since, &before.rooms));
    // The order to close the old connection stays with the old gateway until its next beat.
    arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    arm.assert_only_owner("g2").await;
    there.user("bob").await.join("#lobby").await;
    assert_eq!(channel.deltas_until("bob").await, [(2, joined("bob"))], "the resume was not announced");
    let expected = ["online ann", "join #Lobby ann", "join #art ann", "online bob", "join #Lobby bob"];
    assert_eq!(arm.history().await, expected);
    assert!(back.user.leave("#lobby").await && back.user.leave("#art").await && back.user.release().await);
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns || lease.node == "g2"));
}

async fn resume_into_a_lookalike_spelling_is_refused(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let owned = here.user("paypal").await;
    let other = here.user("paypai").await;
    let refused = there.resume(&other, "paypaI", 0, 1).await.err();
    assert_eq!(refused, Some(ResumeError::Claim(ClaimError::Confusable)));
    assert_eq!(arm.registry.user(other.nick.key()).await.unwrap().unwrap().nick, "paypai", "it keeps its spelling");
    there.resume(&other, "Paypai", 0, 1).await.unwrap();
    owned.release().await;
}

async fn resume_takes_session_from_live_connection(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let orders = arm.listen(&arm.keys.node(&here.incarnation).channel()).await;
    let channel = arm.listen_to_room("#lobby").await;

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    let Owner { session, fence, .. } = ann.owner.clone();
    assert!(back.user.owner.fence > fence);
    let order = format!("T {session} {}", fence.0);
    assert_eq!(orders.until("T ").await, [order]);
    let beat = arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert_eq!(beat.mailbox, [MailboxOrder::Taken { session, fence }]);

    ann.assert_no_effect("#lobby").await;
    assert_eq!(members(arm, "#lobby").await, ["ann"], "before the rooms are joined again");
    back.rejoin().await;
    ann.assert_no_effect("#lobby").await;
    there.user("bob").await.join("#lobby").await;
    assert_eq!(channel.deltas_until("bob").await, [(2, joined("bob"))]);
    assert_eq!(members(arm, "#lobby").await, ["ann", "bob"]);
    assert!(members(arm, "#elsewhere").await.is_empty());
}

async fn resume_on_same_gateway_ends_older_connection(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    let back = node.resume(&ann, "Ann", 0, 1).await.unwrap();
    back.rejoin().await;
    assert!(back.user.owner.fence > ann.owner.fence);
    ann.assert_no_effect("#lobby").await;
    let mailbox = arm.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox;
    let taken = MailboxOrder::Taken { session: ann.owner.session.clone(), fence: ann.owner.fence };
    assert_eq!(mailbox, [taken], "the older connection is closed");
    assert_eq!(members(arm, "#lobby").await, ["Ann"], "in the new spelling");
    assert!(back.user.leave("#lobby").await && back.user.release().await);
    assert!(!arm.registry.leases().await.unwrap().leases[0].owns);
}

async fn expired_session_goes_offline_before_leaving_rooms(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    assert!(!ann.expire().await, "a connected session does not expire");
    assert!(ann.detach(HOLD).await);
    assert!(ann.expire().await);
    assert!(!ann.expire().await, "only once");
    assert!(!ann.is_online().await);
    assert!(ann.leave_for_now("#lobby").await);
    assert!(!ann.leave_for_now("#lobby").await);
    let lines = ["online ann", "join #lobby ann", "offline ann closed", "leave #lobby ann closed"];
    assert_eq!(arm.history().await, lines);
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns));

    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!((&back.found.former, back.rooms()), (&None, vec!["#lobby"]));
    back.rejoin().await;
    assert_eq!(arm.history().await[4..], ["online ann", "join #lobby ann"]);
}

async fn resume_during_leaves_keeps_remaining_rooms(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    for name in ["#one", "#two"] {
        ann.join(name).await;
    }
    assert!(ann.detach(HOLD).await && ann.expire().await && ann.leave_for_now("#one").await);
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert!(!ann.leave_for_now("#two").await);
    assert_eq!(back.rooms(), ["#one", "#two"]);
    back.rejoin().await;
    let lines = ["offline ann closed", "leave #one ann closed", "online ann", "join #one ann"];
    assert_eq!(arm.history().await[3..], lines, "#two is never left");
    assert_eq!(members(arm, "#two").await, ["ann"]);
    arm.assert_only_owner("g2").await;
}

async fn crash_keeps_tokens_and_rooms(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (here.user("ann").await, here.user("bob").await);
    for user in [&ann, &bob] {
        user.join("#lobby").await;
    }
    let channel = arm.listen_to_room("#lobby").await;
    here.fence().await;
    // A resume before the reaper runs is never announced.
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!(back.rooms(), ["#lobby"]);
    back.rejoin().await;
    arm.registry.reap(&here.incarnation, 100).await.unwrap();
    assert!(back.user.is_online().await && !bob.is_online().await);

    // Bob's nick is free, and his token can claim it again.
    let bob = there.resume(&bob, "bob", 0, 1).await.unwrap();
    assert_eq!((&bob.found.former, bob.rooms()), (&None, vec!["#lobby"]));
    bob.rejoin().await;
    let deltas = channel.deltas_until("joined").await;
    assert_eq!(deltas, [(3, left("bob", "gateway_lost")), (4, joined("bob"))]);
}

/// Nothing is left of a forgotten room but its key in the session, which encodes signs and other scripts.
async fn resume_returns_to_forgotten_rooms_of_any_name(arm: &RegistryArm) {
    const ROOMS: [&str; 5] = ["#a/b:c+d=e", "#ann@example.org", "#john.doe", "#lobby", "#\u{674e}"];
    let (one, two) = (arm.node("g1").await, arm.node("g2").await);
    let ann = one.user("ann").await;
    for name in ROOMS {
        ann.join(name).await;
        ann.leave_with(name, LeftReason::Timeout, LeaveIntent::ForNow).await;
        assert!(arm.registry.room(room(name).key()).await.unwrap().is_none(), "{name} was not forgotten");
    }
    let resumed = two.resume(&ann, "ann", 0, 1).await.unwrap();
    let mut rooms: Vec<_> = resumed.found.rooms.iter().map(|membership| membership.room.as_str()).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ROOMS);
}

async fn rename_carries_the_session_along(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let anna = here.claim_as(&ann.owner.session, "anna").await.unwrap();
    anna.try_join("#lobby", JoinEntry::Renamed(&ann.nick, &ann.owner)).await.unwrap();
    assert!(arm.registry.release(&ann.nick, &ann.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap());
    assert!(anna.detach(HOLD).await && anna.expire().await && anna.leave_for_now("#lobby").await);
    there.user("ann").await;
    assert!(there.claim("anna").await.is_err());

    let back = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(back.rooms(), ["#lobby"]);
    assert!(back.user.is_online().await);
}

async fn resume_under_another_nick_announces_rename(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let away = Status { status: Availability::Away, text: "tea".to_owned() };
    assert!(
        arm.registry
            .set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &away), &[room("#lobby").key().clone()])
            .await
            .unwrap()
    );
    let channel = arm.listen_to_room("#lobby").await;
    assert!(ann.detach(HOLD).await);
    let back = there.resume(&ann, "anna", 0, 1).await.unwrap();
    assert_eq!(back.found.status, away);
    back.rejoin().await;
    ann.assert_no_effect("#lobby").await;
    there.user("ann").await.join("#lobby").await;
    let deltas = channel.deltas_until("joined").await;
    let renamed = json!({ "renamed": [{ "from": "ann", "to": "anna" }] });
    assert_eq!(deltas, [(3, renamed), (4, joined("ann"))]);
    let history = ["online ann", "join #lobby ann", "rename ann anna", "online ann", "join #lobby ann"];
    assert_eq!(arm.history().await, history);
    assert_eq!(back.user.registry.user(back.user.nick.key()).await.unwrap().unwrap().status, away);

    // A nick that is only held for the session is released too.
    let anna = back.user;
    assert!(anna.detach(HOLD).await && anna.expire().await && anna.leave_for_now("#lobby").await);
    there.resume(&ann, "annie", 1, 2).await.unwrap();
    there.user("anna").await;
}

async fn resume_restores_the_session_status(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let away = Status { status: Availability::Away, text: "tea".to_owned() };
    assert!(
        arm.registry
            .set_status(ann.nick.key(), &ann.owner, &member(&ann.nick, &away), &[room("#lobby").key().clone()])
            .await
            .unwrap()
    );
    let channel = arm.listen_to_room("#lobby").await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    assert_eq!(back.found.status, away);
    back.rejoin().await;
    assert!(back.user.detach(HOLD).await && back.user.expire().await && back.user.leave_for_now("#lobby").await);
    let deltas = channel.deltas_until("left").await;
    assert_eq!(deltas, [(3, left("ann", "closed"))], "no status change is announced");
    let back = here.resume(&ann, "ann", 1, 2).await.unwrap();
    assert_eq!(back.found.status, Status::default(), "an expired session loses its status");
}

async fn late_claim_after_resume_takes_nothing(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    there.resume(&ann, "ann", 0, 1).await.unwrap();
    for name in ["anna", "ann"] {
        let late = here.claim_as(&ann.owner.session, name).await.err();
        assert!(matches!(late, Some(ClaimError::Registry(RegistryError::Unavailable(_)))), "{name}: {late:?}");
    }
    assert_eq!(arm.registry.user(nick("anna").key()).await.unwrap(), None);
    // The same holds for a late claim from the gateway that owns the session now.
    assert!(there.claim_as(&ann.owner.session, "ann").await.is_err());
    there.resume(&ann, "ann", 1, 2).await.unwrap();
}

async fn reaper_leaves_resumed_session_alone(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let channel = arm.listen_to_room("#lobby").await;
    here.fence().await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    // The reaper runs between the resume and the joins.
    let reaped = arm.registry.reap(&here.incarnation, 100).await.unwrap();
    assert_eq!((reaped.nicks, reaped.members, reaped.more), (0, 0, false));
    assert_eq!(members(arm, "#lobby").await, ["ann"]);
    back.rejoin().await;
    there.user("bob").await.join("#lobby").await;
    assert_eq!(channel.deltas_until("bob").await, [(2, joined("bob"))]);
    // The membership belongs to the new gateway, also for its reaper.
    there.fence().await;
    assert_eq!(arm.registry.reap(&there.incarnation, 100).await.unwrap().members, 2);
}

async fn newer_claim_can_end_older_membership(arm: &RegistryArm) {
    let (here, there) = (arm.node("g1").await, arm.node("g2").await);
    let ann = here.user("ann").await;
    ann.join("#lobby").await;
    let back = there.resume(&ann, "ann", 0, 1).await.unwrap();
    // The session ends before it joins again, and must end the old membership itself.
    assert!(back.user.release().await);
    assert!(back.user.leave("#lobby").await);
    assert!(members(arm, "#lobby").await.is_empty());
    // The order to close the old connection stays with the old gateway until its next beat.
    arm.registry.beat(&here.incarnation, &[]).await.unwrap();
    assert!(arm.registry.leases().await.unwrap().leases.iter().all(|lease| !lease.owns));
}

async fn read_cursor_advances_to_inbox_end(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    let session = &ann.owner.session;
    for _ in 0..3 {
        arm.append_direct(&ann.nick, session, (&bob.nick, &bob.owner)).await;
    }
    for seq in [2, 1] {
        assert_eq!(arm.registry.read(session, seq).await.unwrap(), Some(2));
    }
    let inbox = node.resume(&ann, "ann", 0, 1).await.unwrap().found.inbox;
    assert_eq!((inbox.seq, inbox.read), (3, 2));
    assert_eq!(arm.registry.read(session, 99).await.unwrap(), Some(3));
    let again = node.resume(&ann, "ann", 1, 2).await.unwrap().found.inbox;
    assert_eq!((again.seq, again.read), (3, 3), "not past the end");
    assert!(!inbox.epoch.is_empty() && inbox.epoch == again.epoch);
    assert_eq!(arm.registry.read(&SessionId::random(), 1).await.unwrap(), None);
}
