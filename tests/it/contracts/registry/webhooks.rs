//! The log of the webhooks: the lead, the cursors, the bounds, and the dead letters.

use std::time::Duration;

use presence::registry::{ApiPost, LoggedEvent, PostTarget, WebhookLead, WebhookSettlement};

use super::{PATIENCE, RegistryArm, on_both_arms, room};

on_both_arms! {
    log_has_wanted_events_after_the_lead_only,
    only_the_leader_moves_a_cursor,
    events_that_every_webhook_has_are_removed,
    log_is_bounded_in_bytes_and_numbers_stay,
    taken_events_are_bounded_in_number_and_bytes,
    dead_letters_return_for_their_webhook_only,
    dead_letters_are_bounded_in_bytes,
    replay_keeps_the_bounds_of_the_log,
    logging_ends_when_no_process_leads,
    messages_are_logged_with_their_position,
    tail_wakes_at_a_new_event,
}

/// Bounds that these tests do not reach, and the kinds that they log.
const WANTED: &str = "1000 1048576 join online ";
/// All events of these tests in one read.
const ALL: [usize; 2] = [1000, 1 << 20];

impl RegistryArm {
    /// Takes or renews the lead of a process for the webhooks `a` and `b`.
    async fn lead(&self, process: &str, wanted: &str) -> bool {
        let lead = WebhookLead { process, lasts: PATIENCE };
        self.registry.lead_webhooks(&lead, wanted, &["a", "b"]).await.unwrap()
    }

    /// Returns the events that a webhook is to get from this process; `None` if it does not lead.
    async fn taken(&self, process: &str, webhook: &str) -> Option<Vec<LoggedEvent>> {
        let taken = self.registry.take_webhook_events(process, webhook, ALL).await.unwrap();
        taken.map(|taken| taken.events)
    }

    async fn settle(&self, process: &str, [from, to]: [u64; 2], dead: &[LoggedEvent]) -> bool {
        let settlement = WebhookSettlement { webhook: "a", from, to, about: "{}", dead };
        self.registry.settle_webhook(process, &settlement).await.unwrap()
    }
}

