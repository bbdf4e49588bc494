//! TLS to Redis: `rediss://` with a private authority and client certificates.
//!
//! The Redis of these tests requires a client certificate on its port with TLS. Its plain port is for the tests only.

use std::time::Duration;

use harness::fault_proxy::Mode;
use harness::node::NodeBuilder;
use harness::{Authority, ChildProgram, FaultProxy, Node, Person, Redis, Validity, eventually, http};

/// Longest time until a gateway is ready after Redis has returned.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(20);

const HERE: &str = "IP:127.0.0.1";

/// Makes an authority with certificates for Redis and for its clients.
fn authority() -> Authority {
    let authority = Authority::create();
    authority.issue("redis", HERE, Validity::Current);
    authority.issue("client", "DNS:client", Validity::Current);
    authority
}

/// Starts a Redis whose certificates are from this authority.
async fn redis_of(authority: &Authority) -> Redis {
    let mut redis = Redis::not_started().with_tls(authority);
    redis.start().await;
    redis
}

/// Returns the environment of a program that trusts this authority and has a client certificate of it.
fn environment(authority: &Authority, url: String) -> [(&'static str, String); 4] {
    let file = |name| authority.file(name).display().to_string();
    [
        ("PARLEY__REDIS__URL", url),
        ("PARLEY__REDIS__TLS_CA", file("ca.pem")),
        ("PARLEY__REDIS__TLS_CERT", file("client.pem")),
        ("PARLEY__REDIS__TLS_KEY", file("client.key")),
    ]
}

fn over_tls(node: NodeBuilder, authority: &Authority, url: String) -> NodeBuilder {
    environment(authority, url).iter().fold(node, |node, (key, value)| node.setting(key, value))
}

/// Waits until a gateway reports this reason of a failed handshake in `/readyz` and in its log.
async fn await_reason(gateway: &Node, reason: &str) {
    eventually(SOON, "the reason is reported", async || {
        let answer = gateway.readyz().await?;
        let problems = gateway.problems(&[]);
        let text = "redis tls handshake failed";
        let is_logged = problems.iter().any(|line| line.contains(text) && line.contains(reason));
        let is_named = answer.body.contains(&format!("{text}: {reason}"));
        if answer.status == 503 && is_named && is_logged {
            Ok(())
        } else {
            Err(format!("{reason}: {answer:?}, {problems:?}"))
        }
    })
    .await;
}

/// Checks that a message of ann arrives at bob.
async fn assert_delivered(ann: &Person, bob: &Person, text: &str) {
    ann.sends("#lobby", text).await;
    bob.receives("#lobby", "ann", text).await;
}

#[tokio::test]
async fn programs_use_tls_for_every_connection() {
    let authority = authority();
    let mut redis = redis_of(&authority).await;
    let url = Redis::tls_url_through(redis.tls_address());
    let mut g1 = over_tls(Node::gateway("g1"), &authority, url.clone()).start().await;
    let mut g2 = over_tls(Node::gateway("g2"), &authority, url.clone()).start().await;
    let mut p1 = over_tls(Node::presence("p1"), &authority, url.clone()).start().await;
    let (ann, bob) = (Person::connect([g1.ws()], "ann").await, Person::connect([g2.ws()], "bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    assert_delivered(&ann, &bob, "sealed").await;
    let user = http::get(p1.api(), "/v1/users/ann").await.unwrap();
    assert_eq!(user.json()["online"], true, "{user:?}");

    let program = ChildProgram::parley("gateway", "ctl").args(["ctl", "status"]);
    let environment = environment(&authority, url);
    let program = environment.iter().fold(program, |program, (key, value)| program.env(key, value));
    let status = program.run(SOON).await;
    assert_eq!((status.code, status.stderr.as_str()), (Some(0), ""), "{status:?}");
    assert!(status.stdout.contains(&redis.tls_address().to_string()), "{status:?}");

    let clients: String = redis.call("CLIENT LIST").await;
    let programs: Vec<&str> = clients.lines().filter(|client| client.contains("user=parley ")).collect();
    let port = format!("laddr={} ", redis.tls_address());
    assert!(programs.len() >= 7, "two lanes and a subscription of each gateway: {clients}");
    assert!(programs.iter().all(|client| client.contains(&port)), "{programs:?}");

    // As at a renewal: Redis returns with a new certificate of the same authority.
    redis.kill9();
    for node in [&g1, &g2, &p1] {
        node.until_not_ready(SOON).await;
    }
    authority.issue("redis", HERE, Validity::Current);
    redis.start().await;
    for node in [&g1, &g2, &p1] {
        node.until_ready(RECOVERY_MAX).await;
    }
    assert_delivered(&ann, &bob, "renewed").await;
    for node in [&mut g1, &mut g2, &mut p1] {
        assert_eq!(node.finish().await, Some(0));
    }
}

#[tokio::test]
async fn cut_tls_connections_heal_by_themselves() {
    let authority = authority();
    let redis = redis_of(&authority).await;
    let proxy = FaultProxy::start(redis.tls_address()).await;
    let url = |address| Redis::tls_url_through(address);
    let g1 = over_tls(Node::gateway("g1"), &authority, url(proxy.address())).start().await;
    let g2 = over_tls(Node::gateway("g2"), &authority, url(redis.tls_address())).start().await;
    let (ann, bob) = (Person::connect([g2.ws()], "ann").await, Person::connect([g1.ws()], "bob").await);
    ann.join("#lobby").await;
    bob.join("#lobby").await;
    for (mode, text) in [(Mode::Reset, "one"), (Mode::BlackHole, "two")] {
        assert_delivered(&ann, &bob, &format!("before {text}")).await;
        proxy.set(mode);
        g1.until_not_ready(SOON).await;
        ann.sends("#lobby", text).await;
        proxy.set(Mode::Pass);
        g1.until_ready(RECOVERY_MAX).await;
        bob.receives("#lobby", "ann", text).await;
    }
    // Records of TLS arrive in single bytes.
    proxy.set(Mode::Slice);
    assert_delivered(&ann, &bob, "sliced").await;
}

#[tokio::test]
async fn failed_handshake_is_named_and_not_fatal() {
    let (authority, other) = (authority(), authority());
    let mut redis = redis_of(&authority).await;
    let url = Redis::tls_url_through(redis.tls_address());

    let stranger = over_tls(Node::gateway("g1"), &other, url.clone()).launch().await;
    await_reason(&stranger, "unknown issuer").await;

    let anonymous = Node::gateway("g2")
        .setting("PARLEY__REDIS__URL", &url)
        .setting("PARLEY__REDIS__TLS_CA", &authority.file("ca.pem").display().to_string());
    await_reason(&anonymous.launch().await, "redis requires a client certificate").await;

    let astray = over_tls(Node::gateway("g3"), &authority, Redis::tls_url_through(redis.address()));
    await_reason(&astray.launch().await, "redis ").await;

    let mut gateway = over_tls(Node::gateway("g4"), &authority, url).start().await;
    for (address, validity, reason) in
        [(HERE, Validity::Expired, "certificate expired"), ("DNS:elsewhere", Validity::Current, "name mismatch")]
    {
        authority.issue("redis", address, validity);
        redis.restart().await;
        await_reason(&gateway, reason).await;
    }
    authority.issue("redis", HERE, Validity::Current);
    redis.restart().await;
    gateway.until_ready(RECOVERY_MAX).await;
    assert_eq!(gateway.finish().await, Some(0));
}

#[tokio::test]
async fn ctl_names_the_failed_handshake() {
    let (authority, other) = (authority(), authority());
    let redis = redis_of(&authority).await;
    let environment = environment(&other, Redis::tls_url_through(redis.tls_address()));
    let program = ChildProgram::parley("gateway", "ctl").args(["ctl", "status"]);
    let status = environment.iter().fold(program, |program, (key, value)| program.env(key, value)).run(SOON).await;
    let expected = format!("gateway ctl: redis at {}: tls handshake: unknown issuer", redis.tls_address());
    assert_eq!((status.code, status.stderr), (Some(2), expected));
}

#[tokio::test]
async fn unusable_tls_settings_end_the_start() {
    let (authority, other) = (authority(), authority());
    let file = |name| authority.file(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let other_key = other.file("client.key").display().to_string();
    let none = String::new();
    for (url, [ca, cert, key], expected) in [
        (
            "rediss://127.0.0.1:1/#insecure",
            [&none, &none, &none],
            "redis.url = \"rediss://127.0.0.1:1/?***\": #insecure is not supported",
        ),
        ("redis://127.0.0.1:1/", [&ca, &none, &none], "redis.tls_* is set: expected rediss://HOST:PORT"),
        ("rediss://127.0.0.1:1/", [&file("missing"), &none, &none], "No such file or directory"),
        ("rediss://127.0.0.1:1/", [&key, &none, &none], "expected certificates in PEM"),
        ("rediss://127.0.0.1:1/", [&ca, &cert, &none], "redis.tls_key is not set: redis.tls_cert needs it"),
        ("rediss://127.0.0.1:1/", [&ca, &none, &key], "redis.tls_cert is not set: redis.tls_key needs it"),
        ("rediss://127.0.0.1:1/", [&ca, &cert, &cert], "expected a private key in PEM"),
        ("rediss://127.0.0.1:1/", [&ca, &cert, &other_key], "not the key of redis.tls_cert"),
    ] {
        for binary in ["gateway", "presence"] {
            let mut program = ChildProgram::parley(binary, binary).args(["--check"]).env("PARLEY__REDIS__URL", url);
            for (name, value) in [("CA", ca), ("CERT", cert), ("KEY", key)] {
                if !value.is_empty() {
                    program = program.env(&format!("PARLEY__REDIS__TLS_{name}"), value);
                }
            }
            let checked = program.run(SOON).await;
            assert_eq!(checked.code, Some(64), "{expected}: {checked:?}");
            assert!(checked.stderr.contains(expected), "{expected}: {checked:?}");
            assert_eq!(checked.stderr.lines().count(), 1, "{expected}: {checked:?}");
        }
    }
}
