//! The OpenAPI document and the router have the same routes, codes and examples.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Served;
use super::keys::GuardedApi;
use crate::host::client_address::TrustedProxies;
use crate::host::metrics::{ApiMetrics, registry as metrics_registry};
use crate::host::reloadable::Reloadable;
use crate::registry::{MemoryRegistry, Registry, WebhookLead, WebhookSettlement};
use crate::service::access::ApiAccess;
use crate::service::api::problem::CODES;
use crate::service::api::{ApiClients, router};
use crate::service::waiting::CONNECTIONS_MAX;
use crate::store::memory::Store;
use crate::webhooks::DeliveryReport;

/// Paths of the pages and of the document itself, which the document does not contain.
const UNDOCUMENTED: &[&str] = &[
    "/",
    "/docs",
    "/docs/docs.css",
    "/docs/docs.js",
    "/openapi.json",
    "/page/icon.svg",
    "/page/page.js",
    "/page/source.js",
    "/page/state.js",
    "/page/style.css",
    "/page/words.js",
];

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, about)| (path, method, about)))
}

#[tokio::test]
async fn every_route_is_documented() {
    let served = Served::empty().await;
    let document = served.get("/openapi.json").await.json();
    let documented: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    // Axum exposes its routes in its debug text only.
    let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
    let text = format!(
        "{:?}",
        router(
            registry,
            ApiMetrics::new(&metrics_registry("0")),
            ApiClients {
                proxies: TrustedProxies::default(),
                connections: CONNECTIONS_MAX,
                log_addresses: true,
                access: Reloadable::default()
            },
            CancellationToken::new()
        )
    );
    let routes: BTreeSet<&str> = text.split('"').filter(|part| part.starts_with('/')).collect();
    let expected: BTreeSet<&str> = documented.union(&UNDOCUMENTED.iter().copied().collect()).copied().collect();
    // Axum lists fallbacks as routes with private names.
    let routes: BTreeSet<&str> = routes.into_iter().filter(|route| !route.contains("__private")).collect();
    assert_eq!(routes, expected);
    assert_eq!(documented.len(), 27);
}

#[tokio::test]
async fn every_documented_operation_is_served() {
    let api = GuardedApi::with(ApiAccess { open_reads: true, ..ApiAccess::default() }).await;
    let served = &api.served;
    served.user("ann", &["#lobby"]).await;
    served.sign_in("anna", "user:1").await;
    let lead = WebhookLead { process: "presence-1", lasts: Duration::from_secs(60) };
    served.registry.lead_webhooks(&lead, "", &["push"]).await.unwrap();
    let about = serde_json::to_string(&DeliveryReport::default()).unwrap();
    let settlement = WebhookSettlement { webhook: "push", from: 0, to: 0, about: &about, dead: &[] };
    assert!(served.registry.settle_webhook("presence-1", &settlement).await.unwrap());
    let document = served.get("/openapi.json").await.json();
    for (path, method, about) in operations(&document) {
        if path == "/v1/events" {
            continue; // This stream does not end; the tests of the stream cover it.
        }
        if about["tags"][0] == "sanctions" || method == "delete" {
            continue; // These need a key, or end what others read; tests of their own cover them.
        }
        let example = |parameter: &Value| {
            let name = parameter["name"].as_str().unwrap().to_owned();
            parameter["example"].as_str().map(|value| (format!("{{{name}}}"), value.to_owned()))
        };
        let parameters = about["parameters"].as_array().cloned().unwrap_or_default();
        let target =
            parameters.iter().filter_map(example).fold(path.clone(), |at, (name, value)| at.replace(&name, &value));
        let target = if path == "/v1/users" { format!("{target}?online=true") } else { target };
        let answer = match method.as_str() {
            "get" => served.get(&target).await,
            _ => {
                let scope = about["security"][0]["key"][0].as_str().unwrap().parse().unwrap();
                let body = about["requestBody"]["content"]["application/json"]["example"].to_string();
                let (verb, key, length) = (method.to_uppercase(), api.key(scope), body.len());
                served.send(&format!("{verb} {target} HTTP/1.0\r\n{key}Content-Length: {length}\r\n\r\n{body}")).await
            }
        };
        assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
        // The example has the fields of the answer, except optional ones.
        let example = &about["responses"]["200"]["content"]["application/json"]["example"];
        assert_eq!(fields(example), fields(&answer.json()), "{method} {path}");
    }
}

/// Returns the paths of all fields, with `items[]` for the rows of a list, without the optional text of a status and
/// user id.
fn fields(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(name, value)| *name != "text" && !(*name == "user" && value.is_string()))
            .flat_map(|(name, value)| {
                let below = fields(value).into_iter().map(move |field| format!("{name}.{field}"));
                [name.clone()].into_iter().chain(below)
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(fields).map(|field| format!("[].{field}")).collect(),
        _ => BTreeSet::new(),
    }
}

#[tokio::test]
async fn every_code_is_documented() {
    let served = Served::empty().await;
    let document = served.get("/openapi.json").await.json();
    let slugs: Vec<&str> = CODES.iter().map(|code| code.slug()).collect();
    let problem = &document["components"]["schemas"]["Problem"];
    assert_eq!(problem["properties"]["code"]["enum"], serde_json::json!(slugs));
    assert_eq!(problem["examples"].as_array().unwrap().len(), slugs.len());
    for (path, method, about) in operations(&document) {
        let unavailable = &about["responses"]["503"]["content"]["application/problem+json"];
        assert!(unavailable["examples"]["unavailable"]["value"]["detail"].is_string(), "{method} {path}");
        assert_eq!(unavailable["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path}");
        for parameter in about["parameters"].as_array().unwrap_or(&Vec::new()) {
            assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {parameter}");
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_resolves() {
    let served = Served::empty().await;
    let document = served.get("/openapi.json").await.json();
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    for pointer in references {
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
