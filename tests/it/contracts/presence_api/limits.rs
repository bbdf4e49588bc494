//! Limits of the API: one client never takes it away, and its listings never delay the store.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::fault_proxy::{FaultProxy, Mode};
use harness::http::{self, HttpResponse};
use harness::{Node, Redis, eventually, stays};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{EventStream, GatewayUsers, REFUSAL_MAX, SOON, get, presence, presence_at, until_status};

/// Connections that a hostile client holds: above every limit of waiting connections.
const HOSTILE: usize = 700;

/// Allows as many descriptors as the system does.
fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher soft limit");
}

/// Opens connections that send this text and then nothing.
async fn silent_connections(api: SocketAddr, count: usize, text: &str) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = TcpStream::connect(api).await.expect("the listener accepts");
        // The server may have closed the connection in favour of newer ones.
        let _ = connection.write_all(text.as_bytes()).await;
        connections.push(connection);
    }
    connections
}

/// Opens connections whose bodies of 256 KiB have seats and never arrive.
async fn slow_bodies(api: SocketAddr, client: &str, count: usize) -> Vec<TcpStream> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let head = format!("POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nX-Forwarded-For: {client}\r\n");
    let head = format!("{head}Expect: 100-continue\r\nContent-Length: 262144\r\n\r\n");
    let mut slow = silent_connections(api, count, &head).await;
    for connection in &mut slow {
        let mut answer = [0; CONTINUE.len()];
        timeout(SOON, connection.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!(answer, CONTINUE, "the body has its seats");
    }
    slow
}

async fn forwarded_get(api: SocketAddr, path: &str, client: &str, headers: &str) -> HttpResponse {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nX-Forwarded-For: {client}\r\n{headers}\r\n");
    http::exchange(api, request.as_bytes()).await.expect("an answer")
}

/// Looks up this number of nicknames for a client behind a proxy.
async fn forwarded_lookup(api: SocketAddr, client: &str, count: usize) -> HttpResponse {
    let body = json!({ "nicks": vec!["somebody"; count] }).to_string();
    let head = format!("POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nX-Forwarded-For: {client}\r\n");
    let request = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    http::exchange(api, request.as_bytes()).await.expect("an answer")
}

