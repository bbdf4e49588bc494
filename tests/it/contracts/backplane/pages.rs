//! Pages of streams, bounded in messages and bytes, on both arms.
//!
//! Invariant: a page ends at the same message on both arms, and paging on loses and repeats nothing.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use gateway::backplane::{
    Backplane, Delivery, PageLimit, Range, RedisBackplane, RedisBackplaneSettings, StreamId, envelope,
};
use harness::Redis;
use harness::fault_proxy::{FaultProxy, Mode};
use presence::model::RoomName;
use presence::registry::RegistryError;
use presence::store::redis::RedisStore;

use super::fixture::{BackplaneNode, StoreFixture, room};

/// Messages of many sizes; one is larger than most limits below.
const MESSAGES: usize = 41;

/// Publishes the messages. Returns their stored sizes.
async fn publish_all(node: &BackplaneNode, lobby: &RoomName) -> Vec<usize> {
    let ann = node.member("ann", lobby).await;
    let mut sizes = Vec::new();
    for number in 0..MESSAGES {
        let length = if number == 20 { 60_000 } else { number * 7919 % 9000 };
        let request = ann.request(&"x".repeat(length));
        node.publish(lobby, &request).await.unwrap();
        sizes.push(envelope::payload(lobby.as_str(), &request).len());
    }
    sizes
}

/// Returns the number of messages of the page that begins with these sizes.
fn fitting(sizes: impl Iterator<Item = usize>, limit: PageLimit) -> usize {
    let mut bytes = 0;
    let fits = |(number, size): &(usize, usize)| {
        bytes += size;
        *number == 0 || *number < limit.messages && bytes <= limit.bytes
    };
    sizes.enumerate().take_while(fits).count()
}

fn limits() -> impl Iterator<Item = PageLimit> {
    let bytes = [1, 4000, 20_000, 100_000, 1 << 20].into_iter();
    bytes.flat_map(|bytes| [1, 7, 200].map(|messages| PageLimit { messages, bytes }))
}

pub(crate) async fn bounded_pages_return_every_message_once(store: &StoreFixture) {
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let sizes = publish_all(&node, &lobby).await;
    for limit in limits() {
        let (mut forward, mut after) = (Vec::new(), 0);
        loop {
            let page = node.backplane.history(lobby.key(), Range::After(after), limit).await.unwrap();
            let seqs: Vec<u64> = page.messages.iter().map(|message| message.seq).collect();
            assert_eq!(seqs.len(), fitting(sizes[forward.len()..].iter().copied(), limit), "after {after}: {limit:?}");
            after = *seqs.last().unwrap();
            forward.extend(seqs);
            if !page.more {
                break;
            }
        }
        assert!(forward.iter().copied().eq(1..=MESSAGES as u64), "{limit:?}: {forward:?}");

        let (mut backward, mut range) = (Vec::new(), Range::Newest);
        loop {
            let page = node.backplane.history(lobby.key(), range, limit).await.unwrap();
            let seqs: Vec<u64> = page.messages.iter().rev().map(|message| message.seq).collect();
            let expected = fitting(sizes[..MESSAGES - backward.len()].iter().rev().copied(), limit);
            assert_eq!(seqs.len(), expected, "{range:?}: {limit:?}");
            range = Range::Before(*seqs.last().unwrap());
            backward.extend(seqs);
            if !page.more {
                break;
            }
        }
        assert!(backward.iter().copied().eq((1..=MESSAGES as u64).rev()), "{limit:?}: {backward:?}");
    }
}

pub(crate) async fn replay_pages_end_at_their_bytes(store: &StoreFixture) {
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let sizes = publish_all(&node, &lobby).await;
    let stream = StreamId::Room(lobby.key().clone());
    for limit in limits() {
        let mut after = 0;
        while after < MESSAGES as u64 {
            let page = node.backplane.read_after(&stream, after, limit).await.unwrap();
            let count = fitting(sizes[usize::try_from(after).unwrap()..].iter().copied(), limit) as u64;
            let seqs = page.messages.iter().map(|message| message.seq);
            assert!(seqs.eq(after + 1..=after + count), "after {after}: {limit:?}");
            assert_eq!((page.through, page.end.seq), (after + count, MESSAGES as u64));
            after = page.through;
        }
        let page = node.backplane.read_after(&stream, after, limit).await.unwrap();
        assert_eq!((page.messages.len(), page.through), (0, after));
    }
}