fn numbers(events: &[LoggedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

async fn log_has_wanted_events_after_the_lead_only(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    node.user("early").await;
    assert!(arm.lead("p1", WANTED).await);
    assert_eq!(arm.taken("p1", "a").await.unwrap(), []);
    let ann = node.user("ann").await;
    ann.join("#lobby").await;
    ann.leave("#lobby").await;
    let events = arm.taken("p1", "a").await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["online", "join"], "a leave is not wanted");
    let joined: serde_json::Value = serde_json::from_str(&events[1].data).unwrap();
    assert_eq!(joined, serde_json::json!({"room": "#lobby", "nick": "ann", "time": events[1].time}));
    assert_eq!(arm.taken("p1", "b").await.unwrap(), events, "each webhook has its own cursor");
    assert_eq!(arm.taken("p1", "unknown").await, None);
}

async fn only_the_leader_moves_a_cursor(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    assert!(!arm.lead("p2", WANTED).await, "one leads at a time");
    node.user("ann").await;
    node.user("bob").await;
    assert_eq!(arm.taken("p2", "a").await, None);
    assert!(!arm.settle("p2", [0, 1], &[]).await, "another process leads");
    assert!(!arm.settle("p1", [1, 2], &[]).await, "the cursor is at 0");
    assert!(arm.settle("p1", [0, 1], &[]).await);
    assert!(!arm.settle("p1", [0, 1], &[]).await, "a late answer changes nothing");

    assert!(arm.registry.resign_webhooks("p1").await.unwrap());
    assert!(!arm.registry.resign_webhooks("p1").await.unwrap());
    assert!(arm.lead("p2", WANTED).await);
    assert!(!arm.settle("p1", [1, 2], &[]).await, "the former leader changes nothing");
    assert_eq!(numbers(&arm.taken("p2", "a").await.unwrap()), [2], "the cursor stays at its place");
}

async fn events_that_every_webhook_has_are_removed(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    for nick in ["ann", "bob", "carl"] {
        node.user(nick).await;
    }
    assert!(arm.settle("p1", [0, 2], &[]).await);
    assert!(arm.lead("p1", WANTED).await);
    assert_eq!(numbers(&arm.taken("p1", "b").await.unwrap()), [1, 2, 3], "b still needs them");
    let settlement = WebhookSettlement { webhook: "b", from: 0, to: 3, about: "{}", dead: &[] };
    assert!(arm.registry.settle_webhook("p1", &settlement).await.unwrap());
    assert!(arm.lead("p1", WANTED).await);
    if arm.is_redis() {
        let left: usize = arm.ask(&["XLEN", &arm.keys.webhook_events()]).await;
        assert_eq!(left, 1);
    }
    assert_eq!(numbers(&arm.taken("p1", "a").await.unwrap()), [3]);
}

async fn log_is_bounded_in_bytes_and_numbers_stay(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    // 16 parts of 256 bytes: each event is smaller than a part.
    let wanted = "1000 4096 online ";
    assert!(arm.lead("p1", wanted).await);
    for number in 0..100 {
        node.user(&format!("user{number}")).await;
    }
    let taken = arm.registry.take_webhook_events("p1", "a", ALL).await.unwrap().unwrap();
    assert_eq!((taken.cursor, taken.newest), (0, 100));
    assert!((25..50).contains(&taken.events.len()), "{}", taken.events.len());
    let first = taken.events[0].number;
    assert_eq!(numbers(&taken.events), Vec::from_iter(first..=100), "the newest ones, without holes");
}

async fn taken_events_are_bounded_in_number_and_bytes(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    for nick in ["ann", "bob", "carl"] {
        node.user(nick).await;
    }
    for (limits, expected) in [([2, 1 << 20], 2), ([1000, 1], 1), ([1000, 100], 2)] {
        let taken = arm.registry.take_webhook_events("p1", "a", limits).await.unwrap().unwrap();
        assert_eq!((taken.events.len(), taken.newest), (expected, 3), "{limits:?}");
    }
}

async fn dead_letters_return_for_their_webhook_only(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    node.user("ann").await;
    node.user("bob").await;
    let events = arm.taken("p1", "a").await.unwrap();
    assert!(arm.settle("p1", [0, 2], &events).await);
    let shown = arm.registry.show_webhooks().await.unwrap();
    assert_eq!(shown.leader.as_deref(), Some("p1"));
    assert_eq!(shown.rows.iter().map(|row| (row.waiting, row.dead)).collect::<Vec<_>>(), [(0, 2), (2, 0)]);

    assert_eq!(arm.registry.replay_webhook("a", 1).await.unwrap(), 1);
    assert_eq!(arm.registry.replay_webhook("a", 5).await.unwrap(), 1);
    assert_eq!(arm.registry.replay_webhook("a", 5).await.unwrap(), 0);
    let again = arm.taken("p1", "a").await.unwrap();
    assert_eq!(numbers(&again), [3, 4]);
    for (again, first) in again.iter().zip(&events) {
        assert_eq!((again.original, &again.data, again.time), (first.original, &first.data, first.time));
        assert_eq!(again.only.as_deref(), Some("a"));
        assert!(again.logged >= first.logged);
    }
}

async fn dead_letters_are_bounded_in_bytes(arm: &RegistryArm) {
    arm.node("g1").await.user("early").await;
    assert!(arm.lead("p1", WANTED).await);
    let letter = |number, bytes| LoggedEvent {
        number,
        original: number,
        kind: "join".to_owned(),
        time: 1,
        logged: 1,
        at: String::new(),
        data: "x".repeat(bytes),
        only: None,
    };
    let kept = async || arm.registry.show_webhooks().await.unwrap().rows[0].dead;
    // A sixteenth of the log: 64 KiB.
    let small: Vec<LoggedEvent> = (1..=100).map(|number| letter(number, 1000)).collect();
    assert!(arm.settle("p1", [0, 50], &small[..50]).await);
    assert_eq!(kept().await, 50);
    assert!(arm.settle("p1", [50, 100], &small[50..]).await);
    assert!((55..=61).contains(&kept().await), "{}", kept().await);
    assert!(arm.settle("p1", [100, 101], &[letter(101, 60_000)]).await);
    assert!((2..=6).contains(&kept().await), "{}", kept().await);
    assert!(arm.settle("p1", [101, 102], &[letter(102, 100_000)]).await);
    assert_eq!(kept().await, 1, "the newest one is kept");
    assert_eq!(arm.registry.replay_webhook("a", 5).await.unwrap(), 1);
    let again = arm.taken("p1", "b").await.unwrap();
    assert_eq!(again.iter().map(|event| event.original).collect::<Vec<_>>(), [102]);
}

async fn replay_keeps_the_bounds_of_the_log(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", "100000 65536 online ").await);
    for number in 0..10 {
        node.user(&format!("user{number}")).await;
    }
    let events = arm.taken("p1", "a").await.unwrap();
    for cursor in (0..1000).step_by(10) {
        assert!(arm.settle("p1", [cursor, cursor + 10], &events).await);
        assert_eq!(arm.registry.replay_webhook("a", 100).await.unwrap(), 10);
    }
    // Every event takes 110 bytes or more.
    let waiting = arm.taken("p1", "b").await.unwrap().len();
    assert!((250..600).contains(&waiting), "{waiting} events in 64 KiB");
    assert!(arm.settle("p1", [1000, 1010], &events).await);
    assert!(arm.registry.resign_webhooks("p1").await.unwrap());
    assert!(arm.registry.forget_webhooks(Duration::ZERO).await.unwrap());
    assert_eq!(arm.registry.replay_webhook("a", 100).await.unwrap(), 0, "nothing is logged now");
    assert_eq!(arm.registry.show_webhooks().await.unwrap().rows[0].dead, 10);
}

async fn logging_ends_when_no_process_leads(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(!arm.registry.forget_webhooks(Duration::ZERO).await.unwrap(), "nothing to forget");
    assert!(arm.lead("p1", WANTED).await);
    assert!(!arm.registry.forget_webhooks(Duration::ZERO).await.unwrap(), "p1 leads");
    assert!(arm.registry.resign_webhooks("p1").await.unwrap());
    assert!(!arm.registry.forget_webhooks(PATIENCE).await.unwrap(), "p1 has led just now");
    assert!(arm.registry.forget_webhooks(Duration::ZERO).await.unwrap());
    node.user("ann").await;
    assert!(arm.lead("p1", WANTED).await);
    assert_eq!(arm.taken("p1", "a").await.unwrap(), []);
}

async fn messages_are_logged_with_their_position(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    let ann = node.user("ann").await;
    ann.join("#Team-a").await;
    ann.join("#lobby").await;
    assert!(arm.lead("p1", "1000 1048576 direct_offline message:team- ").await);
    let post = |to: PostTarget, key: &str| ApiPost {
        to,
        application: "app".to_owned(),
        key: key.to_owned(),
        msg_id: format!("m-{key}"),
        payload: r##"{"to":"#Team-a","from":"app","id":"m","at":1,"api":"app","body":1}"##.to_owned(),
    };
    let to_room = |name: &str| PostTarget::Room(room(name).key().clone());
    let nick = PostTarget::Nick(ann.nick.key().clone());
    let posts = [post(to_room("#Team-a"), "1"), post(to_room("#lobby"), "2"), post(nick.clone(), "3")];
    let posted: Vec<_> = arm.registry.post(&posts).await.into_iter().map(Result::unwrap).collect();
    assert!(ann.detach(PATIENCE).await);
    assert!(!arm.registry.post(&[post(nick, "4")]).await.remove(0).unwrap().online);

    let events = arm.taken("p1", "a").await.unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.kind.as_str(), event.at.as_str(), event.time)).collect();
    let position = format!("{} 1 #Team-a", posted[0].epoch);
    assert_eq!(seen[0], ("message", position.as_str(), posted[0].time), "the other room is not wanted");
    assert_eq!(seen.len(), 2, "a message to a user that is online is not wanted: {seen:?}");
    assert_eq!((seen[1].0, seen[1].1), ("direct_offline", ""), "a nickname without a user");
    assert_eq!(events[0].data, posts[0].payload);
}

async fn tail_wakes_at_a_new_event(arm: &RegistryArm) {
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    let mut tail = arm.registry.webhook_log_tail();
    let seen = tail.wait("").await.unwrap();
    let (woken, _) = tokio::join!(tail.wait(&seen), node.user("ann"));
    assert_ne!(woken.unwrap(), seen);
}