/// Opens an event stream of a client behind a proxy.
async fn forwarded_stream(api: SocketAddr, client: &str) -> EventStream {
    let mut stream =
        EventStream::send(api, &format!("GET /v1/events HTTP/1.0\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
    stream.until(|body| !body.is_empty()).await;
    stream
}

#[tokio::test]
async fn client_with_all_streams_leaves_others_theirs() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let mut streams = Vec::new();
    for number in 0..64 {
        // Any address of one /64 is the same client.
        streams.push(forwarded_stream(api, &format!("2001:db8::{number:x}")).await);
    }
    let refused = forwarded_get(api, "/v1/events", "2001:db8::ffff", "").await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("overloaded")), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.body.contains("event streams"), "{refused:?}");
    // A browser that reconnects would give up its stream after any status but 200.
    let reconnects = forwarded_get(api, "/v1/events", "2001:db8::ffff", "Last-Event-ID: 1-0\r\n").await;
    assert_eq!((reconnects.status, reconnects.header("content-type")), (200, Some("text/event-stream")));
    assert!(reconnects.body.contains("retry: 10000") && reconnects.body.contains("event: overloaded"));
    // Its own requests, and the streams of others, have seats.
    assert_eq!(forwarded_get(api, "/v1/stats", "2001:db8::1", "").await.status, 200);
    forwarded_stream(api, "2001:db8:0:1::1").await;
    forwarded_stream(api, "198.51.100.1").await;
    drop(streams.pop());
    eventually(SOON, "a closed stream frees its seat", || async {
        let mut connection = TcpStream::connect(api).await.map_err(|error| error.to_string())?;
        let request = b"GET /v1/events HTTP/1.0\r\nX-Forwarded-For: 2001:db8::1\r\n\r\n";
        connection.write_all(request).await.map_err(|error| error.to_string())?;
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.map_err(|error| error.to_string())?;
        if &head == b"HTTP/1.0 200" { Ok(()) } else { Err(String::from_utf8_lossy(&head).into_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_requests_never_keep_others_out() {
    raise_descriptor_limit();
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    for text in [
        "",
        "GET /v1/stats HTTP/1.1\r\nHost: api\r\nX-Half: ",
        "POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\n{",
        // Idle after an answer.
        "GET /openapi.json HTTP/1.1\r\nHost: api\r\n\r\n",
        "GET /v1/stats HTTP/1.1\r\nHost: api\r\nContent-Length: 10\r\n\r\n",
    ] {
        let _held = silent_connections(api, HOSTILE, text).await;
        let asked = Instant::now();
        let answer = get(api, "/v1/stats").await;
        assert!(asked.elapsed() < REFUSAL_MAX, "{text:?}: {:?}", asked.elapsed());
        assert_eq!(answer.status, 200, "{text:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_return_their_seats_in_time() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    // Bodies that take all seats of one client for the bytes of bodies.
    let mut slow = slow_bodies(api, "2001:db8::1", 8).await;
    let neighbour = async || forwarded_lookup(api, "2001:db8::2", 2000).await;
    let refused = neighbour().await;
    assert!(refused.body.contains("bytes of request bodies"), "{refused:?}");
    assert_eq!(forwarded_get(api, "/v1/stats", "2001:db8::2", "").await.status, 200, "it has no body");
    assert_eq!(forwarded_lookup(api, "2001:db8::2", 10).await.status, 200, "its body is small");
    assert_eq!(forwarded_lookup(api, "198.51.100.1", 2000).await.status, 400, "too many nicknames, but no refusal");
    eventually(2 * SOON, "the neighbour gets in", async || {
        // Each byte is in time, the body is not.
        for connection in &mut slow {
            let _ = connection.write_all(b" ").await;
        }
        let answer = neighbour().await;
        if answer.status == 400 { Ok(()) } else { Err(answer) }
    })
    .await;
    for connection in &mut slow {
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 400");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_of_many_clients_spare_reads() {
    raise_descriptor_limit();
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let mut slow = Vec::new();
    for number in 0..300 {
        let head =
            format!("POST /v1/users/lookup HTTP/1.1\r\nHost: api\r\nX-Forwarded-For: 2001:db8:0:{number:x}::1\r\n");
        slow.extend(silent_connections(api, 1, &format!("{head}Content-Length: 262144\r\n\r\n")).await);
    }
    eventually(SOON, "bodies take all bytes", async || {
        let answer = forwarded_lookup(api, "198.51.100.1", 2000).await;
        if answer.body.contains("this server has reached its limit") { Ok(()) } else { Err(answer) }
    })
    .await;
    let (read, found) = (get(api, "/v1/stats").await, forwarded_lookup(api, "198.51.100.1", 10).await);
    assert_eq!((read.status, found.status), (200, 200), "{read:?} {found:?}");
}

#[tokio::test]
async fn malformed_heads_are_refused_by_status() {
    let redis = Redis::running().await;
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    let long = "x".repeat(16 * 1024);
    for (head, status) in [
        (format!("GET /v1/stats HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n"), 431),
        (format!("GET /v1/stats?{long} HTTP/1.1\r\nHost: a\r\n"), 431),
        ("GET /v1/stats HTTP/1.1\r\n".to_owned(), 400),
        ("GET /v1/stats HTTP/1.1\r\nHost: a\r\nHost: b\r\n".to_owned(), 400),
        ("GET /docs HTTP/1.1\r\n".to_owned(), 400),
        ("GET /v1/stats HTTP/1.0\r\n".to_owned(), 200),
    ] {
        let request = format!("{head}Connection: close\r\n\r\n");
        let answer = http::exchange(api, request.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, status, "{}: {answer:?}", &head[..30.min(head.len())]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_of_one_client_leave_redis_to_others() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    let mut names = Vec::new();
    for number in 0..300 {
        let name = format!("user{number}");
        let owner = users.register(&name).await;
        for room in 0..4 {
            users.join(&name, &owner, &format!("#room{room}")).await;
        }
        names.push(name);
    }
    let presence = presence(&redis).await;
    let api = presence.addresses().api;
    redis.call::<()>("CONFIG RESETSTAT").await;
    let lookup = json!({ "nicks": names });
    let began = Instant::now();
    // Twice as many as an address may have under way: the others wait.
    let answers = (0..8).map(|_| async {
        let listed = get(api, "/v1/users?online=true&limit=1000").await;
        let found = http::post(api, "/v1/users/lookup", &lookup).await.expect("an answer");
        (listed, found)
    });
    for (listed, found) in join_all(answers).await {
        assert_eq!((listed.status, found.status), (200, 200));
        assert_eq!(listed.json()["items"].as_array().map(Vec::len), Some(300));
        assert!(found.json()["items"].as_array().is_some_and(|items| {
            items.len() == 300
                && items.iter().all(|item| item["user"]["rooms"].as_array().is_some_and(|r| r.len() == 4))
        }));
    }
    // The store rests as long as it works for listings, so they use at most half of it.
    let statistics = redis.call::<String>("INFO commandstats").await;
    let line = statistics.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts were called");
    let micros = line.split("usec=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u128>().ok());
    let micros = micros.expect("a time");
    assert!(micros <= began.elapsed().as_micros() * 6 / 10, "{micros} us of {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_with_all_listings_leaves_others_theirs() {
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    join_all((0..500).map(|number| {
        let users = &users;
        async move { users.register(&format!("user{number}")).await }
    }))
    .await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let api = presence.addresses().api;
    until_status(presence.addresses().admin, "/readyz", 200, SOON).await;
    // Five listings over this link take longer than any other read may.
    proxy.set(Mode::Limited { bytes_per_second: 130_000 });
    let list = |client: &'static str| async move {
        let asked = Instant::now();
        (forwarded_get(api, "/v1/users?online=true&limit=500", client, "").await, asked.elapsed())
    };
    let hostile = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5"].map(list);
    let (hostile, other) = tokio::join!(join_all(hostile), list("198.51.100.1"));
    let (refused, mut listed): (Vec<_>, Vec<_>) = hostile.into_iter().partition(|(answer, _)| answer.status == 503);
    let [(refused, waited)] = refused.as_slice() else { panic!("not one refusal: {refused:?}") };
    assert_eq!((&refused.json()["code"], refused.header("retry-after")), (&json!("overloaded"), Some("1")));
    assert!(refused.body.contains("listings under way") && *waited < REFUSAL_MAX, "{waited:?} {refused:?}");
    listed.push(other);
    assert!(listed.iter().any(|(_, took)| took.as_millis() > 2500), "no listing takes long");
    for (answer, took) in listed {
        let items = answer.json()["items"].as_array().map(Vec::len);
        assert_eq!((answer.status, items), (200, Some(500)), "{took:?} {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_one_client_delay_only_itself() {
    let redis = Redis::running().await;
    GatewayUsers::on(&redis).await.register("ann").await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let api = presence.addresses().api;
    until_status(presence.addresses().admin, "/readyz", 200, SOON).await;
    proxy.set(Mode::Late { delay: Duration::from_millis(100), jitter: Duration::ZERO });
    let ask = |number: u8, path: &'static str| async move {
        let asked = Instant::now();
        let answer = http::get_from(Ipv4Addr::new(127, 0, 0, number), api, path).await.expect("an answer");
        (answer, asked.elapsed())
    };
    let until = Instant::now() + SOON;
    // All requests that one address may have under way, on all kinds of reads.
    let paths = ["/v1/users/ann", "/v1/rooms/lobby", "/v1/gateways", "/v1/stats"];
    let flood = join_all((0..60).map(|number| async move {
        let mut refused = 0;
        while Instant::now() < until {
            let (answer, took) = ask(3, paths[number % paths.len()]).await;
            assert!(took < REFUSAL_MAX, "{took:?} {answer:?}");
            if answer.status == 503 {
                assert_eq!((&answer.json()["code"], answer.header("retry-after")), (&json!("overloaded"), Some("1")));
                assert!(answer.body.contains("other reads under way"), "{answer:?}");
                refused += 1;
            }
        }
        refused
    }));
    let other = async {
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let (answer, took) = ask(2, "/v1/users/ann").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            slowest = slowest.max(took);
        }
        slowest
    };
    let (refused, slowest) = tokio::join!(flood, other);
    assert!(refused.iter().sum::<usize>() > 0, "the flood met no limit");
    // Alone it takes two round trips, and two more with a new connection.
    assert!(slowest < Duration::from_millis(1200), "{slowest:?} beside a flood");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_of_one_client_delay_only_itself() {
    const USERS: usize = 400;
    let redis = Redis::running().await;
    let users = GatewayUsers::on(&redis).await;
    for number in 0..USERS {
        users.register(&format!("user{number}")).await;
    }
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let api = presence.addresses().api;
    until_status(presence.addresses().admin, "/readyz", 200, SOON).await;
    // Each of the two pages of the log takes about half a second.
    proxy.set(Mode::Limited { bytes_per_second: 60_000 });
    let open = |client: &'static str| async move {
        let request = format!("GET /v1/events HTTP/1.0\r\nLast-Event-ID: 0\r\nX-Forwarded-For: {client}\r\n\r\n");
        let mut stream = EventStream::send(api, &request).await;
        stream.until(|body| !body.is_empty()).await;
        stream
    };
    let replayed = |mut stream: EventStream| async move {
        let began = Instant::now();
        stream.receive(&format!("\"user{}\"", USERS - 1)).await;
        assert_eq!(stream.body().matches("event: online").count(), USERS, "{}", stream.body());
        began.elapsed()
    };
    let alone = replayed(open("198.51.100.1").await).await;
    let mut flood = Vec::new();
    for _ in 0..12 {
        flood.push(open("198.51.100.2").await);
    }
    let other = open("198.51.100.1").await;
    let (flood, beside) = tokio::join!(join_all(flood.into_iter().map(replayed)), replayed(other));
    assert!(beside < 2 * alone, "{beside:?} beside a flood, {alone:?} alone");
    let slowest = flood.into_iter().max().expect("replays");
    assert!(slowest > 4 * alone, "{slowest:?}: the flood had more than its share, {alone:?} each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_reads_keeps_presence_ready() {
    let redis = Redis::running().await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let (api, admin) = (presence.addresses().api, presence.addresses().admin);
    until_status(admin, "/readyz", 200, SOON).await;
    // Redis answers, and its connections are too few for all reads.
    proxy.set(Mode::Late { delay: Duration::from_millis(200), jitter: Duration::ZERO });
    let until = Instant::now() + 2 * SOON;
    let flood = join_all((0..200).map(|number| async move {
        while Instant::now() < until {
            let answer = forwarded_get(api, "/v1/users/zed", &format!("198.51.100.{}", number % 10), "").await;
            let code = answer.json()["code"].clone();
            assert!(code == "no_such_user" || code == "overloaded", "{answer:?}");
        }
    }));
    let watched = stays(2 * SOON, "presence is ready", async || {
        let answer = get(admin, "/readyz").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    });
    tokio::join!(flood, watched);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_open_share_reads_of_redis() {
    raise_descriptor_limit();
    let redis = Redis::running().await;
    let proxy = FaultProxy::start(redis.address()).await;
    let presence = presence_at(&Redis::url_through(proxy.address())).await;
    let api = presence.addresses().api;
    until_status(presence.addresses().admin, "/readyz", 200, SOON).await;
    proxy.set(Mode::Late { delay: Duration::from_millis(20), jitter: Duration::ZERO });
    redis.call::<()>("CONFIG RESETSTAT").await;
    let streams =
        (0..400).map(|number| async move { forwarded_stream(api, &format!("198.51.100.{}", number % 10)).await });
    let _streams = join_all(streams).await;
    let statistics = redis.call::<String>("INFO commandstats").await;
    let line = statistics.lines().find(|line| line.starts_with("cmdstat_xinfo|stream:")).expect("it was called");
    let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
    assert!(calls.is_some_and(|calls| calls < 200), "{line}");
}

#[tokio::test]
async fn refusals_are_logged_for_each_limit() {
    let redis = Redis::running().await;
    let node = Node::presence("p1").setting("PARLEY__REDIS__URL", &redis.url()).start().await;
    let api = node.api();
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(forwarded_stream(api, "198.51.100.1").await);
    }
    for _ in 0..3 {
        assert_eq!(forwarded_get(api, "/v1/events", "198.51.100.1", "").await.status, 503);
    }
    let _slow = slow_bodies(api, "198.51.100.2", 8).await;
    assert_eq!(forwarded_lookup(api, "198.51.100.2", 2000).await.status, 503);
    eventually(4 * SOON, "both episodes end", async || {
        let lines =
            |text: &str| node.log().lines().iter().filter(|line| line.contains(text)).cloned().collect::<Vec<_>>();
        let (begun, ended) = (lines("api requests refused"), lines("api refusals ended"));
        let count = |limit: &str, refused: &str| {
            ended.iter().filter(|line| line.contains(limit) && line.contains(refused)).count()
        };
        let streams = count("event streams", "\"addresses\":\"198.51.100.1\",\"refused\":3");
        let counts = [begun.len(), streams, count("request bodies", "refused\":1")];
        if counts == [2, 1, 1] { Ok(()) } else { Err(format!("{begun:?} {ended:?}")) }
    })
    .await;
}
