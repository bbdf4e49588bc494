//! The count of bytes that Redis keeps of each stream, and the list of the largest streams.
//!
//! Invariant: the bytes counted after the first mark of a stream are those of its messages, less what count or age
//! removed since the last mark. The bound itself is tested in `sizes`.

use std::time::Duration;

use presence::model::{Retention, RoomName};
use presence::registry::{ListedBytes, RedisRegistry, StreamOwner};
use presence::store::redis::RedisStore;
use redis::streams::StreamRangeReply;

use super::fixture::{BackplaneNode, NickHolder, SOON, StoreFixture, eventually, room};
use super::sizes::MeasuredStream;

const META: &str = "parley:{0}:room:lobby";
const STREAM: &str = "parley:{0}:log:lobby";
const LIST: &str = "parley:{0}:largest";

/// A node on Redis with a member of the lobby.
struct CountedRoom {
    store: StoreFixture,
    node: BackplaneNode,
    lobby: RoomName,
    ann: NickHolder,
}

impl CountedRoom {
    async fn new(retention: Retention) -> Self {
        let (store, lobby) = (StoreFixture::redis().await, room("#lobby"));
        store.retain(retention);
        let node = store.node("g1").await;
        let ann = node.member("ann", &lobby).await;
        Self { store, node, lobby, ann }
    }

    fn stream(&self) -> MeasuredStream<'_> {
        MeasuredStream::of_room(&self.node, &self.ann, &self.lobby)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let StoreFixture::Redis(server, _) = &self.store else { panic!("only Redis has a server") };
        server.ask(words).await
    }

    /// Returns the bytes of the stream's payloads after a seq, and the first seq of all.
    async fn stored(&self, after: u64) -> (u64, u64) {
        let stored: StreamRangeReply = self.ask(&["XRANGE", STREAM, "-", "+"]).await;
        let seq = |id: &str| id.split('-').next().unwrap().parse::<u64>().unwrap();
        let newer = stored.ids.iter().filter(|entry| seq(&entry.id) > after);
        let bytes = newer.map(|entry| entry.get::<String>("payload").unwrap().len() as u64).sum();
        (bytes, stored.ids.first().map_or(0, |entry| seq(&entry.id)))
    }

    /// Checks that the marks count the messages after them, and that the list has the size at the last mark. Returns
    /// the size.
    async fn assert_counted(&self) -> u64 {
        let (bytes, marks): (u64, String) = self.ask(&["HMGET", META, "bytes", "marks"]).await;
        let read = |mark: &str| {
            let (seq, bytes) = mark.split_once(':').unwrap();
            (seq.parse::<u64>().unwrap(), bytes.parse::<u64>().unwrap())
        };
        let marks: Vec<(u64, u64)> = marks.split_whitespace().map(read).collect();
        assert!(marks.is_sorted() && marks.len() <= 40, "{marks:?}");
        let (_, first) = self.stored(0).await;
        for (seq, up_to) in &marks {
            if *seq + 1 >= first {
                assert_eq!(self.stored(*seq).await.0, bytes - up_to, "after {seq} in {marks:?}");
            }
        }
        let listed: u64 = self.ask(&["ZSCORE", LIST, "#lobby"]).await;
        let last = marks.last().expect("a listed stream has a mark").1;
        let base = if marks[0].0 < first { marks[0].1 } else { 0 };
        // The call that set the last mark may have appended more.
        assert!((last - base..=bytes - base).contains(&listed), "{listed}: {marks:?}, the first message is {first}");
        listed
    }
}

