//! A room and an inbox keep as much of what was said as the settings say, on both stores: so many messages, and in a room
//! so old at most.
//!
//! Time is made to pass by writing older times into a log, which is what a quiet room looks like to the store.

use std::sync::Arc;
use std::time::Duration;

use gateway::backplane::{Backplane, MemoryBackplane, PublishRequest, Range, RedisBackplane, StreamId};
use gateway::message::{Accepted, Body};
use harness::eventually;
use presence::host::reloadable::Reloadable;
use presence::model::{Incarnation, Nick, Owner, Retention, RoomName, SessionId, Status, TokenHash};
use presence::registry::{GatewayInfo, JoinEntry, JoinRequest, MemoryRegistry, RedisRegistry, Registry};
use presence::store::memory::Store;
use presence::store::redis::RedisStore;

const LOG: &str = "parley:{0}:log:lobby";
const HOUR: u64 = 3600 * 1000;

/// Somebody in a room whose log is kept within the retention, as their inbox is.
struct Speaker {
    backplane: Backplane,
    lobby: RoomName,
    nick: Nick,
    owner: Owner,
}

impl Speaker {
    async fn on_redis(server: &harness::Redis, retention: impl Into<Reloadable<Retention>>) -> Self {
        let redis = RedisStore::open(&server.url(), "parley").unwrap();
        let registry = Registry::Redis(RedisRegistry::new(redis.clone()));
        let backplane = RedisBackplane::start_keeping(redis, retention.into(), Arc::new(|_| {}));
        Self::enter(Backplane::Redis(backplane), &registry).await
    }

    async fn on_memory(retention: Retention) -> Self {
        let store = Store::keeping(retention.into());
        let registry = Registry::Memory(MemoryRegistry::new(store.clone()));
        Self::enter(Backplane::Memory(MemoryBackplane::start(store, Arc::new(|_| {}))), &registry).await
    }

    async fn enter(backplane: Backplane, registry: &Registry) -> Self {
        let (incarnation, session) = (Incarnation::random(), SessionId::random());
        let empty = String::new;
        let info = GatewayInfo { node: "g1".to_owned(), version: empty(), ws: empty(), tcp: empty(), admin: empty() };
        registry.open_lease(&incarnation, &info).await.unwrap();
        let (nick, lobby) = (Nick::parse("ann").unwrap(), RoomName::parse("#lobby").unwrap());
        let (fence, _) = registry.claim(&incarnation, &session, &nick, &TokenHash::of(b"secret")).await.unwrap();
        let owner = Owner { incarnation, session, fence };
        registry
            .join(JoinRequest {
                room: &lobby,
                nick: &nick,
                owner: &owner,
                status: &Status::default(),
                entry: JoinEntry::New,
            })
            .await
            .unwrap();
        Self { backplane, lobby, nick, owner }
    }

    /// Says it, and returns its seq and time.
    async fn sends(&self, text: &str) -> (u64, u64) {
        let ack = self.backplane.publish(&self.lobby, &self.draft(text)).await.unwrap();
        (ack.seq, ack.time)
    }

    /// Says it to themselves.
    async fn note(&self, text: &str) {
        self.backplane.direct(self.nick.key(), &self.draft(text)).await.unwrap();
    }

    fn draft(&self, text: &str) -> PublishRequest {
        let (from, owner) = (self.nick.clone(), self.owner.clone());
        let (msg_id, body, accepted) = (SessionId::random().to_string(), Body::from_text(text), Accepted::default());
        PublishRequest { msg_id, key: None, from, owner, body, accepted }
    }

    async fn oldest(&self) -> u64 {
        let stretch = self.backplane.history(self.lobby.key(), Range::After(0), 1).await.unwrap();
        stretch.messages[0].seq
    }

    async fn oldest_note(&self) -> u64 {
        let missed = self.backplane.read_after(&StreamId::Inbox(self.owner.session.clone()), 0, 1).await.unwrap();
        missed.messages[0].seq
    }
}

fn keep(messages: usize, hours: u64) -> Retention {
    Retention { messages, age: Duration::from_millis(hours * HOUR), ..Retention::default() }
}

/// Rooms keep more than is said here.
fn keep_notes(inbox_messages: usize) -> Retention {
    Retention { inbox_messages, ..Retention::default() }
}

