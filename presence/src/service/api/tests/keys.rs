//! Keys and origins.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{HttpAnswer, Served};
use crate::registry::{MemoryRegistry, Registry};
use crate::service::access::{ApiAccess, ApiScope, NewKey};
use crate::store::memory::Store;

/// The API with a key of each scope.
pub(super) struct GuardedApi {
    pub(super) served: Served,
    keys: Vec<(ApiScope, String)>,
}

impl GuardedApi {
    pub(super) async fn start() -> Self {
        Self::with(ApiAccess::default()).await
    }

    pub(super) async fn with(mut access: ApiAccess) -> Self {
        let mut keys = Vec::new();
        for &scope in ApiScope::ALL {
            let NewKey { secret, known } = NewKey::draw(&format!("app-{}", scope.name()), &[scope]).unwrap();
            access.keys.push(known);
            keys.push((scope, secret));
        }
        let served = Served::over(Registry::Memory(MemoryRegistry::new(Store::default()))).await;
        served.access.set(Arc::new(access));
        served.open_lease().await;
        Self { served, keys }
    }

    /// Returns the header with the key of a scope.
    pub(super) fn key(&self, scope: ApiScope) -> String {
        let (_, secret) = self.keys.iter().find(|(of, _)| *of == scope).unwrap();
        format!("Authorization: Bearer {secret}\r\n")
    }

    /// Sends a request with these header lines.
    pub(super) async fn ask(&self, method: &str, path: &str, headers: &str) -> HttpAnswer {
        self.served.send(&format!("{method} {path} HTTP/1.0\r\n{headers}\r\n")).await
    }
}

/// Returns every operation of the document with its scope.
fn scopes(document: &Value) -> Vec<(String, String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, about)| {
            let scope = about["security"][0]["key"][0].as_str();
            let scope = scope.unwrap_or_else(|| panic!("{method} {path} names no scope"));
            (method.to_uppercase(), path.clone(), scope.to_owned())
        })
    });
    operations.collect()
}

#[tokio::test]
async fn every_operation_needs_a_key_of_its_scope() {
    let api = GuardedApi::start().await;
    let document = api.ask("GET", "/openapi.json", "").await.json();
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let mut operations = scopes(&document);
    operations.push(("GET".to_owned(), "/v1/users/lookup".to_owned(), "read".to_owned()));
    for (method, path, scope) in operations {
        let path = path.replace("{nick}", "ann").replace("{room}", "lobby").replace("{user}", "u");
        let answer = api.ask(&method, &path, "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("unauthorized")), "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{method} {path}");
        for &other in ApiScope::ALL.iter().filter(|other| other.name() != scope) {
            let answer = api.ask(&method, &path, &api.key(other)).await;
            let expected = (403, &json!("forbidden"), true);
            let body = answer.json();
            let names_scope = body["detail"].as_str().unwrap().contains(&scope);
            assert_eq!((answer.status, &body["code"], names_scope), expected, "{method} {path} {other:?}");
        }
    }
    let read = api.ask("GET", "/v1/stats", &api.key(ApiScope::Read)).await;
    assert_eq!(read.status, 200, "{read:?}");
}

#[tokio::test]
async fn malformed_keys_are_refused_and_counted() {
    let api = GuardedApi::start().await;
    let key = api.key(ApiScope::Read);
    let secret = key.trim().rsplit(' ').next().unwrap();
    for header in [
        format!("Authorization: Basic {secret}\r\n"),
        format!("Authorization: {secret}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer é\r\n".to_owned(),
        format!("{key}{key}"),
        format!("Authorization: Bearer {}\r\n", "a".repeat(257)),
        format!("Authorization: Bearer {}\r\n", &secret[1..]),
        format!("X-API-Key: {secret}\r\n"),
    ] {
        let answer = api.ask("GET", "/v1/stats", &header).await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("unauthorized")), "{header}");
        assert!(!answer.body.contains(&secret[1..]), "the answer shows the key");
    }
    let answer = api.ask("GET", "/v1/stats", &format!("authorization: bearer {secret}\r\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let families = api.served.metrics.registry.gather();
    let refusals = families.iter().find(|family| family.name() == "parley_api_key_refusals_total").unwrap();
    let counts: Vec<(&str, f64)> = refusals
        .get_metric()
        .iter()
        .map(|metric| (metric.get_label()[0].value(), metric.get_counter().get_value()))
        .collect();
    assert_eq!(counts, [("missing", 6.0), ("scope", 0.0), ("unknown", 2.0)]);
}

#[tokio::test]
async fn replaced_keys_count_from_the_next_request() {
    let api = GuardedApi::start().await;
    let old = api.key(ApiScope::Read);
    let NewKey { secret, known } = NewKey::draw("app-read", &[ApiScope::Read]).unwrap();
    let new = format!("Authorization: Bearer {secret}\r\n");
    assert_eq!(api.ask("GET", "/v1/stats", &new).await.status, 401);
    api.served.access.set(Arc::new(ApiAccess { keys: vec![known], ..ApiAccess::default() }));
    assert_eq!(api.ask("GET", "/v1/stats", &new).await.status, 200);
    assert_eq!(api.ask("GET", "/v1/stats", &old).await.status, 401);
}

#[tokio::test]
async fn reads_are_open_without_keys_or_by_setting() {
    let served = Served::empty().await;
    assert_eq!(served.get("/v1/stats").await.status, 200);
    let api = GuardedApi::with(ApiAccess { open_reads: true, ..ApiAccess::default() }).await;
    assert_eq!(api.ask("GET", "/v1/stats", "").await.status, 200);
}

#[tokio::test]
async fn permitted_origins_get_cors_headers() {
    let origins = vec!["https://app.example".parse().unwrap()];
    let api = GuardedApi::with(ApiAccess { origins, open_reads: true, ..ApiAccess::default() }).await;
    let preflight = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
    for (method, headers, origin, status, allowed) in [
        ("GET", "", "https://app.example", 200, true),
        ("GET", "", "https://evil.example", 200, false),
        ("GET", "", "null", 200, false),
        ("OPTIONS", preflight, "https://app.example", 204, true),
        ("OPTIONS", preflight, "https://evil.example", 405, false),
        ("OPTIONS", "", "https://app.example", 405, true),
    ] {
        let answer = api.ask(method, "/v1/stats", &format!("Origin: {origin}\r\n{headers}")).await;
        let shown = answer.header("access-control-allow-origin");
        assert_eq!((answer.status, shown), (status, allowed.then_some(origin)), "{method} {origin}");
        assert_eq!(answer.header("vary"), Some("origin"));
        assert_eq!(answer.header("access-control-allow-methods").is_some(), status == 204, "{method} {origin}");
    }
    let closed = GuardedApi::start().await;
    let answer = closed.ask("GET", "/v1/stats", "Origin: https://app.example\r\n").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, None));
}
