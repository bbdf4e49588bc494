//! A store that answers when it is told to: what waits, what goes together and what is refused is then no matter of luck.
#![allow(clippy::unwrap_used)]

use std::future::pending;

use tokio::task::JoinHandle;

use super::*;
use crate::backplane::Published;

/// Longer than any test here takes.
const PATIENCE: Duration = Duration::from_secs(5);

const LIMITS: PublisherLimits = PublisherLimits {
    batch: QueueLoad { messages: 4, bytes: 100 },
    room: QueueLoad { messages: 6, bytes: 1000 },
    gateway: QueueLoad { messages: 9, bytes: 2000 },
    wait: PATIENCE,
};

/// Begun calls come out of it; each is answered when the test says so.
#[derive(Debug)]
struct Calls(tokio::sync::mpsc::UnboundedSender<Call>);

#[derive(Debug)]
struct Call {
    room: RoomKey,
    payloads: Vec<String>,
    answer: oneshot::Sender<Result<Vec<WriteOutcome>, RegistryError>>,
}

impl Call {
    fn texts(&self) -> Vec<&str> {
        self.payloads.iter().map(|payload| payload.trim_end()).collect()
    }

    /// Every message gets its text as its id.
    fn ack(self) {
        let outcomes = self.payloads.iter().map(|payload| Ok(published(payload.trim_end()))).collect();
        self.answer.send(Ok(outcomes)).unwrap();
    }
}

impl AppendBatch for Calls {
    async fn append(&self, room: &RoomKey, batch: &[StoredMessage]) -> Result<Vec<WriteOutcome>, RegistryError> {
        let payloads = batch.iter().map(|message| message.payload.clone()).collect();
        let (answer, answered) = oneshot::channel();
        self.0.send(Call { room: room.clone(), payloads, answer }).unwrap();
        // A call that is never answered breaks off, as a bug would.
        answered.await.expect("the call is answered")
    }
}

struct World {
    publisher: Arc<Publisher<Calls>>,
    calls: tokio::sync::mpsc::UnboundedReceiver<Call>,
}

impl World {
    fn new(limits: PublisherLimits) -> Self {
        let (begun, calls) = tokio::sync::mpsc::unbounded_channel();
        Self { publisher: Arc::new(Publisher::new(Calls(begun), limits)), calls }
    }

    /// Queues a message at once; its outcome comes with the task.
    fn say_padded(&self, room: &str, text: &str, bytes: usize) -> Result<JoinHandle<WriteOutcome>, PublishError> {
        let outcome = self.publisher.enqueue(&RoomKey::from_store(room), message(&format!("{text:bytes$}")))?;
        Ok(tokio::spawn(async { outcome.await.unwrap_or_else(|_| Err(unknown("given up"))) }))
    }

    fn say(&self, room: &str, text: &str) -> JoinHandle<WriteOutcome> {
        self.say_padded(room, text, 0).unwrap()
    }

    async fn call(&mut self) -> Call {
        tokio::time::timeout(PATIENCE, self.calls.recv()).await.expect("a call begins").unwrap()
    }