fn bytes(bytes: usize) -> Retention {
    Retention { bytes, ..Retention::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_size_follows_every_removal() {
    let limits = Retention { messages: 1000, ..bytes(8 << 20) };
    let counted = CountedRoom::new(limits).await;
    let mut stream = counted.stream();
    for _ in 0..10 {
        stream.append([10_000; 30]).await;
    }
    let large = counted.assert_counted().await;
    assert!(large > 2_500_000, "{large} bytes of 3 MB are listed");
    // 1,100 small messages remove all large ones, and are less than a sixteenth of the bytes.
    for _ in 0..20 {
        stream.append([10; 60]).await;
    }
    let small = counted.assert_counted().await;
    assert!(small < 300_000, "{small} bytes are listed, and the large messages are gone");
    counted.store.retain(Retention { age: Duration::from_millis(5), ..limits });
    // Fewer messages than between two marks: the removal itself changes the list.
    for _ in 0..20 {
        stream.append([10]).await;
    }
    let aged = counted.assert_counted().await;
    assert!(aged < 20_000, "{aged} bytes are listed, and older messages are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_meta_or_stream_stays_bounded() {
    const BOUND: usize = 65_536;
    let counted = CountedRoom::new(bytes(BOUND)).await;
    let mut stream = counted.stream();
    stream.append([1000; 50]).await;
    let () = counted.ask(&["HDEL", META, "bytes", "marks", "seq", "epoch"]).await;
    stream.append([1000]).await;
    assert_eq!(stream.oldest().await, 1, "the messages from before the meta are not counted");
    for _ in 0..80 {
        stream.append([1000]).await;
    }
    assert!(stream.bytes_from(stream.oldest().await) <= BOUND * 17 / 16 + 1200);
    counted.assert_counted().await;

    let () = counted.ask(&["DEL", STREAM]).await;
    let first = stream.sizes.len() + 1;
    for _ in 0..50 {
        stream.append([1000]).await;
        assert_eq!(stream.oldest().await, first, "a message was removed early");
    }
    for _ in 0..50 {
        stream.append([1000]).await;
    }
    assert!(stream.bytes_from(stream.oldest().await) <= BOUND * 17 / 16 + 1200);
    counted.assert_counted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_cuts_are_made_in_steps() {
    let counted = CountedRoom::new(bytes(64 << 20)).await;
    // The stream and its meta after 40 messages of 1 MiB.
    let write = "local marks, time = '', redis.call('TIME')[1] .. '000'
        for seq = 1, 40 do
            marks = marks .. ' ' .. seq .. ':' .. string.format('%d', seq * 1048576)
            redis.call('XADD', KEYS[1], seq .. '-0', 'time', time, 'payload', string.rep('x', 1048576))
        end
        redis.call('HSET', KEYS[2], 'seq', 40, 'bytes', 40 * 1048576, 'marks', marks)
        return 40";
    let _: u64 = counted.ask(&["EVAL", write, "2", STREAM, META]).await;
    counted.store.retain(bytes(65_536));
    let mut lengths = Vec::new();
    for _ in 0..4 {
        counted.node.publish(&counted.lobby, &counted.ann.request(&"x".repeat(5000))).await.unwrap();
        lengths.push(counted.ask::<u64>(&["XLEN", STREAM]).await);
    }
    assert_eq!(lengths, [25, 10, 3, 4], "16 MiB are removed at a time");
    counted.assert_counted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_survives_a_restart_and_republishing() {
    let mut counted = CountedRoom::new(bytes(65_536)).await;
    let texts = async |counted: &CountedRoom, count: usize| {
        for _ in 0..count {
            counted.node.publish(&counted.lobby, &counted.ann.request(&"x".repeat(1000))).await.unwrap();
        }
    };
    texts(&counted, 100).await;
    let kept = counted.store.server().written();
    texts(&counted, 20).await;
    counted.store.server().crash(kept);
    counted.store.server().start().await;
    eventually(SOON * 3, "the lost messages are republished", async || {
        let republished = counted.node.republished.load(std::sync::atomic::Ordering::SeqCst);
        (republished >= 20).then_some(())
    })
    .await;
    counted.assert_counted().await;
    let publish = async || counted.node.publish(&counted.lobby, &counted.ann.request("after")).await.ok();
    eventually(SOON * 3, "a message is stored again", publish).await;
    texts(&counted, 100).await;
    counted.assert_counted().await;
    let (stored, _) = counted.stored(0).await;
    assert!((55_000..=65_536 * 17 / 16 + 1200).contains(&stored), "{stored}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_keeps_the_hundred_largest_streams() {
    let counted = CountedRoom::new(bytes(65_536)).await;
    let rooms: Vec<RoomName> = (0..120).map(|number| room(&format!("#room-{number}"))).collect();
    for (number, room) in rooms.iter().enumerate() {
        counted.node.join(&counted.ann, room).await;
        // Different sizes, in mixed order.
        let length = 5000 + 10 * (number * 53 % 120);
        counted.node.publish(room, &counted.ann.request(&"x".repeat(length))).await.unwrap();
    }
    let listed: Vec<(String, u64)> = counted.ask(&["ZRANGEBYSCORE", LIST, "-inf", "+inf", "WITHSCORES"]).await;
    assert_eq!(listed.len(), 100);
    assert!(listed.iter().all(|(_, bytes)| *bytes >= 5000 + 10 * 20), "a larger one was removed: {listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn largest_streams_are_shown_until_they_expire() {
    let limits = Retention { inbox_bytes: 65_536, ..bytes(65_536) };
    let counted = CountedRoom::new(limits).await;
    let StoreFixture::Redis(server, _) = &counted.store else { panic!("only Redis has a server") };
    let registry = RedisRegistry::new(RedisStore::open(&server.url(), "parley").unwrap());
    let none = registry.largest_streams(10).await.unwrap();
    assert!(none.streams.is_empty() && none.rooms == ListedBytes::default(), "{none:?}");

    counted.stream().append([5000; 3]).await;
    MeasuredStream::of_inbox(&counted.node, &counted.ann).append([10_000]).await;
    let shown = registry.largest_streams(10).await.unwrap();
    let [lobby, inbox] = &shown.streams[..] else { panic!("{shown:?}") };
    assert_eq!((&lobby.owner, lobby.messages), (&StreamOwner::Room { room: "#lobby".to_owned() }, 3));
    let (session, nick) = (counted.ann.owner.session.to_string(), Some("ann".to_owned()));
    assert_eq!((&inbox.owner, inbox.messages), (&StreamOwner::Inbox { session, nick }, 1));
    assert_eq!((lobby.expires_in_seconds, inbox.expires_in_seconds), (None, None));
    assert_eq!(
        (lobby.bytes, shown.rooms.largest, shown.rooms.total),
        (counted.assert_counted().await, lobby.bytes, lobby.bytes)
    );
    assert_eq!((shown.inboxes.largest, shown.inboxes.total), (inbox.bytes, inbox.bytes));
    let sums = registry.largest_streams(0).await.unwrap();
    assert_eq!((sums.rooms, sums.inboxes, sums.streams.len()), (shown.rooms, shown.inboxes, 0));

    // A room that ended still fills Redis.
    counted.node.leave(&counted.ann, &counted.lobby).await;
    let ended = registry.largest_streams(1).await.unwrap();
    assert_eq!(ended.streams[0].expires_in_seconds.map(|seconds| seconds.div_ceil(3600)), Some(72));
    let () = counted.ask(&["DEL", STREAM, META]).await;
    let left = registry.largest_streams(10).await.unwrap();
    assert_eq!((left.rooms, left.streams.len()), (ListedBytes::default(), 1), "{left:?}");
    let listed: u64 = counted.ask(&["ZCARD", LIST]).await;
    assert_eq!(listed, 1, "the expired room is still listed");
}
