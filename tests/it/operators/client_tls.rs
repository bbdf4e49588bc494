//! TLS on the client ports, without a proxy: certificates, their renewal, and clients with and without TLS in a room.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::nginx::stream_module;
use harness::node::NodeBuilder;
use harness::{Authority, ChildProgram, Nginx, Node, Person, Redis, Validity, eventually};
use nix::sys::signal::Signal;
use parley_client::{Options, Parley, State};
use tokio::time::timeout;

use crate::clients::tls::await_failed_attempt;

const SOON: Duration = Duration::from_secs(20);
const HERE: &str = "IP:127.0.0.1";

fn site() -> Authority {
    let authority = Authority::create();
    authority.issue("site", HERE, Validity::Current);
    authority
}

/// Returns a gateway with the certificate of this folder.
fn over_tls(node: NodeBuilder, folder: &Path) -> NodeBuilder {
    node.setting("PARLEY__LISTEN__TLS_CERT", &folder.join("site.pem").display().to_string())
        .setting("PARLEY__LISTEN__TLS_KEY", &folder.join("site.key").display().to_string())
}

async fn connect(gateway: &Node, authority: &Authority, nick: &str) -> Parley {
    let options = Options::new(nick).root_certificates(std::fs::read(authority.file("ca.pem")).unwrap());
    let url = format!("wss://{}/ws", gateway.ws());
    timeout(SOON, Parley::connect([url], options)).await.expect("registered in time").unwrap()
}

async fn assert_refused(gateway: &Node, authority: &Authority) {
    let options = Options::new("eve").root_certificates(std::fs::read(authority.file("ca.pem")).unwrap());
    let chat = Parley::start([format!("wss://{}/ws", gateway.ws())], options).unwrap();
    await_failed_attempt(&chat).await;
}

/// Sends these lines through `openssl s_client` and returns everything that it has shown at the end.
async fn typed(address: std::net::SocketAddr, authority: &Authority, lines: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("lines");
    std::fs::write(&script, lines).unwrap();
    let ca = authority.file("ca.pem").display().to_string();
    let address = address.to_string();
    let arguments = ["s_client", "-quiet", "-verify_return_error", "-CAfile", &ca, "-connect", &address];
    let program = ChildProgram::system("openssl", "person").args(arguments).stdin(std::fs::File::open(script).unwrap());
    let ended = program.stdout(Stdio::piped()).run(SOON).await;
    ended.stdout
}

