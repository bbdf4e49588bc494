//! Messages whose outcome is unknown: they are repeated, in their order, and later ones wait.

use super::*;

/// Limits with a time for repeats.
const REPEATING: PublisherLimits = PublisherLimits { patience: TEST_TIMEOUT, ..LIMITS };

#[tokio::test]
async fn lost_messages_go_again_before_later_ones() {
    let mut harness = PublisherHarness::new(REPEATING);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.extend(["2", "3"].map(|text| harness.send("r", text)));
    first.lose();
    for priors in [[" 7", "", ""], [" 7", " 7", " 7"]] {
        let call = harness.call().await;
        assert_eq!(call.texts(), ["1", "2", "3"], "a later message went first, or alone");
        let prior = |message: &Arc<StoredMessage>| message.prior.clone();
        assert_eq!(call.batches[0].messages.iter().map(prior).collect::<Vec<_>>(), priors);
        call.lose();
    }
    harness.call().await.ack();
    assert_eq!(acked(sent).await, ["1", "2", "3"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn messages_behind_repeats_are_not_late() {
    let mut harness = PublisherHarness::new(PublisherLimits { wait: Duration::from_millis(200), ..REPEATING });
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.push(harness.send("r", "2"));
    assert!(tokio::time::timeout(Duration::from_millis(250), pending::<()>()).await.is_err());
    first.lose();
    let call = harness.call().await;
    assert_eq!(call.texts(), ["1", "2"]);
    call.ack();
    assert_eq!(acked(sent).await, ["1", "2"]);
}

#[tokio::test]
async fn other_rooms_pass_one_that_waits_to_repeat() {
    let mut harness = PublisherHarness::new(PublisherLimits { calls: 1, ..REPEATING });
    let (lost, other) = (harness.send("r", "lost"), harness.send("s", "other"));
    harness.call().await.lose();
    let mut texts = Vec::new();
    while texts.len() < 2 {
        let call = harness.call().await;
        texts.extend(call.texts().into_iter().map(str::to_owned));
        call.ack();
    }
    texts.sort_unstable();
    assert_eq!(texts, ["lost", "other"]);
    assert_eq!(acked(vec![lost, other]).await, ["lost", "other"]);
}

#[tokio::test]
async fn refusal_of_repeat_leaves_outcome_unknown() {
    let mut harness = PublisherHarness::new(REPEATING);
    let once = harness.send("r", "once");
    harness.call().await.refuse();
    let repeated = harness.send("s", "repeated");
    harness.call().await.lose();
    let refused = outcome(once).await.unwrap_err();
    assert!(matches!(refused, PublishError::Registry(RegistryError::Unavailable(_))), "{refused:?}");
    harness.call().await.refuse();
    let refused = outcome(repeated).await.unwrap_err();
    assert!(matches!(refused, PublishError::Registry(RegistryError::Unknown(_))), "{refused:?}");
}