    /// Nothing waits, nothing is under way, and every place is free again.
    async fn is_idle(&self) {
        let state = &self.publisher.state;
        let idle = async || {
            while !state.busy().is_empty() || state.messages.available_permits() < state.limits.gateway.messages {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, idle()).await.expect("it becomes idle");
        assert_eq!(state.bytes.available_permits(), state.limits.gateway.bytes);
    }
}

fn message(payload: &str) -> StoredMessage {
    let empty = String::new;
    StoredMessage { token: empty(), nick: empty(), key: empty(), msg_id: empty(), payload: payload.to_owned() }
}

fn published(msg_id: &str) -> Published {
    Published { msg_id: msg_id.to_owned(), seq: 1, time: 1, duplicate: false, online: true }
}

fn unknown(reason: &str) -> PublishError {
    RegistryError::Unknown(reason.to_owned()).into()
}

async fn outcome(said: JoinHandle<WriteOutcome>) -> WriteOutcome {
    tokio::time::timeout(PATIENCE, said).await.expect("it is answered").unwrap()
}

async fn acked(said: Vec<JoinHandle<WriteOutcome>>) -> Vec<String> {
    let mut ids = Vec::new();
    for said in said {
        ids.push(outcome(said).await.unwrap().msg_id);
    }
    ids
}

#[tokio::test]
async fn what_comes_while_a_call_is_under_way_goes_with_the_next_in_its_order() {
    let mut world = World::new(LIMITS);
    let mut said = vec![world.say("r", "1")];
    let first = world.call().await;
    said.extend(["2", "3", "4", "5", "6", "7"].map(|text| world.say("r", text)));
    assert_eq!(first.texts(), ["1"], "the first one waits for nobody");
    first.ack();
    let second = world.call().await;
    assert_eq!(second.texts(), ["2", "3", "4", "5"], "as many as a call takes");
    second.ack();
    let third = world.call().await;
    assert_eq!(third.texts(), ["6", "7"]);
    assert!(world.calls.try_recv().is_err(), "one call at a time");
    third.ack();
    assert_eq!(acked(said).await, ["1", "2", "3", "4", "5", "6", "7"], "each caller gets the answer to its own");
    world.is_idle().await;
    let again = world.say("r", "again");
    world.call().await.ack();
    assert_eq!(acked(vec![again]).await, ["again"], "an idle room begins anew");
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes_but_takes_any_one_message() {
    let mut world = World::new(LIMITS);
    let mut said = vec![world.say("r", "1")];
    let first = world.call().await;
    for (text, bytes) in [("2", 60), ("3", 40), ("4", 1), ("5", 300), ("6", 1)] {
        said.push(world.say_padded("r", text, bytes).unwrap());
    }
    first.ack();
    for expected in [vec!["2", "3"], vec!["4"], vec!["5"], vec!["6"]] {
        let call = world.call().await;
        assert_eq!(call.texts(), expected);
        call.ack();
    }
    acked(said).await;
    world.is_idle().await;
}

#[tokio::test]
async fn rooms_do_not_wait_for_each_other() {
    let mut world = World::new(LIMITS);
    let said = vec![world.say("r", "1"), world.say("s", "2")];
    let calls = [world.call().await, world.call().await];
    let mut rooms: Vec<&str> = calls.iter().map(|call| call.room.as_str()).collect();
    rooms.sort_unstable();
    assert_eq!(rooms, ["r", "s"]);
    calls.into_iter().for_each(Call::ack);
    acked(said).await;
}

#[tokio::test]
async fn each_message_of_a_batch_gets_its_own_outcome() {
    let mut world = World::new(LIMITS);
    let first = world.say("r", "1");
    let call = world.call().await;
    let (good, bad, late) = (world.say("r", "good"), world.say("r", "bad"), world.say("r", "late"));
    call.ack();
    outcome(first).await.unwrap();
    let call = world.call().await;
    let outcomes = vec![Ok(published("good")), Err(PublishError::NotInRoom), Ok(published("late"))];
    call.answer.send(Ok(outcomes)).unwrap();
    assert_eq!(outcome(bad).await, Err(PublishError::NotInRoom));
    assert_eq!(acked(vec![good, late]).await, ["good", "late"]);
}

#[tokio::test]
async fn a_call_that_fails_fails_its_batch_and_nobody_else() {
    let mut world = World::new(LIMITS);
    let first = world.say("r", "1");
    let call = world.call().await;
    let batch = ["2", "3", "4", "5"].map(|text| world.say("r", text));
    let after = world.say("r", "6");
    call.ack();
    outcome(first).await.unwrap();
    world.call().await.answer.send(Err(RegistryError::Unknown("lost".to_owned()))).unwrap();
    for said in batch {
        assert_eq!(outcome(said).await, Err(unknown("lost")));
    }
    world.call().await.ack();
    assert_eq!(acked(vec![after]).await, ["6"]);

    let said = world.say("r", "7");
    world.call().await.answer.send(Ok(Vec::new())).unwrap();
    assert_eq!(outcome(said).await, Err(unknown("not one outcome per message")));
    world.is_idle().await;
}

#[tokio::test]
async fn who_goes_away_takes_along_their_own_message_only() {
    let mut world = World::new(LIMITS);
    let room = RoomKey::from_store("r");
    let publish = |text| world.publisher.publish(&room, message(text));
    // Whoever finds the room idle, and one that waits.
    let (mut leader, mut waiting) = (Box::pin(publish("leader")), Box::pin(publish("waiting")));
    tokio::select! { biased; _ = &mut leader => unreachable!(), () = async {} => {} }
    let call = tokio::time::timeout(PATIENCE, world.calls.recv()).await.unwrap().unwrap();
    tokio::select! { biased; _ = &mut waiting => unreachable!(), () = async {} => {} }
    drop(leader);
    let mut said = vec![world.say("r", "2")];
    drop(waiting);
    said.push(world.say("r", "3"));
    call.ack();
    let call = world.call().await;
    assert_eq!(call.texts(), ["2", "3"], "the rest goes on, in its order");
    call.ack();
    assert_eq!(acked(said).await, ["2", "3"]);
    world.is_idle().await;
}

#[tokio::test]
async fn a_full_room_refuses_and_recovers_and_leaves_others_alone() {
    let mut world = World::new(LIMITS);
    let mut said = vec![world.say("r", "1")];
    let first = world.call().await;
    said.extend(["2", "3", "4", "5", "6", "7"].map(|text| world.say("r", text)));
    assert_eq!(world.say_padded("r", "8", 0).unwrap_err(), PublishError::Overloaded, "six wait");
    said.push(world.say("s", "elsewhere"));
    first.ack();
    for _ in 0..3 {
        world.call().await.ack();
    }
    said.push(world.say("r", "8"));
    world.call().await.ack();
    assert_eq!(acked(said).await, ["1", "2", "3", "4", "5", "6", "7", "elsewhere", "8"], "nothing taken on was lost");
    world.is_idle().await;
}

#[tokio::test]
async fn a_full_gateway_refuses_every_room_and_recovers() {
    let mut world = World::new(LIMITS);
    let said: Vec<_> = (0..9).map(|number| world.say(&format!("r{number}"), "x")).collect();
    assert_eq!(world.say_padded("another", "x", 0).unwrap_err(), PublishError::Overloaded);
    assert_eq!(world.publisher.permit(1).unwrap_err(), PublishError::Overloaded, "work past the queues counts too");
    for _ in 0..9 {
        world.call().await.ack();
    }
    acked(said).await;
    world.is_idle().await;
    let place = world.publisher.permit(1999).unwrap();
    assert_eq!(world.say_padded("r", "x", 2).unwrap_err(), PublishError::Overloaded, "bytes count");
    drop(place);
    world.is_idle().await;
}

#[tokio::test]
async fn a_room_is_bounded_in_bytes() {
    let mut world = World::new(LIMITS);
    let mut said = vec![world.say("r", "1")];
    let first = world.call().await;
    said.push(world.say_padded("r", "2", 999).unwrap());
    assert_eq!(world.say_padded("r", "3", 2).unwrap_err(), PublishError::Overloaded);
    said.push(world.say("r", "4"));
    first.ack();
    for _ in 0..2 {
        world.call().await.ack();
    }
    assert_eq!(acked(said).await, ["1", "2", "4"]);
    world.is_idle().await;
}

#[tokio::test]
async fn what_waited_for_too_long_is_refused_and_was_not_sent() {
    let mut world = World::new(PublisherLimits { wait: Duration::from_millis(200), ..LIMITS });
    let first = world.say("r", "1");
    let call = world.call().await;
    let late = world.say("r", "late");
    let ever = tokio::time::timeout(Duration::from_millis(250), pending::<()>()).await;
    assert!(ever.is_err());
    let early = world.say("r", "early");
    call.ack();
    let call = world.call().await;
    assert_eq!(call.texts(), ["early"]);
    call.ack();
    assert_eq!(outcome(late).await, Err(PublishError::Overloaded));
    assert_eq!(acked(vec![first, early]).await, ["1", "early"]);
}

#[tokio::test]
async fn a_turn_that_breaks_off_leaves_its_room_usable() {
    let mut world = World::new(LIMITS);
    let broken = world.say("r", "1");
    drop(world.call().await);
    assert_eq!(outcome(broken).await, Err(unknown("given up")));
    world.is_idle().await;
    let said = world.say("r", "2");
    world.call().await.ack();
    assert_eq!(acked(vec![said]).await, ["2"]);
}
