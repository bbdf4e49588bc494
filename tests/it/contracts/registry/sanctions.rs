//! The contract of the list of sanctions: one entry per kind and subject, dense knowledge by version, bounded.

use std::time::{Duration, SystemTime};

use harness::eventually;
use presence::model::{SanctionChange, SanctionEntry, SanctionKind, SanctionOrder, SanctionSubject, SubjectFields};
use presence::registry::{BeatReport, MailboxOrder, Registry, ReleaseCause, SanctionCursor};

use super::{PATIENCE, RegistryArm, on_both_arms};

on_both_arms! {
    order_by_nick_follows_a_renamed_session,
    order_is_listed_until_it_is_lifted,
    newest_order_about_a_subject_wins,
    beat_returns_the_version_of_the_list,
    change_is_sent_to_every_gateway,
    changes_since_a_version_are_complete,
    forgotten_changes_begin_the_list_anew,
    entry_ends_at_its_time_everywhere,
    two_moderators_at_once_agree,
    repeated_order_with_a_key_changes_nothing,
}

fn subject(kind: &str, name: &str) -> SanctionSubject {
    let (name, fields) = (Some(name.to_owned()), SubjectFields::default());
    let fields = match kind {
        "nick" => SubjectFields { nick: name, ..fields },
        "user" => SubjectFields { user: name, ..fields },
        _ => SubjectFields { address: name, ..fields },
    };
    fields.try_into().unwrap()
}

pub(super) fn ban(nick: &str) -> SanctionOrder {
    SanctionOrder::new(SanctionKind::Ban, subject("nick", nick), "ann", "spam").unwrap()
}

