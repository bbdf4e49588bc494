//! The contract of the server API: every example of presence/API.md holds, and refusals are honest.
//!
//! While Redis is away every request is refused within 3 s, and event streams wait and report what they lost. The tests
//! run the presence server in this process, on a real Redis. The registry's own contract is in `registry`.

mod browser;
mod documentation;
mod embedded;
mod limits;
mod outage;
mod page;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use harness::http::{self, HttpResponse};
use harness::pattern::{json_fits, text_fits};
use harness::{Redis, eventually, repository, stays};
use presence::host::client_address::ProxyNetwork;
use presence::host::program::Drained;
use presence::host::telemetry::{LogFormat, Logs};
use presence::model::{
    Availability, Incarnation, LeftReason, MemberInfo, Nick, Owner, Retention, RoomName, RoomPolicies, SessionId,
    Status, TokenHash, UserId,
};
use presence::registry::{
    ClaimRequest, GatewayInfo, JoinEntry, JoinRequest, ReassertBatch, RedisRegistry, Registry, WebhookLead,
};
use presence::service::access::{ApiAccess, ApiScope, NewKey};
use presence::service::config::PresenceConfig;
use presence::service::server::Presence;
use presence::store::redis::tls::TlsFiles;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for something that should follow promptly.
const SOON: Duration = Duration::from_secs(5);
/// Longest time to a refusal while Redis is away.
const REFUSAL_MAX: Duration = Duration::from_secs(3);

/// The key of `make run`, which the examples use.
const DEMO_KEY: &str =
    "demo:read+publish+moderate=sha256:19d632c1c2239603a1e5bda73c0ae029d1f768477b5ed5383c731872014e3a59";

/// The users of one gateway, written straight into the registry.
struct GatewayUsers {
    registry: Registry,
    incarnation: Incarnation,
    info: GatewayInfo,
}

impl GatewayUsers {
    async fn on(redis: &Redis) -> Self {
        let opened = presence::store::redis::RedisStore::open(&redis.url(), "parley").expect("a good URL");
        let registry = Registry::Redis(RedisRegistry::new(opened));
        let incarnation = Incarnation::random();
        let [node, ws, tcp] = ["g1", "127.0.0.1:8081", "127.0.0.1:9001"].map(ToOwned::to_owned);
        let info = GatewayInfo { node, version: "0.1.0".to_owned(), ws, tcp, admin: String::new() };
        registry.open_lease(&incarnation, &info).await.expect("a lease");
        Self { registry, incarnation, info }
    }

    async fn register(&self, nick: &str) -> Owner {
        self.sign_in(nick, None).await
    }

    async fn sign_in(&self, nick: &str, user: Option<&UserId>) -> Owner {
        let (session, nick, token) = (SessionId::random(), parse_nick(nick), TokenHash::of(b"secret"));
        let incarnation = &self.incarnation;
        let request = ClaimRequest { incarnation, session: &session, nick: &nick, token: &token, user };
        let (fence, _) = self.registry.claim(request).await.expect("a free nick");
        Owner { incarnation: incarnation.clone(), session, fence }
    }

    async fn join(&self, nick: &str, owner: &Owner, room: &str) {
        self.join_as((nick, None), owner, room).await;
    }

    async fn join_as(&self, (nick, user): (&str, Option<&UserId>), owner: &Owner, room: &str) {
        let room = RoomName::parse(room).expect("a room");
        let (nick, status, entry) = (parse_nick(nick), Status::default(), JoinEntry::New);
        let request = JoinRequest { room: &room, nick: &nick, owner, user, status: &status, entry, moderates: false };
        self.registry.join(request).await.expect("room for one more");
    }

    async fn leave(&self, nick: &str, owner: &Owner) {
        let cause = presence::registry::ReleaseCause::CLOSED;
        assert!(self.registry.release(&parse_nick(nick), owner, cause).await.expect("an answer"));
    }
}

fn parse_nick(nick: &str) -> Nick {
    Nick::parse(nick).expect("a nick")
}

async fn presence(redis: &Redis) -> Presence {
    presence_at(&redis.url()).await
}

/// Starts a presence server on the Redis of this URL.
async fn presence_at(url: &str) -> Presence {
    serve(url, "127.0.0.1:0".parse().expect("an address")).await
}

