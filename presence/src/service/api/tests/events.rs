//! The event stream: its events, resuming, gaps and slow subscribers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::keys::GuardedApi;
use super::{PATIENCE, Served};
use crate::model::{LeftReason, Nick, Owner, RoomName, Status};
use crate::registry::{JoinEntry, JoinRequest, LeaveIntent, LeaveRequest, ReleaseCause};
use crate::service::access::{ApiAccess, ApiScope, NewKey};
use crate::service::api::feed::{EventFeed, EventSubscription, FeedItem, FeedPosition, StreamStart};

/// A client of the stream.
pub(super) struct StreamClient {
    stream: BufReader<TcpStream>,
    /// The last id, as kept by browsers, also of a block without data.
    pub(super) last_id: String,
}

impl StreamClient {
    async fn open(served: &Served, last_id: Option<&str>) -> Self {
        Self::open_filtered(served, "", last_id).await
    }

    async fn open_filtered(served: &Served, query: &str, last_id: Option<&str>) -> Self {
        let header = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        Self::open_with(served, query, &header).await
    }

    pub(super) async fn open_with(served: &Served, query: &str, header: &str) -> Self {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(format!("GET /v1/events{query} HTTP/1.0\r\n{header}\r\n").as_bytes()).await.unwrap();
        let mut client = Self { stream: BufReader::new(stream), last_id: String::new() };
        let head = client.block().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("text/event-stream"), "{head}");
        assert!(head.contains("cache-control: no-store") && head.contains("x-accel-buffering: no"), "{head}");
        assert_eq!(client.block().await.as_deref(), Some("retry: 2000\n"));
        client
    }

    /// Reads lines up to an empty one; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        let mut block = String::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("a line in time").unwrap();
            match line.trim_end_matches(['\r', '\n']) {
                "" if line.is_empty() => return None,
                "" => return Some(block),
                line => block.push_str(&format!("{line}\n")),
            }
        }
    }

    /// Reads the next block with data; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if let Some(id) = field("id") {
                self.last_id = id.to_owned();
            }
            if let Some(data) = field("data") {
                return Some((field("event").unwrap().to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
    }

    pub(super) async fn expect(&mut self, kind: &str, fields: Value) {
        let (seen, data) = self.next().await.expect("the stream has another event");
        assert_eq!(seen, kind, "{data}");
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&data[name], value, "{kind}: {data}");
        }
    }
}

impl Served {
    /// Removes a member from a room for good.
    pub(super) async fn leave(&self, room: &RoomName, nick: &Nick, owner: &Owner) {
        let (reason, intent) = (LeftReason::Left, LeaveIntent::ForGood);
        assert!(self.registry.leave(LeaveRequest { room, nick, owner, reason, intent }).await.unwrap(), "not a member");
    }

    /// Causes two events each time.
    async fn join_and_leave(&self, times: usize, room: &RoomName, nick: &Nick, owner: &Owner) {
        let (status, entry) = (Status::default(), JoinEntry::New);
        for _ in 0..times {
            self.registry
                .join(JoinRequest { room, nick, owner, user: None, status: &status, entry, moderates: false })
                .await
                .unwrap();
            self.leave(room, nick, owner).await;
        }
    }
}

#[tokio::test]
async fn stream_reports_changes_of_users_and_rooms() {
    let served = Served::empty().await;
    served.user("earlier", &[]).await;
    let mut client = StreamClient::open(&served, None).await;
    let owner = served.user("ann", &["#lobby"]).await;
    client.expect("online", json!({ "nick": "ann" })).await;
    client.expect("join", json!({ "room": "#lobby", "nick": "ann" })).await;
    let (room, ann, eve) =
        (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap(), Nick::parse("eve").unwrap());
    served.leave(&room, &ann, &owner).await;
    client.expect("leave", json!({ "room": "#lobby", "nick": "ann", "reason": "left" })).await;
    served.registry.release(&ann, &owner, ReleaseCause::RenamedTo(&eve)).await.unwrap();
    client.expect("rename", json!({ "from": "ann", "to": "eve" })).await;
    let owner = served.user("bob", &[]).await;
    client.expect("online", json!({ "nick": "bob" })).await;
    served.registry.release(&Nick::parse("bob").unwrap(), &owner, ReleaseCause::CLOSED).await.unwrap();
    let (kind, data) = client.next().await.unwrap();
    assert_eq!((kind.as_str(), data["time"].is_u64()), ("offline", true), "{data}");
}