pub(super) async fn put(registry: &Registry, order: &SanctionOrder, lasts: Option<Duration>) -> SanctionEntry {
    registry.sanction(order, lasts).await.unwrap().expect("the list has space")
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Returns the names of the bans in force, the oldest first.
pub(super) async fn bans(registry: &Registry) -> Vec<String> {
    let entries = registry.sanction_entries(SanctionKind::Ban, now()).await.unwrap();
    entries.iter().map(|entry| entry.order.subject.to_string()).collect()
}

async fn order_by_nick_follows_a_renamed_session(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let eve = node.user("eve").await;
    let anna = node.claim_as(&eve.owner.session, "Anna").await.unwrap();
    let order = async |nick| arm.registry.sanction_person(&ban(nick), None).await.unwrap().unwrap();
    order("EVE").await;
    assert_eq!(bans(&arm.registry).await, ["nick EVE", "nick Anna"], "while the session is being renamed");
    assert!(node.registry.release(&eve.nick, &eve.owner, ReleaseCause::RenamedTo(&anna.nick)).await.unwrap());
    order("eve").await;
    assert_eq!(bans(&arm.registry).await, ["nick eve", "nick Anna"], "and after it");

    let kicked = || async { node.registry.beat(&node.incarnation, &[]).await.unwrap().mailbox };
    assert!(arm.registry.kick(eve.nick.key()).await.unwrap());
    assert_eq!(kicked().await, [MailboxOrder::Kick(anna.owner.session.clone())]);

    // Once another session has the nick, it alone is meant.
    let other = node.user("eve").await;
    assert!(arm.registry.kick(eve.nick.key()).await.unwrap());
    assert_eq!(kicked().await, [MailboxOrder::Kick(other.owner.session.clone())]);
    assert_eq!(arm.registry.renamed(eve.nick.key()).await.unwrap(), None);
    assert!(anna.release().await && other.release().await);
    assert!(!arm.registry.kick(eve.nick.key()).await.unwrap(), "nobody is online");
}

async fn order_is_listed_until_it_is_lifted(arm: &RegistryArm) {
    arm.node("g1").await;
    let registry = &arm.registry;
    let entry = put(registry, &ban("Eve"), Some(Duration::from_secs(60))).await;
    assert_eq!((entry.order.by.as_str(), entry.order.reason.as_str()), ("ann", "spam"));
    assert_eq!(entry.until, Some(entry.time + 60_000));
    let mute = SanctionOrder::new(SanctionKind::Mute, subject("user", "u 1|é"), "bob", "").unwrap();
    let muted = put(registry, &mute, None).await;
    assert_eq!(bans(registry).await, ["nick Eve"]);
    let mutes = registry.sanction_entries(SanctionKind::Mute, now()).await.unwrap();
    assert_eq!(mutes, [muted]);

    assert!(!registry.lift(SanctionKind::Mute, &entry.id).await.unwrap(), "an id of another kind");
    assert!(!registry.lift(SanctionKind::Ban, "unknown").await.unwrap());
    assert!(registry.lift(SanctionKind::Ban, &entry.id).await.unwrap());
    assert!(!registry.lift(SanctionKind::Ban, &entry.id).await.unwrap(), "lifted once");
    assert_eq!(bans(registry).await, [] as [&str; 0]);
    put(registry, &ban("eve"), None).await;
    assert_eq!(bans(registry).await, ["nick eve"], "a lifted ban can be ordered again");
}

async fn newest_order_about_a_subject_wins(arm: &RegistryArm) {
    arm.node("g1").await;
    let first = put(&arm.registry, &ban("eve"), None).await;
    let second = put(&arm.registry, &ban("EVE"), Some(Duration::from_secs(9))).await;
    assert_eq!(first.id, second.id);
    assert!(second.version > first.version);
    let listed = arm.registry.sanction_entries(SanctionKind::Ban, now()).await.unwrap();
    assert_eq!(listed, [second]);
}

async fn beat_returns_the_version_of_the_list(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let beat = async || arm.registry.send_beat(&node.incarnation, BeatReport::default()).await.unwrap().sanctions;
    assert_eq!(beat().await, 0);
    let entry = put(&arm.registry, &ban("eve"), None).await;
    assert_eq!(beat().await, entry.version);
    assert!(arm.registry.lift(SanctionKind::Ban, &entry.id).await.unwrap());
    assert!(beat().await > entry.version);
}

async fn change_is_sent_to_every_gateway(arm: &RegistryArm) {
    let (g1, g2) = (arm.node("g1").await, arm.node("g2").await);
    let channel = |node: &super::GatewayLease| arm.keys.node(&node.incarnation).channel().to_string();
    let (first, second) = (arm.listen(&channel(&g1)).await, arm.listen(&channel(&g2)).await);
    let entry = put(&arm.registry, &ban("eve"), None).await;
    for log in [first, second] {
        assert_eq!(log.until("B ").await, [format!("B {}", entry.version)]);
    }
}

async fn changes_since_a_version_are_complete(arm: &RegistryArm) {
    arm.node("g1").await;
    let registry = &arm.registry;
    let entries = [put(registry, &ban("a"), None).await, put(registry, &ban("b"), None).await];
    assert!(registry.lift(SanctionKind::Ban, &entries[0].id).await.unwrap());
    let page = registry.sanctions_since(SanctionCursor::from(0), 1).await.unwrap();
    assert_eq!((page.changes.len(), page.more), (1, true));
    assert_eq!(page.changes[0].version, entries[1].version, "a lifted entry moved to the end");
    let rest = registry.sanctions_since(SanctionCursor::from(entries[1].version), 10).await.unwrap();
    let lifted: Vec<_> = rest.changes.iter().map(|change| (change.id.as_str(), change.entry.is_none())).collect();
    assert_eq!((lifted, rest.more), (vec![(entries[0].id.as_str(), true)], false));
    assert_eq!(rest.version, rest.changes[0].version);
    let none = registry.sanctions_since(SanctionCursor::from(rest.version), 10).await.unwrap();
    assert_eq!((none.changes, none.version, none.is_whole), (vec![], rest.version, false));
}

async fn forgotten_changes_begin_the_list_anew(arm: &RegistryArm) {
    arm.node("g1").await;
    let registry = &arm.registry;
    let kept = put(registry, &ban("kept"), None).await;
    for number in 0..1001 {
        let entry = put(registry, &ban(&format!("n{number}")), None).await;
        assert!(registry.lift(SanctionKind::Ban, &entry.id).await.unwrap());
    }
    let page = registry.sanctions_since(SanctionCursor::from(kept.version), 1).await.unwrap();
    assert!(page.is_whole, "the oldest lifted entry is forgotten");
    assert_eq!(page.changes[0].id, kept.id);
    assert_eq!(bans(registry).await, ["nick kept"]);
    // The whole list is read page by page, whatever was forgotten before.
    put(registry, &ban("second"), None).await;
    let (mut place, mut names) = (SanctionCursor::from(0), Vec::new());
    for _ in 0..1100 {
        let page = registry.sanctions_since(place, 1).await.unwrap();
        assert_eq!(page.is_whole, names.is_empty() && place == SanctionCursor::from(0), "{place:?}");
        names.extend(page.changes.iter().filter_map(|change| Some(change.entry.as_ref()?.order.subject.to_string())));
        place = place.behind(&page);
        if !page.more {
            break;
        }
    }
    assert_eq!(names, ["nick kept", "nick second"]);
    let newest = registry.sanctions_since(SanctionCursor::from(page.version - 1), 10).await.unwrap();
    assert!(!newest.is_whole);
}

async fn entry_ends_at_its_time_everywhere(arm: &RegistryArm) {
    arm.node("g1").await;
    let registry = &arm.registry;
    put(registry, &ban("eve"), Some(Duration::from_millis(300))).await;
    assert_eq!(bans(registry).await, ["nick eve"]);
    eventually(PATIENCE, "the ban has ended", async || {
        let bans = bans(registry).await;
        if bans.is_empty() { Ok(()) } else { Err(bans) }
    })
    .await;
    // The next change forgets it.
    put(registry, &ban("zoe"), None).await;
    let ids: Vec<SanctionChange> = registry.sanctions_since(SanctionCursor::from(0), 10).await.unwrap().changes;
    assert_eq!(ids.len(), 1);
}

async fn two_moderators_at_once_agree(arm: &RegistryArm) {
    arm.node("g1").await;
    let orders = (0..20).map(|number: u64| {
        let registry = arm.registry.clone();
        tokio::spawn(async move { put(&registry, &ban("eve"), Some(Duration::from_secs(60 + number))).await })
    });
    let entries: Vec<SanctionEntry> =
        futures_util::future::join_all(orders).await.into_iter().map(Result::unwrap).collect();
    let newest = entries.iter().max_by_key(|entry| entry.version).unwrap();
    let listed = arm.registry.sanction_entries(SanctionKind::Ban, now()).await.unwrap();
    assert_eq!(&listed, std::slice::from_ref(newest));
    let lifted = futures_util::future::join_all((0..4).map(|_| arm.registry.lift(SanctionKind::Ban, &newest.id))).await;
    assert_eq!(lifted.into_iter().filter(|lifted| *lifted == Ok(true)).count(), 1);
}

async fn repeated_order_with_a_key_changes_nothing(arm: &RegistryArm) {
    arm.node("g1").await;
    let registry = &arm.registry;
    let with_key = |key: &str| SanctionOrder { key: Some(key.to_owned()), ..ban("eve") };
    let first = put(registry, &with_key("k\"1"), Some(Duration::from_secs(60))).await;
    assert_eq!(put(registry, &with_key("k\"1"), Some(Duration::from_secs(90))).await, first);
    let by_another = SanctionOrder { by: "another".to_owned(), ..with_key("k\"1") };
    let other = put(registry, &by_another, Some(Duration::from_secs(60))).await;
    assert!(other.version > first.version, "another application has keys of its own");
    let second = put(registry, &with_key("k2"), None).await;
    assert!(second.version > first.version);
    assert!(registry.lift(SanctionKind::Ban, &first.id).await.unwrap());
    assert!(put(registry, &with_key("k2"), None).await.version > second.version, "a lifted order can be repeated");
}

mod redis_only {
    use super::*;

    #[tokio::test]
    async fn full_list_refuses_further_bans() {
        let arm = RegistryArm::redis().await;
        arm.node("g1").await;
        let entry = put(&arm.registry, &ban("eve"), None).await;
        let () = arm.ask(&["HSET", &arm.keys.sanctions(), "count:ban", "10000"]).await;
        assert_eq!(arm.registry.sanction(&ban("zoe"), None).await.unwrap(), None);
        assert_eq!(put(&arm.registry, &ban("eve"), None).await.id, entry.id, "an entry can be changed");
        let mute = SanctionOrder::new(SanctionKind::Mute, subject("nick", "zoe"), "ann", "").unwrap();
        assert!(arm.registry.sanction(&mute, None).await.unwrap().is_some(), "each kind has its own bound");
    }

    #[tokio::test]
    async fn restore_writes_what_the_store_lost() {
        let arm = RegistryArm::redis().await;
        arm.node("g1").await;
        let registry = &arm.registry;
        let entries = [put(registry, &ban("a"), None).await, put(registry, &ban("b"), None).await];
        assert!(registry.lift(SanctionKind::Ban, &entries[0].id).await.unwrap());
        let known = registry.sanctions_since(SanctionCursor::from(0), 10).await.unwrap();
        let () = arm.ask(&["FLUSHALL"]).await;
        assert_eq!(registry.sanctions_since(SanctionCursor::from(0), 10).await.unwrap().version, 0);
        for _ in 0..2 {
            registry.restore_sanctions(&known.changes[..1], None).await.unwrap();
            registry.restore_sanctions(&known.changes[1..], Some(known.version)).await.unwrap();
        }
        assert_eq!(registry.sanctions_since(SanctionCursor::from(0), 10).await.unwrap(), known);
        let counts: Vec<Option<u64>> = arm.ask(&["HMGET", &arm.keys.sanctions(), "count:ban", "count:lifted"]).await;
        assert_eq!(counts, [Some(1), None]);
        // An older line of an entry changes nothing.
        let older = SanctionChange {
            version: 1,
            line: known.changes[0].line.replacen(&known.changes[0].version.to_string(), "1", 1),
            ..known.changes[0].clone()
        };
        registry.restore_sanctions(&[older], Some(1)).await.unwrap();
        assert_eq!(registry.sanctions_since(SanctionCursor::from(0), 10).await.unwrap(), known);
    }
}
