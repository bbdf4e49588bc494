//! Publish batching on a real Redis: concurrent publishes share calls, and a lone publish is not delayed.
//!
//! Invariant: batching changes no outcome, no order and no sequence number. Each test freezes Redis to hold one call in
//! flight, so the requests that queue behind it are certain.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use gateway::backplane::{PageLimit, PriorPosition, PublishAttempt, PublishError, PublishRequest, Published, Range};
use presence::model::{Incarnation, RoomName};
use presence::registry::RegistryError;
use tokio::task::JoinSet;

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually, room};

/// Returns the number of scripts that Redis has run since the last call, and resets the count.
pub(super) async fn take_script_calls(store: &mut StoreFixture) -> usize {
    let stats: String = store.server().ask(&["INFO", "commandstats"]).await;
    let _: String = store.server().ask(&["CONFIG", "RESETSTAT"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Starts a node without beats, so that every script is a publish, with one member in its room.
async fn silent_node_with_member() -> (StoreFixture, BackplaneNode, RoomName, NickHolder) {
    let store = StoreFixture::redis().await;
    let (node, lobby) = (store.silent_node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    (store, node, lobby, ann)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_share_calls_and_keep_order() {
    const PUBLISHERS: usize = 200;
    const EACH: usize = 5;
    let (mut store, node, lobby, _) = silent_node_with_member().await;
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        publishers.push(node.member(&format!("p{number}"), &lobby).await);
    }
    take_script_calls(&mut store).await;
    let publishing = publishers.iter().map(async |holder| {
        let mut acks = Vec::new();
        for number in 0..EACH {
            acks.push(node.publish(&lobby, &holder.request(&number.to_string())).await.unwrap());
        }
        acks
    });
    let acks: Vec<Published> = join_all(publishing).await.concat();
    let calls = take_script_calls(&mut store).await;
    assert!(calls * 5 < PUBLISHERS * EACH, "{calls} calls for {} messages", PUBLISHERS * EACH);

    let mut seqs: Vec<u64> = acks.iter().map(|ack| ack.seq).collect();
    seqs.sort_unstable();
    assert!(seqs.into_iter().eq(1..=(PUBLISHERS * EACH) as u64), "seqs are dense and unique");
    let all_received = async || Some(node.messages(&lobby)).filter(|received| received.len() == PUBLISHERS * EACH);
    let received = eventually(SOON, "every message arrives", all_received).await;
    assert!(received.is_sorted_by_key(|message| message.seq));
    let mut next: HashMap<&str, usize> = HashMap::new();
    for message in &received {
        let next = next.entry(&message.from).or_default();
        assert_eq!(message.body.text(), next.to_string(), "messages of {} arrive in publish order", message.from);
        *next += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lone_publisher_gets_no_added_delay() {
    let (mut store, node, lobby, ann) = silent_node_with_member().await;
    take_script_calls(&mut store).await;
    let (mut in_room, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let (request, started) = (ann.request("hi"), Instant::now());
        node.publish(&lobby, &request).await.unwrap();
        in_room.push(started.elapsed());
        // A direct message is the same work for Redis, without batching in front of it.
        let (request, started) = (ann.request("hi"), Instant::now());
        node.backplane.direct(ann.nick.key(), &request).await.unwrap();
        direct.push(started.elapsed());
    }
    in_room.sort_unstable();
    direct.sort_unstable();
    assert!(in_room[50] < direct[50] + Duration::from_millis(2), "room {:?}, direct {:?}", in_room[50], direct[50]);
    // The first call of each script is answered with NOSCRIPT.
    assert!((200..=202).contains(&take_script_calls(&mut store).await), "one call per message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_message_leaves_rest_of_batch_untouched() {
    let (mut store, node, lobby, ann) = silent_node_with_member().await;
    let eve = node.claim_nick("eve").await;
    let known = ann.keyed("known", "before");
    let before = node.publish(&lobby, &known).await.unwrap();
    let mut fenced = ann.request("from an ended lease");
    fenced.owner.incarnation = Incarnation::random();
    let first = ann.keyed("twice", "first");
    take_script_calls(&mut store).await;

    store.server().stop_signal().await;
    let requests = [
        ann.request("in flight"),
        first.clone(),
        eve.request("not a member"),
        ann.keyed("twice", "again"),
        fenced,
        known.clone(),
        ann.request("last"),
    ];
    let mut publishes = Box::pin(join_all(requests.iter().map(|request| node.publish(&lobby, request))));
    assert!(futures_util::poll!(&mut publishes).is_pending());
    store.server().cont();
    let outcomes = publishes.await;

    let ok = |request: &PublishRequest, seq, time| {
        Ok(Published { msg_id: request.msg_id.clone(), seq, time, duplicate: false, online: true })
    };
    let time = |at: usize| outcomes[at].as_ref().unwrap().time;
    assert_eq!(outcomes[0], ok(&requests[0], 2, time(0)));
    assert_eq!(outcomes[1], ok(&first, 3, time(1)));
    assert_eq!(outcomes[2], Err(PublishError::NotInRoom));
    assert_eq!(
        outcomes[3],
        Ok(Published { msg_id: first.msg_id, seq: 3, time: time(1), duplicate: true, online: true })
    );
    assert_eq!(outcomes[4], Err(PublishError::Registry(RegistryError::Fenced)));
    assert_eq!(outcomes[5], Ok(Published { duplicate: true, ..before }));
    assert_eq!(outcomes[6], ok(&requests[6], 4, time(6)));
    assert!(take_script_calls(&mut store).await <= 2, "the requests shared a call");
    node.receives(&lobby, &requests[6].msg_id).await;
    let texts: Vec<String> = node.messages(&lobby).iter().map(|message| message.body.text()).collect();
    assert_eq!(texts, ["before", "in flight", "first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_lost_reply_makes_no_second_copy() {
    let (mut store, node, lobby, ann) = silent_node_with_member().await;
    node.publish(&lobby, &ann.request("before")).await.unwrap();
    store.server().stop_signal().await;
    let requests: Vec<PublishRequest> = (0..20).map(|number| ann.request(&number.to_string())).collect();
    let publish = |request| node.publish(&lobby, request);
    let outcomes = join_all(requests.iter().map(publish)).await;
    store.server().cont();
    // The first call times out; requests that queued behind it were never sent.
    assert!(matches!(outcomes[0], Err(PublishError::Registry(RegistryError::Unknown(_)))), "{:?}", outcomes[0]);
    for outcome in &outcomes {
        use RegistryError::{Unavailable, Unknown};
        assert!(matches!(outcome, Err(PublishError::Registry(Unknown(_) | Unavailable(_)))), "{outcome:?}");
    }
    let retry = async |request| {
        eventually(SOON, "the retry is acknowledged", async || node.repeat(&lobby, request).await.ok()).await
    };
    let acks = join_all(requests.iter().map(retry)).await;
    let history = node.backplane.history(lobby.key(), Range::After(1), PageLimit::of_messages(100)).await.unwrap();
    assert_eq!(history.messages.len(), requests.len(), "each message is stored once");
    for (request, ack) in requests.iter().zip(acks) {
        let found = history.messages.iter().find(|message| message.msg_id == request.msg_id).unwrap();
        assert_eq!((found.seq, found.time), (ack.seq, ack.time));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_publisher_does_not_cancel_its_batch() {
    let (mut store, node, lobby, ann) = silent_node_with_member().await;
    node.publish(&lobby, &ann.request("before")).await.unwrap();
    store.server().stop_signal().await;
    let leading = ann.request("leading");
    let mut leader = Box::pin(node.publish(&lobby, &leading));
    assert!(futures_util::poll!(&mut leader).is_pending());
    let requests: Vec<PublishRequest> = (0..20).map(|number| ann.request(&number.to_string())).collect();
    let mut publishes = Box::pin(join_all(requests.iter().map(|request| node.publish(&lobby, request))));
    assert!(futures_util::poll!(&mut publishes).is_pending());
    drop(leader);
    store.server().cont();
    let seqs: Vec<u64> = publishes.await.into_iter().map(|outcome| outcome.unwrap().seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a + 1 == *b), "in order, none lost: {seqs:?}");
    let ack = node.repeat(&lobby, &leading).await.unwrap();
    assert!(!ack.duplicate || ack.seq == 2, "the cancelled publish may have run or not: {ack:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded_room_refuses_and_keeps_accepted_messages() {
    // One call takes 64 messages, and at most 1024 queue.
    const OFFERED: usize = 1300;
    let (mut store, node, lobby, ann) = silent_node_with_member().await;
    node.publish(&lobby, &ann.request("before")).await.unwrap();
    let backplane = node.backplane.clone();
    store.server().stop_signal().await;
    let mut offered = JoinSet::new();
    for number in 0..OFFERED {
        let (backplane, lobby, request) = (backplane.clone(), lobby.clone(), ann.request(&number.to_string()));
        offered.spawn(async move {
            backplane.publish(&lobby, &request, PublishAttempt::First(&PriorPosition::default())).await
        });
    }
    for _ in 0..OFFERED - 64 - 1024 {
        let outcome = tokio::time::timeout(SOON, offered.join_next()).await.expect("refused at once");
        assert_eq!(outcome.unwrap().unwrap(), Err(PublishError::Overloaded));
    }
    store.server().cont();
    let mut seqs = Vec::new();
    while let Some(outcome) = offered.join_next().await {
        match outcome.unwrap() {
            Ok(ack) => seqs.push(ack.seq),
            Err(error) => assert_eq!(error, PublishError::Overloaded),
        }
    }
    assert!((1024..=1024 + 64).contains(&seqs.len()), "{}", seqs.len());
    seqs.sort_unstable();
    assert!(seqs.iter().copied().eq(2..2 + seqs.len() as u64), "refused messages took no seq");
    let ack = node.publish(&lobby, &ann.request("after")).await.unwrap();
    assert_eq!(ack.seq, 2 + seqs.len() as u64);
}
