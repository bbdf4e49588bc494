//! [`ApiKey`]: the guard of every documented path, as the first extractor of its handler.
//!
//! The key comes as `Authorization: Bearer KEY`. Without a valid one the answer is 401 `unauthorized`, without the
//! scope 403 `forbidden`. Reads need no key if the settings say so. A key is never logged. The comparison is in
//! `service/access.rs`.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use prometheus::IntCounter;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::Api;
use super::problem::refused_as;
use super::refusal_log::RefusalLog;
use crate::host::client_address::ClientAddress;
use crate::host::metrics::{ApiMetrics, Label, Labelled};
use crate::host::problem::Problem;
use crate::host::refusal_episodes::{LimitScope, MetLimit};
use crate::host::reloadable::Reloadable;
use crate::model::codes::ErrorCode;
use crate::service::access::{ApiAccess, ApiScope, KnownKey};

/// A scope as a type, for [`ApiKey`].
pub(super) trait KeyScope: Send + Sync {
    const SCOPE: ApiScope;
}

/// The scope of reads.
#[derive(Debug)]
pub(super) struct Read;

/// The scope of messages, and of changes of rooms.
#[derive(Debug)]
pub(super) struct Publish;

/// The scope of sanctions.
#[derive(Debug)]
pub(super) struct Moderate;

impl KeyScope for Read {
    const SCOPE: ApiScope = ApiScope::Read;
}

impl KeyScope for Publish {
    const SCOPE: ApiScope = ApiScope::Publish;
}

impl KeyScope for Moderate {
    const SCOPE: ApiScope = ApiScope::Moderate;
}

/// Proof that the request may use a path of the scope `S`.
#[derive(Debug)]
pub(super) struct ApiKey<S> {
    /// `None` for a read without a key.
    key: Option<KnownKey>,
    scope: PhantomData<S>,
}

impl<S> ApiKey<S> {
    /// Returns the name of the key. Empty for a read without a key.
    pub(super) fn name(&self) -> &str {
        self.key.as_ref().map_or("", |key| key.name())
    }
}

impl<S: KeyScope> ApiKey<S> {
    /// Waits until a reload takes back what the request was permitted.
    pub(super) async fn removed(self, access: Reloadable<Arc<ApiAccess>>) {
        loop {
            let changed = access.changed();
            let now = access.get();
            if !self.key.as_ref().map_or_else(|| now.are_reads_open(), |key| now.still_has(key, S::SCOPE)) {
                return;
            }
            changed.await;
        }
    }
}

impl<S: KeyScope> FromRequestParts<Api> for ApiKey<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let access = api.guard.access.get();
        if S::SCOPE == ApiScope::Read && access.are_reads_open() {
            return Ok(Self { key: None, scope: PhantomData });
        }
        let client = parts.extensions.get().copied();
        let client = client.unwrap_or_else(|| ClientAddress::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let presented = bearer(&parts.headers).ok_or_else(|| api.guard.refuse(KeyFault::Missing, S::SCOPE, client))?;
        let key = access.find(presented).ok_or_else(|| api.guard.refuse(KeyFault::Unknown, S::SCOPE, client))?;
        if !key.has(S::SCOPE) {
            return Err(api.guard.refuse(KeyFault::Scope, S::SCOPE, client));
        }
        Ok(Self { key: Some(key.clone()), scope: PhantomData })
    }
}

/// Returns the key of the header; `None` for another scheme or several headers.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Reason for a refused key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyFault {
    Missing,
    Unknown,
    Scope,
}

impl Label for KeyFault {
    const ROWS: &'static [Self] = &[Self::Missing, Self::Unknown, Self::Scope];

    fn value(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Scope => "scope",
        }
    }

    fn row(self) -> usize {
        self as usize
    }
}

/// The access rules in effect, and the record of refused keys. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct KeyGuard {
    pub(super) access: Reloadable<Arc<ApiAccess>>,
    refused: Arc<Labelled<KeyFault, IntCounter>>,
    log: RefusalLog,
}

impl KeyGuard {
    /// Creates the guard of an API, and registers its counter.
    pub(super) fn new(access: Reloadable<Arc<ApiAccess>>, log: RefusalLog, metrics: &ApiMetrics) -> Self {
        let refused = Labelled::counters(
            &metrics.registry,
            "parley_api_key_refusals_total",
            "Requests refused because their key is missing, unknown or lacks the scope.",
            "reason",
        );
        Self { access, refused: Arc::new(refused), log }
    }

    fn refuse(&self, fault: KeyFault, scope: ApiScope, client: ClientAddress) -> Problem {
        self.refused[fault].inc();
        self.log.record(MetLimit { name: "api keys", scope: LimitScope::Address }, Some(client));
        let unauthorized = |detail: &'static str| {
            let challenge = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused_as(ErrorCode::Unauthorized, detail).with_header(challenge.0, challenge.1)
        };
        match fault {
            KeyFault::Missing => unauthorized("send the header Authorization: Bearer, with one key of this API"),
            KeyFault::Unknown => unauthorized("this API does not know the key"),
            KeyFault::Scope => {
                refused_as(ErrorCode::Forbidden, format!("the key does not have the scope {}", scope.name()))
            }
        }
    }
}

/// Adds the scheme of the keys to the document. An operation names its scope in its annotation.
pub(super) fn document(openapi: &mut OpenApi) {
    let scheme = Http::builder()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A key of `api.keys`. Each operation names the scope that the key needs."))
        .build();
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme("key", SecurityScheme::Http(scheme));
}
