//! The queues before a store that answers on request, so queueing, batching and refusals are deterministic.
#![allow(clippy::unwrap_used)]

mod repeats;

use std::future::pending;

use presence::model::{NickKey, RoomKey};
use tokio::task::JoinHandle;

use super::*;
use crate::backplane::{PriorPosition, Published};

/// Longer than any test here needs.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

const LIMITS: PublisherLimits = PublisherLimits {
    calls: 2,
    call: QueueLoad { messages: 4, bytes: 100 },
    target: QueueLoad { messages: 6, bytes: 1000 },
    gateway: QueueLoad { messages: 9, bytes: 2000 },
    wait: TEST_TIMEOUT,
    patience: Duration::ZERO,
};

/// An appender that passes its calls to the test, which answers them.
#[derive(Debug)]
struct HeldAppender(tokio::sync::mpsc::UnboundedSender<HeldCall>);

#[derive(Debug)]
struct HeldCall {
    slot: usize,
    batches: Vec<TargetBatch>,
    answer: oneshot::Sender<Vec<TargetOutcome>>,
}

impl HeldCall {
    /// Returns the texts of all messages, each room's after the other.
    fn texts(&self) -> Vec<&str> {
        self.batches.iter().flat_map(|batch| &batch.messages).map(|message| message.payload.trim_end()).collect()
    }

    fn rooms(&self) -> Vec<&str> {
        self.batches.iter().map(|batch| name(&batch.target)).collect()
    }

    /// Acknowledges every message, with its text as its id.
    fn ack(self) {
        self.answer_rooms(&[]);
    }

    /// Acknowledges every message, except those of these rooms, whose steps failed.
    fn answer_rooms(self, apart: &[&str]) {
        let ack = |message: &Arc<StoredMessage>| MessageOutcome::Done(Ok(published(message.payload.trim_end())));
        let outcome = |batch: &TargetBatch| match apart.contains(&name(&batch.target)) {
            true => TargetOutcome::Apart,
            false => TargetOutcome::Answered(batch.messages.iter().map(ack).collect()),
        };
        let outcomes = self.batches.iter().map(outcome).collect();
        self.answer.send(outcomes).unwrap();
    }

    /// Leaves the outcomes of all messages unknown.
    fn lose(self) {
        let lost = |_: &TargetBatch| TargetOutcome::Failed(RegistryError::Unknown("lost".to_owned()));
        self.answer.send(self.batches.iter().map(lost).collect()).unwrap();
    }

    /// Refuses all messages.
    fn refuse(self) {
        let refused = |_: &TargetBatch| TargetOutcome::Failed(RegistryError::Unavailable("away".to_owned()));
        self.answer.send(self.batches.iter().map(refused).collect()).unwrap();
    }

    /// Answers the messages of the only room.
    fn answer(self, outcomes: Vec<MessageOutcome>) {
        self.answer.send(vec![TargetOutcome::Answered(outcomes)]).unwrap();
    }
}

impl AppendBatch for HeldAppender {
    async fn append(&self, slot: usize, batches: &[TargetBatch]) -> Vec<TargetOutcome> {
        let (answer, answered) = oneshot::channel();
        self.0.send(HeldCall { slot, batches: batches.to_vec(), answer }).unwrap();
        // A call without an answer panics, as a bug would.
        answered.await.expect("the call is answered")
    }
}

struct PublisherHarness {
    publisher: Arc<Publisher<HeldAppender>>,
    calls: tokio::sync::mpsc::UnboundedReceiver<HeldCall>,
}

impl PublisherHarness {
    fn new(limits: PublisherLimits) -> Self {
        let (begun, calls) = tokio::sync::mpsc::unbounded_channel();
        Self { publisher: Arc::new(Publisher::new(HeldAppender(begun), limits)), calls }
    }

