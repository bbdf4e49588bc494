//! Retention on both stores: streams keep a maximum number of messages, and rooms also have a maximum age.
//!
//! The tests write entries with older times instead of waiting. To the store this looks like a quiet room.

use std::sync::Arc;
use std::time::Duration;

use gateway::backplane::{
    Backplane, Delivery, MemoryBackplane, PageLimit, PriorPosition, PublishAttempt, PublishRequest, Range,
    RedisBackplane, RedisBackplaneSettings, StreamId,
};
use gateway::message::{Accepted, Body};
use harness::eventually;
use presence::host::reloadable::Reloadable;
use presence::model::{Incarnation, LeftReason, Nick, Owner, Retention, RoomName, SessionId, Status, TokenHash};
use presence::registry::{
    ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, LeaveIntent, LeaveRequest, MemoryRegistry, RedisRegistry,
    Registry,
};
use presence::store::memory::Store;
use presence::store::redis::RedisStore;

const STREAM_KEY: &str = "parley:{0}:log:lobby";
const HOUR_MS: u64 = 3600 * 1000;

/// A member of a room; the retention applies to the room and to its inbox.
struct RetentionSender {
    backplane: Backplane,
    registry: Registry,
    lobby: RoomName,
    nick: Nick,
    owner: Owner,
}

impl RetentionSender {
    async fn on_redis(server: &harness::Redis, retention: impl Into<Reloadable<Retention>>) -> Self {
        let redis = RedisStore::open(&server.url(), "parley").unwrap();
        let registry = Registry::Redis(RedisRegistry::new(redis.clone()));
        let settings = RedisBackplaneSettings { retention: retention.into(), ..RedisBackplaneSettings::default() };
        let backplane = RedisBackplane::start(redis, settings, Arc::new(|_: Delivery| {}));
        Self::enter(Backplane::Redis(backplane), registry).await
    }

    async fn on_memory(retention: Retention) -> Self {
        let store = Store::with_retention(retention.into());
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        Self::enter(Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_: Delivery| {}))), registry).await
    }

    async fn enter(backplane: Backplane, registry: Registry) -> Self {
        let (incarnation, session) = (Incarnation::random(), SessionId::random());
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        registry.open_lease(&incarnation, &info).await.unwrap();
        let (nick, lobby) = (Nick::parse("ann").unwrap(), RoomName::parse("#lobby").unwrap());
        let (fence, _) = registry
            .claim(ClaimRequest {
                incarnation: &incarnation,
                session: &session,
                nick: &nick,
                token: &TokenHash::of(b"secret"),
                user: None,
            })
            .await
            .unwrap();
        let sender = Self { backplane, registry, lobby, nick, owner: Owner { incarnation, session, fence } };
        sender.joins().await;
        sender
    }

    async fn joins(&self) {
        let Self { lobby: room, nick, owner, .. } = self;
        let (status, entry) = (&Status::default(), JoinEntry::New);
        self.registry
            .join(JoinRequest { room, nick, owner, user: None, status, entry, moderates: false })
            .await
            .unwrap();
    }

    async fn leaves(&self) {
        let Self { lobby: room, nick, owner, .. } = self;
        let (reason, intent) = (LeftReason::Closed, LeaveIntent::ForGood);
        assert!(self.registry.leave(LeaveRequest { room, nick, owner, reason, intent }).await.unwrap());
    }

    /// Says it, and returns its seq and time.
    async fn sends(&self, text: &str) -> (u64, u64) {
        let ack = self
            .backplane
            .publish(&self.lobby, &self.draft(text), PublishAttempt::First(&PriorPosition::default()))
            .await
            .unwrap();
        (ack.seq, ack.time)
    }

    /// Says it to themselves.
    async fn send_direct(&self, text: &str) {
        self.backplane.direct(self.nick.key(), &self.draft(text)).await.unwrap();
    }

    fn draft(&self, text: &str) -> PublishRequest {
        let (from, owner) = (self.nick.clone(), self.owner.clone());
        let (msg_id, body, accepted) = (SessionId::random().to_string(), Body::from_text(text), Accepted::default());
        PublishRequest { msg_id, key: None, from, from_user: None, owner, moderates: false, body, accepted }
    }

    async fn oldest(&self) -> u64 {
        let stretch =
            self.backplane.history(self.lobby.key(), Range::After(0), PageLimit::of_messages(1)).await.unwrap();
        stretch.messages[0].seq
    }

    async fn oldest_direct(&self) -> u64 {
        let missed = self
            .backplane
            .read_after(&StreamId::Inbox(self.owner.session.clone()), 0, PageLimit::of_messages(1))
            .await
            .unwrap();
        missed.messages[0].seq
    }
}

