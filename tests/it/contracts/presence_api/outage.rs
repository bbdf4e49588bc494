//! Event streams while Redis is away: positions, logs, the return to Redis, and the end of the process.
//!
//! In most tests a proxy takes Redis from the presence process only, so events happen during the outage.

use std::net::SocketAddr;
use std::time::Duration;

use harness::fault_proxy::{FaultProxy, Mode};
use harness::{Node, Redis, stays};
use presence::host::program::Drained;

use super::{EventStream, GatewayUsers, SOON, presence, presence_at};

/// A link on which a page of events takes much longer than a test.
const SLOW: Mode = Mode::Limited { bytes_per_second: 2000 };
/// Users that fill more than one page of a replay.
const USERS: usize = 300;

async fn register_users(redis: &Redis) {
    let users = GatewayUsers::on(redis).await;
    for number in 0..USERS {
        users.register(&format!("user{number}")).await;
    }
}

/// Opens streams that replay the whole log.
async fn replays(api: SocketAddr, count: usize) -> Vec<EventStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = EventStream::open(api, Some("0")).await;
        stream.receive("id: 0-0").await;
        streams.push(stream);
    }
    streams
}

/// Returns the number of lines of the log with this text.
fn logged(node: &Node, text: &str) -> usize {
    node.log().lines().iter().filter(|line| line.contains(text)).count()
}

/// Returns the number of `XREAD` and `XINFO` calls that Redis refused.
async fn refused_attempts(redis: &Redis) -> usize {
    let statistics = redis.call::<String>("INFO commandstats").await;
    let refused = |command: &str| {
        let line = statistics.lines().find(|line| line.starts_with(command)).expect("it was called");
        let count = line.split("rejected_calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
        count.expect("a number")
    };
    refused("cmdstat_xread:") + refused("cmdstat_xinfo|stream:")
}

#[tokio::test]
async fn events_of_a_flushed_log_are_a_gap() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let add = async |nick: &str| {
        let fields = format!(r#"kind online data {{"nick":"{nick}"}}"#);
        redis.call::<String>(&format!("XADD parley:{{0}}:events * {fields}")).await;
    };
    add("kim").await;
    let mut whole = EventStream::open(api, Some("0")).await;
    whole.receive("kim").await;
    let last_id = whole.last_id().to_owned();
    drop(whole);
    add("lost").await;
    redis.call::<String>("FLUSHALL").await;
    add("new").await;
    let mut resumed = EventStream::open(api, Some(&last_id)).await;
    resumed.receive("event: gap").await;
    resumed.receive("new").await;
}

#[tokio::test]
async fn streams_keep_their_positions_over_an_outage() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let api = presence.addresses().api;
    let mut open = EventStream::open(api, None).await;
    users.register("kim").await;
    open.receive("kim").await;
    let last_id = open.last_id().to_owned();

    proxy.set(Mode::Reset);
    open.receive("event: unavailable").await;
    let (mut resumed, mut fresh) = (EventStream::open(api, Some(&last_id)).await, EventStream::open(api, None).await);
    resumed.receive("event: unavailable").await;
    fresh.receive("event: unavailable").await;
    users.register("bob").await;
    proxy.set(Mode::Pass);
    fresh.receive("event: available").await;
    users.register("eva").await;
    for (stream, [kim, bob]) in [(&mut open, [1, 1]), (&mut resumed, [0, 1]), (&mut fresh, [0, 0])] {
        stream.receive("eva").await;
        let count = |text| stream.body().matches(text).count();
        assert_eq!(["kim", "bob", "eva", "event: gap"].map(count), [kim, bob, 1, 0], "{}", stream.body());
    }
}

#[tokio::test]
async fn outage_of_many_streams_is_logged_once() {
    let redis = Redis::running().await;
    register_users(&redis).await;
    let proxy = FaultProxy::start(redis.address()).await;
    let node = Node::presence("p1").setting("PARLEY__REDIS__URL", &Redis::url_through(proxy.address())).start().await;
    // The read of the shared tail and a read of each replay fail.
    proxy.set(SLOW);
    let mut streams = replays(node.api(), 5).await;
    proxy.set(Mode::Reset);
    for stream in &mut streams {
        stream.receive("event: unavailable").await;
    }
    proxy.set(Mode::Pass);
    for stream in &mut streams {
        stream.receive("event: available").await;
        stream.receive(&format!("\"user{}\"", USERS - 1)).await;
        let online = (0..USERS)
            .map(|number| stream.body().matches(&format!("online\ndata: {{\"nick\":\"user{number}\"")).count());
        assert!(online.eq([1; USERS]), "each event once: {}", stream.body());
    }
    let count = ["event log not read", "event log restored"].map(|text| logged(&node, text));
    assert_eq!(count, [1, 1], "{}", node.log().tail(20));
}

#[tokio::test]
async fn one_stream_at_a_time_returns_to_redis() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(EventStream::open(presence.addresses().api, None).await);
    }
    redis.call::<()>("ACL SETUSER parley -xinfo -xread").await;
    // Ends the read that waits.
    users.register("ann").await;
    for stream in &mut streams {
        stream.receive("event: unavailable").await;
    }
    let before = refused_attempts(&redis).await;
    stays(Duration::from_secs(3), "redis refuses", || async { Ok::<_, String>(()) }).await;
    let attempts = refused_attempts(&redis).await - before;
    assert!((1..=10).contains(&attempts), "{attempts} attempts in 3 s, with a pause of 0.5 s after each");

    redis.call::<()>("ACL SETUSER parley +xinfo +xread").await;
    for stream in &mut streams {
        stream.receive("event: available").await;
    }
    redis.call::<()>("ACL LOG RESET").await;
}

#[tokio::test]
async fn refused_reads_alone_interrupt_streams_once() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let mut stream = EventStream::open(presence.addresses().api, None).await;
    // The ends of the log can still be read.
    redis.call::<()>("ACL SETUSER parley -xread").await;
    // Ends the read that waits.
    users.register("ann").await;
    stream.receive("event: unavailable").await;
    stays(Duration::from_secs(3), "redis refuses", || async { Ok::<_, String>(()) }).await;
    redis.call::<()>("ACL SETUSER parley +xread").await;
    users.register("bob").await;
    stream.receive("bob").await;
    let count = |text: &str| stream.body().matches(text).count();
    assert_eq!(["event: unavailable", "event: available"].map(count), [1, 1], "{}", stream.body());
    redis.call::<()>("ACL LOG RESET").await;
}

#[tokio::test]
async fn shutdown_ends_streams_that_wait_for_redis() {
    let mut redis = Redis::running().await;
    let presence = presence(&redis).await;
    let mut stream = EventStream::open(presence.addresses().api, None).await;
    redis.kill9();
    stream.receive("event: unavailable").await;
    assert_eq!(presence.shutdown(SOON).await, Drained::Complete);
    stream.end().await;
    assert_eq!(stream.body().matches("available").count(), 1, "{}", stream.body());
}

#[tokio::test]
async fn shutdown_ends_streams_in_slow_replays() {
    let redis = Redis::running().await;
    register_users(&redis).await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    proxy.set(SLOW);
    let mut streams = replays(presence.addresses().api, 1).await;
    assert_eq!(presence.shutdown(SOON).await, Drained::Complete);
    streams[0].end().await;
    assert!(!streams[0].body().contains("available"), "{}", streams[0].body());
}