pub(crate) async fn lists_are_read_in_turns(store: &StoreFixture) {
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    node.member("ann", &lobby).await;
    let read_all = async || {
        let members = async { Ok(node.registry.members(lobby.key(), None, 1).await?.items.len()) };
        let rooms = async { Ok(node.registry.rooms(None, 1).await?.items.len()) };
        let (members, rooms) = join(members, rooms).await;
        [members, rooms]
    };
    let refused_beside_a_hanging_read = async {
        let mut reader = node.read_turns.reader().await.unwrap();
        tokio::select! {
            biased;
            _ = reader.step(pending::<Result<(), RegistryError>>()) => unreachable!("it hangs"),
            outcomes = read_all() => outcomes,
        }
    };
    for outcome in refused_beside_a_hanging_read.await {
        assert!(matches!(outcome, Err(RegistryError::Overloaded | RegistryError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(read_all().await, [Ok(1), Ok(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_pages_share_two_places() {
    const DELAY: Duration = Duration::from_millis(100);
    let redis = Redis::running().await;
    let proxy = FaultProxy::start(redis.address()).await;
    let store = RedisStore::open(&Redis::url_through(proxy.address()), "parley").unwrap();
    let backplane =
        Backplane::Redis(RedisBackplane::start(store, RedisBackplaneSettings::default(), Arc::new(|_: Delivery| {})));
    let lobby = room("#lobby");
    let read = || backplane.history(lobby.key(), Range::Newest, PageLimit::of_messages(1));
    // Connections and script are ready.
    join_all((0..6).map(|_| read())).await.into_iter().for_each(|page| assert!(page.is_ok(), "{page:?}"));
    proxy.set(Mode::Late { delay: DELAY, jitter: Duration::ZERO });
    let began = Instant::now();
    join_all((0..6).map(|_| read())).await.into_iter().for_each(|page| assert!(page.is_ok(), "{page:?}"));
    // Three after each other. The check of the pooled connection and the read are delayed in both directions.
    assert!(began.elapsed() >= DELAY * 3 * 4, "{:?}", began.elapsed());
    proxy.set(Mode::BlackHole);
    let refused = join_all((0..3).map(|_| read())).await;
    assert!(matches!(refused[2], Err(RegistryError::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_beyond_a_page_stay_in_redis() {
    let mut store = StoreFixture::redis().await;
    let (node, lobby) = (store.node("g1").await, room("#lobby"));
    let ann = node.member("ann", &lobby).await;
    let requests: Vec<_> = (0..200).map(|_| ann.request(&"x".repeat(60_000))).collect();
    join_all(requests.chunks(20).map(async |requests| {
        for request in requests {
            node.publish(&lobby, request).await.unwrap();
        }
    }))
    .await;
    let server = store.server();
    // Barrier: nothing published is still on its way to the subscriber.
    for request in &requests {
        node.receives(&lobby, &request.msg_id).await;
    }
    let before = sent_bytes(server).await;
    let limit = PageLimit::of_messages(200);
    let page = node.backplane.history(lobby.key(), Range::Newest, limit).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (17, true));
    let replay = node.backplane.read_after(&StreamId::Room(lobby.key().clone()), 0, limit).await.unwrap();
    assert_eq!((replay.messages.len(), replay.through), (17, 17));
    let read = sent_bytes(server).await - before;
    assert!(read < 3 * limit.bytes as u64, "Redis sent {read} bytes for two pages");
}

async fn sent_bytes(server: &harness::Redis) -> u64 {
    let stats: String = server.ask(&["INFO", "stats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
    line.trim().parse().unwrap()
}