fn room_limit(messages: usize, hours: u64) -> Retention {
    Retention { messages, age: Duration::from_millis(hours * HOUR_MS), ..Retention::default() }
}

/// Limits the inbox only; the default room limit is above the number of messages sent here.
fn inbox_limit(inbox_messages: usize) -> Retention {
    Retention { inbox_messages, ..Retention::default() }
}

/// A stream of `count` messages, of which the first `old` have the given age. The next seq is `count` + 1.
struct AgedStream {
    now: u64,
    count: u64,
    old: u64,
    age: u64,
}

async fn write_stream(server: &harness::Redis, AgedStream { now, count, old, age }: AgedStream) {
    let write = "for seq = 1, ARGV[1] do
            local time = seq <= tonumber(ARGV[2]) and ARGV[3] or ARGV[4]
            redis.call('XADD', KEYS[1], seq .. '-0', 'time', time, 'payload', ARGV[5])
        end";
    let numbers = [count, old, now - age, now].map(|number| number.to_string());
    let _: () = server.ask(&["DEL", STREAM_KEY]).await;
    // The cached oldest position of the room is deleted too.
    let _: () = server.ask(&["HDEL", "parley:{0}:room:lobby", "oldest"]).await;
    let payload = r##"{"to":"#lobby","from":"ann","id":"m","fence":1,"body":"x"}"##;
    let words = ["EVAL", write, "1", STREAM_KEY].into_iter().chain(numbers.iter().map(String::as_str)).chain([payload]);
    let _: () = server.ask(&words.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn redis_trims_rooms_to_the_message_limit() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, room_limit(300, 72)).await;
    for number in 1..=1000 {
        ann.sends(&number.to_string()).await;
    }
    let kept: u64 = server.ask(&["XLEN", STREAM_KEY]).await;
    assert!((300..=400).contains(&kept), "{kept}: the store trims in blocks of 100");
    assert_eq!(ann.oldest().await, 1001 - kept, "the newest are kept");
}

#[tokio::test]
async fn memory_trims_rooms_to_the_message_limit() {
    let ann = RetentionSender::on_memory(room_limit(300, 72)).await;
    for number in 1..=1000 {
        ann.sends(&number.to_string()).await;
    }
    assert_eq!(ann.oldest().await, 701);
}

#[tokio::test]
async fn redis_trims_inboxes_to_the_message_limit() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, inbox_limit(300)).await;
    for number in 1..=1000 {
        ann.send_direct(&number.to_string()).await;
    }
    let kept: u64 = server.ask(&["XLEN", &format!("parley:{{0}}:inbox:{}", ann.owner.session)]).await;
    assert!((300..=400).contains(&kept), "{kept}: the store trims in blocks of 100");
    assert_eq!(ann.oldest_direct().await, 1001 - kept, "the newest are kept");
}

#[tokio::test]
async fn memory_trims_inboxes_to_the_message_limit() {
    let ann = RetentionSender::on_memory(inbox_limit(300)).await;
    for number in 1..=1000 {
        ann.send_direct(&number.to_string()).await;
    }
    assert_eq!(ann.oldest_direct().await, 701);
}

#[tokio::test]
async fn redis_drops_only_messages_past_the_age_limit() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, room_limit(10_000, 2)).await;
    let (_, now) = ann.sends("what time is it?").await;
    for old in [0, 1, 2, 3, 7, 100, 255] {
        write_stream(&server, AgedStream { now, count: 300, old, age: 2 * HOUR_MS + 1 }).await;
        // Each call drops at least half of the expired entries, so a few messages are enough.
        for _ in 0..9 {
            ann.sends("x").await;
        }
        assert_eq!(ann.oldest().await, old + 1, "{old} of 300 messages are too old");
    }
    // Within the limit; the margin covers the duration of this test.
    write_stream(&server, AgedStream { now, count: 300, old: 200, age: 2 * HOUR_MS - 600_000 }).await;
    ann.sends("x").await;
    assert_eq!(ann.oldest().await, 1);
}

#[tokio::test]
async fn redis_drops_at_most_256_messages_per_call() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, room_limit(10_000, 2)).await;
    let (_, now) = ann.sends("what time is it?").await;
    write_stream(&server, AgedStream { now, count: 1000, old: 1000, age: 2 * HOUR_MS + 1 }).await;
    for oldest in [257, 513, 769] {
        ann.sends("x").await;
        assert_eq!(ann.oldest().await, oldest);
    }
    for _ in 0..9 {
        ann.sends("x").await;
    }
    assert_eq!(ann.oldest().await, 1001, "the newest messages stay");
}

