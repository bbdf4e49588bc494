//! The log of the webhooks, in Redis only: the lead, the cursors, the bounds, and the dead letters.

use std::time::Duration;

use presence::registry::{LoggedEvent, RedisRegistry, Registry, WebhookLead, WebhookSettlement};

use super::{PATIENCE, RegistryArm};

/// Bounds that these tests do not reach, and the kinds that they log.
const WANTED: &str = "1000 1048576 join online ";
/// All events of these tests in one read.
const ALL: [usize; 2] = [1000, 1 << 20];

impl RegistryArm {
    fn store(&self) -> RedisRegistry {
        match &self.registry {
            Registry::Redis(store) => store.clone(),
            Registry::Memory(_) => panic!("webhooks need Redis"),
        }
    }

    /// Takes or renews the lead of a process for the webhooks `a` and `b`.
    async fn lead(&self, process: &str, wanted: &str) -> bool {
        let lead = WebhookLead { process, lasts: PATIENCE };
        self.store().lead_webhooks(&lead, wanted, &["a", "b"]).await.unwrap()
    }

    /// Returns the events that a webhook is to get from this process; `None` if it does not lead.
    async fn taken(&self, process: &str, webhook: &str) -> Option<Vec<LoggedEvent>> {
        let taken = self.store().take_webhook_events(process, webhook, ALL).await.unwrap();
        taken.map(|taken| taken.events)
    }

    async fn settle(&self, process: &str, [from, to]: [u64; 2], dead: &[LoggedEvent]) -> bool {
        let settlement = WebhookSettlement { webhook: "a", from, to, about: "{}", dead };
        self.store().settle_webhook(process, &settlement).await.unwrap()
    }
}

fn numbers(events: &[LoggedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.number).collect()
}

#[tokio::test]
async fn log_has_wanted_events_after_the_lead_only() {
    let arm = RegistryArm::redis().await;
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
    assert!(events[1].data.contains(r##""room":"#lobby","nick":"ann""##), "{events:?}");
    assert_eq!(arm.taken("p1", "b").await.unwrap(), events, "each webhook has its own cursor");
    assert_eq!(arm.taken("p1", "unknown").await, None);
}

#[tokio::test]
async fn only_the_leader_moves_a_cursor() {
    let arm = RegistryArm::redis().await;
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

    assert!(arm.store().resign_webhooks("p1").await.unwrap());
    assert!(!arm.store().resign_webhooks("p1").await.unwrap());
    assert!(arm.lead("p2", WANTED).await);
    assert!(!arm.settle("p1", [1, 2], &[]).await, "the former leader changes nothing");
    assert_eq!(numbers(&arm.taken("p2", "a").await.unwrap()), [2], "the cursor stays at its place");
}

#[tokio::test]
async fn events_that_every_webhook_has_are_removed() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    for nick in ["ann", "bob", "carl"] {
        node.user(nick).await;
    }
    assert!(arm.settle("p1", [0, 2], &[]).await);
    assert!(arm.lead("p1", WANTED).await);
    assert_eq!(numbers(&arm.taken("p1", "b").await.unwrap()), [1, 2, 3], "b still needs them");
    let settlement = WebhookSettlement { webhook: "b", from: 0, to: 3, about: "{}", dead: &[] };
    assert!(arm.store().settle_webhook("p1", &settlement).await.unwrap());
    assert!(arm.lead("p1", WANTED).await);
    let left: usize = arm.ask(&["XLEN", &arm.keys.webhook_events()]).await;
    assert_eq!(left, 1);
    assert_eq!(numbers(&arm.taken("p1", "a").await.unwrap()), [3]);
}

#[tokio::test]
async fn log_is_bounded_in_bytes_and_numbers_stay() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    // 16 parts of 256 bytes: each event is smaller than a part.
    let wanted = "1000 4096 online ";
    assert!(arm.lead("p1", wanted).await);
    for number in 0..100 {
        node.user(&format!("user{number}")).await;
    }
    let taken = arm.store().take_webhook_events("p1", "a", ALL).await.unwrap().unwrap();
    assert_eq!((taken.cursor, taken.newest), (0, 100));
    assert!((25..50).contains(&taken.events.len()), "{}", taken.events.len());
    let first = taken.events[0].number;
    assert_eq!(numbers(&taken.events), Vec::from_iter(first..=100), "the newest ones, without holes");
}

