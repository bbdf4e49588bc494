//! Refusals.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::keys::GuardedApi;
use super::{PATIENCE, Served};
use crate::registry::{RedisRegistry, Registry};
use crate::service::access::ApiScope;
use crate::store::redis::RedisStore;

const READS: &[&str] = &[
    "/v1/users/ann",
    "/v1/users/lookup",
    "/v1/users?online=true",
    "/v1/rooms",
    "/v1/rooms/lobby",
    "/v1/rooms/lobby/members",
    "/v1/gateways",
    "/v1/stats",
];

#[tokio::test]
async fn refusals_are_problem_documents_with_code_and_detail() {
    let served = Served::empty().await;
    for (method, path, status, code, about) in [
        ("GET", "/v1/users/zed", 404, "no_such_user", "not known"),
        ("GET", "/v1/users/b%40d", 400, "bad_nick", "character"),
        ("GET", "/v1/users/a%2Fb", 404, "no_such_user", "not known"),
        ("GET", "/v1/users/%2Fb", 400, "bad_nick", "begin with the character /"),
        ("GET", "/v1/users/a%07b", 400, "bad_nick", "U+0007"),
        ("GET", "/v1/rooms/ann%40example.org", 404, "no_such_room", "not known"),
        ("GET", "/v1/rooms/a%2Fb/members", 404, "no_such_room", "not known"),
        ("GET", "/v1/users/%zz", 400, "bad_nick", "character"),
        ("GET", "/v1/users/%ff", 400, "bad_request", "percent-encoded"),
        ("GET", "/v1/rooms/%ff/members", 400, "bad_request", "percent-encoded"),
        ("GET", "/v1/rooms/zed", 404, "no_such_room", "not known"),
        ("GET", "/v1/rooms/zed/members", 404, "no_such_room", "not known"),
        ("GET", "/v1/rooms/%23", 400, "bad_room", "empty"),
        ("GET", "/v1/rooms/a%20b", 400, "bad_room", "a space"),
        ("GET", "/v1/rooms/%23%23lobby", 400, "bad_room", "character"),
        ("GET", "/v1/users", 400, "bad_request", "online=true is required"),
        ("GET", "/v1/users?online=false", 400, "bad_request", "online=true is required"),
        ("GET", "/v1/rooms?limit=0", 400, "bad_request", "limit"),
        ("GET", "/v1/rooms?limit=1001", 400, "bad_request", "limit"),
        ("GET", "/v1/rooms?limit=-1", 400, "bad_request", "limit"),
        ("GET", "/v1/rooms?limit=", 400, "bad_request", "limit"),
        ("GET", "/v1/rooms?limit=ten", 400, "bad_request", "limit"),
        ("GET", "/v1/rooms?limit=1&limit=2", 400, "bad_request", "query"),
        ("GET", "/v1/rooms?cursor=", 400, "bad_request", "cursor"),
        ("GET", "/v1/rooms?cursor=%7B0%7D", 400, "bad_request", "cursor"),
        ("GET", "/v1/rooms?cursor=.ZZ", 400, "bad_request", "cursor"),
        ("GET", "/v1/rooms?cursor=.FF", 400, "bad_request", "cursor"),
        ("GET", "/v1/users?online=true&cursor=%E5%90%8D", 400, "bad_request", "cursor"),
        ("GET", "/v1", 404, "not_found", "nothing"),
        ("GET", "/v1/rooms/", 404, "not_found", "nothing"),
        ("GET", "/v1/users/ann/rooms", 404, "not_found", "nothing"),
        ("GET", "/metrics", 404, "not_found", "nothing"),
        ("POST", "/v1/rooms", 405, "method_not_allowed", "method"),
        ("DELETE", "/v1/users/ann", 405, "method_not_allowed", "method"),
        ("PUT", "/openapi.json", 405, "method_not_allowed", "method"),
    ] {
        let answer = served.ask(method, path).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!(format!("/docs#{code}"))));
        assert!(problem["title"].is_string(), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(about), "{method} {path}: {problem}");
    }
    assert_eq!(served.ask("POST", "/v1/rooms").await.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn invalid_lookup_bodies_are_refused() {
    let served = Served::empty().await;
    for body in ["", "{", "[]", r#"{"nicks":"ann"}"#, r#"{"nicks":[1]}"#, "{}", "\u{0}"] {
        let answer = served.lookup(body).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")), "{body:?}");
    }
    let answer = served.lookup(&format!(r#"{{"nicks":["{}"]}}"#, "a".repeat(512 * 1024))).await;
    assert_eq!((answer.status, &answer.json()["code"]), (413, &json!("too_large")));
    // Below the size limit, the name is invalid but the body is not.
    let answer = served.lookup(&format!(r#"{{"nicks":["{}"]}}"#, "a".repeat(255 * 1024))).await;
    assert_eq!((answer.status, &answer.json()["items"][0]["code"]), (200, &json!("bad_nick")));
}

#[tokio::test]
async fn reads_are_refused_at_once_without_the_store() {
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    refuses(&format!("redis://{refusing}")).await;
}

#[tokio::test]
async fn hanging_store_refuses_reads_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    refuses(&format!("redis://{}", silent.local_addr().unwrap())).await;
}

async fn refuses(url: &str) {
    let registry = Registry::Redis(RedisRegistry::new(RedisStore::open(url, "parley").unwrap()));
    let served = Served::over(registry).await;
    let timed = async |path: &str| {
        let asked = Instant::now();
        let answer =
            if path == "lookup" { served.lookup(r#"{"nicks":["ann"]}"#).await } else { served.get(path).await };
        assert!(asked.elapsed() < Duration::from_secs(3), "{path} took {:?}", asked.elapsed());
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")), "{path}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    };
    futures_util::future::join_all(READS.iter().copied().chain(["lookup"]).map(timed)).await;
    // Browsers give up an event stream after any status but 200, so it waits for the store.
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains("event: unavailable") {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "the stream ended after: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(text.starts_with("HTTP/1.0 200") && text.contains("retry: 2000"), "{text}");
    // Paths that need no store still work.
    assert_eq!(served.get("/openapi.json").await.status, 200);
    assert_eq!(served.get("/v1/users/b%40d").await.status, 400);
}

/// Returns every operation of the document: method, path with examples in place of its parts, scope, and its example of
/// a body.
fn every_operation(document: &Value) -> Vec<(String, String, ApiScope, Option<Value>)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, about) in item.as_object().unwrap() {
            let scope = about["security"][0]["key"][0].as_str().unwrap().parse().unwrap();
            let body = about.pointer("/requestBody/content/application~1json/example").cloned();
            operations.push((method.to_uppercase(), path.clone(), scope, body));
        }
    }
    operations
}

#[tokio::test]
async fn body_that_is_no_object_is_refused_everywhere() {
    let api = GuardedApi::start().await;
    let document = api.served.get("/openapi.json").await.json();
    let mut bodies = 0;
    for (method, path, scope, body) in every_operation(&document) {
        let Some(body) = body else { continue };
        let target = path.replace("{room}", "lobby").replace("{nick}", "ann");
        // Its values in the order of the fields: a derived struct would take them.
        let values: Vec<Value> = body.as_object().unwrap().values().cloned().collect();
        let nested = json!({ "messages": [values] });
        for wrong in [json!(values), json!([]), json!("text"), json!(1), Value::Null] {
            let (key, wrong) = (api.key(scope), wrong.to_string());
            let head = format!("{method} {target} HTTP/1.0\r\n{key}Content-Length: {}\r\n\r\n", wrong.len());
            let answer = api.served.send(&format!("{head}{wrong}")).await;
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")), "{target}: {wrong}");
        }
        if path == "/v1/messages" {
            let rows = api.served.post("/v1/messages/batch", &api.key(scope), &nested.to_string()).await.json();
            assert_eq!(rows["items"][0]["code"], "bad_request", "{rows}");
        }
        bodies += 1;
    }
    assert!(bodies >= 9, "{bodies} operations with a body");
}

#[tokio::test]
async fn malformed_path_is_a_problem_document_everywhere() {
    let api = GuardedApi::start().await;
    let document = api.served.get("/openapi.json").await.json();
    let mut paths = 0;
    for (method, path, scope, _) in every_operation(&document) {
        let parts: Vec<&str> = path.split('/').filter(|part| part.starts_with('{')).collect();
        for wrong in &parts {
            let target = parts
                .iter()
                .fold(path.clone(), |target, part| target.replace(part, if part == wrong { "%FF" } else { "1" }));
            let answer = api.ask(&method, &target, &api.key(scope)).await;
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {target}");
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_request")), "{method} {target}");
            paths += 1;
        }
    }
    assert!(paths >= 12, "{paths} parts of paths");
}
