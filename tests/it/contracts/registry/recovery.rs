//! A store that lost something, or may have: it gives nothing out before everybody has said what they hold, and then has
//! all of it again. Only Redis forgets, so these stories are Redis's alone.

use std::slice;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::eventually;
use presence::lease::audit::{AuditIntervals, ClaimAudit};
use presence::lease::{BeatOutcome, Heartbeat, OwnLease};
use presence::model::{Fence, LeftReason, Owner, Status, TokenHash};
use presence::registry::{
    Beat, ClaimError, Differences, Entry, Generation, LeaseState, Leaving, LocalClaim, Phase, RegistryError, Surplus,
};

use super::{Arm, Node, PATIENCE, User, nick, room, told};

/// The store is not open before this time.
const AT_LEAST: Duration = Duration::from_secs(2);

impl Node {
    async fn beat(&self) -> Beat {
        self.registry.beat(&self.incarnation, &[]).await.unwrap()
    }

    /// Says everything; returns the claims that were overtaken.
    async fn say(&self, holdings: &[LocalClaim]) -> Vec<Owner> {
        let generation = self.beat().await.generation.number;
        self.registry
            .reassert(&self.incarnation, &told(self.incarnation.as_str()), generation, holdings, true)
            .await
            .unwrap()
    }

    /// Beats until the store is open.
    async fn until_open(&self) -> Beat {
        eventually(PATIENCE, "the store is open", async || {
            let beat = self.beat().await;
            if beat.generation.is_open() { Ok(beat) } else { Err(beat) }
        })
        .await
    }
}

impl User {
    fn holding(&self, rooms: &[&str]) -> LocalClaim {
        let rooms = rooms.iter().map(|name| room(name)).collect();
        let token = TokenHash::of(b"secret");
        let (nick, owner) = (self.nick.clone(), self.owner.clone());
        LocalClaim { nick, owner, status: Status::default(), rooms, token, detached: false }
    }
}

impl Arm {
    /// Redis goes on with everything that it had, as after a failover in which nothing was lost.
    async fn fail_over(&self) {
        let () = self.ask(&["DEBUG", "CHANGE-REPL-ID"]).await;
    }

    async fn generation(&self) -> Generation {
        self.registry.leases().await.unwrap().generation
    }

    /// The clock says that so much time has passed since the generation began, and beats came in all the while.
    async fn has_recovered_for(&self, time: Duration) {
        let past = format!("-{}", time.as_millis());
        let () = self.ask(&["HINCRBY", &self.keys.generation(), "since", &past]).await;
    }
}

fn is_refused<T: std::fmt::Debug>(outcome: &Result<T, RegistryError>) {
    assert!(matches!(outcome, Err(RegistryError::Unavailable(reason)) if reason.contains("RECOVERING")), "{outcome:?}");
}

