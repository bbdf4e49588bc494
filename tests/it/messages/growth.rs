//! The memory of Redis that one address can fill in an hour, with the limits as shipped.
//!
//! A flooding client without limits shows the memory that each kind of request takes for good. Times the rate that the
//! limits of an address admit, this is its hour. Run it with `--nocapture` to see the figures.

#![allow(clippy::print_stdout)]

use gateway::config::QuotaSettings;
use gateway::quota::LimitKind;
use gateway::session::SessionLimits;
use harness::client::RawWs;
use harness::{Node, Redis};
use serde_json::{Value, json};

const HOUR_SECONDS: u64 = 3600;
const MIB: f64 = 1024.0 * 1024.0;
/// The figure to keep, in bytes.
const HOUR_BYTES_MAX: f64 = 256.0 * MIB;
/// Seconds for which the keys of clients are remembered, and the ids of direct messages without a key: two buckets.
const KEYS_SECONDS: u64 = 600;
const IDS_SECONDS: u64 = 60;
/// Rooms that the messages are spread over.
const ROOMS: usize = 50;
const UNDER_WAY: usize = 64;

/// A flooding client, and the Redis that it fills.
struct GrowthBench {
    redis: Redis,
    gateway: Node,
    client: RawWs,
    sent: usize,
}

fn padded(kind: &str, number: usize) -> String {
    format!("{kind}-{number:-<40}")
}

