//! [`ApiServer`]: the HTTP API on a bound listener, as a part of a program: the presence process with Redis, a gateway
//! without.
//!
//! It owns the task that serves, and the access rules in effect. It ends after its last answer once `closing` is
//! cancelled; dropping it ends it at once. Nothing here knows which store is behind the registry.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::host::client_address::TrustedProxies;
use crate::host::metrics::ApiMetrics;
use crate::host::program::Drained;
use crate::host::reloadable::Reloadable;
use crate::registry::Registry;
use crate::service::access::ApiAccess;
use crate::service::api::{self, ApiClients};
use crate::service::waiting::{CONNECTIONS_MAX, WaitingPool};

use super::http;

/// The settings of an API.
#[derive(Debug)]
pub struct ApiServerSettings {
    /// Keys and origins.
    pub access: ApiAccess,
    /// Proxies that may name the address of a client.
    pub proxies: TrustedProxies,
    /// Maximum number of connections, at most [`ApiServer::CONNECTIONS_MAX`].
    pub connections: usize,
    /// True if the log names the addresses of refused clients.
    pub log_addresses: bool,
}

/// A running API.
#[derive(Debug)]
pub struct ApiServer {
    serving: JoinHandle<()>,
    access: Reloadable<Arc<ApiAccess>>,
    /// True if other machines cannot reach the listener.
    is_local: bool,
    /// Cancelled when the server ends, also by a panic.
    ended: CancellationToken,
}

impl ApiServer {
    /// Maximum number of connections.
    pub const CONNECTIONS_MAX: usize = CONNECTIONS_MAX;

    /// Serves the API over a registry until `closing`: then no new connections, event streams close, and requests in
    /// flight are answered. Needs a tokio runtime.
    #[must_use]
    pub fn start(
        listener: TcpListener,
        registry: Registry,
        metrics: ApiMetrics,
        settings: ApiServerSettings,
        closing: CancellationToken,
    ) -> Self {
        let ApiServerSettings { access, proxies, connections, log_addresses } = settings;
        let access = Reloadable::from(Arc::new(access));
        let is_local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let clients = ApiClients { proxies, connections, log_addresses, access: access.clone() };
        let router = api::with_prefix(api::router(registry, metrics, clients, closing.clone()));
        let ended = CancellationToken::new();
        let at_end = ended.clone().drop_guard();
        let serving = http::serve(listener, router, WaitingPool::new(connections), http::TIMEOUTS, closing);
        let serving = tokio::spawn(async {
            let _at_end = at_end;
            serving.await;
        });
        Self { serving, access, is_local, ended }
    }

    /// Applies keys and origins, for requests that begin from now on. Beyond loopback the API stays closed to requests
    /// without a key: the listener keeps its address until a restart, whatever the new settings say.
    pub fn reload(&self, access: ApiAccess) {
        if !self.is_local && !access.is_closed() {
            tracing::warn!("api keys kept: the listener is bound beyond loopback until a restart");
            return;
        }
        self.access.set(Arc::new(access));
    }

    /// Waits for the end of the server. Before `closing` only a failure ends it.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Waits until the last request is answered, at most for `grace`.
    pub async fn finish(&mut self, grace: Duration) -> Drained {
        match tokio::time::timeout(grace, &mut self.serving).await {
            Ok(Ok(())) => Drained::Complete,
            Ok(Err(error)) => {
                tracing::error!(%error, "api server failed");
                Drained::Failed
            }
            Err(_) => Drained::GraceExceeded,
        }
    }

    /// Ends the server at once.
    pub(super) fn abort(&self) {
        self.serving.abort();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::registry::MemoryRegistry;
    use crate::service::access::{ApiScope, NewKey};
    use crate::store::memory::Store;

    #[tokio::test]
    async fn reload_never_opens_api_beyond_loopback() {
        for (address, is_opened) in [("0.0.0.0:0", false), ("127.0.0.1:0", true)] {
            let key = NewKey::draw("backend", ApiScope::ALL).unwrap();
            let access = ApiAccess { keys: vec![key.known], ..ApiAccess::default() };
            let settings =
                ApiServerSettings { access, proxies: Default::default(), connections: 8, log_addresses: true };
            let registry = Registry::Memory(MemoryRegistry::new(Store::default()));
            let metrics = ApiMetrics::new(&prometheus::Registry::new());
            let listener = TcpListener::bind(address).await.unwrap();
            let server = ApiServer::start(listener, registry, metrics, settings, CancellationToken::new());
            server.reload(ApiAccess::default());
            assert_eq!(server.access.get().keys.is_empty(), is_opened, "{address}");
        }
    }
}
