//! The choice of calls. Messages are their texts; the waiter of each is its number.
#![allow(clippy::unwrap_used)]
use presence::model::RoomKey;

use super::*;

const ROOM: QueueLoad = QueueLoad { messages: 100, bytes: 1000 };

fn key(room: &str) -> PublishTarget {
    PublishTarget::Room(RoomKey::from_store(room))
}

fn name(target: &PublishTarget) -> &str {
    let PublishTarget::Room(room) = target else { panic!("{target:?}") };
    room.as_str()
}

fn message(text: &str, now: Instant) -> QueuedMessage<()> {
    let [token, nick, key, msg_id, prior] = [const { String::new() }; 5];
    let message = StoredMessage { token, nick, moderates: false, key, msg_id, payload: text.to_owned(), prior };
    QueuedMessage { message: Arc::new(message), queued_at: now, waiter: () }
}

struct QueuesHarness {
    queues: PublishQueues<()>,
    now: Instant,
}

impl QueuesHarness {
    fn new() -> Self {
        Self { queues: PublishQueues::default(), now: Instant::now() }
    }

    fn push(&mut self, room: &str, texts: &[&str]) {
        for text in texts {
            self.queues.push(&key(room), message(text, self.now), ROOM).unwrap();
        }
    }

    /// Returns the next call of up to this number of messages, as `room: texts`.
    fn call(&mut self, messages: usize) -> Vec<String> {
        let turns = self.queues.next_call(QueueLoad { messages, bytes: 100 }, self.now, Some);
        let show = |turn: TargetTurn<()>| {
            let texts: Vec<&str> = turn.messages.iter().map(|queued| &*queued.message.payload).collect();
            format!("{}: {}", name(&turn.target), texts.join(" "))
        };
        turns.into_iter().map(show).collect()
    }

    fn end(&mut self, rooms: &[&str]) {
        for room in rooms {
            self.queues.end_turn(&key(room), Vec::new(), false, self.now);
        }
    }

    /// Ends the turn of a room that made the call fail with this message.
    fn fail(&mut self, room: &str, text: &str) {
        let again = vec![message(text, self.now)];
        self.queues.end_turn(&key(room), again, true, self.now);
    }
}

#[test]
fn rooms_take_turns_of_equal_length() {
    let mut harness = QueuesHarness::new();
    harness.push("busy", &["1", "2", "3", "4", "5", "6", "7", "8"]);
    harness.push("a", &["9", "10"]);
    harness.push("b", &["11"]);
    assert_eq!(harness.call(6), ["busy: 1 2 3", "a: 9 10", "b: 11"]);
    harness.end(&["busy", "a", "b"]);
    assert_eq!(harness.call(6), ["busy: 4 5 6 7 8"]);
    harness.end(&["busy"]);
    assert!(harness.queues.is_empty());
}

#[test]
fn rooms_beyond_call_come_first_in_next() {
    let mut harness = QueuesHarness::new();
    for room in ["a", "b", "c", "d", "e"] {
        harness.push(room, &["1", "2"]);
    }
    assert_eq!(harness.call(2), ["a: 1", "b: 1"]);
    harness.end(&["a", "b"]);
    assert_eq!(harness.call(2), ["c: 1", "d: 1"]);
    harness.end(&["c", "d"]);
    assert_eq!(harness.call(2), ["e: 1", "a: 2"]);
}

#[test]
fn room_is_in_one_call_at_a_time() {
    let mut harness = QueuesHarness::new();
    harness.push("a", &["1", "2"]);
    assert_eq!(harness.call(1), ["a: 1"]);
    harness.push("a", &["3"]);
    harness.push("b", &["4"]);
    assert_eq!(harness.call(9), ["b: 4"]);
    assert_eq!(harness.call(9), [""; 0]);
    harness.end(&["a"]);
    assert_eq!(harness.call(9), ["a: 2 3"]);
}

#[test]
fn call_bounds_bytes_and_takes_any_first_message() {
    let mut harness = QueuesHarness::new();
    let [large, half] = ["x".repeat(300), "y".repeat(60)];
    harness.push("a", &[&large, "1"]);
    harness.push("b", &[&half, "2"]);
    harness.push("c", &[&half]);
    assert_eq!(harness.call(9), [format!("a: {large}")]);
    assert_eq!(harness.call(9), [format!("b: {half} 2")], "a message went before another one of its turn");
    harness.end(&["a", "b"]);
    assert_eq!(harness.call(9), [format!("c: {half}"), "a: 1".to_owned()]);
}

#[test]
fn failed_room_is_apart_for_a_while() {
    let mut harness = QueuesHarness::new();
    harness.push("bad", &["1", "2"]);
    harness.push("a", &["3"]);
    assert_eq!(harness.call(2), ["bad: 1", "a: 3"]);
    harness.fail("bad", "1");
    harness.end(&["a"]);
    harness.push("a", &["4"]);
    harness.push("b", &["5"]);
    assert_eq!(harness.call(9), ["bad: 1 2"], "it shared a call, or its message lost its place");
    harness.end(&["bad"]);
    harness.push("bad", &["6"]);
    assert_eq!(harness.call(9), ["a: 4", "b: 5"], "it did not wait for its own call");
    harness.end(&["a", "b"]);
    assert_eq!(harness.call(9), ["bad: 6"]);
    harness.end(&["bad"]);
    harness.now += APART_FOR;
    harness.push("bad", &["7"]);
    harness.push("a", &["8"]);
    assert_eq!(harness.call(9), ["bad: 7", "a: 8"]);
}

#[test]
fn withheld_messages_leave_space_for_others() {
    let mut harness = QueuesHarness::new();
    harness.push("a", &["late", "1"]);
    harness.push("b", &["late"]);
    harness.push("c", &["2"]);
    let admit = |queued: QueuedMessage<()>| (queued.message.payload != "late").then_some(queued);
    let turns = harness.queues.next_call(QueueLoad { messages: 2, bytes: 100 }, harness.now, admit);
    let rooms: Vec<&str> = turns.iter().map(|turn| name(&turn.target)).collect();
    assert_eq!(rooms, ["a", "c"]);
    harness.end(&["a", "c"]);
    assert!(harness.queues.is_empty(), "a room without messages was kept");
}

#[test]
fn full_queue_refuses_messages_of_its_room() {
    let mut harness = QueuesHarness::new();
    let limit = QueueLoad { messages: 2, bytes: 10 };
    let mut push = |room: &str, text: &str| {
        let queued = message(text, harness.now);
        harness.queues.push(&key(room), queued, limit)
    };
    assert_eq!(push("a", "12345678901"), Err(QueueFull));
    assert_eq!((push("a", "1"), push("a", "2"), push("a", "3")), (Ok(()), Ok(()), Err(QueueFull)));
    assert_eq!((push("b", "12345"), push("b", "123456"), push("b", "12345")), (Ok(()), Err(QueueFull), Ok(())));
}
