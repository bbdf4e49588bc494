//! Users with tokens. The tokens live for 8 seconds, so a story sees several of them.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use harness::{Cluster, eventually};
use jsonwebtoken::{EncodingKey, Header, encode};
use parley_client::{FileStorage, Options, Parley, State};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{SOON, connect, take, urls};

const SECRET: &str = "the secret that the application shares with its gateways";
const ISSUER: &str = "https://id.example.org";
/// Seconds of a token. The clocks of a gateway may differ by 5 s, so it admits the token longer.
const SHORT: u64 = 3;
const LONG: u64 = 600;

async fn cluster() -> Cluster {
    let settings = [
        ("PARLEY__AUTH__MODE", "token"),
        ("PARLEY__AUTH__ISSUER", ISSUER),
        ("PARLEY__AUTH__AUDIENCE", "parley"),
        ("PARLEY__AUTH__SECRET", SECRET),
    ];
    let builder = Cluster::builder().gateways(2);
    settings.iter().fold(builder, |builder, (key, value)| builder.gateway_setting(key, value)).start().await
}

fn signed(secret: &str, user: &str, seconds: u64, nick: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"iss": ISSUER, "aud": "parley", "sub": user, "exp": now + seconds});
    if let Some(nick) = nick {
        claims["nick"] = json!(nick);
    }
    encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()).unwrap()).unwrap()
}

fn user_of(chat: &Parley) -> Option<String> {
    match chat.state() {
        State::Online { user, .. } => user,
        state => panic!("{state:?}"),
    }
}

async fn await_final(chat: &Parley) -> String {
    let mut states = chat.states();
    let wait = async {
        loop {
            if let State::Offline { reason, will_retry: false, .. } = states.next().await.expect("a later state") {
                return reason;
            }
        }
    };
    timeout(SOON, wait).await.expect("the end in time")
}

#[tokio::test]
async fn rust_refreshes_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session.json");
    let cluster = cluster().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let get_token = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Some(signed(SECRET, "user:1", SHORT, Some("Ann")))) }
    };
    let options = Options::named_by_token().get_token(get_token).storage(FileStorage::new(&file));
    let ann = connect(urls(&cluster, 0), options).await;
    let bob = connect(urls(&cluster, 1), Options::new("bob").token(signed(SECRET, "user:2", LONG, None))).await;
    assert_eq!((ann.nick().as_str(), user_of(&ann).as_deref()), ("Ann", Some("user:1")));
    let mut states = ann.states();
    let rooms = [ann.join("#refresh", 0).await.unwrap(), bob.join("#refresh", 0).await.unwrap()];
    let mut heard = [rooms[0].messages(), rooms[1].messages()];
    let mut sent = 0;
    while asked.load(Ordering::Relaxed) < 4 {
        rooms[sent % 2].send(sent).await.unwrap();
        for messages in &mut heard {
            assert_eq!(take(messages, 1).await, [Value::from(sent)]);
        }
        sent += 1;
    }
    assert!(matches!(states.next().await, Some(State::Online { .. })));
    assert!(timeout(Duration::ZERO, states.next()).await.is_err(), "one connection for all tokens");
    let stored = std::fs::read_to_string(&file).unwrap();
    let token = signed(SECRET, "user:1", SHORT, Some("Ann"));
    assert!(!stored.contains(token.split('.').next().unwrap()), "no token is stored: {stored}");
    ann.close().await;
    bob.close().await;
    cluster.finish().await;
}

#[tokio::test]
async fn rust_missed_refresh_resumes_without_loss() {
    let cluster = cluster().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let get_token = move || {
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if number == 2 {
                pending::<()>().await;
            }
            Ok::<_, Infallible>(Some(signed(SECRET, "user:1", if number == 1 { SHORT } else { LONG }, None)))
        }
    };
    let ann = connect(urls(&cluster, 0), Options::new("ann").get_token(get_token)).await;
    let bob = connect(urls(&cluster, 1), Options::new("bob").token(signed(SECRET, "user:2", LONG, None))).await;
    let (here, there) = (ann.join("#late", 0).await.unwrap(), bob.join("#late", 0).await.unwrap());
    let mut heard = [here.messages(), there.messages()];
    let mut sent = 0;
    while asked.load(Ordering::Relaxed) < 3 || !matches!(ann.state(), State::Online { .. }) {
        there.send(sent).await.unwrap();
        for messages in &mut heard {
            assert_eq!(take(messages, 1).await, [Value::from(sent)]);
        }
        sent += 1;
    }
    assert!(matches!(ann.state(), State::Online { resumed: true, .. }));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    ann.close().await;
    bob.close().await;
    cluster.finish().await;
}

#[tokio::test]
async fn rust_refused_tokens_end_with_their_code() {
    let cluster = cluster().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let forged = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let token = signed("not the secret of the gateways, but one as long", "user:3", LONG, None);
        async { Ok::<_, Infallible>(Some(token)) }
    };
    let guest = || async { Ok::<_, Infallible>(None) };
    for (options, code) in [
        (Options::new("eve").get_token(forged), "token_invalid"),
        (Options::new("guest").get_token(guest), "token_required"),
        (Options::new("old").token("x.y.z"), "token_invalid"),
    ] {
        let refused = timeout(SOON, Parley::connect(urls(&cluster, 0), options)).await.expect("in time");
        assert_eq!(refused.unwrap_err().code(), code);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    cluster.finish().await;
}

#[tokio::test]
async fn rust_session_stays_with_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let stored = || FileStorage::new(folder.path().join("session.json"));
    let cluster = cluster().await;
    let one = Options::new("uno").storage(stored()).token(signed(SECRET, "user:5", LONG, None));
    let one = connect(urls(&cluster, 0), one).await;
    one.join("#mine", 0).await.unwrap().send("hi").await.unwrap();
    let two = Options::new("duo").storage(stored()).token(signed(SECRET, "user:6", LONG, None));
    let two = connect(urls(&cluster, 1), two).await;
    assert_eq!(user_of(&two).as_deref(), Some("user:6"));
    assert!(matches!(two.state(), State::Online { resumed: false, .. }));
    assert!(matches!(one.state(), State::Online { .. }));
    one.close().await;
    two.close().await;
    cluster.finish().await;
}

#[tokio::test]
async fn rust_close_never_waits_for_a_token() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let hangs = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        pending::<Result<Option<String>, Infallible>>()
    };
    let chat = Parley::start(["ws://127.0.0.1:9/ws"], Options::named_by_token().get_token(hangs)).unwrap();
    eventually(SOON, "the question", || async { if asked.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err(()) } })
        .await;
    timeout(SOON, chat.close()).await.expect("closed in time");
    assert_eq!(await_final(&chat).await, "closed");
}

#[tokio::test]
async fn rust_failing_function_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let fails = move || {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(number != 0, "the first question panics");
            Err::<Option<String>, _>(io::Error::other("a secret of the application"))
        }
    };
    let chat = Parley::start(["ws://127.0.0.1:9/ws"], Options::new("ann").get_token(fails)).unwrap();
    let mut states = chat.states();
    let mut failures = 0;
    while failures < 2 {
        let state = timeout(SOON, states.next()).await.expect("in time").expect("a state");
        if let State::Offline { reason, message, will_retry, .. } = state {
            assert_eq!((reason.as_str(), message.as_str(), will_retry), ("no_token", "get_token failed", true));
            failures += 1;
        }
    }
    chat.close().await;
    let nobody = Parley::start(["ws://127.0.0.1:9/ws"], Options::named_by_token());
    assert_eq!(nobody.unwrap_err().code(), "bad_request");
}