#[tokio::test]
async fn nothing_is_given_out_before_everybody_has_said_what_they_hold() {
    let arm = Arm::redis().await;
    let (one, two) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (one.user("ann").await, two.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let first = one.beat().await;
    assert!(first.generation.is_open() && first.asserted);

    arm.fail_over().await;
    let began = Instant::now();
    assert_eq!(arm.generation().await.phase, Phase::Recovering, "seen before anybody has written");
    let refused = one.claim("eve").await.err().unwrap();
    let ClaimError::Registry(refused) = refused else { panic!("{refused:?}") };
    is_refused::<()>(&Err(refused));
    is_refused(&arm.registry.join(&room("#other"), &ann.nick, &ann.owner, &Status::default(), Entry::New).await);
    is_refused(&arm.registry.set_status(&ann.nick, &ann.owner, &Status::default(), &[]).await);
    assert!(arm.registry.user(nick("eve").key()).await.unwrap().is_none(), "refused whole");
    assert!(bob.leave("#lobby").await, "what is given back is taken");
    assert!(bob.release().await);
    assert!(!arm.registry.fence(&two.incarnation, 0).await.unwrap(), "nobody is judged now");

    let beat = one.beat().await;
    assert!(beat.generation.number > first.generation.number && !beat.asserted, "{beat:?}");
    assert!(one.say(&[ann.holding(&["#lobby"])]).await.is_empty());
    assert!(one.beat().await.asserted);
    arm.has_recovered_for(AT_LEAST).await;
    assert!(!one.beat().await.generation.is_open(), "the other has said nothing yet");
    two.say(&[]).await;
    let beat = one.beat().await;
    assert!(beat.generation.is_open(), "{beat:?}");
    assert_eq!(arm.generation().await, beat.generation);
    assert!(began.elapsed() < AT_LEAST, "or the patience is not what is tested here");
    one.user("eve").await;
    ann.join("#other").await;
}

#[tokio::test]
async fn a_recovery_takes_two_seconds_in_case_somebody_is_not_known_of() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    arm.fail_over().await;
    node.say(&[]).await;
    let began = Instant::now();
    node.until_open().await;
    assert!(began.elapsed() > AT_LEAST - Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn whoever_says_nothing_for_ten_seconds_is_fenced_and_the_others_go_on() {
    let arm = Arm::redis().await;
    let (node, silent) = (arm.node("g1").await, arm.node("g2").await);
    let ann = silent.user("ann").await;
    arm.fail_over().await;
    node.say(&[]).await;
    arm.has_recovered_for(Duration::from_secs(9)).await;
    assert!(!node.beat().await.generation.is_open());
    arm.has_recovered_for(Duration::from_secs(1)).await;
    let beat = node.beat().await;
    assert!(beat.generation.is_open());
    let state = |node: &Node| beat.leases.iter().find(|lease| lease.incarnation == node.incarnation).unwrap().state;
    assert_eq!((state(&node), state(&silent)), (LeaseState::Live, LeaseState::Fenced));
    assert_eq!(arm.registry.beat(&silent.incarnation, &[]).await, Err(RegistryError::Fenced));
    let (held, number) = ([ann.holding(&[])], beat.generation.number);
    let said = arm.registry.reassert(&silent.incarnation, &told("g2"), number, &held, true).await;
    assert_eq!(said, Err(RegistryError::Fenced), "it comes too late");
    node.user("ann").await;
}

#[tokio::test]
async fn a_store_that_was_away_again_holds_that_against_nobody() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    arm.fail_over().await;
    node.say(&[]).await;
    // For 20 s nobody beat: the store stood still.
    for time in ["since", "seen"] {
        let () = arm.ask(&["HINCRBY", &arm.keys.generation(), time, "-20000"]).await;
    }
    assert!(!node.beat().await.generation.is_open());
    assert_eq!(other.beat().await.leases.iter().filter(|lease| lease.state == LeaseState::Live).count(), 2);
    // Nor is a clock waited for that was set back by an hour.
    for time in ["since", "seen"] {
        let () = arm.ask(&["HINCRBY", &arm.keys.generation(), time, "3600000"]).await;
    }
    other.say(&[]).await;
    node.until_open().await;
}

#[tokio::test]
async fn what_was_lost_is_put_back_in_silence() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("Ann").await, other.user("bob").await);
    for name in ["#Lobby", "#kitchen"] {
        ann.join(name).await;
    }
    bob.join("#lobby").await;
    let away = Status { text: "tea".to_owned(), ..Status::default() };
    assert!(arm.registry.set_status(&ann.nick, &ann.owner, &away, &[room("#lobby").key().clone()]).await.unwrap());
    let shown = async || {
        let mut user = arm.registry.user(ann.nick.key()).await.unwrap().unwrap();
        (user.online_since, user.last_active) = (None, 0);
        let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap();
        let users = arm.registry.users(None, 10).await.unwrap().items.len();
        let rooms = arm.registry.rooms(None, 10).await.unwrap().items;
        let counted = arm.registry.gateways().await.unwrap().into_iter().map(|gateway| gateway.users);
        (user, members, users, rooms, counted.collect::<Vec<_>>(), arm.registry.stats().await.unwrap())
    };
    let before = shown().await;
    let heard = arm.listen(&arm.keys.room_channel(room("#lobby").key())).await;

    let () = arm.ask(&["FLUSHALL"]).await;
    let mut holding = ann.holding(&["#Lobby", "#kitchen"]);
    holding.status = away;
    node.say(&[holding.clone()]).await;
    other.say(&[bob.holding(&["#lobby"])]).await;
    assert_eq!(shown().await, before);
    assert!(arm.history().await.is_empty(), "nobody was told that it was gone");
    let token: String = arm.ask(&["HGET", &arm.keys.session(&ann.owner.session), "token"]).await;
    assert_eq!(token, TokenHash::of(b"secret").as_str());
    for key in
        [arm.keys.nick(ann.nick.key()), arm.keys.session(&ann.owner.session), arm.keys.room(room("#lobby").key())]
    {
        let ttl: i64 = arm.ask(&["TTL", &key]).await;
        assert_eq!(ttl, -1, "{key}");
    }

    // Said twice it is the same, and what is owned can be used and given back.
    node.say(&[holding]).await;
    assert_eq!(shown().await, before);
    node.until_open().await;
    let eve = node.user("eve").await;
    assert!(eve.owner.fence > bob.owner.fence, "no fencing number comes back");
    eve.join("#lobby").await;
    assert!(ann.leave("#lobby").await && ann.leave("#kitchen").await && ann.release().await);
    let deltas = heard.deltas_until(r#"{"left":[{"nick":"Ann""#).await;
    assert_eq!(deltas.iter().filter(|(_, delta)| !delta["joined"].is_null()).count(), 1, "eve's, {deltas:?}");
    let left: Vec<String> = arm.ask(&["SMEMBERS", &arm.keys.owned_members(&node.incarnation)]).await;
    assert_eq!(left, ["lobby eve"]);
}