/// Starts a presence server on the Redis of a URL, with its API at an address.
async fn serve(url: &str, api: SocketAddr) -> Presence {
    let free = "127.0.0.1:0".parse().expect("an address");
    let config = PresenceConfig {
        node: "p1".to_owned(),
        redis: url.parse().expect("a good URL"),
        redis_tls: TlsFiles::default(),
        prefix: "parley".to_owned(),
        api,
        access: ApiAccess {
            keys: vec![EXAMPLE_KEY.known.clone(), DEMO_KEY.parse().expect("a row")],
            open_reads: true,
            origins: Vec::new(),
        },
        history: Retention::default(),
        rooms: RoomPolicies::default(),
        proxies: vec!["127.0.0.1".parse::<ProxyNetwork>().expect("an address")].into(),
        admin: free,
        webhooks: presence::webhooks::WebhookConfig::default(),
        grace: SOON,
        logs: Logs {
            level: "info".to_owned(),
            addresses: true,
            format: LogFormat::Auto,
            file: None,
            kept: 1,
            size_mib: 1,
            spans: None,
        },
    };
    Presence::start(config).await.expect("free ports")
}

/// The key that examples write as `KEY`, with every scope.
static EXAMPLE_KEY: LazyLock<NewKey> = LazyLock::new(|| NewKey::draw("backend", ApiScope::ALL).expect("a key"));

async fn get(address: SocketAddr, path: &str) -> HttpResponse {
    http::get(address, path).await.expect("an answer")
}

