//! Calls that carry messages of many rooms on a real Redis.
//!
//! Invariant: a room's messages are stored whole or not at all, whatever happens to other rooms of the call. Redis is
//! frozen while the messages queue, so they share calls for certain.

use futures_util::future::join_all;
use gateway::backplane::{PublishError, PublishRequest, Published};
use presence::model::RoomName;
use presence::registry::RegistryError;

use super::batching::take_script_calls;
use super::fixture::{BackplaneNode, NickHolder, StoreFixture, room};

/// A silent node with one member in all rooms.
struct RoomsScenario {
    store: StoreFixture,
    node: BackplaneNode,
    rooms: Vec<RoomName>,
    ann: NickHolder,
}

impl RoomsScenario {
    async fn new(count: usize) -> Self {
        let store = StoreFixture::redis().await;
        let node = store.silent_node("g1").await;
        let rooms: Vec<RoomName> = (0..count).map(|number| room(&format!("#r{number}"))).collect();
        let ann = node.claim_nick("ann").await;
        for room in &rooms {
            node.join(&ann, room).await;
        }
        Self { store, node, rooms, ann }
    }

    /// Publishes these messages while Redis is frozen, and returns the outcomes and the number of calls.
    async fn publish_together(
        &mut self,
        requests: &[(usize, PublishRequest)],
    ) -> (Vec<Result<Published, PublishError>>, usize) {
        let Self { store, node, rooms, .. } = self;
        take_script_calls(store).await;
        store.server().stop_signal().await;
        let publish = async |(place, request): &(usize, PublishRequest)| node.publish(&rooms[*place], request).await;
        let mut publishes = Box::pin(join_all(requests.iter().map(publish)));
        assert!(futures_util::poll!(&mut publishes).is_pending());
        store.server().cont();
        let outcomes = publishes.await;
        (outcomes, take_script_calls(store).await)
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        self.store.server().ask(words).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_many_rooms_share_calls() {
    const ROOMS: usize = 50;
    let mut scenario = RoomsScenario::new(ROOMS).await;
    let requests: Vec<_> =
        (0..2 * ROOMS).map(|number| (number % ROOMS, scenario.ann.request(&number.to_string()))).collect();
    let (outcomes, calls) = scenario.publish_together(&requests).await;
    // Two calls run at a time, and each may meet a store without the script.
    assert!(calls <= 8, "{calls} calls");
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.as_ref().unwrap().seq, (number / ROOMS) as u64 + 1, "each room has seqs of its own");
    }
    for (place, request) in &requests {
        let received = scenario.node.receives(&scenario.rooms[*place], &request.msg_id).await;
        assert_eq!(received.body, request.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_room_spoils_no_other_room_of_call() {
    let mut scenario = RoomsScenario::new(5).await;
    let before: Vec<_> = (0..5).map(|place| (place, scenario.ann.request("before"))).collect();
    scenario.publish_together(&before).await.0.into_iter().for_each(|outcome| assert_eq!(outcome.unwrap().seq, 1));
    // A stream, a member list and a meta of the wrong type.
    for (number, kind) in ["log", "members", "room"].into_iter().enumerate() {
        let key = format!("parley:{{0}}:{kind}:r{number}");
        let _: String = scenario.ask(&["RENAME", &key, &format!("kept:{number}")]).await;
        let _: String = scenario.ask(&["SET", &key, "x"]).await;
    }
    for round in 0..2 {
        let requests: Vec<_> = (0..15).map(|number| (number % 5, scenario.ann.request("during"))).collect();
        let (outcomes, _) = scenario.publish_together(&requests).await;
        for ((place, _), outcome) in requests.iter().zip(&outcomes) {
            match outcome {
                Ok(published) => {
                    assert!(*place >= 3 && (2 + round * 3..5 + round * 3).contains(&published.seq), "{published:?}");
                }
                Err(error) => {
                    let is_refused = matches!(error, PublishError::Registry(RegistryError::Unavailable(_)));
                    assert!(*place < 3 && is_refused && error.to_string().contains("WRONGTYPE"), "{place}: {error}");
                }
            }
        }
    }
    for (number, kind) in ["log", "members", "room"].into_iter().enumerate() {
        let _: String =
            scenario.ask(&["RENAME", &format!("kept:{number}"), &format!("parley:{{0}}:{kind}:r{number}")]).await;
    }
    let after: Vec<_> = (0..5).map(|place| (place, scenario.ann.request("after"))).collect();
    let seqs: Vec<u64> =
        scenario.publish_together(&after).await.0.into_iter().map(|outcome| outcome.unwrap().seq).collect();
    assert_eq!(seqs, [2, 2, 2, 8, 8], "a refused message took a seq");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_ahead_of_meta_keeps_shared_call_whole() {
    let mut scenario = RoomsScenario::new(3).await;
    let requests: Vec<_> = (0..9).map(|number| (number % 3, scenario.ann.request("before"))).collect();
    let (outcomes, _) = scenario.publish_together(&requests).await;
    // One stream has messages that its meta does not know, the last of them from a clock that was ahead.
    let ahead = outcomes[1].as_ref().unwrap().time + 3_600_000;
    let _: u64 = scenario.ask(&["HSET", "parley:{0}:room:r1", "seq", "1"]).await;
    let stamp = ahead.to_string();
    let _: String = scenario.ask(&["XADD", "parley:{0}:log:r1", "4-0", "time", &stamp, "payload", "{}"]).await;
    let requests: Vec<_> = (0..6).map(|number| (number % 3, scenario.ann.request("after"))).collect();
    let (outcomes, _) = scenario.publish_together(&requests).await;
    let published: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(published.iter().map(|published| published.seq).collect::<Vec<_>>(), [4, 5, 4, 5, 6, 5]);
    let times: Vec<u64> = published.iter().map(|published| published.time).collect();
    assert_eq!([times[1], times[4]], [ahead, ahead], "time went back");
    assert!(times[0] < ahead && times[2] < ahead, "the time of one room is that of another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_to_one_inbox_are_judged_apart() {
    let RoomsScenario { mut store, node, ann, .. } = RoomsScenario::new(0).await;
    let (eve, receiver) = (node.claim_nick("eve").await, node.claim_nick("receiver").await);
    // It names eve, but has the claim of ann.
    let forged = NickHolder { nick: eve.nick.clone(), owner: ann.owner.clone() };
    let requests =
        [ann.request("in flight"), ann.request("1"), eve.request("2"), forged.request("no"), eve.request("3")];
    let send = |request| node.backplane.direct(receiver.nick.key(), request);
    let first = ann.request("Redis has the script");
    send(&first).await.unwrap();
    take_script_calls(&mut store).await;

    store.server().stop_signal().await;
    let mut sends = Box::pin(join_all(requests.iter().map(send)));
    assert!(futures_util::poll!(&mut sends).is_pending());
    store.server().cont();
    let outcomes = sends.await;

    assert!(take_script_calls(&mut store).await <= 2, "the messages shared a call");
    let seqs: Vec<_> = outcomes.into_iter().map(|outcome| outcome.map(|published| published.seq)).collect();
    assert_eq!(seqs, [Ok(2), Ok(3), Ok(4), Err(PublishError::Registry(RegistryError::Fenced)), Ok(5)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_meta_refuses_before_the_first_write() {
    let mut scenario = RoomsScenario::new(1).await;
    scenario.node.publish(&scenario.rooms[0], &scenario.ann.request("before")).await.unwrap();
    for field in ["seq", "time", "oldest", "bytes"] {
        let known: String = scenario.ask(&["HGET", "parley:{0}:room:r0", field]).await;
        let _: u64 = scenario.ask(&["HSET", "parley:{0}:room:r0", field, "junk"]).await;
        let refused = scenario.node.publish(&scenario.rooms[0], &scenario.ann.request("refused")).await;
        let unavailable = matches!(refused, Err(PublishError::Registry(RegistryError::Unavailable(_))));
        assert!(unavailable, "{field}: {refused:?}");
        let _: u64 = scenario.ask(&["HSET", "parley:{0}:room:r0", field, &known]).await;
    }
    let published = scenario.node.publish(&scenario.rooms[0], &scenario.ann.request("after")).await.unwrap();
    assert_eq!(published.seq, 2, "a refused message was stored");
}