#[tokio::test]
async fn of_two_that_hold_a_name_the_later_claim_wins_whoever_speaks_first() {
    for later_first in [true, false] {
        let arm = Arm::redis().await;
        let (one, two) = (arm.node("g1").await, arm.node("g2").await);
        let (bob, ann) = (two.user("bob").await, one.user("ann").await);
        let later = User { owner: Owner { fence: Fence(7), ..bob.owner.clone() }, nick: ann.nick.clone(), ..bob };
        let () = arm.ask(&["FLUSHALL"]).await;
        let earlier = async || one.say(&[ann.holding(&["#lobby"])]).await;
        if later_first {
            assert!(two.say(&[later.holding(&["#lobby"])]).await.is_empty());
            assert_eq!(earlier().await, slice::from_ref(&ann.owner));
        } else {
            assert!(earlier().await.is_empty());
            assert!(two.say(&[later.holding(&["#lobby"])]).await.is_empty());
            assert!(!one.beat().await.asserted, "it has to speak again, to hear it");
            assert_eq!(earlier().await, slice::from_ref(&ann.owner));
        }
        assert!(one.beat().await.asserted && two.beat().await.asserted);
        assert!(!ann.release().await && !ann.leave("#lobby").await, "nothing is the loser's");
        one.until_open().await;
        assert_eq!(one.user("eve").await.owner.fence, Fence(8));
        assert!(later.leave("#lobby").await && later.release().await);
        let owned: Vec<String> = arm.ask(&["SMEMBERS", &arm.keys.owned_nicks(&one.incarnation)]).await;
        assert_eq!(owned, ["eve"]);
    }
}

#[tokio::test]
async fn the_loss_of_a_key_that_ownership_rests_on_begins_a_generation() {
    for lost in ["generation", "leases", "fence"] {
        let arm = Arm::redis().await;
        let node = arm.node("g1").await;
        let ann = node.user("ann").await;
        let before = node.beat().await.generation;
        let () = arm.ask(&["DEL", &format!("{}{lost}", arm.keys.base())]).await;
        assert!(node.claim("eve").await.is_err(), "{lost}");
        let beat = node.beat().await;
        assert!(beat.generation.number > before.number && !beat.generation.is_open(), "{lost}: {beat:?}");
        node.say(&[ann.holding(&[])]).await;
        let beat = node.until_open().await;
        assert_eq!(beat.leases.len(), 1);
        assert!(node.user("eve").await.owner.fence > ann.owner.fence, "{lost}");
    }
}

#[tokio::test]
async fn a_newcomer_does_not_open_a_store_that_has_lost_somebody_else() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    node.user("bob").await;
    let ann = node.user("ann").await;
    let () = arm.ask(&["FLUSHALL"]).await;
    // To the newcomer the store is new.
    let newcomer = arm.node("g2").await;
    let usurper = newcomer.user("ann").await;
    let beat = node.beat().await;
    assert!(!beat.generation.is_open(), "it is not");
    assert!(newcomer.claim("carl").await.is_err());
    node.say(&[ann.holding(&["#lobby"])]).await;
    assert_eq!(newcomer.say(&[usurper.holding(&[])]).await, slice::from_ref(&usurper.owner));
    node.until_open().await;
    assert!(
        arm.registry.leave(&room("#lobby"), &ann.nick, &ann.owner, LeftReason::Left, Leaving::ForGood).await.unwrap()
    );

    // Whoever comes after that time has ended long ago.
    let () = arm.ask(&["HINCRBY", &arm.keys.generation(), "since", "-10001"]).await;
    let unknown = presence::model::Incarnation::random();
    assert_eq!(arm.registry.beat(&unknown, &[]).await, Err(RegistryError::Fenced));
}

