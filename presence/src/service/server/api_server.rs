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
        let clients = ApiClients { proxies, connections, log_addresses, access: access.clone() };
        let router = api::with_prefix(api::router(registry, metrics, clients, closing.clone()));
        let ended = CancellationToken::new();
        let at_end = ended.clone().drop_guard();
        let serving = http::serve(listener, router, WaitingPool::new(connections), http::TIMEOUTS, closing);
        let serving = tokio::spawn(async {
            let _at_end = at_end;
            serving.await;
        });
        Self { serving, access, ended }
    }

    /// Applies keys and origins, for requests that begin from now on.
    pub fn reload(&self, access: ApiAccess) {
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