    /// Queues a message at once; the task returns its outcome.
    fn send_padded(&self, room: &str, text: &str, bytes: usize) -> Result<JoinHandle<WriteOutcome>, PublishError> {
        let outcome = self.publisher.enqueue(&target(room), message(&format!("{text:bytes$}")), FIRST)?;
        Ok(tokio::spawn(async { outcome.await.unwrap_or_else(|_| Err(unknown("given up"))) }))
    }

    fn send(&self, room: &str, text: &str) -> JoinHandle<WriteOutcome> {
        self.send_padded(room, text, 0).unwrap()
    }

    async fn call(&mut self) -> HeldCall {
        tokio::time::timeout(TEST_TIMEOUT, self.calls.recv()).await.expect("a call begins").unwrap()
    }

    /// Waits until no message is queued or in a call, and every permit is released.
    async fn wait_idle(&self) {
        let state = &self.publisher.state;
        let idle = async || {
            while !state.work().queues.is_empty()
                || state.work().free_slots.len() < state.limits.calls
                || state.messages.available_permits() < state.limits.gateway.messages
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, idle()).await.expect("it becomes idle");
        assert_eq!(state.bytes.available_permits(), state.limits.gateway.bytes);
    }
}

/// A first attempt after this position.
const FIRST: PublishAttempt<'_> = PublishAttempt::First(&PriorPosition { epoch: String::new(), seq: 7 });

fn target(room: &str) -> PublishTarget {
    PublishTarget::Room(RoomKey::from_store(room))
}

fn name(target: &PublishTarget) -> &str {
    match target {
        PublishTarget::Room(room) => room.as_str(),
        PublishTarget::Nick(nick) => nick.as_str(),
    }
}

fn message(payload: &str) -> StoredMessage {
    let [token, nick, key, msg_id, prior] = [const { String::new() }; 5];
    StoredMessage { token, nick, moderates: false, key, msg_id, payload: payload.to_owned(), prior }
}

fn published(msg_id: &str) -> Published {
    Published { msg_id: msg_id.to_owned(), seq: 1, time: 1, duplicate: false, online: true }
}

fn unknown(reason: &str) -> PublishError {
    RegistryError::Unknown(reason.to_owned()).into()
}

async fn outcome(sent: JoinHandle<WriteOutcome>) -> WriteOutcome {
    tokio::time::timeout(TEST_TIMEOUT, sent).await.expect("it is answered").unwrap()
}

async fn acked(sent: Vec<JoinHandle<WriteOutcome>>) -> Vec<String> {
    let mut ids = Vec::new();
    for sent in sent {
        ids.push(outcome(sent).await.unwrap().msg_id);
    }
    ids
}

#[tokio::test]
async fn messages_during_a_call_form_the_next() {
    let mut harness = PublisherHarness::new(LIMITS);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.extend(["2", "3", "4", "5", "6", "7"].map(|text| harness.send("r", text)));
    assert_eq!(first.texts(), ["1"], "the first message waited");
    first.ack();
    let second = harness.call().await;
    assert_eq!(second.texts(), ["2", "3", "4", "5"], "the batch is not full");
    second.ack();
    let third = harness.call().await;
    assert_eq!(third.texts(), ["6", "7"]);
    assert!(harness.calls.try_recv().is_err(), "a second call ran at the same time");
    third.ack();
    assert_eq!(acked(sent).await, ["1", "2", "3", "4", "5", "6", "7"], "a caller got the wrong answer");
    harness.wait_idle().await;
    let again = harness.send("r", "again");
    harness.call().await.ack();
    assert_eq!(acked(vec![again]).await, ["again"], "an idle room did not publish again");
}

#[tokio::test]
async fn batch_bounds_bytes_but_accepts_any_single_message() {
    let mut harness = PublisherHarness::new(LIMITS);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    for (text, bytes) in [("2", 60), ("3", 40), ("4", 1), ("5", 300), ("6", 1)] {
        sent.push(harness.send_padded("r", text, bytes).unwrap());
    }
    first.ack();
    for expected in [vec!["2", "3"], vec!["4"], vec!["5"], vec!["6"]] {
        let call = harness.call().await;
        assert_eq!(call.texts(), expected);
        call.ack();
    }
    acked(sent).await;
    harness.wait_idle().await;
}