/// Waits for as many answers of this type.
async fn answers(client: &mut RawWs, kind: &str, mut count: usize) {
    let kind = format!(r#"{{"type":"{kind}""#);
    while count > 0 {
        let frame = client.next().await.expect("the connection is open");
        let text = String::from_utf8_lossy(&frame.payload);
        assert!(!text.starts_with(r#"{"type":"error""#), "{text}");
        count -= usize::from(text.starts_with(&kind));
    }
}

impl GrowthBench {
    async fn start() -> Self {
        let mut redis = Redis::not_started().setting("appendonly", "no").setting("save", "");
        redis.start().await;
        let gateway = Node::gateway("g1").redis(&redis).setting("PARLEY__LIMITS__PROFILE", "open");
        let gateway = gateway.setting("PARLEY__LIMITS__ROOM_BYTES_PER_SECOND", "1073741824").start().await;
        let client = RawWs::connect(gateway.ws()).await;
        let mut bench = Self { redis, gateway, client, sent: 0 };
        bench.asks("registered", [json!({"type": "register", "nick": "hog"})]).await;
        bench
    }

    /// Sends requests, some of them under way at a time, and waits for their answers.
    async fn asks(&mut self, answer: &str, requests: impl IntoIterator<Item = Value>) {
        let mut under_way = 0;
        for request in requests {
            self.client.sends_frame(0x81, request.to_string().as_bytes()).await;
            under_way += 1;
            if under_way == UNDER_WAY {
                answers(&mut self.client, answer, under_way).await;
                under_way = 0;
            }
        }
        answers(&mut self.client, answer, under_way).await;
    }

    async fn used(&self) -> f64 {
        let info: String = self.redis.ask(&["INFO", "memory"]).await;
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    }

    /// Forgets the ids of direct messages, as time does. Returns their bytes.
    async fn forget_ids(&self) -> f64 {
        let before = self.used().await;
        let keys: Vec<String> = self.redis.ask(&["KEYS", "*:attempts:*"]).await;
        for key in keys {
            let () = self.redis.ask(&["DEL", &key]).await;
        }
        before - self.used().await
    }

    /// Returns the bytes that each of `count` actions of `fill` takes.
    async fn cost_of(&mut self, count: usize, fill: impl AsyncFnOnce(&mut Self)) -> f64 {
        let before = self.used().await;
        fill(self).await;
        (self.used().await - before) / count as f64
    }

    /// Sends messages of one size into the rooms in turn.
    async fn sends_bodies(&mut self, count: usize, bytes: usize) {
        let body = "x".repeat(bytes.saturating_sub(2).max(1));
        let first = self.sent;
        self.sent += count;
        let message = |number| json!({"type": "send", "to": format!("#room{}", number % ROOMS), "body": body});
        self.asks("ack", (first..first + count).map(message)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_grows_redis_slowly() {
    let mut bench = GrowthBench::start().await;
    let rooms = bench
        .cost_of(ROOMS, async |bench| {
            bench
                .asks("joined", (0..ROOMS).map(|number| json!({"type": "join", "room": format!("#room{number}")})))
                .await;
            bench.sends_bodies(ROOMS, 1).await;
        })
        .await;
    let (mut messages, mut byte) = (0.0_f64, 0.0_f64);
    for bytes in [3, 1000, 4200, 8300, 16_500, 33_000, 41_000, 65_000] {
        let count = (4_000_000 / bytes).clamp(100, 6000);
        let cost = bench.cost_of(count, async |bench| bench.sends_bodies(count, bytes).await).await;
        println!("a message of {bytes} bytes takes {cost:.0} bytes, {:.2} of its size", cost / bytes as f64);
        if bytes == 3 {
            messages = cost;
        }
        byte = byte.max((cost - messages) / bytes as f64);
    }
    let keyed = bench
        .cost_of(3000, async |bench| {
            let key = |number| padded("key", number) + &"x".repeat(18);
            let message = |number| json!({"type": "send", "to": "#room1", "body": 1, "key": key(number)});
            bench.asks("ack", (0..3000).map(message)).await;
        })
        .await;
    let users = bench
        .cost_of(300, async |bench| {
            for number in 0..300 {
                let mut client = RawWs::connect(bench.gateway.ws()).await;
                let register = json!({"type": "register", "nick": padded("user", number)});
                client.sends_frame(0x81, register.to_string().as_bytes()).await;
                answers(&mut client, "registered", 1).await;
                client.sends_frame(0x81, br#"{"type":"bye"}"#).await;
                client.close_code().await;
            }
        })
        .await;
    let direct = async |bench: &mut GrowthBench, count: usize, receivers: usize| {
        let message = |number| json!({"type": "send", "to": padded("user", number % receivers), "body": 1});
        let all = bench.cost_of(count, async |bench| bench.asks("ack", (0..count).map(message)).await).await;
        let ids = bench.forget_ids().await / count as f64;
        (all - ids, ids)
    };
    let (inboxes, _) = direct(&mut bench, 300, 300).await;
    let (direct, ids) = direct(&mut bench, 3000, 10).await;
    let renames = bench
        .cost_of(300, async |bench| {
            bench.asks("nick", (0..300).map(|number| json!({"type": "nick", "nick": padded("nick", number)}))).await;
        })
        .await;
    let status = |number: usize| json!({"type": "status", "status": "away", "text": format!("{number:x<250}")});
    let statuses = bench.cost_of(300, async |bench| bench.asks("status", (0..300).map(status)).await).await;

    let (quotas, session) = (QuotaSettings::default(), SessionLimits::default());
    let of_address = |kind| session.of(kind).times(quotas.address_sessions);
    let sent = of_address(LimitKind::Messages);
    let in_an_hour = |per_minute: u64, burst: u64| per_minute * HOUR_SECONDS / 60 + burst;
    let renamed = of_address(LimitKind::Renames);
    let registered = in_an_hour(quotas.registrations.units(), quotas.registrations.burst());
    let rows = [
        ("messages", sent.units() * HOUR_SECONDS + sent.burst(), messages.max(direct)),
        ("bytes of messages", quotas.bytes.units() * HOUR_SECONDS + quotas.bytes.burst(), byte),
        ("keys", sent.units() * KEYS_SECONDS, keyed - messages),
        ("ids of direct messages", sent.units() * IDS_SECONDS, ids),
        ("rooms", in_an_hour(quotas.creations.units(), quotas.creations.burst()), rooms),
        ("users", registered, users),
        ("changes of nickname", in_an_hour(renamed.units(), renamed.burst()), renames),
        // Each user that it has registered; others had one, or get one once.
        ("inboxes", registered, inboxes),
        ("changes of status", 1, statuses),
    ];
    let mut all = 0.0;
    for (what, count, cost) in rows {
        let grown = count as f64 * cost.max(0.0);
        println!("{what}: {count} of {cost:.1} bytes, {:.1} MiB", grown / MIB);
        all += grown;
    }
    println!("one address in an hour: {:.0} MiB", all / MIB);
    assert!(all <= HOUR_BYTES_MAX, "{:.0} MiB", all / MIB);
}