/// Sends SIGHUP and waits until the reload is counted.
async fn reload(gateway: &mut Node, outcome: &str) {
    let labels = [("outcome", outcome)];
    let before = gateway.metrics().await.get("parley_config_reloads_total", &labels);
    gateway.process().signal(Signal::SIGHUP);
    eventually(SOON, &format!("a reload is {outcome}"), async || {
        let now = gateway.metrics().await.get("parley_config_reloads_total", &labels);
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn clients_with_and_without_tls_see_one_order() {
    const EACH: usize = 100;
    let (authority, redis) = (site(), Redis::running().await);
    let sealed = over_tls(Node::gateway("g1").redis(&redis), authority.path()).start().await;
    let plain = Node::gateway("g2").redis(&redis).start().await;
    let ann = connect(&sealed, &authority, "ann").await;
    let cem = connect(&sealed, &authority, "cem").await;
    let bob = Person::connect([plain.ws()], "bob").await;
    let rooms = [ann.join("#lobby", 0).await.unwrap(), cem.join("#lobby", 0).await.unwrap(), bob.join("#lobby").await];
    let mut received: Vec<_> = rooms.iter().map(|room| room.events()).collect();
    let sending = rooms.iter().enumerate().map(|(sender, room)| async move {
        for number in 0..EACH {
            room.send(format!("{sender} {number}")).await.unwrap();
        }
    });
    timeout(SOON, futures_util::future::join_all(sending)).await.expect("sent in time");
    let mut orders = Vec::new();
    for events in &mut received {
        let mut order = Vec::new();
        while order.len() < rooms.len() * EACH {
            match timeout(SOON, events.next()).await.expect("received in time").expect("an event") {
                parley_client::RoomEvent::Message(message) => order.push((message.seq, message.body)),
                parley_client::RoomEvent::Gap { .. } => panic!("a gap after {order:?}"),
                _ => {}
            }
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "{orders:?}");
}

#[tokio::test]
async fn people_type_lines_over_tls() {
    let authority = site();
    let mut gateway = over_tls(Node::gateway("g1"), authority.path()).start().await;
    let ann = connect(&gateway, &authority, "ann").await;
    let room = ann.join("#lobby", 0).await.unwrap();
    let mut messages = room.messages();
    let module = stream_module().await;
    let front = Nginx::configured(|place| {
        format!(
            "daemon off; {module}\npid {run}/nginx.pid; error_log {run}/error.log warn; events {{}}\nstream {{\n\
             server {{ listen {}; proxy_pass {ws}; }}\n\
             server {{ listen {}; proxy_pass {lines}; proxy_bind 127.0.0.9; proxy_protocol on; }}\n}}\n",
            place.http,
            place.lines,
            run = place.directory,
            ws = gateway.ws(),
            lines = gateway.tcp(),
        )
    })
    .await;
    for (nick, address) in [("bob", gateway.tcp()), ("cem", front.tcp())] {
        let shown = typed(address, &authority, &format!("/nick {nick}\n/join #lobby\nhello\n/quit\n")).await;
        assert!(shown.ends_with("* closing: bye") && shown.contains("hello"), "{shown:?}");
        let message = timeout(SOON, messages.next()).await.expect("in time").expect("a message");
        assert_eq!((message.from.as_str(), message.body), (nick, "hello".into()));
    }
    assert_eq!(gateway.finish().await, Some(0));
}

#[tokio::test]
async fn renewed_certificate_replaces_nothing_that_is_open() {
    let (authority, other) = (site(), site());
    let mut gateway = over_tls(Node::gateway("g1"), authority.path()).start().await;
    let (ann, bob) = (connect(&gateway, &authority, "ann").await, connect(&gateway, &authority, "bob").await);
    let (room, heard) = (ann.join("#lobby", 0).await.unwrap(), bob.join("#lobby", 0).await.unwrap());
    let mut messages = heard.messages();
    let (mut sent, mut states) = (0, ann.states());
    let mut talk = async || {
        for _ in 0..20 {
            timeout(SOON, room.send(sent.to_string())).await.expect("in time").unwrap();
            let message = timeout(SOON, messages.next()).await.expect("in time").expect("a message");
            assert_eq!(message.body, sent.to_string());
            sent += 1;
        }
    };
    let install = |name: &str| {
        std::fs::copy(other.file(name), authority.file(name)).unwrap();
    };
    talk().await;
    // The first of two files is written: they do not match yet.
    install("site.pem");
    reload(&mut gateway, "rejected").await;
    talk().await;
    assert_eq!(connect(&gateway, &authority, "cem").await.nick(), "cem", "the pair in effect stays");
    std::fs::write(authority.file("site.key"), "-----BEGIN").unwrap();
    reload(&mut gateway, "rejected").await;
    install("site.key");
    reload(&mut gateway, "applied").await;
    talk().await;
    assert_refused(&gateway, &authority).await;
    assert_eq!(connect(&gateway, &other, "dan").await.nick(), "dan");
    talk().await;
    while let Ok(Some(state)) = timeout(Duration::ZERO, states.next()).await {
        assert!(matches!(state, State::Connecting | State::Online { .. }), "{state:?}");
    }
    let problems = gateway.problems(&["settings not reloaded, nothing changed".to_owned()]);
    assert!(problems.is_empty(), "{problems:?}");
    assert!(gateway.log().holds("not the key of listen.tls_cert"));
    assert!(gateway.log().holds("certificate of the client ports replaced"));
}

#[tokio::test]
async fn unusable_certificates_end_the_start() {
    let (authority, other) = (site(), site());
    let file = |name| authority.file(name).display().to_string();
    let (cert, key, other_key) = (file("site.pem"), file("site.key"), other.file("site.key").display().to_string());
    let none = String::new();
    for ([cert, key], expected) in [
        ([&cert, &none], "listen.tls_key is not set: listen.tls_cert needs it"),
        ([&none, &key], "listen.tls_cert is not set: listen.tls_key needs it"),
        ([&file("missing"), &key], "No such file or directory"),
        ([&cert, &file("missing")], "No such file or directory"),
        ([&key, &key], "expected certificates in PEM"),
        ([&cert, &cert], "expected a private key in PEM, without a password"),
        ([&cert, &other_key], "not the key of listen.tls_cert"),
    ] {
        let mut program = ChildProgram::parley("gateway", "gateway").args(["--check"]);
        for (name, value) in [("CERT", cert), ("KEY", key)] {
            if !value.is_empty() {
                program = program.env(&format!("PARLEY__LISTEN__TLS_{name}"), value);
            }
        }
        let checked = program.run(SOON).await;
        assert_eq!(checked.code, Some(64), "{expected}: {checked:?}");
        assert!(checked.stderr.contains(expected), "{expected}: {checked:?}");
        assert_eq!(checked.stderr.lines().count(), 1, "{expected}: {checked:?}");
    }
}