#[tokio::test]
async fn rooms_share_calls_and_never_wait_for_one() {
    let mut harness = PublisherHarness::new(LIMITS);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.push(harness.send("s", "2"));
    let second = harness.call().await;
    assert_eq!((first.rooms(), second.rooms()), (vec!["r"], vec!["s"]), "a room waited for another one's call");
    assert_ne!(first.slot, second.slot);
    sent.extend([("t", "3"), ("u", "4"), ("r", "5")].map(|(room, text)| harness.send(room, text)));
    assert!(harness.calls.try_recv().is_err(), "a third call ran at the same time");
    second.ack();
    let third = harness.call().await;
    assert_eq!(third.texts(), ["3", "4"], "the waiting rooms share a call, without the one that is in a call");
    first.ack();
    let fourth = harness.call().await;
    assert_eq!(fourth.texts(), ["5"]);
    [third, fourth].into_iter().for_each(HeldCall::ack);
    assert_eq!(acked(sent).await, ["1", "2", "3", "4", "5"], "a caller got the wrong answer");
    harness.wait_idle().await;
}

#[tokio::test]
async fn room_that_fails_call_goes_apart() {
    let mut harness = PublisherHarness::new(PublisherLimits { calls: 1, ..LIMITS });
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.extend([("r", "2"), ("bad", "3"), ("s", "4"), ("bad", "5")].map(|(room, text)| harness.send(room, text)));
    first.ack();
    let shared = harness.call().await;
    assert_eq!(shared.rooms(), ["bad", "s", "r"]);
    sent.extend([harness.send("s", "6"), harness.send("bad", "7")]);
    shared.answer_rooms(&["bad"]);
    let mut calls = Vec::new();
    for _ in 0..2 {
        let call = harness.call().await;
        calls.push(call.texts().join(" "));
        call.ack();
    }
    calls.sort_unstable();
    assert_eq!(calls, ["3 5 7", "6"], "the room was not apart, or its messages lost their order");
    assert_eq!(acked(sent).await, ["1", "2", "3", "4", "5", "6", "7"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn searched_message_is_sent_again_from_there() {
    let mut harness = PublisherHarness::new(LIMITS);
    let sent = harness.send("r", "repeat");
    let prior = PriorPosition { epoch: "e".to_owned(), seq: 1000 };
    harness.call().await.answer(vec![MessageOutcome::Searched(prior)]);
    let call = harness.call().await;
    assert_eq!(call.batches[0].messages[0].prior, "e 1000");
    call.ack();
    assert_eq!(acked(vec![sent]).await, ["repeat"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn half_full_queues_count_as_crowded() {
    let mut harness = PublisherHarness::new(LIMITS);
    let is_crowded = |room: &str| harness.publisher.is_crowded(&target(room));
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.calls.recv().await.unwrap();
    sent.extend(["2", "3"].map(|text| harness.send("r", text)));
    assert!(!is_crowded("r"));
    sent.push(harness.send("r", "4"));
    assert_eq!((is_crowded("r"), is_crowded("s")), (true, false), "half of the room's messages");
    sent.push(harness.send("s", "5"));
    assert!(is_crowded("s"), "half of the gateway's messages");
    first.ack();
    for _ in 0..2 {
        harness.call().await.ack();
    }
    acked(sent).await;
    sent = vec![harness.send("r", "1"), harness.send_padded("r", "2", 500).unwrap()];
    assert!(harness.publisher.is_crowded(&target("r")), "half of the room's bytes");
    for _ in 0..2 {
        harness.call().await.ack();
    }
    acked(sent).await;
    harness.wait_idle().await;
}

#[tokio::test]
async fn batch_gives_each_message_its_own_outcome() {
    let mut harness = PublisherHarness::new(LIMITS);
    let first = harness.send("r", "1");
    let call = harness.call().await;
    let (good, bad, late) = (harness.send("r", "good"), harness.send("r", "bad"), harness.send("r", "late"));
    call.ack();
    outcome(first).await.unwrap();
    let call = harness.call().await;
    let outcomes = [Ok(published("good")), Err(PublishError::NotInRoom), Ok(published("late"))];
    call.answer(outcomes.map(MessageOutcome::Done).into());
    assert_eq!(outcome(bad).await, Err(PublishError::NotInRoom));
    assert_eq!(acked(vec![good, late]).await, ["good", "late"]);
}

#[tokio::test]
async fn failed_call_fails_its_own_batch_only() {
    let mut harness = PublisherHarness::new(LIMITS);
    let first = harness.send("r", "1");
    let call = harness.call().await;
    let batch = ["2", "3", "4", "5"].map(|text| harness.send("r", text));
    let after = harness.send("r", "6");
    call.ack();
    outcome(first).await.unwrap();
    harness.call().await.lose();
    for sent in batch {
        assert_eq!(outcome(sent).await, Err(unknown("lost")));
    }
    harness.call().await.ack();
    assert_eq!(acked(vec![after]).await, ["6"]);

    let sent = harness.send("r", "7");
    harness.call().await.answer.send(Vec::new()).unwrap();
    assert_eq!(outcome(sent).await, Err(unknown("appender left out a message")));
    let sent = harness.send("r", "8");
    harness.call().await.answer(Vec::new());
    assert_eq!(outcome(sent).await, Err(unknown("appender left out a message")));
    harness.wait_idle().await;
}

#[tokio::test]
async fn cancelled_caller_removes_its_own_message_only() {
    let mut harness = PublisherHarness::new(LIMITS);
    let publish = |text| harness.publisher.publish(target("r"), message(text), FIRST);
    // The caller that starts the room's task, and one that waits.
    let (mut leader, mut waiting) = (Box::pin(publish("leader")), Box::pin(publish("waiting")));
    tokio::select! { biased; _ = &mut leader => unreachable!(), () = async {} => {} }
    let call = tokio::time::timeout(TEST_TIMEOUT, harness.calls.recv()).await.unwrap().unwrap();
    tokio::select! { biased; _ = &mut waiting => unreachable!(), () = async {} => {} }
    drop(leader);
    let mut sent = vec![harness.send("r", "2")];
    drop(waiting);
    sent.push(harness.send("r", "3"));
    call.ack();
    let call = harness.call().await;
    assert_eq!(call.texts(), ["2", "3"], "the remaining messages lost their order");
    call.ack();
    assert_eq!(acked(sent).await, ["2", "3"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn full_room_refuses_recovers_and_spares_other_rooms() {
    let mut harness = PublisherHarness::new(LIMITS);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.extend(["2", "3", "4", "5", "6", "7"].map(|text| harness.send("r", text)));
    assert_eq!(harness.send_padded("r", "8", 0).unwrap_err(), PublishError::Overloaded, "a seventh message was queued");
    sent.push(harness.send("s", "elsewhere"));
    first.ack();
    let mut done = 0;
    while done < 7 {
        let call = harness.call().await;
        done += call.texts().len();
        call.ack();
    }
    sent.push(harness.send("r", "8"));
    harness.call().await.ack();
    assert_eq!(
        acked(sent).await,
        ["1", "2", "3", "4", "5", "6", "7", "elsewhere", "8"],
        "an accepted message was lost"
    );
    harness.wait_idle().await;
}

#[tokio::test]
async fn full_gateway_refuses_every_room_and_recovers() {
    let mut harness = PublisherHarness::new(LIMITS);
    let sent: Vec<_> = (0..9).map(|number| harness.send(&format!("r{number}"), "x")).collect();
    assert_eq!(harness.send_padded("another", "x", 0).unwrap_err(), PublishError::Overloaded);
    let mut done = 0;
    while done < 9 {
        let call = harness.call().await;
        done += call.texts().len();
        call.ack();
    }
    acked(sent).await;
    harness.wait_idle().await;
    let sent = ["r", "s"].map(|room| harness.send_padded(room, "x", 999).unwrap());
    assert_eq!(harness.send_padded("t", "x", 3).unwrap_err(), PublishError::Overloaded, "bytes were not counted");
    for _ in 0..2 {
        harness.call().await.ack();
    }
    acked(sent.into()).await;
    harness.wait_idle().await;
}

#[tokio::test]
async fn nickname_and_room_of_one_name_are_apart() {
    let mut harness = PublisherHarness::new(LIMITS);
    let bob = PublishTarget::Nick(NickKey::from_store("bob"));
    let mut sent = vec![harness.send("bob", "1")];
    let first = harness.call().await;
    let direct = |text| harness.publisher.enqueue(&bob, message(text), FIRST);
    let outcomes = ["2", "3"].map(|text| direct(text).unwrap());
    let second = harness.call().await;
    assert_eq!((&second.batches[0].target, second.texts()), (&bob, vec!["2", "3"]));
    sent.push(harness.send("bob", "4"));
    second.ack();
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
    first.ack();
    harness.call().await.ack();
    assert_eq!(acked(sent).await, ["1", "4"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn room_queue_bounds_its_bytes() {
    let mut harness = PublisherHarness::new(LIMITS);
    let mut sent = vec![harness.send("r", "1")];
    let first = harness.call().await;
    sent.push(harness.send_padded("r", "2", 999).unwrap());
    assert_eq!(harness.send_padded("r", "3", 2).unwrap_err(), PublishError::Overloaded);
    sent.push(harness.send("r", "4"));
    first.ack();
    for _ in 0..2 {
        harness.call().await.ack();
    }
    assert_eq!(acked(sent).await, ["1", "2", "4"]);
    harness.wait_idle().await;
}

#[tokio::test]
async fn message_queued_too_long_is_refused_unsent() {
    let mut harness = PublisherHarness::new(PublisherLimits { wait: Duration::from_millis(200), ..LIMITS });
    let first = harness.send("r", "1");
    let call = harness.call().await;
    let late = harness.send("r", "late");
    let ever = tokio::time::timeout(Duration::from_millis(250), pending::<()>()).await;
    assert!(ever.is_err());
    let early = harness.send("r", "early");
    call.ack();
    let call = harness.call().await;
    assert_eq!(call.texts(), ["early"]);
    call.ack();
    assert_eq!(outcome(late).await, Err(PublishError::Overloaded));
    assert_eq!(acked(vec![first, early]).await, ["1", "early"]);
}

#[tokio::test]
async fn message_behind_an_unanswered_call_is_unavailable() {
    let mut harness = PublisherHarness::new(PublisherLimits { wait: Duration::from_millis(200), ..LIMITS });
    let first = harness.send("r", "1");
    let call = harness.call().await;
    let late = harness.send("r", "late");
    assert!(tokio::time::timeout(Duration::from_millis(250), pending::<()>()).await.is_err());
    call.lose();
    assert_eq!(outcome(first).await, Err(unknown("lost")));
    let refused = outcome(late).await.unwrap_err();
    assert!(matches!(refused, PublishError::Registry(RegistryError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn aborted_call_leaves_its_room_usable() {
    let mut harness = PublisherHarness::new(LIMITS);
    let broken = harness.send("r", "1");
    drop(harness.call().await);
    assert_eq!(outcome(broken).await, Err(unknown("given up")));
    harness.wait_idle().await;
    let sent = harness.send("r", "2");
    harness.call().await.ack();
    assert_eq!(acked(vec![sent]).await, ["2"]);
}