#[tokio::test]
async fn the_dead_stay_dead_and_nobody_speaks_in_another_generation() {
    let arm = Arm::redis().await;
    let (node, dead) = (arm.node("g1").await, arm.node("g2").await);
    let ann = dead.user("ann").await;
    dead.fence().await;
    let old = node.beat().await.generation.number;
    arm.fail_over().await;
    let current = node.beat().await.generation.number;
    let said = arm.registry.reassert(&dead.incarnation, &told("g2"), current, &[ann.holding(&[])], true).await;
    assert_eq!(said, Err(RegistryError::Fenced));
    let said = arm.registry.reassert(&node.incarnation, &told("g1"), old, &[], true).await;
    assert!(matches!(said, Err(RegistryError::Unavailable(_))), "{said:?}");
    assert!(!node.beat().await.asserted);
}

#[tokio::test]
async fn a_session_that_had_no_connection_has_none_afterwards() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    let () = arm.ask(&["FLUSHALL"]).await;
    node.say(&[LocalClaim { detached: true, ..ann.holding(&[]) }]).await;
    let record = arm.keys.nick(ann.nick.key());
    let [detached, held]: [u64; 2] = arm.ask(&["HMGET", &record, "detached", "held_until"]).await;
    assert_eq!(held - detached, 60_000);
    node.say(&[LocalClaim { detached: true, ..ann.holding(&[]) }]).await;
    let again: u64 = arm.ask(&["HGET", &record, "detached"]).await;
    assert_eq!(again, detached, "its time runs on");
}

#[tokio::test]
async fn what_was_lost_alone_is_found_and_put_back() {
    let arm = Arm::redis().await;
    let node = arm.node("g1").await;
    let (ann, bob) = (node.user("ann").await, node.user("bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    let held = [ann.holding(&["#lobby"]), bob.holding(&["#lobby"])];
    let audit = async || arm.registry.audit(&node.incarnation, &held).await.unwrap();
    assert_eq!(audit().await, Differences::default());
    let (nick, lobby) = (ann.nick.key(), room("#lobby"));
    let base = arm.keys.base();
    for lost in [
        vec!["DEL".to_owned(), arm.keys.nick(nick)],
        vec!["ZREM".to_owned(), arm.keys.online(), "ann".to_owned()],
        vec!["SREM".to_owned(), arm.keys.owned_nicks(&node.incarnation), "ann".to_owned()],
        vec!["SREM".to_owned(), arm.keys.owned_members(&node.incarnation), "lobby ann".to_owned()],
        vec!["HDEL".to_owned(), format!("{base}members:lobby"), "ann".to_owned()],
    ] {
        let words: Vec<&str> = lost.iter().map(String::as_str).collect();
        let count: u64 = arm.ask(&words).await;
        assert_eq!(count, 1, "{lost:?}");
        assert_eq!(audit().await, Differences { missing: vec![ann.owner.clone()], surplus: vec![] }, "{lost:?}");
        node.say(&held[..1]).await;
        assert_eq!(audit().await, Differences::default(), "{lost:?}");
    }
    assert_eq!(arm.registry.members(lobby.key(), None, 10).await.unwrap().items.len(), 2);
    assert!(arm.registry.user(nick).await.unwrap().unwrap().online);
}

#[tokio::test]
async fn what_nobody_holds_is_found() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob) = (node.user("ann").await, node.user("Bob").await);
    ann.join("#lobby").await;
    bob.join("#Lobby").await;
    other.user("carl").await.join("#lobby").await;
    // Entries of an index that no record bears out are nobody's.
    let () = arm.ask(&["SADD", &arm.keys.owned_nicks(&node.incarnation), "carl", "never"]).await;
    let () = arm.ask(&["SADD", &arm.keys.owned_members(&node.incarnation), "lobby carl", "never ann"]).await;
    let found = arm.registry.audit(&node.incarnation, &[ann.holding(&[])]).await.unwrap();
    assert!(found.missing.is_empty());
    let mut surplus = found.surplus;
    surplus.sort_by_key(|surplus| format!("{surplus:?}"));
    let lobby = || room("#lobby");
    let mut expected = vec![
        Surplus::Member(lobby(), bob.nick.clone(), bob.owner.clone()),
        Surplus::Member(lobby(), ann.nick.clone(), ann.owner.clone()),
        Surplus::Nick(bob.nick.clone(), bob.owner.clone()),
    ];
    expected.sort_by_key(|surplus| format!("{surplus:?}"));
    assert_eq!(surplus, expected);
}