/// A log of `count` messages, the first `old` of which were written so long ago; the next to come is `count` + 1.
async fn write_log(server: &harness::Redis, now: u64, count: u64, old: u64, age: u64) {
    let write = "for seq = 1, ARGV[1] do
            local time = seq <= tonumber(ARGV[2]) and ARGV[3] or ARGV[4]
            redis.call('XADD', KEYS[1], seq .. '-0', 'time', time, 'payload', ARGV[5])
        end";
    let numbers = [count, old, now - age, now].map(|number| number.to_string());
    let _: () = server.ask(&["DEL", LOG]).await;
    // What the room knows of it goes with it.
    let _: () = server.ask(&["HDEL", "parley:{0}:room:lobby", "oldest"]).await;
    let payload = r##"{"to":"#lobby","from":"ann","id":"m","fence":1,"body":"x"}"##;
    let words = ["EVAL", write, "1", LOG].into_iter().chain(numbers.iter().map(String::as_str)).chain([payload]);
    let _: () = server.ask(&words.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn redis_keeps_so_many_messages_and_hardly_more() {
    let server = harness::Redis::running().await;
    let ann = Speaker::on_redis(&server, keep(300, 72)).await;
    for number in 1..=1000 {
        ann.sends(&number.to_string()).await;
    }
    let kept: u64 = server.ask(&["XLEN", LOG]).await;
    assert!((300..=400).contains(&kept), "{kept}: trimmed in blocks of a hundred");
    assert_eq!(ann.oldest().await, 1001 - kept, "the newest are kept");
}

#[tokio::test]
async fn memory_keeps_so_many_messages() {
    let ann = Speaker::on_memory(keep(300, 72)).await;
    for number in 1..=1000 {
        ann.sends(&number.to_string()).await;
    }
    assert_eq!(ann.oldest().await, 701);
}

#[tokio::test]
async fn redis_keeps_so_many_messages_of_an_inbox_and_hardly_more() {
    let server = harness::Redis::running().await;
    let ann = Speaker::on_redis(&server, keep_notes(300)).await;
    for number in 1..=1000 {
        ann.note(&number.to_string()).await;
    }
    let kept: u64 = server.ask(&["XLEN", &format!("parley:{{0}}:inbox:{}", ann.owner.session)]).await;
    assert!((300..=400).contains(&kept), "{kept}: trimmed in blocks of a hundred");
    assert_eq!(ann.oldest_note().await, 1001 - kept, "the newest are kept");
}

#[tokio::test]
async fn memory_keeps_so_many_messages_of_an_inbox() {
    let ann = Speaker::on_memory(keep_notes(300)).await;
    for number in 1..=1000 {
        ann.note(&number.to_string()).await;
    }
    assert_eq!(ann.oldest_note().await, 701);
}

#[tokio::test]
async fn redis_drops_what_is_too_old_and_nothing_else() {
    let server = harness::Redis::running().await;
    let ann = Speaker::on_redis(&server, keep(10_000, 2)).await;
    let (_, now) = ann.sends("what time is it?").await;
    for old in [0, 1, 2, 3, 7, 100, 255] {
        write_log(&server, now, 300, old, 2 * HOUR + 1).await;
        // Halving steps take at least half of what is due each time, so a few messages are enough.
        for _ in 0..9 {
            ann.sends("x").await;
        }
        assert_eq!(ann.oldest().await, old + 1, "of 300 messages {old} are too old");
    }
    // Within the bound, but for the time that this test takes.
    write_log(&server, now, 300, 200, 2 * HOUR - 600_000).await;
    ann.sends("x").await;
    assert_eq!(ann.oldest().await, 1);
}

#[tokio::test]
async fn a_call_to_redis_drops_256_at_most_and_the_next_ones_the_rest() {
    let server = harness::Redis::running().await;
    let ann = Speaker::on_redis(&server, keep(10_000, 2)).await;
    let (_, now) = ann.sends("what time is it?").await;
    write_log(&server, now, 1000, 1000, 2 * HOUR + 1).await;
    for oldest in [257, 513, 769] {
        ann.sends("x").await;
        assert_eq!(ann.oldest().await, oldest);
    }
    for _ in 0..9 {
        ann.sends("x").await;
    }
    assert_eq!(ann.oldest().await, 1001, "what was said just now stays");
}

#[tokio::test]
async fn redis_looks_again_when_what_it_knew_to_be_young_is_too_old() {
    let server = harness::Redis::running().await;
    let retention = Reloadable::from(keep(10_000, 2));
    let ann = Speaker::on_redis(&server, retention.clone()).await;
    for _ in 0..3 {
        ann.sends("x").await;
    }
    assert_eq!(ann.oldest().await, 1);
    retention.set(Retention { age: Duration::from_millis(5), ..keep(10_000, 2) });
    eventually(Duration::from_secs(5), "only the last one is young enough", async || {
        let (last, _) = ann.sends("x").await;
        if ann.oldest().await == last { Ok(()) } else { Err(last) }
    })
    .await;
}

#[tokio::test]
async fn entries_that_are_not_ours_stop_no_message() {
    let server = harness::Redis::running().await;
    let ann = Speaker::on_redis(&server, keep(10_000, 2)).await;
    for entry in [["time", "soon"], ["payload", "{}"]] {
        let _: () = server.ask(&["DEL", LOG]).await;
        let _: String = server.ask(&["XADD", LOG, "1-5", entry[0], entry[1]]).await;
        ann.sends("x").await;
        let kept: u64 = server.ask(&["XLEN", LOG]).await;
        assert_eq!(kept, 2, "{entry:?}");
    }
}
