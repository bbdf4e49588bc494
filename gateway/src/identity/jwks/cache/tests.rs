#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::identity::keys::VerificationKey;
use crate::identity::tests::{EC, Issuer, claims, policy};
use crate::identity::{TokenFault, TokenVerifier};

use super::*;

/// A server of keys whose answers are whole HTTP responses, in turn; the last one repeats.
struct KeyServer {
    url: JwksUrl,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = JwksUrl::parse(&format!("http://{}/keys", listener.local_addr().unwrap()), false).unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                answer(socket.unwrap(), &answers[number.min(answers.len() - 1)]);
            }
        });
        Self { url, requests }
    }

    fn cache(&self) -> Arc<JwksCache> {
        JwksCache::with_limit(self.url.clone(), Arc::default(), Duration::from_millis(500))
    }

    fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Answers a request. An empty answer keeps the client waiting.
fn answer(mut socket: TcpStream, answer: &str) {
    let _ = socket.read(&mut [0; 4096]);
    let _ = socket.write_all(answer.as_bytes());
    if answer.is_empty() {
        let _ = socket.read(&mut [0; 1]);
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn set(issuers: &[(&str, &Issuer)]) -> String {
    let rows: Vec<_> = issuers.iter().map(|(id, issuer)| issuer.row(id)).collect();
    json!({"keys": rows}).to_string()
}

fn verifier(cache: &Arc<JwksCache>) -> TokenVerifier {
    TokenVerifier::new(policy(), KeySet::default(), Some(Arc::clone(cache)))
}

/// Moves the last request and the last set into the past.
fn age(cache: &JwksCache, by: Duration) {
    let mut state = cache.state();
    state.asked = state.asked.map(|at| at - by);
    state.fetched = state.fetched.take().map(|(keys, at)| (keys, at - by));
}

#[tokio::test]
async fn unknown_key_fetches_the_set_again() {
    let newer = Issuer::ec();
    let server = KeyServer::start(vec![ok(&set(&[("old", &EC)])), ok(&set(&[("old", &EC), ("new", &newer)]))]);
    let cache = server.cache();
    let verifier = verifier(&cache);
    let old = EC.sign(Some("old"), &claims(&json!({})));
    let new = newer.sign(Some("new"), &claims(&json!({})));
    for _ in 0..3 {
        assert!(verifier.verify(&old).await.is_ok());
    }
    assert_eq!(server.count(), 1, "the set is kept");
    let refused = verifier.verify(&new).await;
    assert!(matches!(refused, Err(TokenFault::NoKeys { retry_after }) if retry_after <= FETCH_PAUSE), "{refused:?}");
    assert_eq!(server.count(), 1, "clients cannot cause requests");
    age(&cache, FETCH_PAUSE);
    assert!(verifier.verify(&new).await.is_ok());
    assert!(verifier.verify(&old).await.is_ok());
    assert_eq!(server.count(), 2);
    age(&cache, FETCH_PAUSE);
    let unknown = newer.sign(Some("never"), &claims(&json!({})));
    assert_eq!(verifier.verify(&unknown).await, Err(TokenFault::UnknownKey));
}

#[tokio::test]
async fn key_without_id_leaves_others_to_the_set() {
    let server = KeyServer::start(vec![ok(&set(&[("e", &EC)]))]);
    let (own, claims) = (Issuer::ec(), claims(&json!({})));
    let keys = KeySet::new(vec![VerificationKey::of_material(&own.material(None)).unwrap()]);
    let verifier = TokenVerifier::new(policy(), keys, Some(server.cache()));
    assert!(verifier.verify(&own.sign(None, &claims)).await.is_ok());
    assert_eq!(verifier.verify(&EC.sign(None, &claims)).await, Err(TokenFault::WrongSignature));
    assert_eq!(server.count(), 0, "a token without a key id is not for the set");
    assert!(verifier.verify(&EC.sign(Some("e"), &claims)).await.is_ok());
    assert!(verifier.verify(&own.sign(Some("e2"), &claims)).await.is_ok());
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn many_clients_cause_one_request() {
    let server = KeyServer::start(vec![ok(&set(&[("e", &EC)]))]);
    let verifier = Arc::new(verifier(&server.cache()));
    let token = EC.sign(Some("e"), &claims(&json!({})));
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let (verifier, token) = (Arc::clone(&verifier), token.clone());
            tokio::spawn(async move { verifier.verify(&token).await.is_ok() })
        })
        .collect();
    for client in clients {
        assert!(client.await.unwrap());
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn bad_answers_leave_the_keys_of_before() {
    let many = json!({"keys": (0..200).map(|number| EC.row(&number.to_string())).collect::<Vec<_>>()}).to_string();
    let good = set(&[("e", &EC)]);
    let redirect = |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let elsewhere = KeyServer::start(vec![ok(&good)]);
    let padded = format!("{}{}", " ".repeat(1 << 20), good);
    let token = EC.sign(Some("e"), &claims(&json!({})));
    for (name, bad) in [
        ("no answer", String::new()),
        ("status 500", format!("HTTP/1.1 500 Oh\r\ncontent-length: {}\r\n\r\n{good}", good.len())),
        ("status 204", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("redirect", redirect(elsewhere.url.as_str())),
        ("1 MiB", ok(&padded)),
        ("1 MiB without a length", format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{padded}")),
        ("200 keys", ok(&many)),
        ("no keys", ok(r#"{"keys":[]}"#)),
        ("not JSON", ok("<html>")),
        ("not UTF-8", ok("\u{FFFD}").replace('\u{FFFD}', "\0\0\0")),
        ("not HTTP", "x".repeat(10_000)),
        ("cut", ok(&good)[..100].to_owned()),
    ] {
        let server = KeyServer::start(vec![ok(&good), bad.clone()]);
        let cache = server.cache();
        let verifier = verifier(&cache);
        assert!(verifier.verify(&token).await.is_ok(), "{name}");
        age(&cache, FRESH);
        // The answer does not wait for the request.
        assert!(verifier.verify(&token).await.is_ok(), "{name}");
        drop(cache.in_flight.lock().await);
        cache.fetch_unless(|_, _| false).await;
        assert_eq!(server.count(), 2, "{name}");
        assert!(verifier.verify(&token).await.is_ok(), "{name}");
        age(&cache, STALE_MAX);
        assert!(matches!(verifier.verify(&token).await, Err(TokenFault::NoKeys { .. })), "{name}");

        let first = KeyServer::start(vec![bad]);
        let verifier = self::verifier(&first.cache());
        for _ in 0..3 {
            assert!(matches!(verifier.verify(&token).await, Err(TokenFault::NoKeys { .. })), "{name}");
        }
        assert_eq!(first.count(), 1, "{name}");
    }
    assert_eq!(elsewhere.count(), 0, "no redirect is followed");
}

#[tokio::test]
async fn reload_fetches_the_set_again() {
    let newer = Issuer::ec();
    let server = KeyServer::start(vec![ok(&set(&[("e", &EC)])), ok(&set(&[("e", &newer)]))]);
    let cache = server.cache();
    let verifier = verifier(&cache);
    let stolen = EC.sign(Some("e"), &claims(&json!({})));
    assert!(verifier.verify(&stolen).await.is_ok());
    cache.refetch();
    let start = Instant::now();
    while verifier.verify(&stolen).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "the set is not fetched");
        tokio::task::yield_now().await;
    }
    assert_eq!(verifier.verify(&stolen).await, Err(TokenFault::WrongSignature));
    assert!(verifier.verify(&newer.sign(Some("e"), &claims(&json!({})))).await.is_ok());
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn refresh_at_an_interval_drops_removed_keys() {
    let newer = Issuer::ec();
    let server = KeyServer::start(vec![ok(&set(&[("e", &EC)])), String::new(), ok(&set(&[("n", &newer)]))]);
    let (cache, interval) = (server.cache(), Duration::from_secs(300));
    cache.refresh_after(Duration::ZERO).await;
    assert_eq!(server.count(), 0, "without keys nobody needs them");
    let verifier = verifier(&cache);
    let key = verifier.verify(&EC.sign(Some("e"), &claims(&json!({})))).await.unwrap().key;
    cache.refresh_after(interval).await;
    assert_eq!((server.count(), verifier.uses(key)), (1, true));
    age(&cache, interval);
    cache.refresh_after(interval).await;
    assert!(verifier.uses(key), "a request that fails removes nothing");
    cache.refresh_after(interval).await;
    assert_eq!(server.count(), 2, "and is not repeated before the interval");
    age(&cache, interval);
    cache.refresh_after(interval).await;
    assert_eq!((server.count(), verifier.uses(key)), (3, false));
}

#[test]
fn set_ages_from_fresh_to_stale() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let state = CachedSet { fetched: Some((Arc::default(), start)), asked: Some(start) };
    assert!(state.is_fresh(start + FRESH - second) && !state.is_fresh(start + FRESH));
    assert!(state.keys(start + STALE_MAX - second).is_some() && state.keys(start + STALE_MAX).is_none());
    assert_eq!(state.pause(start + second), Some(FETCH_PAUSE - second));
    assert_eq!((state.pause(start + FETCH_PAUSE), CachedSet::default().pause(start)), (None, None));
    let failed = CachedSet { fetched: None, asked: Some(start) };
    assert_eq!((failed.pause(start), failed.pause(start + FIRST_PAUSE)), (Some(FIRST_PAUSE), None));
}