/// A gateway that compares what `held` says with the store, for as long as the task runs.
struct Auditor {
    held: Arc<Mutex<Vec<LocalClaim>>>,
    overtaken: Arc<Mutex<Vec<Owner>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Auditor {
    fn of(node: &Node, holdings: &[LocalClaim]) -> Self {
        let held = Arc::new(Mutex::new(holdings.to_vec()));
        let overtaken: Arc<Mutex<Vec<Owner>>> = Arc::default();
        let (node, holdings, closed) = (node.clone(), Arc::clone(&held), Arc::clone(&overtaken));
        let task = tokio::spawn(async move {
            let lease = OwnLease {
                incarnation: node.incarnation.clone(),
                ..OwnLease::new(node.registry.clone(), Arc::default(), told("g1"))
            };
            let intervals = AuditIntervals { clean: Duration::from_millis(300), recheck: Duration::from_millis(150) };
            let (mut heartbeat, mut audit) = (Heartbeat::new(&lease), ClaimAudit::new(&lease, intervals));
            let beats = async { while !matches!(heartbeat.next().await, BeatOutcome::Lost) {} };
            let audits = async {
                loop {
                    let overtaken = audit.next(|| holdings.lock().unwrap().clone()).await;
                    closed.lock().unwrap().extend(overtaken);
                }
            };
            tokio::select! {
                () = beats => {}
                () = audits => {}
            }
        });
        Self { held, overtaken, task }
    }
}

#[tokio::test]
async fn a_gateway_and_the_store_agree_again() {
    let arm = Arm::redis().await;
    let (node, other) = (arm.node("g1").await, arm.node("g2").await);
    let (ann, bob, carl) = (node.user("ann").await, node.user("bob").await, node.user("carl").await);
    for user in [&ann, &bob, &carl] {
        user.join("#lobby").await;
    }
    let auditor = Auditor::of(&node, &[ann.holding(&["#lobby"]), carl.holding(&["#lobby"])]);
    // ann's nick is lost, bob was never given back, carl's nick has been taken by a later claim.
    let () = arm.ask(&["DEL", &arm.keys.nick(ann.nick.key())]).await;
    let usurper = format!("{}/usurper/99", other.incarnation);
    let () = arm.ask(&["HSET", &arm.keys.nick(carl.nick.key()), "owner", &usurper]).await;
    eventually(PATIENCE, "both agree", async || {
        let [ann_is, bob_is] = [&ann, &bob].map(|user| user.nick.key().clone());
        let users = arm.registry.lookup(&[ann_is, bob_is]).await.unwrap();
        let online: Vec<bool> = users.iter().flatten().map(|user| user.online).collect();
        let members = arm.registry.members(room("#lobby").key(), None, 10).await.unwrap().items;
        let names: Vec<String> = members.into_iter().map(|member| member.nick).collect();
        let overtaken = auditor.overtaken.lock().unwrap().clone();
        let agreed = online == [true, false] && names == ["ann", "carl"] && overtaken.contains(&carl.owner);
        if agreed { Ok(()) } else { Err((online, names, overtaken)) }
    })
    .await;

    // A room that was left while the store was asked is not put back.
    auditor.held.lock().unwrap()[0].rooms.clear();
    eventually(PATIENCE, "ann has left", async || {
        let rooms = arm.registry.user(ann.nick.key()).await.unwrap().unwrap().rooms;
        if rooms.is_empty() { Ok(()) } else { Err(rooms) }
    })
    .await;
    assert!(ann.release().await, "and is still there herself");
}