#[tokio::test]
async fn redis_applies_a_reloaded_age_limit() {
    let server = harness::Redis::running().await;
    let retention = Reloadable::from(room_limit(10_000, 2));
    let ann = RetentionSender::on_redis(&server, retention.clone()).await;
    for _ in 0..3 {
        ann.sends("x").await;
    }
    assert_eq!(ann.oldest().await, 1);
    retention.set(Retention { age: Duration::from_millis(5), ..room_limit(10_000, 2) });
    eventually(Duration::from_secs(5), "only the last message is kept", async || {
        let (last, _) = ann.sends("x").await;
        if ann.oldest().await == last { Ok(()) } else { Err(last) }
    })
    .await;
}

#[tokio::test]
async fn foreign_stream_entries_block_no_message() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, room_limit(10_000, 2)).await;
    for entry in [["time", "soon"], ["payload", "{}"]] {
        let _: () = server.ask(&["DEL", STREAM_KEY]).await;
        let _: String = server.ask(&["XADD", STREAM_KEY, "1-5", entry[0], entry[1]]).await;
        ann.sends("x").await;
        let kept: u64 = server.ask(&["XLEN", STREAM_KEY]).await;
        assert_eq!(kept, 2, "{entry:?}");
    }
}

/// Bytes and keys of Redis below a pattern.
async fn memory_of(server: &harness::Redis, pattern: &str) -> (u64, Vec<String>) {
    let mut keys: Vec<String> = server.ask(&["KEYS", pattern]).await;
    keys.sort();
    let mut bytes = 0;
    for key in &keys {
        bytes += server.ask::<u64>(&["MEMORY", "USAGE", key]).await;
    }
    (bytes, keys)
}

#[tokio::test]
async fn quiet_room_expires_before_busy_one() {
    let server = harness::Redis::running().await;
    let quiet = Duration::from_secs(2 * 3600);
    let retention = Reloadable::from(Retention { quiet, ..Retention::default() });
    let ann = RetentionSender::on_redis(&server, retention.clone()).await;
    let meta = STREAM_KEY.replace("log", "room");
    let hours_after_leave = async || {
        ann.leaves().await;
        let mut hours = Vec::new();
        for key in [STREAM_KEY, &meta] {
            hours.push(server.ask::<u64>(&["TTL", key]).await.div_ceil(3600));
        }
        ann.joins().await;
        for key in [STREAM_KEY, &meta] {
            assert_eq!(server.ask::<i64>(&["TTL", key]).await, -1, "{key} of a room with a member");
        }
        hours
    };
    ann.sends("one").await;
    assert_eq!(hours_after_leave().await, [2, 3]);
    retention.set(Retention { quiet: 2 * quiet, ..Retention::default() });
    ann.sends("two").await;
    assert_eq!(hours_after_leave().await, [4, 5], "a reloaded setting applies from the next message");
    ann.sends("three").await;
    assert_eq!(hours_after_leave().await, [72, 73]);
}

#[tokio::test]
async fn stream_costs_what_its_messages_hold() {
    let server = harness::Redis::running().await;
    let ann = RetentionSender::on_redis(&server, Retention::default()).await;
    let inbox = format!("parley:{{0}}:inbox:{}", ann.owner.session);
    ann.sends("hello").await;
    ann.send_direct("hello").await;
    let (bytes, keys) = memory_of(&server, "parley:{0}:*lobby*").await;
    assert!(bytes < 2048, "{bytes} bytes of a room with one message: {keys:?}");
    let bytes: u64 = server.ask(&["MEMORY", "USAGE", &inbox]).await;
    assert!(bytes < 1536, "{bytes} bytes of an inbox with one message");
    for number in 2..=50 {
        assert_eq!(ann.sends("hello").await.0, number);
        ann.send_direct("hello").await;
    }
    let history = ann.backplane.history(ann.lobby.key(), Range::After(0), PageLimit::of_messages(100)).await.unwrap();
    assert!(history.messages.iter().map(|message| message.seq).eq(1..=50), "the copy lost or doubled a message");
    assert_eq!(ann.oldest_direct().await, 1);
    let (_, copies) = memory_of(&server, "*:copy").await;
    assert!(copies.is_empty(), "{copies:?}");
}

#[tokio::test]
async fn stream_without_right_to_copy_keeps_every_message() {
    let server = harness::Redis::running().await;
    for right in ["-copy", "+copy", "-rename"] {
        let () = server.ask(&["ACL", "SETUSER", "parley", right]).await;
        let () = server.ask(&["FLUSHALL"]).await;
        let ann = RetentionSender::on_redis(&server, Retention::default()).await;
        assert_eq!((ann.sends("one").await.0, ann.sends("two").await.0), (1, 2), "{right}");
        assert_eq!(ann.oldest().await, 1, "{right}");
        assert_eq!(memory_of(&server, "*:copy").await.1, Vec::<String>::new(), "{right}");
    }
    let () = server.ask(&["ACL", "LOG", "RESET"]).await;
}