/// Repeats a request until the answer has this status.
async fn until_status(address: SocketAddr, path: &str, status: u16, within: Duration) -> HttpResponse {
    eventually(within, path, || async move {
        let answer = http::get(address, path).await?;
        if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await
}

/// An open event stream and its text so far.
struct EventStream {
    connection: TcpStream,
    text: String,
    ended: bool,
}

impl EventStream {
    async fn open(api: SocketAddr, last_id: Option<&str>) -> Self {
        let header = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0 has no chunked bodies.
        let mut stream = Self::send(api, &format!("GET /v1/events HTTP/1.0\r\n{header}\r\n")).await;
        stream.until(|body| !body.is_empty()).await;
        stream
    }

    async fn send(api: SocketAddr, request: &str) -> Self {
        let mut connection = TcpStream::connect(api).await.expect("a listener");
        connection.write_all(request.as_bytes()).await.expect("a reader");
        Self { connection, text: String::new(), ended: false }
    }

    fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn last_id(&self) -> &str {
        self.body().lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id")
    }

    async fn read(&mut self) {
        let mut bytes = [0; 4096];
        let read = timeout(2 * SOON, self.connection.read(&mut bytes)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more in time, so far: {}", self.text)).unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        self.ended = read == 0;
    }

    async fn until(&mut self, enough: impl Fn(&str) -> bool) {
        while !enough(self.body()) {
            assert!(!self.ended, "the stream ended after: {}", self.text);
            self.read().await;
        }
    }

    async fn receive(&mut self, text: &str) {
        self.until(|body| body.contains(text)).await;
    }

    async fn end(&mut self) {
        while !self.ended {
            self.read().await;
        }
    }
}

#[tokio::test]
async fn killed_redis_makes_api_refuse_until_restart() {
    let mut redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    users.register("ann").await;
    let presence = presence(&redis).await;
    let (api, admin) = (presence.addresses().api, presence.addresses().admin);
    until_status(admin, "/readyz", 200, SOON).await;
    assert_eq!(get(api, "/v1/users/ann").await.json()["online"], true);

    redis.kill9();
    let killed_at = Instant::now();
    stays(REFUSAL_MAX + Duration::from_secs(1), "every request is refused in time", || async {
        let asked = Instant::now();
        let answer = get(api, "/v1/users/ann").await;
        let (took, code) = (asked.elapsed(), answer.json()["code"].clone());
        let refused = (answer.status, &code, answer.header("retry-after")) == (503, &json!("unavailable"), Some("1"));
        if refused && took < REFUSAL_MAX { Ok(()) } else { Err((answer, took)) }
    })
    .await;
    let answer = until_status(admin, "/readyz", 503, SOON).await;
    assert!(answer.body.contains("redis has not answered"), "{answer:?}");
    assert!(killed_at.elapsed() < 2 * SOON);

    redis.restart().await;
    until_status(api, "/v1/users/ann", 200, SOON).await;
    until_status(admin, "/readyz", 200, SOON).await;
}

#[tokio::test]
async fn frozen_redis_makes_api_refuse_until_resumed() {
    let mut redis = Redis::running().await;
    GatewayUsers::on(&redis).await.register("ann").await;
    let presence = presence(&redis).await;
    let (api, admin) = (presence.addresses().api, presence.addresses().admin);
    until_status(admin, "/readyz", 200, SOON).await;
    get(api, "/v1/stats").await;

    redis.stop_signal().await;
    let stopped_at = Instant::now();
    // More requests than connections to Redis: no request may wait for another's timeout.
    let requests = (0..32).map(|_| async {
        let answer = get(api, "/v1/stats").await;
        (answer.status, stopped_at.elapsed())
    });
    for (status, after) in futures_util::future::join_all(requests).await {
        assert!(status == 503 && after < REFUSAL_MAX, "{status} after {after:?}");
    }
    until_status(admin, "/readyz", 503, REFUSAL_MAX + Duration::from_secs(1)).await;

    redis.cont();
    until_status(api, "/v1/stats", 200, SOON).await;
    until_status(admin, "/readyz", 200, SOON).await;
}

#[tokio::test]
async fn event_stream_resumes_after_redis_outage() {
    let mut redis = Redis::not_started().setting("appendfsync", "always");
    redis.start().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;

    let mut stream = EventStream::open(api, None).await;
    users.register("ann").await;
    stream.receive(r#""nick":"ann""#).await;
    let last_id = stream.last_id().to_owned();
    redis.kill9();
    stream.receive("event: unavailable").await;
    // A stream that begins now waits too.
    let mut later = EventStream::open(api, Some(&last_id)).await;
    later.receive("event: unavailable").await;

    redis.restart().await;
    until_status(api, "/v1/stats", 200, SOON).await;
    eventually(SOON, "bob registers", || async {
        let beat = users.registry.beat(&users.incarnation, &[]).await?;
        users
            .registry
            .reassert(ReassertBatch {
                incarnation: &users.incarnation,
                info: &users.info,
                generation: beat.generation.number,
                claims: &[],
                last: true,
            })
            .await?;
        let session = SessionId::random();
        users
            .registry
            .claim(ClaimRequest {
                incarnation: &users.incarnation,
                session: &session,
                nick: &parse_nick("bob"),
                token: &TokenHash::of(b"secret"),
                user: None,
            })
            .await
    })
    .await;
    for stream in [&mut stream, &mut later, &mut EventStream::open(api, Some(&last_id)).await] {
        stream.receive(r#""nick":"bob""#).await;
        assert!(!stream.body().contains("event: gap"), "{}", stream.body());
        assert_eq!(stream.body().matches("bob").count(), 1, "{}", stream.body());
    }
    assert!(stream.body().contains("event: available") && later.body().contains("event: available"));
    let online = "event: online\ndata: {\"nick\":\"ann\"";
    assert_eq!(stream.body().matches(online).count(), 1, "{}", stream.body());
    assert!(!later.body().contains(online), "{}", later.body());
}

#[tokio::test]
async fn event_stream_reports_lost_events_as_gap() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let mut stream = EventStream::open(api, None).await;
    let ann = users.register("ann").await;
    stream.receive(r#""nick":"ann""#).await;
    let last_id = stream.last_id().to_owned();

    users.leave("ann", &ann).await;
    users.register("bob").await;
    redis.call::<u64>("XTRIM parley:{0}:events MAXLEN 1").await;
    let mut trimmed = EventStream::open(api, Some(&last_id)).await;
    trimmed.receive(r#""nick":"bob""#).await;
    assert!(trimmed.body().contains("event: gap"), "{}", trimmed.body());

    redis.call::<()>("FLUSHALL").await;
    let mut flushed = EventStream::open(api, Some(&last_id)).await;
    flushed.receive("event: gap").await;
}

#[tokio::test]
async fn users_of_dead_gateway_go_offline() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let ann = users.register("ann").await;
    users.join("ann", &ann, "#lobby").await;
    let presence = presence(&redis).await;
    let (api, admin) = (presence.addresses().api, presence.addresses().admin);
    let mut stream = EventStream::open(api, None).await;
    // The lease was opened and never beat: the presence process fences it and announces the leaves.
    let offline = eventually(Duration::from_secs(12), "ann is offline", || async {
        let ann = get(api, "/v1/users/ann").await.json();
        if ann["online"] == false { Ok(ann) } else { Err(ann) }
    });
    assert_eq!(offline.await["rooms"], json!([]));
    stream.receive("event: leave").await;
    stream.receive("event: offline").await;
    stream.receive(&format!(r#""reason":"{}""#, LeftReason::GatewayLost.as_str())).await;
    let metrics = get(admin, "/metrics").await.body;
    assert!(metrics.contains("parley_fences_total 1") && metrics.contains("parley_reaped_nicks_total 1"), "{metrics}");
}

#[tokio::test]
async fn presence_shuts_down_while_streams_are_open() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let (api, admin) = (presence.addresses().api, presence.addresses().admin);
    until_status(admin, "/readyz", 200, SOON).await;
    let mut stream = EventStream::open(api, None).await;
    let asked = Instant::now();
    assert_eq!(presence.shutdown(SOON).await, Drained::Complete);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    stream.end().await;
    http::get(api, "/v1/stats").await.expect_err("the listener is closed");
}