#[tokio::test]
async fn dead_letters_return_for_their_webhook_only() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", WANTED).await);
    node.user("ann").await;
    node.user("bob").await;
    let events = arm.taken("p1", "a").await.unwrap();
    assert!(arm.settle("p1", [0, 2], &events).await);
    let shown = arm.store().show_webhooks().await.unwrap();
    assert_eq!(shown.leader.as_deref(), Some("p1"));
    assert_eq!(shown.rows.iter().map(|row| (row.waiting, row.dead)).collect::<Vec<_>>(), [(0, 2), (2, 0)]);

    assert_eq!(arm.store().replay_webhook("a", 1).await.unwrap(), 1);
    assert_eq!(arm.store().replay_webhook("a", 5).await.unwrap(), 1);
    assert_eq!(arm.store().replay_webhook("a", 5).await.unwrap(), 0);
    let again = arm.taken("p1", "a").await.unwrap();
    assert_eq!(numbers(&again), [3, 4]);
    for (again, first) in again.iter().zip(&events) {
        assert_eq!((again.original, &again.data, again.time), (first.original, &first.data, first.time));
        assert_eq!(again.only.as_deref(), Some("a"));
        assert!(again.logged >= first.logged);
    }
}

#[tokio::test]
async fn dead_letters_are_bounded_in_bytes() {
    let arm = RegistryArm::redis().await;
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
    let kept = async || arm.store().show_webhooks().await.unwrap().rows[0].dead;
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
    assert_eq!(arm.store().replay_webhook("a", 5).await.unwrap(), 1);
    let again = arm.taken("p1", "b").await.unwrap();
    assert_eq!(again.iter().map(|event| event.original).collect::<Vec<_>>(), [102]);
}

#[tokio::test]
async fn replay_keeps_the_bounds_of_the_log() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    assert!(arm.lead("p1", "100000 65536 online ").await);
    for number in 0..10 {
        node.user(&format!("user{number}")).await;
    }
    let events = arm.taken("p1", "a").await.unwrap();
    for cursor in (0..1000).step_by(10) {
        assert!(arm.settle("p1", [cursor, cursor + 10], &events).await);
        assert_eq!(arm.store().replay_webhook("a", 100).await.unwrap(), 10);
    }
    // Every event takes 110 bytes or more.
    let waiting: usize = arm.ask(&["XLEN", &arm.keys.webhook_events()]).await;
    assert!((250..600).contains(&waiting), "{waiting} events in 64 KiB");
    assert!(arm.settle("p1", [1000, 1010], &events).await);
    assert!(arm.store().resign_webhooks("p1").await.unwrap());
    assert!(arm.store().forget_webhooks(Duration::ZERO).await.unwrap());
    assert_eq!(arm.store().replay_webhook("a", 100).await.unwrap(), 0, "nothing is logged now");
    assert_eq!(arm.store().show_webhooks().await.unwrap().rows[0].dead, 10);
}

#[tokio::test]
async fn logging_ends_when_no_process_leads() {
    let arm = RegistryArm::redis().await;
    let node = arm.node("g1").await;
    assert!(!arm.store().forget_webhooks(Duration::ZERO).await.unwrap(), "nothing to forget");
    assert!(arm.lead("p1", WANTED).await);
    assert!(!arm.store().forget_webhooks(Duration::ZERO).await.unwrap(), "p1 leads");
    assert!(arm.store().resign_webhooks("p1").await.unwrap());
    assert!(!arm.store().forget_webhooks(PATIENCE).await.unwrap(), "p1 has led just now");
    assert!(arm.store().forget_webhooks(Duration::ZERO).await.unwrap());
    node.user("ann").await;
    assert!(arm.lead("p1", WANTED).await);
    assert_eq!(arm.taken("p1", "a").await.unwrap(), []);
}