#[tokio::test]
async fn filtered_stream_has_only_its_room_and_nickname() {
    let served = Served::empty().await;
    let mut of_room = StreamClient::open_filtered(&served, "?room=Lobby", None).await;
    let mut of_nick = StreamClient::open_filtered(&served, "?nick=ANN", None).await;
    let mut of_both = StreamClient::open_filtered(&served, "?room=%23lobby&nick=bob", None).await;
    let ann = served.user("ann", &["#attic", "#lobby"]).await;
    served.user("bob", &["#attic", "#lobby"]).await;
    let [nick, eve] = ["ann", "eve"].map(|nick| Nick::parse(nick).unwrap());
    served.leave(&RoomName::parse("#lobby").unwrap(), &nick, &ann).await;
    served.registry.release(&nick, &ann, ReleaseCause::RenamedTo(&eve)).await.unwrap();
    for (kind, nick) in [("join", "ann"), ("join", "bob"), ("leave", "ann")] {
        of_room.expect(kind, json!({ "room": "#lobby", "nick": nick })).await;
    }
    of_nick.expect("online", json!({ "nick": "ann" })).await;
    for (kind, room) in [("join", "#attic"), ("join", "#lobby"), ("leave", "#lobby")] {
        of_nick.expect(kind, json!({ "room": room, "nick": "ann" })).await;
    }
    of_nick.expect("rename", json!({ "from": "ann", "to": "eve" })).await;
    of_both.expect("join", json!({ "room": "#lobby", "nick": "bob" })).await;
    for (query, code) in [("room=a%20b", "bad_room"), ("nick=", "bad_nick"), ("nick=a&nick=b", "bad_request")] {
        let answer = served.get(&format!("/v1/events?{query}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{query}");
    }
}

#[tokio::test]
async fn filtered_stream_learns_positions_of_other_events() {
    let served = Served::empty().await;
    let mut client = StreamClient::open_filtered(&served, "?nick=ann", None).await;
    let (room, nick) = (RoomName::parse("#lobby").unwrap(), Nick::parse("bob").unwrap());
    let owner = served.user("bob", &[]).await;
    served.join_and_leave(300, &room, &nick, &owner).await;
    let opening = client.block().await.unwrap();
    let later = client.block().await.unwrap();
    assert!(opening.starts_with("id: ") && later.starts_with("id: ") && later.lines().count() == 1, "{later}");
    let position = |block: &str| FeedPosition::parse(block.trim_start_matches("id: ").trim()).unwrap();
    assert!(position(&later) > position(&opening), "{opening} {later}");
    served.user("ann", &[]).await;
    let mut client = StreamClient::open_filtered(&served, "?nick=ann", Some(&position(&later).to_string())).await;
    client.expect("online", json!({ "nick": "ann" })).await;
}

#[tokio::test]
async fn resumed_stream_replays_missed_events_in_order() {
    let served = Served::empty().await;
    // Without an event, the client still gets a position.
    let mut client = StreamClient::open(&served, None).await;
    assert!(client.block().await.unwrap().starts_with("id: "), "the opening block has a position");
    served.user("u0", &[]).await;
    client.expect("online", json!({ "nick": "u0" })).await;
    let last_id = client.last_id.clone();
    drop(client);
    // More than one page, and another client that keeps the tail running.
    let _other = StreamClient::open(&served, None).await;
    for n in 1..=600 {
        served.user(&format!("u{n}"), &[]).await;
    }
    let mut client = StreamClient::open(&served, Some(&last_id)).await;
    for n in 1..=600 {
        client.expect("online", json!({ "nick": format!("u{n}") })).await;
    }
    served.user("live", &[]).await;
    client.expect("online", json!({ "nick": "live" })).await;
}

#[tokio::test]
async fn whole_log_is_replayed_without_gap() {
    let served = Served::empty().await;
    served.user("ann", &[]).await;
    StreamClient::open(&served, Some("0")).await.expect("online", json!({ "nick": "ann" })).await;
}

#[tokio::test]
async fn lost_events_cause_a_gap() {
    let served = Served::empty().await;
    let mut client = StreamClient::open(&served, None).await;
    let owner = served.user("ann", &[]).await;
    client.expect("online", json!({ "nick": "ann" })).await;
    let last_id = client.last_id.clone();
    drop(client);
    let (room, ann) = (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap());
    served.join_and_leave(5_001, &room, &ann, &owner).await;
    let mut client = StreamClient::open(&served, Some(&last_id)).await;
    client.expect("gap", json!({})).await;
    client.expect("join", json!({ "room": "#lobby" })).await;
}

#[tokio::test]
async fn event_id_beyond_the_log_is_a_gap() {
    let served = Served::empty().await;
    served.user("ann", &[]).await;
    let mut client = StreamClient::open(&served, Some("99999999999999-0")).await;
    client.expect("gap", json!({})).await;
    client.expect("online", json!({ "nick": "ann" })).await;
}

#[tokio::test]
async fn invalid_event_id_is_refused() {
    let served = Served::empty().await;
    for id in ["x", "1-2-3", "-", "1-x", "18446744073709551616-0"] {
        let answer = served.send(&format!("GET /v1/events HTTP/1.0\r\nLast-Event-ID: {id}\r\n\r\n")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")), "{id}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("Last-Event-ID"), "{answer:?}");
    }
}

#[tokio::test]
async fn stream_ends_at_shutdown() {
    let served = Served::empty().await;
    let mut client = StreamClient::open(&served, None).await;
    served.stop.cancel();
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn slow_subscriber_misses_nothing_behind_the_ring() {
    let served = Served::empty().await;
    let feed = EventFeed::new(served.registry.clone());
    let mut slow = feed.subscribe(start(None)).await.unwrap();
    let mut quick = feed.subscribe(start(None)).await.unwrap();
    let mut from = 0;
    // The second time it has followed the tail again.
    for until in [3000, 6000] {
        for n in from..until {
            served.user(&format!("u{n}"), &[]).await;
            // Other subscribers do not wait for the slow one.
            expect_online(&mut quick, &format!("u{n}")).await;
        }
        for n in from..until {
            expect_online(&mut slow, &format!("u{n}")).await;
        }
        from = until;
    }
    served.user("live", &[]).await;
    expect_online(&mut slow, "live").await;
}

#[tokio::test]
async fn subscriber_behind_the_log_gets_one_gap() {
    let served = Served::empty().await;
    let feed = EventFeed::new(served.registry.clone());
    // It begins before the first event of the log.
    let mut slow = feed.subscribe(start(None)).await.unwrap();
    let mut quick = feed.subscribe(start(None)).await.unwrap();
    let owner = served.user("ann", &[]).await;
    let (room, ann) = (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap());
    expect_online(&mut quick, "ann").await;
    for _ in 0..5_001 {
        served.join_and_leave(1, &room, &ann, &owner).await;
        for _ in 0..2 {
            timeout(PATIENCE, quick.next()).await.unwrap();
        }
    }
    let item = timeout(PATIENCE, slow.next()).await.unwrap();
    assert!(matches!(item, Some(FeedItem::Gap)), "{item:?}");
    for read in 0..10_000 {
        let item = timeout(PATIENCE, slow.next()).await.unwrap();
        assert!(matches!(item, Some(FeedItem::Event(_))), "{read}: {item:?}");
    }
    served.user("live", &[]).await;
    expect_online(&mut slow, "live").await;
}

#[tokio::test]
async fn events_trimmed_during_a_replay_are_a_gap() {
    let served = Served::empty().await;
    let feed = EventFeed::new(served.registry.clone());
    let before = feed.subscribe(start(None)).await.unwrap().position();
    let owner = served.user("ann", &[]).await;
    let (room, ann) = (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap());
    served.join_and_leave(200, &room, &ann, &owner).await;
    let mut replayed = feed.subscribe(start(Some(before))).await.unwrap();
    expect_online(&mut replayed, "ann").await;
    // The log keeps 10,000 events. The rest of the first page is read already.
    served.join_and_leave(5_000, &room, &ann, &owner).await;
    for read in 1..256 {
        let item = timeout(PATIENCE, replayed.next()).await.unwrap();
        assert!(matches!(item, Some(FeedItem::Event(_))), "{read}: {item:?}");
    }
    let item = timeout(PATIENCE, replayed.next()).await.unwrap();
    assert!(matches!(item, Some(FeedItem::Gap)), "{item:?}");
    let next = timeout(PATIENCE, replayed.next()).await.unwrap();
    assert!(matches!(next, Some(FeedItem::Event(_))), "the rest of the log follows: {next:?}");
}

#[tokio::test]
async fn stream_continues_after_a_burst() {
    let served = Served::empty().await;
    let mut client = StreamClient::open(&served, None).await;
    let owner = served.user("ann", &[]).await;
    client.expect("online", json!({ "nick": "ann" })).await;
    let (room, ann) = (RoomName::parse("#lobby").unwrap(), Nick::parse("ann").unwrap());
    // More than the ring holds, before the stream runs again.
    served.join_and_leave(4_000, &room, &ann, &owner).await;
    for _ in 0..4_000 {
        client.expect("join", json!({ "nick": "ann" })).await;
        client.expect("leave", json!({ "nick": "ann" })).await;
    }
    served.user("live", &[]).await;
    client.expect("online", json!({ "nick": "live" })).await;
}

#[tokio::test]
async fn one_tail_serves_all_subscribers() {
    let served = Served::empty().await;
    let feed = EventFeed::new(served.registry.clone());
    assert!(!feed.has_tail());
    let first = feed.subscribe(start(None)).await.unwrap();
    let second = feed.subscribe(start(None)).await.unwrap();
    assert!(feed.has_tail());
    drop(first);
    drop(second);
    let ended = async {
        while feed.has_tail() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the tail ends");
    // A new subscriber starts another tail.
    let mut third = feed.subscribe(start(None)).await.unwrap();
    served.user("ann", &[]).await;
    expect_online(&mut third, "ann").await;
}

#[tokio::test]
async fn event_during_a_replay_is_delivered_once() {
    let served = Served::empty().await;
    let feed = EventFeed::new(served.registry.clone());
    let before = feed.subscribe(start(None)).await.unwrap().position();
    served.user("missed", &[]).await;
    // The second event arrives over the shared tail and in the replayed page.
    let (mut resumed, mut fresh) =
        (feed.subscribe(start(Some(before))).await.unwrap(), feed.subscribe(start(None)).await.unwrap());
    served.user("meanwhile", &[]).await;
    expect_online(&mut fresh, "meanwhile").await;
    for nick in ["missed", "meanwhile"] {
        expect_online(&mut resumed, nick).await;
    }
    served.user("later", &[]).await;
    expect_online(&mut resumed, "later").await;
}

fn start(last: Option<FeedPosition>) -> StreamStart {
    StreamStart { client: std::net::IpAddr::from([127, 0, 0, 1]).into(), last }
}

/// Waits for the next item, which must be that this user is online.
async fn expect_online(subscription: &mut EventSubscription, nick: &str) {
    let next = timeout(PATIENCE, subscription.next()).await.unwrap();
    let Some(FeedItem::Event(event)) = next else { panic!("{nick}: {next:?}") };
    assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap()["nick"], nick, "{event:?}");
}

#[test]
fn event_ids_have_the_order_of_the_log() {
    let id = |text| FeedPosition::parse(text).unwrap();
    assert!(id("9-9") < id("10-0") && id("10-2") < id("10-10") && id("10") == id("10-0"));
    assert_eq!(id("10-2").to_string(), "10-2");
}

#[tokio::test]
async fn stream_ends_once_its_key_is_removed() {
    let api = GuardedApi::start().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(StreamClient::open_with(&api.served, "", &api.key(ApiScope::Read)).await);
    }
    // A reload that keeps the key, under further scopes and beside others.
    let mut access = ApiAccess::clone(&api.served.access.get());
    access.keys.push(NewKey::draw("other", &[ApiScope::Read]).unwrap().known);
    api.served.access.set(Arc::new(access.clone()));
    api.served.user("ann", &[]).await;
    for stream in &mut streams {
        stream.expect("online", json!({ "nick": "ann" })).await;
    }
    access.keys.retain(|key| **key.name() != *"app-read");
    api.served.access.set(Arc::new(access));
    for stream in &mut streams {
        assert_eq!(stream.next().await, None, "the stream ends");
    }
    let again = api.ask("GET", "/v1/events", &api.key(ApiScope::Read)).await;
    assert_eq!(again.status, 401, "{again:?}");
}

#[tokio::test]
async fn stream_without_key_ends_with_open_reads() {
    let api = GuardedApi::with(ApiAccess { open_reads: true, ..ApiAccess::default() }).await;
    let mut stream = StreamClient::open(&api.served, None).await;
    let access = ApiAccess { open_reads: false, ..ApiAccess::clone(&api.served.access.get()) };
    api.served.access.set(Arc::new(access));
    assert_eq!(stream.next().await, None, "the stream ends");
}
